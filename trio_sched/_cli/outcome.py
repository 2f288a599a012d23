"""How a command ends: the texts of errors and warnings, and the exit codes.

A `TrioSchedError` is something the user can mend, so its text is shown and nothing else. Anything else is a bug, here
or in a function that has no business raising, and comes with its traceback.
"""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from typing import Final

import click

from trio_sched._errors import TrioSchedError

__all__ = ["BAD_INPUT", "INCOMPLETE", "INTERRUPTED", "Commands", "place_of", "show_error", "spoken_here"]

INCOMPLETE: Final = 1
"""The run ended without all its records: too many drops, stopped early, or failed under way."""
BAD_INPUT: Final = 2
"""Refused before any work was done. Click's own code for a wrong option, too."""
INTERRUPTED: Final = 130
"""Ctrl-C: 128 and the number of the signal, as shells have it."""

_SPOKEN_HERE: Final = {'resume="if-possible"': "--resume if-possible"}
"""What the texts of the package call by its name in Python, and what it is called on the command line."""


def show_error(error: TrioSchedError) -> None:
    """Say what was wrong, on standard error."""
    click.echo(f"error: {spoken_here(str(error))}", err=True)


def place_of(error: BaseException) -> str | None:
    """File and line of the last step to an error that is neither this package's nor generated code."""
    ours = str(Path(__file__).parent.parent)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith((ours, "<")):
            return f"{frame.filename}, line {frame.lineno}"
    return None


class Commands(click.Group):
    """A group whose commands end as this module says."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; show what went wrong."""
        logger = logging.getLogger("trio_sched")
        warnings = _Warnings(logging.WARNING)
        logger.addHandler(warnings)
        try:
            return super().invoke(ctx)
        except TrioSchedError as error:
            show_error(error)
            ctx.exit(BAD_INPUT)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)
        finally:
            logger.removeHandler(warnings)


class _Warnings(logging.Handler):
    """Shows what the package logs on standard error, whichever that is by then: the live panel replaces it."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"{record.levelname.lower()}: {spoken_here(self.format(record))}", err=True)


def spoken_here(text: str) -> str:
    """A text of the package, in the words of the command line."""
    for in_python, here in _SPOKEN_HERE.items():
        text = text.replace(in_python, here)
    return text

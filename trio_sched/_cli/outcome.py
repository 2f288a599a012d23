"""How a command ends: the texts of errors and warnings, and the exit codes.

A `TrioSchedError` is something the user can mend, so its text is shown and nothing else. Anything else is a bug, here
or in a function that has no business raising, and comes with its traceback.

All that goes to the terminal goes through `say` and its like. Texts of errors come from columns, providers and files as
well, so they are bounded, and none of their lines begins where a line of ours would.
"""

from __future__ import annotations

import json
import logging
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Final

import click

from trio_sched._errors import TrioSchedError
from trio_sched._pipeline.signals import TerminatedError
from trio_sched._util import page, printable

__all__ = [
    "BAD_INPUT",
    "INTERRUPTED",
    "REJECTED",
    "STOPPED",
    "Commands",
    "code_of",
    "place_of",
    "say",
    "say_json",
    "say_path",
    "show_error",
    "spoken_here",
]

REJECTED: Final = 1
"""The run came to its end, and more rows than were allowed for are rejected. Python's own code for a bug, too."""
BAD_INPUT: Final = 2
"""Refused: before any work was done, or for rows that cannot be used. Click's own code for a wrong option, too."""
STOPPED: Final = 3
"""The run stopped or failed under way; what is finished is kept, and it can go on."""
INTERRUPTED: Final = 130
"""Ctrl-C: 128 and the number of the signal, as shells have it. SIGTERM is 143 and SIGHUP 129."""

_LONGEST_TEXT: Final = 8_000
"""Letters of an error, a warning or a path."""

_SPOKEN_HERE: Final = {'resume="if-possible"': "--resume if-possible"}
"""What the texts of the package call by its name in Python, and what it is called on the command line."""


def say(text: str, *, err: bool = False) -> None:
    """Print lines for people, on standard output or standard error, without anything that a terminal would obey."""
    click.echo(page(text.split("\n")), err=err)


def say_path(path: Path) -> None:
    """Print where a file is, on a line of its own."""
    click.echo(printable(str(path), longest=_LONGEST_TEXT))


def say_json(document: object) -> None:
    """Print JSON for programs, in which what a terminal would obey is escaped."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    click.echo("\n".join(map(_escaped, text.split("\n"))))


def show_error(error: TrioSchedError) -> None:
    """Say what was wrong, on standard error."""
    _say_of("error", str(error))


def _say_of(kind: str, text: str) -> None:
    cut = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}\n(cut)"
    say(f"{kind}: {spoken_here(cut)}".replace("\n", "\n  "), err=True)


def _escaped(line: str) -> str:
    # Anything but plain letters is within a string of the JSON.
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in line)


def place_of(error: BaseException) -> str | None:
    """File and line of the last step to an error that is neither this package's nor generated code."""
    ours = str(Path(__file__).parent.parent)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith((ours, "<")):
            return f"{frame.filename}, line {frame.lineno}"
    return None


class Commands(click.Group):
    """A group whose commands end with a text and an exit code."""

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
        except KeyboardInterrupt as interrupt:
            with suppress(OSError):  # After SIGHUP there is no terminal to say it on.
                say("interrupted", err=True)
            ctx.exit(code_of(interrupt))
        finally:
            logger.removeHandler(warnings)


class _Warnings(logging.Handler):
    """Shows what the package logs on standard error, whichever that is by then: the live panel replaces it."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # A terminal that is gone is no reason to end a run.
            _say_of(record.levelname.lower(), self.format(record))


def code_of(interrupt: KeyboardInterrupt) -> int:
    """The exit code after Ctrl-C, or another signal that ended the run."""
    return interrupt.signum + 128 if isinstance(interrupt, TerminatedError) else INTERRUPTED


def spoken_here(text: str) -> str:
    """A text of the package, in the words of the command line."""
    for in_python, here in _SPOKEN_HERE.items():
        text = text.replace(in_python, here)
    return text

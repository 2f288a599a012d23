"""Shows a run's progress to a person while it goes on, without ever touching the run.

A task of its own takes a frozen picture of the counts, and hands it to the display where files are written too (worker
threads), so a terminal that blocks holds up nobody; only the last picture is shown in the run's own thread, when the
work is done. A display that fails is logged once and given up.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal, Protocol, TextIO, get_args

import attrs
import trio

from trio_sched._errors import InvalidValueError, MissingExtraError
from trio_sched._observe.lines import ProgressLines
from trio_sched._observe.live import LivePanel
from trio_sched._observe.run_progress import RunProgress, RunProgressSink
from trio_sched._util import Blocking

__all__ = ["LiveMode", "ProgressDisplay", "RunWatch", "choose_display", "shown"]

LiveMode = Literal["auto", "panel", "lines"]

logger = logging.getLogger("trio_sched.live")


class ProgressDisplay(Protocol):
    """Something that shows progress, every `interval_seconds`."""

    @property
    def interval_seconds(self) -> float:
        """Time between two pictures."""
        ...

    def start(self) -> None:
        """Called once, before the first picture."""
        ...

    def show(self, progress: RunProgress) -> None:
        """Show one picture. Runs in a worker thread, never twice at once."""
        ...

    def stop(self) -> None:
        """Called once, after the last picture."""
        ...


def choose_display(mode: LiveMode, file: TextIO | None = None) -> ProgressDisplay:
    """The display for `file`, standard error by default.

    auto: the panel on a terminal that can be drawn on, where rich is installed; else lines. Raises `InvalidValueError`
    for another mode, and `MissingExtraError` where the panel was asked for and rich is not installed.
    """
    if mode not in get_args(LiveMode):
        raise InvalidValueError("live", mode, "None, 'auto', 'panel' or 'lines'")
    stream: TextIO = sys.stderr if file is None else file
    if mode == "lines" or (mode == "auto" and not (stream.isatty() and os.environ.get("TERM") != "dumb")):
        return ProgressLines(stream)
    try:
        return LivePanel(stream)
    except MissingExtraError:
        if mode == "panel":
            raise
        return ProgressLines(stream)


@attrs.frozen
class RunWatch:
    """What counts a run's progress, and where it is shown."""

    sink: RunProgressSink
    display: ProgressDisplay


@asynccontextmanager
async def shown(watch: RunWatch, blocking: Blocking) -> AsyncGenerator[None, None]:
    """Show progress while the block runs, and once more at its end, however it ends."""
    shower = _Shower(watch)
    shower.attempt(watch.display.start)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shower.run, blocking, name="progress display")
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()
    finally:
        shower.show(trio.current_time())
        shower.attempt(watch.display.stop)


class _Shower:
    """Takes pictures and contains the display's failures."""

    def __init__(self, watch: RunWatch) -> None:
        self._sink = watch.sink
        self._display = watch.display
        self._failed = False

    async def run(self, blocking: Blocking) -> None:
        """Show for ever, or until the display fails."""
        while not self._failed:
            await trio.sleep(self._display.interval_seconds)
            progress = self._sink.progress(trio.current_time())
            await blocking(partial(self.attempt, partial(self._display.show, progress)))

    def show(self, now: float) -> None:
        """Show how it stands now."""
        if not self._failed:
            progress = self._sink.progress(now)
            self.attempt(partial(self._display.show, progress))

    def attempt(self, act: Callable[[], None]) -> None:
        """Let the display do something; its first failure is its last."""
        try:
            act()
        except Exception:
            self._failed = True
            logger.exception("Progress cannot be shown any more; the run goes on without")

"""Makes `trace.json` and `report.html` of all events, or `report.html` of a summary, when an attempt is over.

That takes some 0.05 ms per event, in a worker thread, and at most a fixed time. A file that is not ready by then, or
when the run is cancelled or interrupted meanwhile, is left out, and the log says how to make it later. An error here
never changes how the run ended.

The worker itself reads Trio's clock to see whether its time is over. No task sleeps until then: a simulated clock jumps
to the end of a sleep while a thread works, so the time would be over before the work began.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from threading import Event
from typing import Final

import trio

from trio_sched._observe.recorded_run import REPORT_FILE, TRACE_FILE, write_run_views
from trio_sched._pipeline.config import WriteEvents
from trio_sched._pipeline.folder import RunFolder
from trio_sched._util import Blocking, single_error

__all__ = ["PATIENCE_AT_THE_END", "PATIENCE_ON_THE_WAY_OUT", "write_views"]

logger = logging.getLogger("trio_sched.run")

PATIENCE_AT_THE_END: Final = 60.0
"""Seconds to spend at the end of a run without an error."""
PATIENCE_ON_THE_WAY_OUT: Final = 5.0
"""Seconds to spend when somebody waits for the error, or pressed Ctrl-C."""


_BYTES_PER_SECOND: Final = 25_000_000
"""More of event files than can be read in a second: where that would not do, no time is spent in vain."""


async def write_views(folder: RunFolder, blocking: Blocking, *, level: WriteEvents, patience: float) -> None:
    """Make of the event files in `folder` what can be made of them, within `patience` seconds."""
    if level == "none":
        return
    names = f"{TRACE_FILE} and {REPORT_FILE}" if level == "all" else REPORT_FILE
    too_long = False
    with suppress(OSError):
        too_long = sum(path.stat().st_size for path in folder.events.iterdir()) > patience * _BYTES_PER_SECOND
    if too_long:
        _leave_out(folder, names, patience)
        return
    stop = Event()
    # Reading a clock is safe from any thread; `trio.current_time` is not.
    clock = trio.lowlevel.current_clock()
    deadline = clock.current_time() + patience
    written = trio.Event()

    async def write() -> None:
        try:
            made = await blocking(
                write_run_views, folder.path, keep_going=lambda: not stop.is_set() and clock.current_time() < deadline
            )
            if not made:
                _leave_out(folder, names, patience)
        except Exception:
            # The data and the events are safe; only a view of them is missing.
            logger.exception("%s could not be made", names)
        written.set()

    with single_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, name="trace and report")
            try:
                await written.wait()
            finally:
                stop.set()


def _leave_out(folder: RunFolder, names: str, patience: float) -> None:
    logger.warning(
        "%s would take longer than %.0f s and %s left out; `trio-sched report %s` makes %s",
        names,
        patience,
        "is" if names == REPORT_FILE else "are",
        folder.path,
        "it" if names == REPORT_FILE else "them",
    )

"""Both event streams as JSON lines in a folder, written by a task of their own.

Emitting only appends to a buffer. The writer task is woken by the first event, lets a batch gather for `interval`
seconds or until the buffer is half full, and has it written where blocking work runs; while nothing happens it sleeps.
On every way out the rest is written before the files are closed.

*When the buffer is full.* The buffer holds `max_buffered` events, so memory is bounded whatever the disk does. With
`when_full="write"` whoever fills it writes it: the run waits for the disk, and nothing is lost. With `when_full="drop"`
the run never waits: events that find the buffer full are dropped and counted in `dropped`.

*When the disk refuses.* The run goes on without event files: it is logged once, nothing more is written, and what is
not is counted in `lost`. An event that cannot be written as JSON is left out and counted there too. Dropped and lost
events are told once more, with their numbers, when the files are closed; a reader sees the gaps in `sequence`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Final, Literal, TextIO, TypeAlias

import trio

from trio_sched import _validation as check
from trio_sched._blocking import Blocking
from trio_sched._events.request import RequestAdmissionEvent
from trio_sched._events.scheduler import SchedulerAdmissionEvent
from trio_sched._events.serde import event_line

logger = logging.getLogger("trio_sched.events")

__all__ = ["JsonlEventSink", "WhenFull", "open_jsonl_sink"]

_REFUSED: Final = "The event files cannot be written any more; the run goes on without them"

AnyEvent: TypeAlias = SchedulerAdmissionEvent | RequestAdmissionEvent
WhenFull = Literal["write", "drop"]


class JsonlEventSink:
    """Writes scheduler events and request events to two files; made by `open_jsonl_sink`. Belongs to the Trio thread.

    dropped: events that found the buffer full. lost: events that the disk, or JSON, refused.
    """

    def __init__(self, folder: Path, max_buffered: int, when_full: WhenFull) -> None:
        self.dropped: int = 0
        self.lost: int = 0
        self._max_buffered = check.check_int("max_buffered", max_buffered, minimum=1)
        self._half = max(1, max_buffered // 2)
        self._drops = when_full == "drop"
        self._buffer: list[AnyEvent] = []
        self._batches: deque[list[AnyEvent]] = deque()
        self._writing = Lock()
        self._told_unwritable = False
        self._first = trio.Event()
        self._half_full = trio.Event()
        self._scheduler_file: TextIO | None = None
        self._request_file: TextIO | None = None
        try:
            self._scheduler_file = (folder / "scheduler.jsonl").open("w", encoding="utf-8")
            self._request_file = (folder / "request.jsonl").open("w", encoding="utf-8")
        except OSError:
            logger.exception(_REFUSED)
            self._refuse()

    @trio.lowlevel.enable_ki_protection
    def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
        """Take one scheduler event."""
        buffer = self._buffer
        if not buffer or len(buffer) >= self._half:
            self._take_with_care(event)
        else:
            buffer.append(event)

    @trio.lowlevel.enable_ki_protection
    def emit_request_event(self, event: RequestAdmissionEvent) -> None:
        """Take one request event."""
        buffer = self._buffer
        if not buffer or len(buffer) >= self._half:
            self._take_with_care(event)
        else:
            buffer.append(event)

    @trio.lowlevel.enable_ki_protection
    def flush(self) -> None:
        """Write what is buffered, here and now."""
        self._hand_over()
        self._write_batches()

    async def write_batches(self, interval: float, blocking: Blocking) -> None:
        """Write for ever, a batch at a time."""
        while True:
            await self._first.wait()
            self._first = trio.Event()
            with trio.move_on_after(interval):
                await self._half_full.wait()
            self._half_full = trio.Event()
            self._hand_over()
            await blocking(self._write_batches)

    def close(self) -> None:
        """Write the rest, close the files, and tell what is missing in them."""
        self.flush()
        for file in (self._scheduler_file, self._request_file):
            if file is not None:
                # What writing could tell, it has told.
                with suppress(OSError):
                    file.close()
        if self.dropped or self.lost:
            logger.warning("The event files are incomplete: %d events dropped, %d lost", self.dropped, self.lost)

    def _take_with_care(self, event: AnyEvent) -> None:
        """Take an event that finds the buffer empty or at least half full."""
        if len(self._buffer) >= self._max_buffered:
            if self._drops:
                self.dropped += 1
                return
            self.flush()
        self._buffer.append(event)
        (self._first if len(self._buffer) == 1 else self._half_full).set()

    def _hand_over(self) -> None:
        if self._buffer:
            self._batches.append(self._buffer)
            self._buffer = []

    def _write_batches(self) -> None:
        """Write what was handed over, in that order. Runs in any thread."""
        with self._writing:
            while self._batches:
                self._write(self._batches.popleft())

    def _write(self, batch: list[AnyEvent]) -> None:
        if self._scheduler_file is None or self._request_file is None:
            self.lost += len(batch)
            return
        scheduler: list[str] = []
        request: list[str] = []
        unwritable = 0
        for event in batch:
            try:
                (scheduler if isinstance(event, SchedulerAdmissionEvent) else request).append(event_line(event))
            except Exception:
                unwritable += 1
                if not self._told_unwritable:
                    self._told_unwritable = True
                    logger.exception("An event cannot be written as JSON; further ones are counted, not logged")
        self.lost += unwritable
        try:
            self._scheduler_file.write("".join(scheduler))
            self._request_file.write("".join(request))
            self._scheduler_file.flush()
            self._request_file.flush()
        except OSError:
            self.lost += len(batch) - unwritable
            logger.exception(_REFUSED)
            self._refuse()

    def _refuse(self) -> None:
        for file in (self._scheduler_file, self._request_file):
            if file is not None:
                with suppress(OSError):
                    file.close()
        self._scheduler_file = self._request_file = None


@asynccontextmanager
async def open_jsonl_sink(
    folder: Path,
    *,
    blocking: Blocking,
    interval: float = 0.25,
    max_buffered: int = 50_000,
    when_full: WhenFull = "write",
) -> AsyncGenerator[JsonlEventSink, None]:
    """A sink that writes `scheduler.jsonl` and `request.jsonl` in `folder` while the block runs, and to its end.

    interval: seconds for which a batch gathers. max_buffered: events kept in memory at the most. when_full: whether
    the run then waits for the disk, or drops events.
    """
    sink = JsonlEventSink(folder, max_buffered, when_full)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink.write_batches, interval, blocking, name="event writer")
            try:
                yield sink
            finally:
                nursery.cancel_scope.cancel()
    finally:
        sink.close()

"""Both event streams as JSON lines in a folder, written by a task of their own.

Emitting only appends to a buffer and rings a doorbell. The writer task wakes, lets a batch gather for `interval`
seconds, and writes it; it sleeps for good while nothing happens. On every way out the rest is written before the files
are closed. A buffer that reaches `max_buffered` events is written by whoever fills it, so that memory stays bounded and
nothing is dropped. Only when the disk refuses, events are lost: that is logged once and counted in `lost`, no more is
written, and the run goes on.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from pathlib import Path
from threading import Lock
from typing import TextIO

import trio

from trio_sched._blocking import Blocking
from trio_sched._events.request import RequestAdmissionEvent
from trio_sched._events.scheduler import SchedulerAdmissionEvent
from trio_sched._events.serde import event_line

logger = logging.getLogger("trio_sched.events")

__all__ = ["JsonlEventSink", "open_jsonl_sink"]


class JsonlEventSink:
    """Writes scheduler events and request events to two files; made by `open_jsonl_sink`."""

    def __init__(self, scheduler_file: TextIO, request_file: TextIO, max_buffered: int) -> None:
        self._scheduler: list[SchedulerAdmissionEvent] = []
        self._request: list[RequestAdmissionEvent] = []
        self._scheduler_file = scheduler_file
        self._request_file = request_file
        self._max_buffered = max_buffered
        self._writing = Lock()
        self.lost = 0
        self._bell, self._rung = trio.open_memory_channel[None](1)

    def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
        """Take one scheduler event."""
        self._scheduler.append(event)
        self._ring()

    def emit_request_event(self, event: RequestAdmissionEvent) -> None:
        """Take one request event."""
        self._request.append(event)
        self._ring()

    def flush(self) -> None:
        """Write what is buffered. May be called from any thread; batches are written in order."""
        with self._writing:
            scheduler, self._scheduler = self._scheduler, []
            request, self._request = self._request, []
            if self.lost:
                self.lost += len(scheduler) + len(request)
                return
            try:
                self._scheduler_file.write("".join(map(event_line, scheduler)))
                self._request_file.write("".join(map(event_line, request)))
                self._scheduler_file.flush()
                self._request_file.flush()
            except OSError:
                self.lost = len(scheduler) + len(request)
                logger.exception("The event files cannot be written any more; the run goes on without them")

    async def write_batches(self, interval: float, blocking: Blocking) -> None:
        """Write for ever, a batch at a time."""
        while True:
            await self._rung.receive()
            await trio.sleep(interval)
            await blocking(self.flush)

    def _ring(self) -> None:
        if len(self._scheduler) + len(self._request) >= self._max_buffered:
            self.flush()
            return
        with suppress(trio.WouldBlock):
            self._bell.send_nowait(None)


class _QuietlyClosed:
    """A file whose closing does not raise what its writing has told already."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def close(self) -> None:
        with suppress(OSError):
            self.file.close()


@asynccontextmanager
async def open_jsonl_sink(
    folder: Path, *, blocking: Blocking, interval: float = 0.25, max_buffered: int = 5_000
) -> AsyncGenerator[JsonlEventSink, None]:
    """A sink that writes `scheduler.jsonl` and `request.jsonl` in `folder` while the block runs, and to its end."""
    with ExitStack() as files:
        scheduler_file, request_file = (
            files.enter_context(closing(_QuietlyClosed((folder / name).open("w", encoding="utf-8"))))
            for name in ("scheduler.jsonl", "request.jsonl")
        )
        sink = JsonlEventSink(scheduler_file.file, request_file.file, max_buffered)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sink.write_batches, interval, blocking, name="event writer")
                try:
                    yield sink
                finally:
                    nursery.cancel_scope.cancel()
        finally:
            sink.flush()

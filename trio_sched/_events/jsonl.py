"""Both event streams as JSON lines in a folder, written by a task of their own.

Emitting only appends to a buffer and rings a doorbell, so the run never waits for a disk. The writer task wakes, lets a
batch gather for `interval` seconds, and writes it; it sleeps for good while nothing happens. On every way out the rest
is written before the files are closed. Nothing is dropped: a buffer that reaches `max_buffered` events is written by
whoever fills it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import TextIO

import trio

from trio_sched._blocking import Blocking
from trio_sched._events.request import RequestAdmissionEvent
from trio_sched._events.scheduler import SchedulerAdmissionEvent
from trio_sched._events.serde import event_line

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
            self._scheduler_file.write("".join(map(event_line, scheduler)))
            self._request_file.write("".join(map(event_line, request)))
            self._scheduler_file.flush()
            self._request_file.flush()

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


@asynccontextmanager
async def open_jsonl_sink(
    folder: Path, *, blocking: Blocking, interval: float = 0.25, max_buffered: int = 50_000
) -> AsyncGenerator[JsonlEventSink, None]:
    """A sink that writes `scheduler.jsonl` and `request.jsonl` in `folder` while the block runs, and to its end."""
    with (
        (folder / "scheduler.jsonl").open("w", encoding="utf-8") as scheduler_file,
        (folder / "request.jsonl").open("w", encoding="utf-8") as request_file,
    ):
        sink = JsonlEventSink(scheduler_file, request_file, max_buffered)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sink.write_batches, interval, blocking, name="event writer")
                try:
                    yield sink
                finally:
                    nursery.cancel_scope.cancel()
        finally:
            sink.flush()

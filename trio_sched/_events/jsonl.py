"""Both event streams as JSON lines in a folder, written by a task of their own.

Emitting puts the event's parts into a buffer, and some hundreds at a time they are made into lines: one after the
other, these take a good third less time than between other work. A line is a third of what an event takes in memory,
and the garbage collector has nothing to look through. The writer task is woken by the first event, lets a batch gather
for `interval` seconds or until half as many lines of one stream are there as the buffer holds, and has it written where
blocking work runs; while nothing happens it sleeps. On every way out the rest is written before the files are closed.

*When the buffer is full.* The buffer holds `max_buffered` events, so memory is bounded whatever the disk does. With
`when_full="write"` whoever fills it writes it: the run waits for the disk, and nothing is lost. With `when_full="drop"`
the run never waits: events that find the buffer full are dropped and counted in `dropped`. It is looked at as often as
lines are made, and counts as full when it might be before that is done again.

*When the disk refuses.* The run goes on without event files: it is logged once, nothing more is written, and what is
not is counted in `lost`. An event that cannot be written as JSON is left out and counted there too. Dropped and lost
events are told once more, with their numbers, when the files are closed; a reader sees the gaps in `sequence`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Final, Generic, Literal, TypeAlias, TypeVar

import attrs
import trio

from trio_sched import _validation as check
from trio_sched._events.request import RequestAdmissionEvent, RequestEventParts, parts_of_request_event
from trio_sched._events.scheduler import SchedulerAdmissionEvent, SchedulerEventParts, parts_of_scheduler_event
from trio_sched._events.serde import request_event_line, scheduler_event_line
from trio_sched._util import Blocking

logger = logging.getLogger("trio_sched.events")

__all__ = ["EVENT_FILES", "JsonlEventSink", "WhenFull", "open_jsonl_sink"]

_REFUSED: Final = "The event files cannot be written any more; the run goes on without them"

EVENT_FILES: Final = ("scheduler.jsonl", "request.jsonl")
"""The scheduler's stream and the request stage's."""

_MADE_AT_ONCE: Final = 256
"""So many events are made into lines together, if the buffer holds far more."""

_LINES_AT_ONCE: Final = 500
"""So many lines are joined and written together: few enough to stay in the processor's cache."""

_Batch: TypeAlias = "tuple[list[str], ...]"
"""Lines of the scheduler's stream, and of the request stage's."""
WhenFull = Literal["write", "drop"]

P = TypeVar("P", SchedulerEventParts, RequestEventParts)


@attrs.define(eq=False)
class _Stream(Generic[P]):
    """One stream on its way to its file. `careful` is called for an event that finds no other waiting, or many."""

    line_of: Callable[[P], str]
    many: int
    careful: Callable[[_Stream[P], P], None]
    leave_out: Callable[[Exception], None]
    waiting: list[P] = attrs.field(factory=list[P])
    lines: list[str] = attrs.field(factory=list[str])

    @trio.lowlevel.enable_ki_protection
    def take(self, parts: P) -> None:
        """Take one event."""
        waiting = self.waiting
        if not waiting or len(waiting) >= self.many:
            self.careful(self, parts)
        else:
            waiting.append(parts)

    def make_lines(self) -> None:
        """Make lines of what waits for it."""
        waiting, lines = self.waiting, self.lines
        done = 0
        while done < len(waiting):
            before = len(lines) - done
            try:
                lines.extend(map(self.line_of, waiting[done:] if done else waiting))
            except Exception as error:  # what was made before it is in `lines`
                self.leave_out(error)
                done = len(lines) - before + 1
            else:
                break
        waiting.clear()


class JsonlEventSink:
    """Writes scheduler events and request events to two files; made by `open_jsonl_sink`. Belongs to the Trio thread.

    take_scheduler_parts, take_request_parts: take one event by its parts. dropped: events that found the buffer full.
    lost: events that the disk, or JSON, refused.
    """

    def __init__(self, folder: Path, max_buffered: int, when_full: WhenFull) -> None:
        self.dropped: int = 0
        self.lost: int = 0
        self._max_buffered = check.check_int("max_buffered", max_buffered, minimum=1)
        self._half = max(1, max_buffered // 2)
        self._drops = when_full == "drop"
        many = max(1, min(_MADE_AT_ONCE, max_buffered // 8))
        self._unlooked = len(EVENT_FILES) * (many - 1)
        scheduler = _Stream[SchedulerEventParts](scheduler_event_line, many, self._take_with_care, self._leave_out)
        request = _Stream[RequestEventParts](request_event_line, many, self._take_with_care, self._leave_out)
        # The streams' own methods, so that an event takes one call less.
        self.take_scheduler_parts: Callable[[SchedulerEventParts], None] = scheduler.take
        self.take_request_parts: Callable[[RequestEventParts], None] = request.take
        self._streams = (scheduler, request)
        self._batches: deque[_Batch] = deque()
        self._writing = Lock()
        self._told_unwritable = False
        self._first = trio.Event()
        self._half_full = trio.Event()
        self._files: tuple[BinaryIO, ...] = ()
        with ExitStack() as opened:
            try:
                files = [opened.enter_context((folder / name).open("wb")) for name in EVENT_FILES]
            except OSError:
                logger.exception(_REFUSED)
            else:
                self._files = tuple(files)
                opened.pop_all()

    def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
        """Take one scheduler event."""
        self.take_scheduler_parts(parts_of_scheduler_event(event))

    def emit_request_event(self, event: RequestAdmissionEvent) -> None:
        """Take one request event."""
        self.take_request_parts(parts_of_request_event(event))

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
        self._close_files()
        if self.dropped or self.lost:
            logger.warning("The event files are incomplete: %d events dropped, %d lost", self.dropped, self.lost)

    def _take_with_care(self, stream: _Stream[P], parts: P) -> None:
        """Take an event that finds none of its stream waiting, or many."""
        stream.make_lines()
        if self._buffered() + self._unlooked >= self._max_buffered:
            if self._drops:
                self.dropped += 1
                return
            self.flush()
        stream.waiting.append(parts)
        if self._buffered() == 1:
            self._first.set()
        elif len(stream.lines) >= self._half:
            self._half_full.set()

    def _buffered(self) -> int:
        return sum(len(stream.waiting) + len(stream.lines) for stream in self._streams)

    def _leave_out(self, error: Exception) -> None:
        self.lost += 1
        if not self._told_unwritable:
            self._told_unwritable = True
            logger.error("An event cannot be written as JSON; further ones are counted, not logged", exc_info=error)

    @trio.lowlevel.enable_ki_protection
    def _hand_over(self) -> None:
        for stream in self._streams:
            stream.make_lines()
        if self._buffered():
            self._batches.append(tuple(stream.lines.copy() for stream in self._streams))
            for stream in self._streams:
                stream.lines.clear()

    def _write_batches(self) -> None:
        """Write what was handed over, in that order. Runs in any thread."""
        with self._writing:
            while self._batches:
                self._write(self._batches.popleft())

    def _write(self, batch: _Batch) -> None:
        unwritten = sum(map(len, batch))
        if not self._files:
            self.lost += unwritten
            return
        try:
            for file, lines in zip(self._files, batch, strict=True):
                for start in range(0, len(lines), _LINES_AT_ONCE):
                    some = lines[start : start + _LINES_AT_ONCE]
                    # A surrogate without its other half has no place in UTF-8; as an escape JSON knows it.
                    file.write("".join(some).encode(errors="backslashreplace"))
                    file.flush()
                    unwritten -= len(some)
        except OSError:
            self.lost += unwritten
            logger.exception(_REFUSED)
            self._close_files()

    def _close_files(self) -> None:
        for file in self._files:
            # What writing could tell, it has told.
            with suppress(OSError):
                file.close()
        self._files = ()


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

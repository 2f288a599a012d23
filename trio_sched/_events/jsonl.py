"""Events as JSON lines: how one is written and read back, and the files of a run, written by a task of their own.

An event reads back to an equal one. `msgspec` encodes it as it is; cattrs structures what was read, and fills in fields
that a line leaves out, as lines of earlier releases do for what is None or empty.

Emitting appends the event to a buffer. The writer task is woken by the first event, lets a batch gather for `interval`
seconds or until one stream has filled half of the buffer, and has it encoded and written where blocking work runs;
while nothing happens it sleeps. On every way out the rest is written before the files are closed.

*When the buffer is full.* The buffer holds `max_buffered` events, so memory is bounded whatever the disk does. With
`when_full="write"` whoever fills it writes it: the run waits for the disk, and nothing is lost. With `when_full="drop"`
the run never waits: events that find the buffer full are dropped and counted in `dropped`.

*When the disk refuses.* The run goes on without event files: it is logged once, nothing more is written, and what is
not is counted in `lost`. An event that cannot be written as JSON is left out and counted there too. Dropped and lost
events are logged once more, with their numbers, when the files are closed.

*What is missing.* A third file lists what was written together, with lengths and checksums, how much was dropped or
lost so far, and at last that the streams end. So a reader knows up to where the streams are as they were written.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path
from threading import Lock
from types import NoneType
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, TypeAlias, TypeVar, cast, get_args, get_origin
from zlib import crc32

import trio

from trio_sched import _validation as check
from trio_sched._events.records import (
    AdmissionEvent,
    RequestAdmissionEvent,
    SchedulerAdmissionEvent,
)
from trio_sched._resources.identity import RequestResourceKey, RuntimeCorrelation
from trio_sched._util import Blocking

if TYPE_CHECKING:
    from cattrs import Converter
    from msgspec.json import Encoder

logger = logging.getLogger("trio_sched.events")

__all__ = [
    "BATCH_FILE",
    "EVENT_FILES",
    "SUMMARY_FILE",
    "JsonlEventSink",
    "WhenFull",
    "event_line",
    "open_jsonl_sink",
    "read_event",
    "written",
]

_REFUSED: Final = "The event files cannot be written any more; the run goes on without them"

EVENT_FILES: Final = ("scheduler.jsonl", "request.jsonl")
"""The scheduler's stream and the request stage's."""
SUMMARY_FILE: Final = "summary.jsonl"
"""What is written in their place where the events are summed up."""

BATCH_FILE: Final = "batches.log"
"""What was written together, a line of JSON each: of each stream how many events and bytes, and their CRC-32."""

_MOST_REMEMBERED: Final = 4096
_OF_AN_OPTIONAL: Final = 2

_LINES_AT_ONCE: Final = 500
"""So many lines are written together: few enough to stay in the processor's cache."""

_Batch: TypeAlias = "tuple[list[AdmissionEvent], ...]"
"""Events of each file."""
WhenFull = Literal["write", "drop"]

E = TypeVar("E", SchedulerAdmissionEvent, RequestAdmissionEvent)


# One event


@cache
def _encoder() -> Encoder:
    from msgspec.json import Encoder

    # dict: snapshots hold read-only mappings, which msgspec does not know.
    return Encoder(enc_hook=dict)


def event_line(event: AdmissionEvent) -> str:
    """The event as one line of JSON, with its newline. A number that JSON does not know is written as null."""
    return _encoder().encode(event).decode() + "\n"


def read_event(line: str | bytes, kind: type[E]) -> E:
    """The event that `line` was written from. Raises ValueError for a line that is none."""
    from msgspec import DecodeError
    from msgspec.json import decode

    try:
        fields: object = decode(line)
    except DecodeError as error:
        raise ValueError(f"it is no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError("an event is one JSON object")
    try:
        # None is what is left out: most fields of most events are, and need no structuring then.
        present = {name: value for name, value in cast("dict[str, object]", fields).items() if value is not None}
        return _converter().structure(present, kind)
    except Exception as error:
        raise ValueError(f"its fields are not those of a {kind.__name__}: {error!r}") from error


@cache
def _converter() -> Converter:
    from cattrs.preconf.msgspec import make_converter

    converter = make_converter(detailed_validation=False, forbid_extra_keys=True)

    def optional(hint: object) -> Callable[[object, object], object]:
        # What cattrs itself does for an optional field looks its hook up anew for each value.
        (kind,) = (each for each in get_args(hint) if each is not NoneType)
        structure = converter.get_structure_hook(kind)
        return lambda value, _: None if value is None else structure(value, kind)

    converter.register_structure_hook_factory(_is_optional, optional)
    converter.register_structure_hook_func(_is_json, _json)
    # Thousands of events carry the same of these: each is made once.
    correlation, resource = (lru_cache(_MOST_REMEMBERED)(cls) for cls in (RuntimeCorrelation, RequestResourceKey))
    converter.register_structure_hook(RuntimeCorrelation, lambda fields, _: correlation(**fields))
    converter.register_structure_hook(RequestResourceKey, lambda fields, _: resource(**fields))
    return converter


def _is_optional(hint: object) -> bool:
    return len(get_args(hint)) == _OF_AN_OPTIONAL and NoneType in get_args(hint)


def _is_json(hint: object) -> bool:
    """Whether a field holds a JSON object, or None in its place."""
    return any(get_origin(each) is dict for each in (hint, *get_args(hint)))


def _json(value: object, hint: object) -> object:
    """What was decoded is what was written."""
    if isinstance(value, dict) or (value is None and get_origin(hint) is not dict):
        return cast("object", value)
    raise TypeError(f"a JSON object was expected, got {value!r}")


# The files of a run


class JsonlEventSink:
    """Writes scheduler events and request events to two files; made by `open_jsonl_sink`. Belongs to the Trio thread.

    dropped: events that found the buffer full. lost: events that the disk, or JSON, refused.
    """

    def __init__(
        self, folder: Path, max_buffered: int, when_full: WhenFull, *, names: Sequence[str] = EVENT_FILES
    ) -> None:
        self.dropped: int = 0
        self.lost: int = 0
        self._max_buffered = check.check_int("max_buffered", max_buffered, minimum=1)
        self._half = max(1, max_buffered // 2)
        self._drops = when_full == "drop"
        self._streams = tuple(name.removesuffix(".jsonl") for name in names)
        self._waiting: _Batch = tuple([] for _ in names)
        self._buffered = 0
        self._batches: deque[_Batch] = deque()
        self._writing = Lock()
        self._has_refused_one = False
        self._first = trio.Event()
        self._half_full = trio.Event()
        self._files: tuple[BinaryIO, ...] = ()
        with ExitStack() as opened:
            try:
                self._files = tuple(opened.enter_context((folder / name).open("wb")) for name in (*names, BATCH_FILE))
            except OSError:
                logger.exception(_REFUSED)
            else:
                opened.pop_all()

    def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
        """Take one scheduler event."""
        self._take(self._waiting[0], event)

    def emit_request_event(self, event: RequestAdmissionEvent) -> None:
        """Take one request event."""
        self._take(self._waiting[1], event)

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
        """Write the rest, close the files, and say what is missing in them."""
        self.flush()
        with self._writing:
            self._write(tuple([] for _ in self._streams), ended=True)
        self._close_files()
        if self.dropped or self.lost:
            logger.warning("The event files are incomplete: %d events dropped, %d lost", self.dropped, self.lost)

    @trio.lowlevel.enable_ki_protection
    def _take(self, waiting: list[AdmissionEvent], event: AdmissionEvent) -> None:
        if self._buffered >= self._max_buffered:
            if self._drops:
                self.dropped += 1
                return
            self.flush()
        waiting.append(event)
        self._buffered += 1
        if self._buffered == 1:
            self._first.set()
        elif self._buffered == self._half:
            self._half_full.set()

    @trio.lowlevel.enable_ki_protection
    def _hand_over(self) -> None:
        if self._buffered:
            self._batches.append(tuple(waiting.copy() for waiting in self._waiting))
            for waiting in self._waiting:
                waiting.clear()
            self._buffered = 0

    def _write_batches(self) -> None:
        """Write what was handed over, in that order. Runs in any thread."""
        with self._writing:
            while self._batches:
                self._write(self._batches.popleft())

    def _write(self, batch: _Batch, *, ended: bool = False) -> None:
        unwritten = sum(map(len, batch))
        if not self._files:
            self.lost += unwritten
            return
        try:
            *files, batches = self._files
            extents: dict[str, object] = {}
            for name, file, events in zip(self._streams, files, batch, strict=True):
                length = checksum = lines = 0
                for start in range(0, len(events), _LINES_AT_ONCE):
                    some = events[start : start + _LINES_AT_ONCE]
                    content = self._lines(some)
                    file.write(content)
                    file.flush()
                    length, checksum = length + len(content), crc32(content, checksum)
                    lines += content.count(b"\n")
                    unwritten -= len(some)
                extents[name] = {"events": lines, "bytes": length, "crc32": checksum}
            line = {**extents, "unwritten": self.dropped + self.lost, "ended": ended}
            batches.write(_encoder().encode(line) + b"\n")
            batches.flush()
        except OSError:
            self.lost += unwritten
            logger.exception(_REFUSED)
            self._close_files()

    def _lines(self, events: Sequence[AdmissionEvent]) -> bytes:
        try:
            return _encoder().encode_lines(events)
        except Exception as error:
            if len(events) > 1:  # Most likely one of them is to blame: the others are written.
                half = len(events) // 2
                return self._lines(events[:half]) + self._lines(events[half:])
            self.lost += 1
            if not self._has_refused_one:
                self._has_refused_one = True
                logger.error("An event cannot be written as JSON; further ones are counted, not logged", exc_info=error)
            return b""

    def _close_files(self) -> None:
        for file in self._files:
            # An error of writing was reported when it happened.
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
    async with written(sink, interval, blocking):
        yield sink


@asynccontextmanager
async def written(sink: JsonlEventSink, interval: float, blocking: Blocking) -> AsyncGenerator[None, None]:
    """Write what `sink` takes while the block runs, and to its end."""
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink.write_batches, interval, blocking, name="event writer")
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()
    finally:
        sink.close()

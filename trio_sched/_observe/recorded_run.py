"""Reads what a run left in its folder, also while it goes on and after it was killed, and makes its views.

*What is known.* Views are derived from events, and a view of half the events would state as fact what never was. So
before the events are read, `batches.log` is: it says of each batch how long it is in each stream's file, with a
checksum, and it says where the streams end. Batches count up to the first that is not as it was written, in both
streams alike, since what one stream reports explains the other. So a view is that of the run up to an instant; it says
up to which, how many events are missing, and leaves out what only the end would show. Where a stream's file is missing
as a whole, the other is read alone.

*What does not come from events.* How a run ended comes from `run.json`, where that says so: events end alike where a
run goes on and where it was killed. Rows are counted in the parts.

`trace.json` and `report.html` are made in one pass over the event files, of which one event at a time is in memory.
Both are written beside their names first and then renamed, so that a reader finds whole ones.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, Literal, TypeAlias, TypeVar, cast
from zlib import crc32

import attrs

from trio_sched._errors import TrioSchedError
from trio_sched._events.jsonl import BATCH_FILE, EVENT_FILES, SUMMARY_FILE, read_event
from trio_sched._events.records import (
    AdmissionEvent,
    JsonValue,
    RequestAdmissionEvent,
    SchedulerAdmissionEvent,
    merged_by_time,
)
from trio_sched._observe.report_figures import DurableRows, ReportCollector
from trio_sched._observe.report_page import report_page
from trio_sched._observe.trace import write_trace
from trio_sched._observe.view import MAX_EXECUTIONS, CorrelatedRuntimeView, RuntimeViewBuilder, lost_events

__all__ = [
    "REPORT_FILE",
    "TRACE_FILE",
    "NoEventsError",
    "NoTraceError",
    "RecordedEvents",
    "RunState",
    "durable_rows",
    "recorded_state",
    "run_document",
    "view_of_run",
    "write_run_views",
]

TRACE_FILE: Final = "trace.json"
REPORT_FILE: Final = "report.html"

RunState = Literal["running", "killed", "unknown", "completed", "stopped", "interrupted", "failed"]
_ENDS: Final[Mapping[str, RunState]] = {
    "completed": "completed",
    "stopped": "stopped",
    "interrupted": "interrupted",
    "failed": "failed",
    "stopped_early": "stopped",
    "cancelled": "interrupted",
}
"""What `run.json`, or the last event, says of the end. Folders of 0.1 have the last two."""

_ALONE: Final = (
    "nothing is known of tasks, and time without calls counts as readiness",
    "nothing is known of calls, and time in which a task of a model group runs counts as provider",
)
"""What it means that the other stream is read alone."""
_EVENTS_PER_LOOK: Final = 1_000
"""Events between two questions whether to go on: some 40 ms of work."""
_PART: Final = re.compile(r"part-\d{5,}\.(jsonl|parquet)")
_CHUNK: Final = 1 << 20

E = TypeVar("E", SchedulerAdmissionEvent, RequestAdmissionEvent)


class NoEventsError(TrioSchedError):
    """A folder has no event files. `folder` is the folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder

    def __str__(self) -> str:
        return (
            f"{str(self.folder)!r} has no events to read: it needs events/{SUMMARY_FILE}, events/{EVENT_FILES[0]} or "
            f"events/{EVENT_FILES[1]}; give the output folder of a run that wrote its events"
        )


class NoTraceError(NoEventsError):
    """A folder has a summary of its events, from which no trace can be made."""

    def __str__(self) -> str:
        return (
            f"{str(self.folder)!r} has a summary of its events, and a trace is made of all of them; "
            'set write_events="all" for a run that is to have one'
        )


# Events


_Extent: TypeAlias = "tuple[int, int, int]"
"""Of a batch in one stream's file: events, bytes, and their CRC-32."""


@attrs.frozen
class _Batch:
    """One line of `batches.log`. unwritten: events so far that were dropped or lost. ended: no more follow."""

    extents: tuple[_Extent, ...]
    unwritten: int
    ended: bool


class RecordedEvents:
    """The event files of one run folder. Raises `NoEventsError` if there are none, `OSError` if they cannot be read.

    streams: whether there is a file of the scheduler's stream, and of the request stage's. is_summary: whether there is
    a summary in place of both. missing_events: at least so many of those that were emitted are not read.
    """

    def __init__(self, run_folder: Path) -> None:
        folder = run_folder / "events"
        self._paths = tuple(folder / name for name in EVENT_FILES)
        self.streams: tuple[bool, ...] = tuple(path.is_file() for path in self._paths)
        self.is_summary: bool = False
        if not any(self.streams):
            self._paths = (folder / SUMMARY_FILE,)
            self.is_summary = self._paths[0].is_file()
            if not self.is_summary:
                raise NoEventsError(run_folder)
            # Samples show the request stage too.
            self.streams = (True, True)
        self._is_over = run_document(run_folder).get("status") in _ENDS
        self._batches = _read_batches(folder / BATCH_FILE, [path.stem for path in self._paths])
        self._whole = None if self._batches is None else self._batches[: self._count_whole(self._batches)]
        self.missing_events: int = self._count_missing()
        self._first: float | None = None
        self._last = 0.0
        self._damage: str | None = None

    def events(self) -> Iterator[AdmissionEvent]:
        """The events of both streams, by time, as far as both are whole."""
        scheduler = self._read(0, SchedulerAdmissionEvent) if self.streams[0] else ()
        request = self._read(1, RequestAdmissionEvent) if self.streams[1] and not self.is_summary else ()
        for event in merged_by_time(scheduler, request):
            if self._damage is not None:
                return
            self._last = event.captured_at_monotonic
            if self._first is None:
                self._first = self._last
            yield event

    def problems(self) -> tuple[str, ...]:
        """What is missing, in sentences, once the events were read to their end; nothing if all are there."""
        absent = [
            f"events/{path.name} is missing: {alone}"
            for path, there, alone in zip(self._paths, self.streams, _ALONE, strict=False)
            if not there
        ]
        cut: list[str] = []
        if self._whole is None:
            cut.append(f"events/{BATCH_FILE} is missing: whether events are missing is not known")
        elif self._whole != self._batches:
            cut.append(lost_events(self.missing_events))
        elif self._is_over and not (self._whole and self._whole[-1].ended):
            cut.append("the last events are missing")
        if self._damage is not None:
            cut.append(self._damage)
        if cut and self._first is not None:
            cut.append(f"events are shown up to second {self._last - self._first:.2f}")
        return *absent, *cut

    def _count_missing(self) -> int:
        if self._batches is None or self._whole is None:
            return 0
        streams = range(len(self._paths))
        written = sum(batch.extents[stream][0] for batch in self._batches for stream in streams)
        read = sum(batch.extents[stream][0] for batch in self._whole for stream in streams if self.streams[stream])
        return written - read + (self._batches[-1].unwritten if self._batches else 0)

    def _count_whole(self, batches: list[_Batch]) -> int:
        """How many of the batches are in the files as they were written."""
        files: list[BinaryIO | None] = [
            path.open("rb") if there else None for path, there in zip(self._paths, self.streams, strict=False)
        ]
        try:
            for number, batch in enumerate(batches):
                if batch.unwritten:
                    return number
                for file, extent in zip(files, batch.extents, strict=True):
                    if file is not None and not _is_whole(file, extent):
                        return number
        finally:
            for file in files:
                if file is not None:
                    file.close()
        return len(batches)

    def _read(self, stream: int, kind: type[E]) -> Iterator[E]:
        end = None if self._whole is None else sum(batch.extents[stream][1] for batch in self._whole)
        at = 0
        with self._paths[stream].open("rb") as lines:
            for number, line in enumerate(lines, 1):
                at += len(line)
                if end is not None and at > end:
                    return
                try:
                    event = read_event(line, kind)
                except ValueError:
                    if end is not None or line.endswith(b"\n"):
                        name = self._paths[stream].name
                        self._damage = f"events/{name}: line {number} is no event; what follows it is left out"
                    return
                yield event


def _read_batches(path: Path, streams: list[str]) -> list[_Batch] | None:
    """The lines of `batches.log`, up to the first that is none; None where there is no such file."""
    found: list[_Batch] = []
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return None
    for line in lines:
        written = _json(line)
        if not isinstance(written, dict):
            break
        match written:
            case {"unwritten": int(unwritten), "ended": bool(ended)}:
                extents = tuple(extent for stream in streams if (extent := _extent(written.get(stream))) is not None)
            case _:
                break
        if len(extents) < len(streams):
            break
        found.append(_Batch(extents, unwritten, ended))
    return found


def _extent(value: JsonValue) -> _Extent | None:
    match value:
        case {"events": int(events), "bytes": int(length), "crc32": int(checksum)}:
            return events, length, checksum
        case _:
            return None


def _is_whole(file: BinaryIO, extent: _Extent) -> bool:
    """Whether the next bytes of the file are those of the extent."""
    _, left, checksum = extent
    found = 0
    while left and (chunk := file.read(min(left, _CHUNK))):
        left -= len(chunk)
        found = crc32(chunk, found)
    return left == 0 and found == checksum


def view_of_run(run_folder: Path, *, max_executions: int = MAX_EXECUTIONS) -> CorrelatedRuntimeView:
    """What the event files of a run folder show.

    Raises `NoEventsError`, or `OSError` for files that cannot be read.
    """
    builder, recorded = build_view(run_folder, max_executions=max_executions)
    return builder.view(problems=recorded.problems(), missing_events=recorded.missing_events)


def build_view(run_folder: Path, *, max_executions: int) -> tuple[RuntimeViewBuilder, RecordedEvents]:
    """The events of a run folder, all taken in, and what was read."""
    recorded = RecordedEvents(run_folder)
    builder = RuntimeViewBuilder(
        scheduler_stream=recorded.streams[0], request_stream=recorded.streams[1], max_executions=max_executions
    )
    for event in recorded.events():
        builder.emit(event)
    return builder, recorded


# Documents and parts


def run_document(run_folder: Path) -> dict[str, JsonValue]:
    """`run.json`, or nothing where there is none that can be read."""
    return _document(run_folder / "run.json")


def recorded_state(document: Mapping[str, JsonValue], result: str | None) -> RunState:
    """The state of a run by its `run.json`, or where that says nothing, by the `result` that its events report.

    `running` is also a run that was killed on another machine, or before its process could be noted.
    """
    status = document.get("status")
    if isinstance(status, str) and status in _ENDS:
        return _ENDS[status]
    if result is not None:
        return _ENDS.get(result, "failed")
    if status != "running":
        return "unknown"
    return "killed" if _is_gone(document.get("process")) else "running"


def _is_gone(process: JsonValue) -> bool:
    """Whether the process that `run.json` names exists no more; False where that is unknown here.

    The run's lock says it too, but only to who takes it, and who takes it could keep a resumed run from starting.
    """
    match process:
        case {"pid": int(pid), "host": str(host)} if host == platform.node():
            return not _exists(pid)
        case _:
            return False


def _exists(pid: int) -> bool:
    if sys.platform == "win32":  # where a signal is no question, but ends the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def durable_rows(run_folder: Path) -> DurableRows | None:
    """The rows in the parts of a run folder, and those that its parts lack; None where that cannot be read."""
    rows = dropped = filtered = row_groups = 0
    try:
        for part in sorted((run_folder / "data").iterdir()):
            if not _PART.fullmatch(part.name):
                continue
            row_groups += 1
            rows += _rows_of(part)
            lacking = run_folder / "dropped" / f"{part.stem}.json"
            if lacking.exists():
                match _json(lacking.read_bytes()):
                    case {"dropped_rows": [*dropped_rows], "filtered_rows": [*filtered_rows]}:
                        dropped += len(dropped_rows)
                        filtered += len(filtered_rows)
                    case _:
                        return None
    except (OSError, ValueError, ImportError):
        return None
    return DurableRows(rows, dropped, filtered, row_groups)


def _rows_of(part: Path) -> int:
    """The rows of a part, which are its lines, or what the end of a Parquet file says."""
    if part.suffix == ".jsonl":
        with part.open("rb") as file:
            return sum(chunk.count(b"\n") for chunk in iter(partial(file.read, _CHUNK), b""))
    return int(importlib.import_module("pyarrow.parquet").read_metadata(part).num_rows)


def _document(path: Path) -> dict[str, JsonValue]:
    """One of the run's JSON documents, or nothing."""
    try:
        read = _json(path.read_bytes())
    except OSError:
        return {}
    return read if isinstance(read, dict) else {}


def _json(text: bytes) -> JsonValue:
    """What a text holds; None where it is no JSON."""
    try:
        return cast("JsonValue", json.loads(text))
    except (ValueError, RecursionError):
        return None


# Trace and report


class _NoLongerWantedError(Exception):
    """Whoever asked for the files does not want to wait any longer."""


def write_run_views(run_folder: Path, *, keep_going: Callable[[], bool] = lambda: True) -> bool:
    """Write `trace.json` and `report.html` into `run_folder`, and say whether they were written.

    Of a summary only the report is made, as a trace shows every event. keep_going: asked now and then; once it says no,
    nothing is left behind. Raises `NoEventsError` for a folder without events, and `OSError` for files that cannot be
    read or written.
    """
    recorded = RecordedEvents(run_folder)
    collector = ReportCollector(scheduler_stream=recorded.streams[0], request_stream=recorded.streams[1])
    trace, report = run_folder / TRACE_FILE, run_folder / REPORT_FILE
    unfinished = trace.with_name(TRACE_FILE + ".tmp"), report.with_name(REPORT_FILE + ".tmp")
    plan, document = _document(run_folder / "capacity_plan.json"), run_document(run_folder)
    try:
        events = _collected(recorded.events(), collector, keep_going)
        if recorded.is_summary:
            deque(events, maxlen=0)
        else:
            with unfinished[0].open("w", encoding="utf-8") as file:
                write_trace(events, file, capacity_plan=plan, problems=recorded.problems)
        state = recorded_state(document, collector.result)
        figures = collector.figures(
            state,
            document,
            plan,
            durable_rows(run_folder),
            problems=recorded.problems(),
            missing_events=recorded.missing_events,
        )
        unfinished[1].write_text(report_page(figures), encoding="utf-8")
        if not recorded.is_summary:
            unfinished[0].replace(trace)
        unfinished[1].replace(report)
    except _NoLongerWantedError:
        return False
    finally:
        for path in unfinished:
            path.unlink(missing_ok=True)
    return True


def _collected(
    events: Iterator[AdmissionEvent], collector: ReportCollector, keep_going: Callable[[], bool]
) -> Iterator[AdmissionEvent]:
    """The events, each shown to the collector on its way."""
    for number, event in enumerate(events):
        if number % _EVENTS_PER_LOOK == 0 and not keep_going():
            raise _NoLongerWantedError
        collector.emit(event)
        yield event

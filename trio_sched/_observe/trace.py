"""The events of a run as a trace that Perfetto opens: `trace.json`, in the trace-event format of Chrome.

What is drawn, process by process:

- *row groups*: one slice from admission to the moment it is durable.
- *columns*: per column, one slice per task lease, and counters of ready and running tasks.
- one process per request resource: one slice per request lease, its stops and outages, points where its limit was
  probed and where a trial call went out, and counters of its limit, of the requests in flight and of those that wait.

Leases overlap, slices of one track may not, so every track has as many *lanes* as it ever had leases at once: a lease
takes the lowest free lane and gives it back. An arrow leads from a task's lease to each request lease that it took.

The file is written as the events come, in the order of their times, and what is remembered is what is open: memory does
not grow with the length of a run. Slices are begun and ended by separate entries, so a run that was killed, or that
still goes on, gives a whole trace too: what is open when the events end is ended there and marked `unfinished`. Where
events are missing, the trace ends before them and says so across its whole height.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from heapq import heappop, heappush
from typing import Final, TextIO

import attrs
from msgspec.json import encode

from trio_sched._events.records import AdmissionEvent, JsonValue, RequestAdmissionEvent, SchedulerAdmissionEvent
from trio_sched._resources.identity import RequestResourceKey
from trio_sched._resources.request import RequestPressureSnapshot
from trio_sched._version import __version__

__all__ = ["write_trace"]

_ROW_GROUPS: Final = 1
_COLUMNS: Final = 2
_FIRST_ENDPOINT: Final = 3
_LANES_PER_TRACK: Final = 1_000_000
"""Room between the sort keys of two tracks, so that the lanes of one stay together."""

_COUNTERS: Final = ("limit", "in flight", "waiting")
_ENTRIES_AT_ONCE: Final = 500
_NOT_DRAWN: Final = frozenset({"dependency_ready", "selected", "worker_spawned"})
"""Kinds that come often and show nowhere."""
_OF_A_LIMIT: Final = frozenset(
    {
        "request_limit_increased",
        "request_limit_decreased",
        "request_outage_started",
        "request_outage_ended",
        "request_trial_started",
    }
)


def write_trace(
    events: Iterable[AdmissionEvent],
    file: TextIO,
    *,
    capacity_plan: Mapping[str, JsonValue] | None = None,
    problems: Callable[[], Iterable[str]] = tuple,
) -> None:
    """Write the trace of `events`, which come in the order of their times, to `file`.

    capacity_plan: what bounded the run, put beside the name of the writer, where viewers show what they know of a file.
    problems: what is missing after the events, asked when they end; each is a point across the trace there.
    """
    trace = _Trace(_Entries(file, {"capacity_plan": dict(capacity_plan)} if capacity_plan else {}))
    for event in events:
        trace.add(event)
    trace.close(problems())


@attrs.define(eq=False)
class _Track:
    """The lanes of one row of the trace. A lane is a thread of the format; `free` is a heap of lane numbers."""

    pid: int
    name: str
    position: int
    lanes: list[int] = attrs.field(factory=list[int])
    free: list[int] = attrs.field(factory=list[int])


@attrs.frozen
class _Slice:
    """An open slice: its track, and its lane there."""

    track: _Track
    lane: int


class _Entries:
    """Writes the entries of the format, with times in microseconds since the first one, never going back."""

    def __init__(self, file: TextIO, facts: Mapping[str, JsonValue]) -> None:
        self._file = file
        self._begin: float | None = None
        self._last = 0.0
        self._at = "0.0"
        self._unwritten: list[str] = []
        self._separator = ""
        self._tids = 0
        self._tracks = 0
        other = _json({"writer": f"trio_sched {__version__}", **facts})
        file.write(f'{{"displayTimeUnit":"ms","otherData":{other},"traceEvents":[\n')

    def close(self) -> None:
        """Write what makes the file whole."""
        self._write_out()
        self._file.write("\n]}\n")

    def move_to(self, at: float) -> None:
        """Everything from here on happened at `at` (the run's clock, seconds)."""
        if self._begin is None:
            self._begin = at
        passed = round((at - self._begin) * 1e6, 3)
        if passed > self._last:
            self._last, self._at = passed, repr(passed)

    def process(self, pid: int, name: str) -> None:
        """Name a process, and place it by its number."""
        self._describe("process", pid, 0, name, pid)

    def track(self, pid: int, name: str) -> _Track:
        """A new track of a process."""
        self._tracks += 1
        return _Track(pid, name, self._tracks)

    def begin(self, track: _Track, name: str, args: dict[str, JsonValue]) -> _Slice:
        """Begin a slice on the track's lowest free lane."""
        lane = heappop(track.free) if track.free else self._add_lane(track)
        named = f'"name":{_json(name)},"pid":{track.pid},"tid":{track.lanes[lane]}'
        self._write(f'{{"ph":"B",{named},"args":{_json(args)},"ts":{self._at}}}')
        return _Slice(track, lane)

    def end(self, open_slice: _Slice, args: dict[str, JsonValue]) -> None:
        """End a slice and free its lane."""
        track = open_slice.track
        shown = f'"args":{_json(args)},' if args else ""
        self._write(f'{{"ph":"E","pid":{track.pid},"tid":{track.lanes[open_slice.lane]},{shown}"ts":{self._at}}}')
        heappush(track.free, open_slice.lane)

    def instant(self, open_slice: _Slice, name: str) -> None:
        """Something that happened at once, where a slice is."""
        track, named = open_slice.track, _json(name)
        place = f'"pid":{track.pid},"tid":{track.lanes[open_slice.lane]}'
        self._write(f'{{"ph":"i","s":"t","name":{named},{place},"ts":{self._at}}}')

    def mark(self, pid: int, name: str) -> None:
        """Something that happened at once to a whole process."""
        self._write(f'{{"ph":"i","s":"p","name":{_json(name)},"pid":{pid},"tid":0,"ts":{self._at}}}')

    def note(self, text: str) -> None:
        """Something to say of the whole trace, at this time."""
        self._write(f'{{"ph":"i","s":"g","name":{_json(text)},"pid":0,"tid":0,"ts":{self._at}}}')

    def arrow(self, number: int, source: _Slice, target: _Slice) -> None:
        """An arrow between two slices that are open now."""
        for phase, end, bound in (("s", source, ""), ("f", target, '"bp":"e",')):
            named = f'"cat":"admission","name":"request","id":{number}'
            place = f'"pid":{end.track.pid},"tid":{end.track.lanes[end.lane]}'
            self._write(f'{{"ph":"{phase}",{named},{place},{bound}"ts":{self._at}}}')

    def count(self, pid: int, things: str, state: str, value: int) -> None:
        """The new value of a counter, which viewers call by both names together; neither needs an escape."""
        self._write(f'{{"ph":"C","name":"{things}","pid":{pid},"tid":0,"args":{{"{state}":{value}}},"ts":{self._at}}}')

    def _add_lane(self, track: _Track) -> int:
        self._tids += 1
        lane = len(track.lanes)
        track.lanes.append(self._tids)
        name = track.name if not lane else f"{track.name} {lane + 1}"
        self._describe("thread", track.pid, self._tids, name, track.position * _LANES_PER_TRACK + lane)
        return lane

    def _describe(self, what: str, pid: int, tid: int, name: str, position: int) -> None:
        """Name and place a process or a thread."""
        place, named = f'"pid":{pid},"tid":{tid}', _json(name)
        self._write(f'{{"ph":"M","name":"{what}_name",{place},"args":{{"name":{named}}}}}')
        self._write(f'{{"ph":"M","name":"{what}_sort_index",{place},"args":{{"sort_index":{position}}}}}')

    def _write(self, entry: str) -> None:
        self._unwritten.append(entry)
        if len(self._unwritten) >= _ENTRIES_AT_ONCE:
            self._write_out()

    def _write_out(self) -> None:
        if self._unwritten:
            self._file.write(self._separator + ",\n".join(self._unwritten))
            self._unwritten.clear()
            self._separator = ",\n"


@attrs.define(eq=False)
class _Endpoint:
    """A request resource: its process, its tracks, its last counters, and its stop and outage while there is one."""

    pid: int
    requests: _Track
    stops: _Track
    outages: _Track
    counters: tuple[int | None, int | None, int | None] = (None, None, None)
    stop: _Slice | None = None
    stop_ends: float = 0.0
    outage: _Slice | None = None


class _Trace:
    """Turns events into entries."""

    def __init__(self, entries: _Entries) -> None:
        self._entries = entries
        self._columns: dict[str, _Track] = {}
        self._endpoints: dict[RequestResourceKey, _Endpoint] = {}
        self._stopped: list[_Endpoint] = []
        self._tasks: dict[int, _Slice] = {}
        self._executions: dict[str, _Slice] = {}
        self._requests: dict[int, _Slice] = {}
        self._row_groups: dict[int, _Slice] = {}
        self._queued: set[str] = set()
        self._arrows = 0
        entries.process(_ROW_GROUPS, "row groups")
        entries.process(_COLUMNS, "columns")
        self._row_group_track = entries.track(_ROW_GROUPS, "row group")

    def add(self, event: AdmissionEvent) -> None:
        """Draw one event."""
        if self._stopped:
            self._end_stops(event.captured_at_monotonic)
        self._entries.move_to(event.captured_at_monotonic)
        if isinstance(event, SchedulerAdmissionEvent):
            self._add_scheduler_event(event)
        else:
            self._add_request_event(event)

    def close(self, problems: Iterable[str]) -> None:
        """End what is open, say what is missing, and end the file."""
        endpoints = self._endpoints.values()
        stops = (found for each in endpoints for found in (each.stop, each.outage) if found is not None)
        for open_slices in (self._requests.values(), self._tasks.values(), self._row_groups.values(), stops):
            for open_slice in open_slices:
                self._entries.end(open_slice, {"unfinished": True})
        for problem in problems:
            self._entries.note(problem)
        self._entries.close()

    def _add_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
        if event.event_kind in _NOT_DRAWN:
            return
        correlation = event.captured_correlation
        match event.event_kind:
            case "ready_enqueued" if event.task_id is not None:
                self._queued.add(event.task_id)
                self._entries.count(_COLUMNS, "tasks", "ready", len(self._queued))
            case "cancelled" if event.task_lease_id is None:
                self._leave_queue(event.task_id)
            case "task_lease_acquired" if event.task_lease_id is not None:
                self._leave_queue(event.task_id)
                column = (correlation.task_column if correlation is not None else None) or "task"
                track = self._columns.get(column)
                if track is None:
                    track = self._columns[column] = self._entries.track(_COLUMNS, column)
                task = self._entries.begin(track, column, {"task": event.task_id, "lease": event.task_lease_id})
                self._tasks[event.task_lease_id] = task
                if event.task_execution_id is not None:
                    self._executions[event.task_execution_id] = task
                self._entries.count(_COLUMNS, "tasks", "running", len(self._tasks))
            case "task_completed" | "cancelled" if event.task_lease_id in self._tasks:
                if event.reason_or_result != "success":
                    error = event.diagnostics.get("error", event.reason_or_result)
                    self._entries.instant(self._tasks[event.task_lease_id], str(error))
            case "task_lease_released" if event.task_lease_id in self._tasks:
                if event.task_execution_id is not None:
                    self._executions.pop(event.task_execution_id, None)
                self._entries.end(self._tasks.pop(event.task_lease_id), {})
                self._entries.count(_COLUMNS, "tasks", "running", len(self._tasks))
            case "row_group_admitted" if correlation is not None and correlation.row_group is not None:
                index = correlation.row_group
                self._row_groups[index] = self._entries.begin(
                    self._row_group_track, f"row group {index}", {"rows": event.diagnostics.get("size")}
                )
            case "row_group_checkpointed" if correlation is not None and correlation.row_group in self._row_groups:
                self._entries.end(self._row_groups.pop(correlation.row_group), {"rows": event.diagnostics.get("rows")})
            case _:
                pass

    def _add_request_event(self, event: RequestAdmissionEvent) -> None:
        if event.request_resource_key is None:
            return
        endpoint = self._endpoint(event.request_resource_key)
        if event.pressure_snapshot is not None:
            self._show_pressure(endpoint, event.pressure_snapshot)
        if event.event_kind in _OF_A_LIMIT:
            self._add_limit_event(endpoint, event)
            return
        lease_id = event.request_lease_id
        if lease_id is None:
            return
        if event.event_kind == "request_lease_acquired":
            request = self._entries.begin(
                endpoint.requests,
                str(event.request_resource_key.domain),
                {"attempt": event.request_attempt_id, "lease": lease_id},
            )
            self._requests[lease_id] = request
            correlation = event.captured_correlation
            task = self._executions.get(correlation.task_execution_id or "") if correlation is not None else None
            if task is not None:
                self._arrows += 1
                self._entries.arrow(self._arrows, task, request)
        elif event.event_kind == "request_lease_released" and lease_id in self._requests:
            self._entries.end(self._requests.pop(lease_id), {"outcome": event.reason_or_outcome})

    def _add_limit_event(self, endpoint: _Endpoint, event: RequestAdmissionEvent) -> None:
        entries, cause = self._entries, event.diagnostics.get("cause")
        if event.event_kind == "request_outage_started":
            if endpoint.outage is None:
                endpoint.outage = entries.begin(endpoint.outages, "outage", {})
        elif event.event_kind == "request_outage_ended":
            if endpoint.outage is not None:
                entries.end(endpoint.outage, {})
                endpoint.outage = None
        elif event.event_kind == "request_trial_started":
            entries.mark(endpoint.pid, "trial call")
        elif cause == "probe_started":
            entries.mark(endpoint.pid, f"asks for {event.diagnostics.get('current')} in flight")
        elif cause == "probe_refused":
            entries.mark(endpoint.pid, f"{event.diagnostics.get('previous')} in flight refused")

    def _leave_queue(self, task_id: str | None) -> None:
        if task_id is not None and task_id in self._queued:
            self._queued.remove(task_id)
            self._entries.count(_COLUMNS, "tasks", "ready", len(self._queued))

    def _endpoint(self, resource: RequestResourceKey) -> _Endpoint:
        known = self._endpoints.get(resource)
        if known is None:
            pid = _FIRST_ENDPOINT + len(self._endpoints)
            self._entries.process(pid, str(resource))
            outages, stops = self._entries.track(pid, "outage"), self._entries.track(pid, "stop")
            known = self._endpoints[resource] = _Endpoint(pid, self._entries.track(pid, "request"), stops, outages)
        return known

    def _show_pressure(self, endpoint: _Endpoint, pressure: RequestPressureSnapshot) -> None:
        counters = (pressure.current_limit, pressure.in_flight_count, pressure.waiters)
        if counters != endpoint.counters:
            for name, value, before in zip(_COUNTERS, counters, endpoint.counters, strict=True):
                if value != before:
                    self._entries.count(endpoint.pid, "requests", name, value)
            endpoint.counters = counters
        if pressure.blocked_until_monotonic is not None and pressure.cooldown_remaining_seconds > 0:
            endpoint.stop_ends = pressure.blocked_until_monotonic
            if endpoint.stop is None:
                endpoint.stop = self._entries.begin(endpoint.stops, "stopped", {})
                self._stopped.append(endpoint)
        elif endpoint.stop is not None:
            # An answered trial ends a stop before its time.
            self._end_stop(endpoint, endpoint.stop)

    def _end_stops(self, now: float) -> None:
        """End the stops that were over before `now`, in the order of their ends."""
        for endpoint in sorted(self._stopped, key=lambda each: each.stop_ends):
            if endpoint.stop is not None and endpoint.stop_ends <= now:
                self._entries.move_to(endpoint.stop_ends)
                self._end_stop(endpoint, endpoint.stop)

    def _end_stop(self, endpoint: _Endpoint, stop: _Slice) -> None:
        self._entries.end(stop, {})
        endpoint.stop = None
        self._stopped.remove(endpoint)


def _json(value: JsonValue) -> str:
    return encode(value).decode()

"""The trace file: valid entries, matched slices, times that never go back, arrows between leases, true counters."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import attrs
import pytest
from examples import share_of_profile
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_runs import SECRET, SampleRun, sample_run

from trio_sched._events.records import AdmissionEvent
from trio_sched._observe.recorded_run import RecordedEvents
from trio_sched._observe.trace import write_trace
from trio_sched.lowlevel import (
    RequestAdmissionEvent,
    RequestDomain,
    RequestPressureSnapshot,
    RequestResourceKey,
    RuntimeCorrelation,
    SchedulerAdmissionEvent,
)

PHASES = {"M", "B", "E", "i", "s", "f", "C"}


@attrs.frozen
class Slice:
    pid: int
    tid: int
    name: str
    begin: float
    end: float
    args: dict[str, Any]

    def covers(self, ts: float) -> bool:
        return self.begin <= ts <= self.end


@attrs.frozen
class Parsed:
    slices: list[Slice]
    counters: list[tuple[int, str, float, int]]
    arrows: list[tuple[dict[str, Any], dict[str, Any]]]
    processes: dict[int, str]
    threads: dict[int, str]
    instants: list[dict[str, Any]]

    def of_process(self, name: str) -> list[Slice]:
        return [each for each in self.slices if self.processes[each.pid] == name]


def parse(text: str) -> Parsed:
    """Reads the format as a strict viewer would, and fails on whatever such a viewer would drop."""
    entries: list[dict[str, Any]] = json.loads(text)["traceEvents"]
    found = Parsed([], [], [], {}, {}, [])
    open_slices: dict[tuple[int, int], dict[str, Any]] = {}
    sources: dict[int, dict[str, Any]] = {}
    last = 0.0
    for entry in entries:
        assert entry["ph"] in PHASES
        if entry["ph"] == "M":
            if entry["name"] == "process_name":
                found.processes[entry["pid"]] = entry["args"]["name"]
            elif entry["name"] == "thread_name":
                found.threads[entry["tid"]] = entry["args"]["name"]
            continue
        assert entry["ts"] >= last
        last = entry["ts"]
        assert entry["pid"] in found.processes
        track = (entry["pid"], entry["tid"])
        if entry["ph"] == "B":
            assert track not in open_slices, "slices of one lane may not overlap"
            assert entry["tid"] in found.threads
            open_slices[track] = entry
        elif entry["ph"] == "E":
            begin = open_slices.pop(track)
            args = {**begin["args"], **entry.get("args", {})}
            found.slices.append(Slice(*track, begin["name"], begin["ts"], entry["ts"], args))
        elif entry["ph"] == "s":
            assert track in open_slices
            assert entry["id"] not in sources
            sources[entry["id"]] = entry
        elif entry["ph"] == "f":
            assert track in open_slices
            assert entry["bp"] == "e"
            found.arrows.append((sources.pop(entry["id"]), entry))
        elif entry["ph"] == "C":
            ((state, value),) = entry["args"].items()
            found.counters.append((entry["pid"], f"{entry['name']} {state}", entry["ts"], value))
        else:
            assert entry["s"] == "p" or track in open_slices
            found.instants.append(entry)
    assert not open_slices
    assert not sources
    return found


def trace_of(events: Iterable[AdmissionEvent]) -> str:
    file = io.StringIO()
    write_trace(events, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SampleRun:
    return sample_run(tmp_path_factory.mktemp("trace") / "out")


@pytest.fixture(scope="module")
def parsed(run: SampleRun) -> Parsed:
    return parse(trace_of(RecordedEvents(run.folder).events()))


def test_every_lease_is_a_slice_of_its_column_or_endpoint(run: SampleRun, parsed: Parsed) -> None:
    granted = Counter(
        event.captured_correlation.task_column
        for event in run.events.scheduler_events
        if event.event_kind == "task_lease_acquired" and event.captured_correlation is not None
    )
    assert Counter(each.name for each in parsed.of_process("columns")) == granted
    for resource, statistics in run.result.requests.items():
        slices = [each for each in parsed.of_process(str(resource)) if each.name == "chat"]
        assert len(slices) == statistics.attempts
        assert Counter(each.args["outcome"] for each in slices) == statistics.outcomes


def test_slices_are_as_long_as_the_leases(run: SampleRun, parsed: Parsed) -> None:
    for resource, statistics in run.result.requests.items():
        seconds = sum(
            each.end - each.begin for each in parsed.of_process(str(resource)) if each.args.get("outcome") == "success"
        )
        assert seconds / 1e6 == pytest.approx(statistics.success_seconds, abs=1e-4)


def test_an_arrow_leads_from_the_task_to_each_of_its_requests(run: SampleRun, parsed: Parsed) -> None:
    assert len(parsed.arrows) == sum(statistics.attempts for statistics in run.result.requests.values())
    by_lane = {(each.tid, each.begin): each for each in parsed.slices}
    for source, target in parsed.arrows:
        request = by_lane[target["tid"], target["ts"]]
        assert request.name == "chat"
        (task,) = [
            each
            for each in parsed.of_process("columns")
            if each.tid == source["tid"] and each.covers(source["ts"]) and each.end >= request.end
        ]
        correlation = next(
            event.captured_correlation
            for event in run.events.request_events
            if event.request_lease_id == request.args["lease"]
            and str(event.request_resource_key) == parsed.processes[request.pid]
        )
        assert correlation is not None
        assert correlation.task_execution_id is not None
        assert correlation.task_execution_id.startswith(task.args["task"] + "@")


def test_counters_end_where_the_run_ended_and_peak_where_it_peaked(run: SampleRun, parsed: Parsed) -> None:
    last = {(parsed.processes[pid], name): value for pid, name, _, value in parsed.counters}
    peak: dict[tuple[str, str], int] = {}
    for pid, name, _, value in parsed.counters:
        key = (parsed.processes[pid], name)
        peak[key] = max(peak.get(key, 0), value)
    assert last["columns", "tasks ready"] == 0
    assert last["columns", "tasks running"] == 0
    maxima = run.result.capacity_plan.observed_maxima
    assert peak["columns", "tasks running"] == maxima.task_leases_by_resource["submission"]
    for resource, statistics in run.result.requests.items():
        assert last[str(resource), "requests in flight"] == 0
        assert last[str(resource), "requests waiting"] == 0
        assert last[str(resource), "requests limit"] == (statistics.last_limit or peak[str(resource), "requests limit"])
        assert peak[str(resource), "requests in flight"] == maxima.request_in_flight_by_resource[resource]


def test_stops_outages_trials_and_probes_are_drawn(run: SampleRun, parsed: Parsed) -> None:
    stops = [each for each in parsed.slices if each.name == "stopped"]
    (outage,) = [each for each in parsed.slices if each.name == "outage"]
    assert stops
    assert all(each.end > each.begin for each in stops)
    assert any(outage.covers(each.begin) for each in stops)
    ended = next(event for event in run.events.request_events if event.event_kind == "request_outage_ended")
    begin = min(event.captured_at_monotonic for event in run.events.scheduler_events)
    assert outage.end / 1e6 == pytest.approx(ended.captured_at_monotonic - begin)
    marks = Counter(each["name"] for each in parsed.instants if each["s"] == "p")
    (statistics,) = [each for each in run.result.requests.values() if each.was_refused]
    assert marks["trial call"] == statistics.trials
    assert sum(count for name, count in marks.items() if name.startswith("asks for")) == statistics.probes
    refused = sum(count for name, count in marks.items() if name.endswith("in flight refused"))
    assert refused == statistics.probes_refused


@pytest.mark.parametrize(("again_at", "stop_ends"), [(4.0, 4.0), (12.0, 10.0)])
def test_a_stop_ends_at_its_time_or_when_a_trial_is_answered_before(again_at: float, stop_ends: float) -> None:
    key = RequestResourceKey("p", "m", RequestDomain.CHAT)
    events: list[RequestAdmissionEvent] = []
    for at, until in ((0.0, None), (1.0, 10.0), (again_at, None)):
        left = 0.0 if until is None else until - at
        pressure = RequestPressureSnapshot(at, 1, key, 4, 4, 0, 0, 0, until, left, None, 0, None, {})
        events.append(
            RequestAdmissionEvent("request_lease_released", at, 1, request_resource_key=key, pressure_snapshot=pressure)
        )
    (stop,) = parse(trace_of(events)).slices
    assert (stop.name, stop.begin, stop.end) == ("stopped", 1e6, stop_ends * 1e6)


def test_row_groups_are_drawn(parsed: Parsed) -> None:
    assert sorted(each.name for each in parsed.of_process("row groups")) == [f"row group {n}" for n in range(3)]


def test_failures_are_marked_by_their_type_alone(run: SampleRun) -> None:
    text = trace_of(RecordedEvents(run.folder).events())
    assert "ValueError" in {each["name"] for each in parse(text).instants}
    assert SECRET not in text


def test_a_run_cut_anywhere_gives_a_whole_trace(run: SampleRun) -> None:
    events = list(RecordedEvents(run.folder).events())
    for length in range(0, len(events), 7):
        cut = parse(trace_of(events[:length]))
        begun = sum(event.event_kind == "task_lease_acquired" for event in events[:length])
        ended = sum(event.event_kind == "task_lease_released" for event in events[:length])
        unfinished = [each for each in cut.of_process("columns") if each.args.get("unfinished")]
        assert len(unfinished) == begun - ended


def lease_event(kind: str, at: float, number: int) -> SchedulerAdmissionEvent:
    correlation = RuntimeCorrelation("r", 0, "c", "cell", "local", "x", f"{number}@1")
    return SchedulerAdmissionEvent(
        kind,  # type: ignore[arg-type]  # the helper takes any kind
        at,
        1,
        correlation,
        str(number),
        f"{number}@1",
        number,
    )


@settings(max_examples=share_of_profile(0.5))
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=30))
def test_lanes_are_as_many_as_leases_at_once(leases: list[tuple[int, int]]) -> None:
    moves: list[tuple[int, int, SchedulerAdmissionEvent]] = []
    for number, (begin, length) in enumerate(leases):
        moves.append((begin, 1, lease_event("task_lease_acquired", begin, number)))
        moves.append(
            (begin + length, 2 if not length else 0, lease_event("task_lease_released", begin + length, number))
        )
    moves.sort(key=lambda move: move[:2])
    running = most = 0
    for _, _, event in moves:
        running += 1 if event.event_kind == "task_lease_acquired" else -1
        most = max(most, running)
    parsed = parse(trace_of(event for _, _, event in moves))
    assert len(parsed.slices) == len(leases)
    assert len({each.tid for each in parsed.slices}) == most


def test_an_empty_run_gives_an_empty_trace() -> None:
    assert parse(trace_of([])).slices == []


def test_a_clock_that_goes_back_does_not_take_the_trace_along() -> None:
    events = [lease_event("task_lease_acquired", 5.0, 1), lease_event("task_lease_released", 4.0, 1)]
    (only,) = parse(trace_of(events)).slices
    assert (only.begin, only.end) == (0.0, 0.0)

"""The joined view: exact sums, right timestamps, and each stream useful without the other."""

from __future__ import annotations

import tempfile
from pathlib import Path

import attrs
import pytest
import trio
from examples import share_of_profile
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_runs import FaultyRun, mocked

import trio_sched as ts
from trio_sched._observe.layers import WaitBreakdown, nanoseconds
from trio_sched._observe.recorded_run import NoEventsError, view_of_run
from trio_sched._observe.view import CorrelatedRuntimeView
from trio_sched.lowlevel import InMemoryAdmissionEventSink, inline

faulty_runs = st.builds(
    FaultyRun,
    seed=st.integers(0, 2**32),
    records=st.integers(0, 14),
    cap=st.integers(1, 3),
    cancel_after=st.none() | st.floats(0, 20),
)


def streams_of(run: FaultyRun) -> InMemoryAdmissionEventSink:
    sinks: list[InMemoryAdmissionEventSink] = []

    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            sinks.append(await run.run(Path(folder) / "out"))

    mocked(main)
    return sinks[0]


def assert_exact(view: CorrelatedRuntimeView) -> None:
    whole = nanoseconds(view.ended_at) - nanoseconds(view.started_at)
    assert view.limited_by.total == whole
    assert sum(place.nanoseconds for place in view.limits) == whole
    assert sum((each.limited_by for each in view.timeline), WaitBreakdown()) == view.limited_by
    for each in view.timeline:
        assert each.limited_by.total == nanoseconds(each.ended_at) - nanoseconds(each.started_at)
    for execution in view.executions:
        assert min(execution.waits.nanoseconds().values()) >= 0
        if execution.ended_at is not None:
            spent = nanoseconds(execution.ended_at) - nanoseconds(execution.started_at)
            assert execution.waits.total == spent


@settings(max_examples=share_of_profile(0.3))
@given(faulty_runs, st.booleans(), st.booleans())
def test_every_division_adds_up_to_the_time_it_divides(run: FaultyRun, tasks: bool, calls: bool) -> None:
    sink = streams_of(run)
    view = CorrelatedRuntimeView.from_events(
        sink.scheduler_events if tasks else None, sink.request_events if calls else None
    )
    assert_exact(view)
    assert sum(each.executions for each in view.columns.values()) == sum(
        each.ended_at is not None for each in view.executions
    )


@settings(max_examples=share_of_profile(0.3))
@given(faulty_runs)
def test_marks_come_in_the_order_of_the_stations(run: FaultyRun) -> None:
    sink = streams_of(run)
    view = CorrelatedRuntimeView.from_events(sink.scheduler_events, sink.request_events)
    assert view.late_request_events == view.uncorrelated_requests == 0
    for execution in view.executions:
        times = [time for time in attrs.astuple(execution.marks) if time is not None]
        assert times == sorted(times)
        for call in execution.requests:
            times = [time for time in attrs.astuple(call)[3:9] if time is not None]
            assert times == sorted(times)
    granted = sum(call.lease_acquired_at is not None for each in view.executions for call in each.requests)
    assert granted == sum(event.event_kind == "request_lease_acquired" for event in sink.request_events)


@settings(max_examples=share_of_profile(0.15))
@given(faulty_runs, st.integers(0, 5))
def test_a_view_of_few_executions_sums_up_all_of_them(run: FaultyRun, kept: int) -> None:
    sink = streams_of(run)
    whole = CorrelatedRuntimeView.from_events(sink.scheduler_events, sink.request_events)
    few = CorrelatedRuntimeView.from_events(sink.scheduler_events, sink.request_events, max_executions=kept)
    assert few.columns == whole.columns
    assert len(few.executions) + few.executions_not_kept == len(whole.executions)


def test_no_events_make_an_empty_view() -> None:
    view = CorrelatedRuntimeView.from_events([], [])
    assert (view.result, view.limited_by.total, view.executions, view.timeline) == (None, 0, (), ())


def test_a_run_folder_gives_the_same_view_also_when_its_last_line_is_torn(tmp_path: Path) -> None:
    sinks: list[InMemoryAdmissionEventSink] = []

    async def main() -> None:
        sinks.append(await FaultyRun(7).run(tmp_path))

    mocked(main)
    view = CorrelatedRuntimeView.from_events(sinks[0].scheduler_events, sinks[0].request_events)
    assert view_of_run(tmp_path) == view
    path = tmp_path / "events" / "scheduler.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    torn = view_of_run(tmp_path)
    assert (torn.complete, torn.result) == (False, None)
    assert_exact(torn)


def test_each_stream_tells_its_half_when_the_other_is_off(tmp_path: Path) -> None:
    model = ts.Model("here", "slow", max_parallel_requests=1)

    @ts.from_scratch_column()
    async def number(span: ts.RowSpan) -> list[int]:
        return list(range(span.start, span.start + span.count))

    @ts.column(needs=["number"], model=model)
    async def called(row: dict[str, int], handle: ts.ModelHandle) -> None:
        await handle.call(trio.sleep, 2)

    async def main() -> None:
        config = ts.RunConfig(write_events="all")
        await ts.run([number, called], records=1, output=tmp_path, config=config, blocking=inline)

    mocked(main)
    both = view_of_run(tmp_path)
    assert both.limited_by == WaitBreakdown(provider=nanoseconds(2))
    events = tmp_path / "events"
    request = (events / "request.jsonl").read_bytes()
    (events / "request.jsonl").unlink()
    tasks = view_of_run(tmp_path)
    assert (tasks.has_scheduler_events, tasks.has_request_events) == (True, False)
    assert tasks.limited_by == both.limited_by
    assert tasks.limits[0].where == "called"
    (events / "scheduler.jsonl").unlink()
    (events / "request.jsonl").write_bytes(request)
    calls = view_of_run(tmp_path)
    assert (calls.has_scheduler_events, calls.has_request_events) == (False, True)
    assert calls.limited_by == both.limited_by
    assert calls.executions[0].requests == both.executions[1].requests
    (events / "request.jsonl").unlink()
    with pytest.raises(NoEventsError, match="has no events to read"):
        view_of_run(tmp_path)


def test_events_that_were_dropped_are_counted() -> None:
    sink = streams_of(FaultyRun(3))
    kept = sink.scheduler_events[:10] + sink.scheduler_events[13:]
    view = CorrelatedRuntimeView.from_events(kept, sink.request_events[1:])
    assert view.missing_events == 4
    assert_exact(view)

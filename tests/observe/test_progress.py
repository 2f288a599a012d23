"""Counts of a run's progress: equal to the result at the end, sensible on the way, whatever the total."""

from __future__ import annotations

import pytest
from sample_runs import SampleRun, sample_run

from trio_sched._events.records import AdmissionEvent
from trio_sched._observe.progress import RunProgress, RunProgressSink
from trio_sched._observe.recorded_run import RecordedEvents
from trio_sched.lowlevel import SchedulerAdmissionEvent


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SampleRun:
    return sample_run(tmp_path_factory.mktemp("progress") / "out")


def fed(sink: RunProgressSink, events: list[AdmissionEvent]) -> float:
    for event in events:
        if isinstance(event, SchedulerAdmissionEvent):
            if sink.accepts_scheduler_event(event.event_kind):
                sink.emit_scheduler_event(event)
        else:
            sink.emit_request_event(event)
    return events[-1].captured_at_monotonic


def progress_after(run: SampleRun, length: int, total: int | None = 12) -> RunProgress:
    sink = RunProgressSink(total)
    return sink.progress(fed(sink, list(RecordedEvents(run.folder).events())[:length]))


def length(run: SampleRun) -> int:
    return len(run.events.scheduler_events) + len(run.events.request_events)


def test_the_end_equals_the_result(run: SampleRun) -> None:
    end = progress_after(run, length(run))
    assert end.records_done == run.result.records
    assert end.dropped == run.result.dropped == 1
    assert end.result == "completed"
    assert end.limit is None
    assert end.eta_seconds == 0
    assert end.deferred == 0
    assert end.rate_average == pytest.approx(run.result.records / run.result.wall_seconds, rel=1e-3)
    assert {each.column: each.done for each in end.columns} == {"number": 12, "draft": 11, "verdict": 11}
    assert all(not each.running and not each.ready for each in end.columns)
    for endpoint in end.endpoints:
        (resource,) = [each for each in run.result.requests if str(each) == endpoint.resource]
        assert endpoint.in_flight == 0
        assert endpoint.waiting == 0
        statistics = run.result.requests[resource]
        assert endpoint.requests_per_minute == pytest.approx(60 * statistics.attempts / end.elapsed_seconds)


def test_counts_on_the_way_never_exceed_what_there_is(run: SampleRun) -> None:
    for cut in range(1, length(run), 5):
        progress = progress_after(run, cut)
        assert 0 <= progress.records_done <= run.result.records
        assert all(each.running >= 0 and each.ready >= 0 and each.done <= 12 for each in progress.columns)
        assert all(each.in_flight >= 0 and each.waiting >= 0 for each in progress.endpoints)
        assert progress.eta_seconds is None or progress.eta_seconds >= 0


def test_stops_trials_and_an_outage_are_reported_while_they_last(run: SampleRun) -> None:
    seen = [progress_after(run, cut) for cut in range(1, length(run))]
    writers = [(each, endpoint) for each in seen for endpoint in each.endpoints if "writer" in endpoint.resource]
    kinds = {(endpoint.activity.kind, endpoint.activity.outage) for _, endpoint in writers}
    assert {("open", False), ("probing", False), ("stopped", False), ("stopped", True), ("trial", True)} <= kinds
    assert all(
        endpoint.activity.kind in ("stopped", "trial")
        for each, endpoint in writers
        if each.limit is not None and (each.limit.layer, each.limit.where) == ("cooldown", endpoint.resource)
    )
    assert any(each.limit is not None and each.limit.layer == "cooldown" for each in seen)
    assert str(writers[-1][1].activity) == ""


def test_without_a_total_nobody_knows_the_time_left(run: SampleRun) -> None:
    progress = progress_after(run, length(run) // 2, total=None)
    assert progress.records_total is None
    assert progress.eta_seconds is None


def test_the_time_left_shrinks_towards_the_end(run: SampleRun) -> None:
    half, late = progress_after(run, length(run) // 2), progress_after(run, length(run) - 8)
    assert half.eta_seconds is not None
    assert late.eta_seconds is not None
    assert late.eta_seconds < half.eta_seconds


def test_before_the_first_event_all_is_zero() -> None:
    progress = RunProgressSink(5).progress(100.0)
    assert (progress.elapsed_seconds, progress.records_done, progress.rate_now, progress.rate_average) == (0, 0, 0, 0)
    assert progress.eta_seconds is None
    assert progress.columns == ()


def test_rates_now_forget_what_is_over_a_minute_ago(run: SampleRun) -> None:
    sink = RunProgressSink(12)
    end = fed(sink, list(RecordedEvents(run.folder).events()))
    assert sink.progress(end).rate_now > 0
    later = sink.progress(end + 61)
    assert later.rate_now == 0
    assert later.rate_average > 0
    assert [each.requests_per_minute for each in later.endpoints] == [0, 0]

"""What holds at the end of every run, and what its events say held at every step of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from fuzzed_pipeline import NUMBER, Calls, FuzzedPipeline, Row
from fuzzed_run import Attempt, FuzzedRun
from sequential import rows_hash

import trio_sched as ts
from trio_sched._observe.layers import WaitBreakdown, nanoseconds
from trio_sched._observe.request_replay import RequestReplay
from trio_sched._observe.scheduler_replay import SchedulerReplay
from trio_sched._observe.view import CorrelatedRuntimeView
from trio_sched._resources.identity import ProviderModelKey
from trio_sched._resources.task import SUBMISSION

__all__ = ["check_attempt", "check_data"]

TRANSIENT: Final = {"RateLimitError", "OverloadedError", "RequestAdmissionError"}
"""Errors that say nothing about a row: a rate limit, a local queue timeout. A closed endpoint is told apart before."""


def check_attempt(attempt: Attempt) -> None:
    """Nothing is held, nobody waits, every event was true, and the streams tell the whole of it."""
    for tasks in attempt.tasks:
        view = tasks.view()
        assert tasks.leak_report() == ()
        assert dict(view.resources_available) == dict(view.resource_limits)
        assert not view.leased_resources
    for requests in attempt.requests:
        assert requests.leak_report() == ()
        for pressure in requests.pressure.snapshots().values():
            assert (pressure.in_flight_count, pressure.waiters) == (0, 0)
    if attempt.result is not None:
        assert attempt.result.leaks == ()
        assert attempt.result.capacity_plan.observed_maxima.hidden_scheduler_resource_waiters == {}
    _check_task_stream(attempt)
    _check_request_stream(attempt)
    _check_view(attempt)


def _check_task_stream(attempt: Attempt) -> None:
    """Every worker runs under a lease of its own, and replay ends where the run did."""
    replay = SchedulerReplay()
    leases: dict[int, str] = {}
    running: dict[int, str] = {}
    given_back: set[int] = set()
    for event in attempt.sink.scheduler_events:
        replay.apply(event)
        lease, told = event.task_lease_id, event.captured_correlation
        match event.event_kind:
            case "task_lease_acquired":
                assert lease is not None
                assert lease not in leases
                leases[lease] = told.task_execution_id or "" if told is not None else ""
                assert len(leases) <= replay.resource_limits[SUBMISSION]
            case "worker_spawned":
                assert lease in leases
                running[lease] = leases[lease]
            case "task_completed":
                assert lease in running, "a worker without a lease"
            case "task_lease_released":
                assert lease is not None
                assert lease not in given_back, "released twice"
                given_back.add(lease)
                del leases[lease]
                running.pop(lease, None)
            case "scheduler_job_completed" | "scheduler_health_snapshot":
                assert replay.snapshot() == event.snapshot
            case _:
                pass
    assert not leases
    assert not running


def _check_request_stream(attempt: Attempt) -> None:
    """No limit and no cap was ever exceeded, nobody called without his task's lease, and replay ends at the truth."""
    replay = RequestReplay()
    granted: set[int] = set()
    given_back: set[int] = set()
    for event in attempt.sink.request_events:
        replay.apply(event)
        lease, key = event.request_lease_id, event.request_resource_key
        match event.event_kind:
            case "request_lease_acquired":
                assert lease is not None
                assert lease not in granted
                granted.add(lease)
                assert key is not None
                resource = replay.resources[key]
                assert resource.current_limit is not None
                assert resource.in_flight <= resource.current_limit
                assert _in_flight(replay, key.provider_model_key) <= replay.static_caps[key.provider_model_key]
            case "request_lease_released":
                assert lease in granted
                assert lease not in given_back, "released twice"
                given_back.add(lease)
            case _:
                pass
    assert granted == given_back
    for requests in attempt.requests:
        for key, snapshot in requests.pressure.snapshots().items():
            if key in replay.resources:
                assert replay.resources[key].agrees_with(snapshot), (replay.resources[key], snapshot)


def _in_flight(replay: RequestReplay, endpoint: ProviderModelKey) -> int:
    return sum(each.in_flight for key, each in replay.resources.items() if key.provider_model_key == endpoint)


def _check_view(attempt: Attempt) -> None:
    """Both streams joined: whoever ran held a lease, whoever called ran, and every division sums to its whole."""
    sink = attempt.sink
    view = CorrelatedRuntimeView.from_events(sink.scheduler_events, sink.request_events)
    whole = nanoseconds(view.ended_at) - nanoseconds(view.started_at)
    assert view.limited_by.total == whole
    assert sum(place.nanoseconds for place in view.limits) == whole
    assert sum((each.limited_by for each in view.timeline), WaitBreakdown()) == view.limited_by
    assert (view.late_request_events, view.uncorrelated_requests, view.missing_events) == (0, 0, 0)
    for execution in view.executions:
        assert min(execution.waits.nanoseconds().values()) >= 0
        assert execution.ended_at is not None, "runs after the end"
        assert execution.waits.total == nanoseconds(execution.ended_at) - nanoseconds(execution.started_at)


def check_data(run: FuzzedRun, output: Path, attempts: Sequence[Attempt], reference: tuple[list[Row], Calls]) -> None:
    """Every row is there, was dropped, or was removed, exactly once, and just as in a plain sequential run."""
    result = attempts[-1].result
    assert result is not None
    expected, calls = reference
    rows = list(result.rows())
    assert not [path for path in output.rglob("*") if path.suffix == ".tmp"]
    if run.pipeline.runs_out_of_quota and result.status == "stopped":
        assert result.stop_reason == "endpoint_closed"
        assert result.records + result.dropped + result.filtered < run.records
    else:
        assert result.status == "completed"
        assert result.records + result.dropped + result.filtered == run.records
    assert len(rows) == result.records
    for attempt in attempts:
        for column, numbers in attempt.calls.ordered.items():
            assert numbers == sorted(numbers), f"{column} is ordered"
    if run.pipeline.runs_out_of_quota:
        _check_survivors(run.pipeline, rows, expected)
        return
    assert rows == expected
    if run.pipeline.is_in_order:
        assert result.data_hash() == rows_hash(expected)
    assert result.filtered == len(calls.removed)
    for attempt in attempts:
        if attempt.result is not None:
            assert not TRANSIENT.intersection(_drop_causes(attempt.result))


def _check_survivors(pipeline: FuzzedPipeline, rows: Iterable[Row], expected: Iterable[Row]) -> None:
    """Where an endpoint closed for good, rows are missing that depend on it; the others are as they should be."""
    places = {name for processor in pipeline.processors for name in processor.outputs}
    known = {row[NUMBER]: row for row in expected}
    for row in rows:
        for name, value in row.items():
            assert name in places or value == known[row[NUMBER]][name]


def _drop_causes(result: ts.RunResult) -> set[str]:
    return {cause.error_type for cause in result.scheduler.drop_causes}

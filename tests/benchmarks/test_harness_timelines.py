from __future__ import annotations

import pytest

from benchmarks.artifact import TimelineEntry, converter
from benchmarks.workloads.outcome import Json
from benchmarks.workloads.timelines import derived, entries, jain_index, maximum_lag
from trio_sched.lowlevel import (
    RequestAdmissionEvent,
    RequestDomain,
    RequestResourceKey,
    RuntimeCorrelation,
    SchedulerAdmissionEvent,
)

CORRELATION = RuntimeCorrelation("run", 0, "column", "cell", "local", "hash", "a@1")


def entry(kind: str, at: float, task: str, lease: str | None = None, resource: str = "local") -> dict[str, Json]:
    return {
        "event_kind": kind,
        "captured_at_monotonic": at,
        "task_id": task,
        "task_lease_id": lease,
        "scheduler_resource_key": resource,
    }


def test_events_become_entries_of_the_artifact() -> None:
    scheduler = SchedulerAdmissionEvent("task_lease_acquired", 2.0, 1, CORRELATION, "a", "a@1", 7, "local", "granted")
    key = RequestResourceKey("provider", "model", RequestDomain.CHAT)
    request = RequestAdmissionEvent("request_lease_acquired", 1.0, 5, CORRELATION, "attempt", 9, key, key, "success")
    found = [converter().structure(each, TimelineEntry) for each in entries([scheduler], [request])]
    correlation = {
        "run_id": "run",
        "row_group": 0,
        "task_column": "column",
        "task_type": "cell",
        "scheduling_group_kind": "local",
        "scheduling_group_identity_hash": "hash",
        "task_execution_id": "a@1",
    }
    assert found == [
        TimelineEntry(
            event_kind="request_lease_acquired",
            captured_at_monotonic=1.0,
            stream="request",
            sequence=5,
            captured_correlation=correlation,  # type: ignore[arg-type]  # a plain dict is what is read
            request_attempt_id="attempt",
            request_lease_id="9",
            request_resource_key="provider/model/chat",
            reason_or_outcome="success",
        ),
        TimelineEntry(
            event_kind="task_lease_acquired",
            captured_at_monotonic=2.0,
            stream="scheduler",
            sequence=1,
            captured_correlation=correlation,  # type: ignore[arg-type]  # as above
            task_id="a",
            task_execution_id="a@1",
            task_lease_id="7",
            scheduler_resource_key="local",
            reason_or_outcome="granted",
        ),
    ]


def test_waits_and_idle_gaps_of_a_known_timeline() -> None:
    timeline = [
        entry("ready_enqueued", 0.0, "a"),
        entry("selected", 1.0, "a"),
        entry("task_lease_acquired", 1.5, "a", "1"),
        entry("worker_spawned", 1.5, "a", "1"),
        entry("ready_enqueued", 2.0, "b"),
        entry("task_lease_released", 5.0, "a", "1"),
        entry("selected", 9.0, "b"),
        entry("task_lease_acquired", 9.0, "b", "2"),
        entry("worker_spawned", 9.0, "b", "2"),
        entry("task_lease_released", 10.0, "b", "2"),
    ]
    metrics = derived(timeline, {"local": 1})
    assert metrics == pytest.approx(
        {
            "ready_idle_gap_seconds": 4.0,
            "active_capacity_integral": 4.5,
            "hidden_scheduler_resource_waiters": 0.0,
            "ready_queue_wait_p50_us": 4e6,
            "ready_queue_wait_p95_us": 6.7e6,
            "task_admission_wait_p50_us": 0.25e6,
            "task_admission_wait_p95_us": 0.475e6,
            "ready_to_lease_gap_p50_us": 4.25e6,
            "ready_to_lease_gap_p95_us": 6.725e6,
        }
    )


def test_while_nothing_is_free_nothing_is_idle() -> None:
    timeline = [
        entry("ready_enqueued", 0.0, "a"),
        entry("ready_enqueued", 0.0, "b"),
        entry("selected", 0.0, "a"),
        entry("task_lease_acquired", 0.0, "a", "1"),
        entry("task_lease_released", 8.0, "a", "1"),
        entry("selected", 8.0, "b"),
        entry("task_lease_acquired", 8.0, "b", "2"),
    ]
    assert derived(timeline, {"local": 1})["ready_idle_gap_seconds"] == 0.0
    assert derived(timeline, {"local": 2})["ready_idle_gap_seconds"] == 8.0


def test_a_worker_without_a_lease_is_seen() -> None:
    timeline = [entry("worker_spawned", 0.0, "a", "1"), entry("worker_spawned", 1.0, "b", "2")]
    assert derived(timeline, {})["hidden_scheduler_resource_waiters"] == 2.0


def test_fairness() -> None:
    assert jain_index([5.0, 5.0, 5.0]) == pytest.approx(1.0)
    assert jain_index([1.0, 0.0]) == pytest.approx(0.5)
    assert maximum_lag("abab", {"a": 1.0, "b": 1.0}) == 1.0
    assert maximum_lag("aab", {"a": 2.0, "b": 1.0}) == 1.0
    assert maximum_lag("aaa", {"a": 1.0, "b": 1.0}) == 3.0

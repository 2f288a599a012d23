from __future__ import annotations

import pytest

from benchmarks.artifact import TimelineEntry, converter
from benchmarks.workloads.outcome import Json
from benchmarks.workloads.timeline_metrics import derived, first_times, jain_index
from benchmarks.workloads.timelines import entries, requests_out_of_order, streams_out_of_order
from trio_sched.lowlevel import (
    RequestAdmissionEvent,
    RequestDomain,
    RequestResourceKey,
    RuntimeCorrelation,
    SchedulerAdmissionEvent,
)

CORRELATION = RuntimeCorrelation("run", 0, "column", "cell", "local", "hash", "a@1")


def entry(
    kind: str, at: float, task: str, lease: str | None = None, resource: str = "local", column: str = "column"
) -> dict[str, Json]:
    return {
        "event_kind": kind,
        "captured_at_monotonic": at,
        "captured_correlation": {"task_column": column},
        "task_id": task,
        "task_execution_id": f"{task}@1",
        "task_lease_id": lease,
        "scheduler_resource_key": resource,
    }


def served(at: float, task: str, lease: str, column: str, released: float | None = None) -> list[dict[str, Json]]:
    """A task that is selected, admitted and started at one moment, and released at another."""
    found = [
        entry(kind, at, task, lease, column=column) for kind in ("selected", "task_lease_acquired", "worker_spawned")
    ]
    if released is not None:
        ended = [
            entry(kind, released, task, lease, column=column) for kind in ("task_completed", "task_lease_released")
        ]
        found += ended
    return found


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
    timeline.insert(-3, entry("task_completed", 5.0, "a", "1"))
    timeline.sort(key=lambda each: float(str(each["captured_at_monotonic"])))
    metrics = derived(timeline, {"local": 1})
    assert metrics == pytest.approx(
        {
            "ready_idle_gap_seconds": 4.0,
            "ready_idle_gap_seconds[column, local]": 4.0,
            "active_capacity_integral": 4.5,
            "active_capacity_integral[local]": 4.5,
            "hidden_scheduler_resource_waiters": 1.0,
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


def test_a_gap_ends_where_somebody_else_takes_the_resource_and_needs_room_in_submission() -> None:
    timeline = [
        entry("ready_enqueued", 0.0, "a", column="first"),
        entry("ready_enqueued", 0.0, "b", column="second"),
        *served(2.0, "a", "1", "first"),
    ]
    waiting = [*timeline, entry("task_lease_released", 7.0, "a", "1", column="first")]
    gaps = derived(waiting, {"local": 2, "submission": 1})
    assert gaps["ready_idle_gap_seconds[first, local]"] == 2.0
    assert gaps["ready_idle_gap_seconds[second, local]"] == 2.0
    assert derived(waiting, {"local": 2, "submission": 2})["ready_idle_gap_seconds[second, local]"] == 5.0


def test_a_worker_without_a_lease_is_seen() -> None:
    timeline = [entry("worker_spawned", 0.0, "a", "1"), entry("worker_spawned", 1.0, "b", "2")]
    assert derived(timeline, {})["hidden_scheduler_resource_waiters"] == 2.0


def test_a_worker_that_goes_on_after_its_lease_is_seen() -> None:
    timeline = [
        entry("ready_enqueued", 0.0, "a"),
        *served(0.0, "a", "1", "column"),
        entry("task_lease_released", 1.0, "a", "1"),
    ]
    assert derived(timeline, {})["hidden_scheduler_resource_waiters"] == 1.0
    well = [entry("ready_enqueued", 0.0, "a"), *served(0.0, "a", "1", "column", released=1.0)]
    assert derived(well, {})["hidden_scheduler_resource_waiters"] == 0.0


def test_the_debt_of_a_root_is_what_it_holds_above_its_share() -> None:
    alone = [entry("ready_enqueued", 0.0, f"r{index}", column="root") for index in range(4)]
    for index in range(4):
        alone += served(0.0, f"r{index}", f"{index}", "root")
    found = derived(alone, {"local": 4}, roots=("root",))
    assert (found["root_over_admission_debt"], found["root_over_admission_while_others_wait"]) == (2.0, 0.0)
    contended = [entry("ready_enqueued", 0.0, "x", column="cell"), *alone]
    found = derived(contended, {"local": 4}, roots=("root",))
    assert (found["root_over_admission_debt"], found["root_over_admission_while_others_wait"]) == (2.0, 2.0)


def test_turns_are_fair_and_a_run_of_one_group_is_not() -> None:
    queued = [
        entry("ready_enqueued", 0.0, f"{column}{row}", column=column) for column in ("a", "b") for row in range(4)
    ]

    def found(order: str) -> dict[str, float]:
        timeline, seen = list(queued), {"a": 0, "b": 0}
        for column in order:
            timeline += served(1.0, f"{column}{seen[column]}", f"{column}{seen[column]}", column)
            seen[column] += 1
        return derived(timeline, {"local": 8})

    even, uneven = found("abab"), found("aaab")
    assert (even["jain_index[local]"], even["maximum_lag_tasks"]) == (1.0, 1.0)
    assert uneven["jain_index[local]"] == pytest.approx(0.8)
    assert uneven["maximum_lag_tasks"] == 3.0


def test_jain() -> None:
    assert jain_index([5.0, 5.0, 5.0]) == pytest.approx(1.0)
    assert jain_index([1.0, 0.0]) == pytest.approx(0.5)


def test_first_times_are_those_of_no_root() -> None:
    timeline = [
        entry("ready_enqueued", 10.0, "r", column="root"),
        *served(10.0, "r", "1", "root", released=13.0),
        entry("ready_enqueued", 13.0, "c", column="cell"),
        *served(14.0, "c", "2", "cell"),
    ]
    assert first_times(timeline, ("root",)) == {
        "first_downstream_ready_seconds": 3.0,
        "first_downstream_dispatch_seconds": 4.0,
    }


def request(kind: str, attempt: str, sequence: int, at: float = 0.0) -> dict[str, Json]:
    return {
        "event_kind": kind,
        "captured_at_monotonic": at,
        "stream": "request",
        "sequence": sequence,
        "request_attempt_id": attempt,
    }


def test_requests_take_their_steps_in_order() -> None:
    steps = ["request_wait_started", "request_wait_completed", "request_lease_acquired", "model_request_started"]
    good = [request(kind, "1.1", number) for number, kind in enumerate(steps)]
    assert requests_out_of_order(good) == 0
    assert requests_out_of_order([*good[:2], good[3], good[2]]) == 1
    assert requests_out_of_order([*good, good[0]]) == 1


def test_a_stream_neither_counts_back_nor_goes_back_in_time() -> None:
    good = [request("request_wait_started", "1.1", 1, 1.0), request("request_wait_started", "1.2", 2, 1.0)]
    assert streams_out_of_order(good) == 0
    assert streams_out_of_order([good[1], good[0]]) == 1
    assert streams_out_of_order([good[0], request("request_wait_started", "1.2", 2, 0.5)]) == 1

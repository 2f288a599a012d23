"""The two event streams: one frozen value per transition of the scheduler and of request admission.

This is the only form that an event has: owners build it, sinks take it, files hold it as JSON (`jsonl.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Literal, TypeAlias, get_args

import attrs

from trio_sched._resources.identity import RequestResourceKey, RuntimeCorrelation
from trio_sched._resources.request import RequestPressureSnapshot

__all__ = [
    "REQUEST_EVENT_KINDS",
    "SCHEDULER_EVENT_KINDS",
    "AdmissionEvent",
    "JsonValue",
    "RequestAdmissionEvent",
    "RequestAdmissionEventKind",
    "SchedulerAdmissionEvent",
    "SchedulerAdmissionEventKind",
    "merged_by_time",
]

JsonValue: TypeAlias = "str | int | float | bool | list[JsonValue] | dict[str, JsonValue] | None"
"""Everything that an event may carry: plain JSON."""

SchedulerAdmissionEventKind = Literal[
    "scheduler_job_started",
    "scheduler_job_completed",
    "scheduler_health_snapshot",
    "dependency_ready",
    "ready_enqueued",
    "row_group_admitted",
    "row_group_admission_blocked",
    "row_group_admission_target_changed",
    "row_group_checkpointed",
    "selected",
    "queue_empty",
    "admission_blocked",
    "group_capped",
    "request_pressure_advisory_skipped",
    "task_lease_acquired",
    "admission_denied",
    "worker_spawned",
    "worker_spawn_failed",
    "stale_selection",
    "retry_deferred",
    "non_retryable_dropped",
    "cancelled",
    "salvage_redispatched",
    "queue_drained",
    "task_completed",
    "task_lease_released",
    "release_diagnostic",
]
SCHEDULER_EVENT_KINDS: Final[tuple[SchedulerAdmissionEventKind, ...]] = get_args(SchedulerAdmissionEventKind)

RequestAdmissionEventKind = Literal[
    "request_resource_registered",
    "request_effective_cap_changed",
    "request_queue_formed",
    "request_wait_started",
    "request_wait_completed",
    "request_wait_timeout",
    "request_wait_cancelled",
    "request_acquire_denied",
    "request_lease_acquired",
    "model_request_started",
    "model_request_completed",
    "request_queue_drained",
    "request_rate_limited",
    "request_limit_decreased",
    "request_limit_increased",
    "request_soft_ceiling_recovered",
    "request_fully_recovered",
    "request_outage_started",
    "request_trial_started",
    "request_outage_ended",
    "request_lease_released",
    "request_release_diagnostic",
]
REQUEST_EVENT_KINDS: Final[tuple[RequestAdmissionEventKind, ...]] = get_args(RequestAdmissionEventKind)


@attrs.frozen
class SchedulerAdmissionEvent:
    """Something that happened in the scheduler, at `captured_at_monotonic` on the run's clock (seconds).

    `sequence` rises by one per delivered event of this stream. `snapshot` and `diagnostics` hold JSON values only.
    """

    event_kind: SchedulerAdmissionEventKind
    captured_at_monotonic: float
    sequence: int
    captured_correlation: RuntimeCorrelation | None = None
    task_id: str | None = None
    task_execution_id: str | None = None
    task_lease_id: int | None = None
    scheduler_resource_key: str | None = None
    reason_or_result: str | None = None
    snapshot: dict[str, JsonValue] | None = None
    diagnostics: dict[str, JsonValue] = attrs.field(factory=dict[str, JsonValue])


@attrs.frozen
class RequestAdmissionEvent:
    """Something that happened to a request resource, at `captured_at_monotonic` on the run's clock (seconds).

    `sequence` rises by one per delivered event of this stream. `diagnostics` holds JSON values only.
    """

    event_kind: RequestAdmissionEventKind
    captured_at_monotonic: float
    sequence: int
    captured_correlation: RuntimeCorrelation | None = None
    request_attempt_id: str | None = None
    request_lease_id: int | None = None
    request_resource_key: RequestResourceKey | None = None
    request_group_key: RequestResourceKey | None = None
    reason_or_outcome: str | None = None
    pressure_snapshot: RequestPressureSnapshot | None = None
    diagnostics: dict[str, JsonValue] = attrs.field(factory=dict[str, JsonValue])


AdmissionEvent: TypeAlias = SchedulerAdmissionEvent | RequestAdmissionEvent


def merged_by_time(
    scheduler_events: Iterable[SchedulerAdmissionEvent], request_events: Iterable[RequestAdmissionEvent]
) -> Iterator[AdmissionEvent]:
    """The events of both, read one at a time. Of two events of one instant the scheduler's comes first."""
    # By hand: heapq.merge takes four times as long.
    scheduler, request = iter(scheduler_events), iter(request_events)
    one, other = next(scheduler, None), next(request, None)
    while one is not None and other is not None:
        if one.captured_at_monotonic <= other.captured_at_monotonic:
            yield one
            one = next(scheduler, None)
        else:
            yield other
            other = next(request, None)
    if one is not None:
        yield one
        yield from scheduler
    if other is not None:
        yield other
        yield from request

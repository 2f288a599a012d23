"""The scheduler's event stream: one frozen event per transition of queue, task lease, worker and row group."""

from __future__ import annotations

from typing import Final, Literal, get_args

import attrs

from trio_sched._events.json_value import JsonValue
from trio_sched._fast_constructor import fast_constructor
from trio_sched._resources.correlation import RuntimeCorrelation

__all__ = ["SCHEDULER_EVENT_KINDS", "SchedulerAdmissionEvent", "SchedulerAdmissionEventKind", "make_scheduler_event"]

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


@attrs.frozen(weakref_slot=False)
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


make_scheduler_event = fast_constructor(SchedulerAdmissionEvent)
"""Makes one where it is made for every transition."""

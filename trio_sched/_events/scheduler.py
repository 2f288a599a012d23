"""The scheduler's event stream: one frozen event per transition of queue, task lease, worker and row group."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

import attrs

from trio_sched._events.json_value import JsonValue
from trio_sched._fast_constructor import fast_constructor
from trio_sched._resources.identity import RuntimeCorrelation

__all__ = [
    "SCHEDULER_EVENT_KINDS",
    "SchedulerAdmissionEvent",
    "SchedulerAdmissionEventKind",
    "SchedulerEventParts",
    "SchedulerEventSubject",
    "make_scheduler_event",
    "parts_of_scheduler_event",
    "scheduler_event_of",
]

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


@attrs.define(eq=False, weakref_slot=False)
class SchedulerEventSubject:
    """Whom events are about: the fields that all events of one execution, or of one queued task, have in common.

    text: these fields as JSON, as part of an event's object; kept by whoever made it first.
    """

    captured_correlation: RuntimeCorrelation | None = None
    task_id: str | None = None
    task_execution_id: str | None = None
    task_lease_id: int | None = None
    scheduler_resource_key: str | None = None
    text: str = attrs.field(default="", init=False)


SchedulerEventParts: TypeAlias = tuple[
    SchedulerAdmissionEventKind,
    float,
    int,
    SchedulerEventSubject,
    str | None,
    dict[str, JsonValue] | None,
    dict[str, JsonValue] | None,
]
"""An event as its owner tells it: the fields in order, those of the subject as one, None for no diagnostics."""

make_scheduler_event = fast_constructor(SchedulerAdmissionEvent)
"""Makes one where millions are read."""


def scheduler_event_of(parts: SchedulerEventParts) -> SchedulerAdmissionEvent:
    """The event of these parts."""
    kind, at, sequence, subject, reason, snapshot, diagnostics = parts
    return make_scheduler_event(
        kind,
        at,
        sequence,
        subject.captured_correlation,
        subject.task_id,
        subject.task_execution_id,
        subject.task_lease_id,
        subject.scheduler_resource_key,
        reason,
        snapshot,
        {} if diagnostics is None else diagnostics,
    )


def parts_of_scheduler_event(event: SchedulerAdmissionEvent) -> SchedulerEventParts:
    """The parts of an event, with a subject of its own."""
    subject = SchedulerEventSubject(
        event.captured_correlation,
        event.task_id,
        event.task_execution_id,
        event.task_lease_id,
        event.scheduler_resource_key,
    )
    return (
        event.event_kind,
        event.captured_at_monotonic,
        event.sequence,
        subject,
        event.reason_or_result,
        event.snapshot,
        event.diagnostics,
    )

"""The two event streams: one frozen value per transition of the scheduler and of request admission.

This is the only form that an event has: owners build it, sinks take it, files hold it as JSON (`jsonl.py`). Samples,
further down, are what a summary holds in place of most events.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal, TypeAlias, get_args

import attrs

from trio_sched._resources.identity import RequestResourceKey, RuntimeCorrelation
from trio_sched._resources.request import RequestPressureSnapshot

__all__ = [
    "REQUEST_EVENT_KINDS",
    "SCHEDULER_EVENT_KINDS",
    "AdmissionEvent",
    "ColumnSample",
    "DeferralSample",
    "FailureSample",
    "JsonValue",
    "RequestAdmissionEvent",
    "RequestAdmissionEventKind",
    "RequestStatistics",
    "ResourceSample",
    "RunSample",
    "SchedulerAdmissionEvent",
    "SchedulerAdmissionEventKind",
    "SchedulerSample",
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
    "request_endpoint_not_answering",
    "request_endpoint_answering",
    "request_endpoint_closed",
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


# What a summary of the events holds in place of most of them: the state of a run at one instant, as counts. A sample
# is small, whatever is queued. Its defaults are what is there when nothing is, and are left out where it is written.


@attrs.frozen
class ColumnSample:
    """One column: tasks that are queued and that run, since when the oldest of these, and executions so far by result.

    `since` is on the run's clock, in seconds.
    """

    queued: int = 0
    running: int = 0
    since: float | None = None
    results: Mapping[str, int] = attrs.field(factory=dict[str, int])


@attrs.frozen
class DeferralSample:
    """Failed tasks of a column that will run again, of their oldest row group on; `due`: when the first of them may."""

    column: str
    row_group: int
    reason: str
    tasks: int
    due: float


@attrs.frozen
class FailureSample:
    """How many tasks, or rows that tasks named, failed alike so far. final: rows were rejected, else deferred."""

    column: str
    error: str
    reason: str
    final: bool
    tasks: int


@attrs.frozen
class SchedulerSample:
    """The scheduler.

    unfinished: the oldest row group with tasks that are queued, running or deferred, and a column that these are of.
    refusals: heads of the queue by the reason for which they are refused. capped: groups that a cap or a debt holds
    back, with the reason. debt: units by group and resource.
    """

    columns: Mapping[str, ColumnSample] = attrs.field(factory=dict[str, ColumnSample])
    unfinished: tuple[int, str] | None = None
    deferred: tuple[DeferralSample, ...] = ()
    failures: tuple[FailureSample, ...] = ()
    refusals: Mapping[str, int] = attrs.field(factory=dict[str, int])
    capped: Mapping[str, str] = attrs.field(factory=dict[str, str])
    debt: Mapping[str, Mapping[str, int]] = attrs.field(factory=dict[str, dict[str, int]])
    release_diagnostics: Mapping[str, int] = attrs.field(factory=dict[str, int])

    @property
    def finished(self) -> int:
        """Executions so far."""
        return sum(sum(column.results.values()) for column in self.columns.values())


@attrs.define(eq=False)
class RequestStatistics:
    """One request resource over a run. Seconds are of the run's clock.

    attempts: leases granted. outcomes: released leases by outcome. success_seconds: time held by leases that succeeded.
    lowest_limit, last_limit: of the adaptive limit, None while it never changed. probes: how often the limit was raised
    to ask whether the provider accepts more. probes_refused: how often more than was known to be accepted was refused.
    outages: how often the provider refused everything. trials: calls that went out alone to see whether it still does.
    statuses: released leases by the HTTP status that the provider answered with, where it was no success.
    """

    attempts: int = 0
    outcomes: dict[str, int] = attrs.field(factory=dict[str, int])
    success_seconds: float = 0.0
    in_flight: int = 0
    max_in_flight: int = 0
    lowest_limit: int | None = None
    last_limit: int | None = None
    probes: int = 0
    probes_refused: int = 0
    outages: int = 0
    trials: int = 0
    statuses: dict[str, int] = attrs.field(factory=dict[str, int])

    @property
    def was_refused(self) -> bool:
        """Whether the limit was refused when it asked for more, or there was an outage or a trial."""
        return bool(self.probes_refused or self.outages or self.trials)

    @property
    def refused_share(self) -> float:
        """Share of the attempts that the provider refused with a rate limit, from 0 to 1."""
        return self.outcomes.get("rate_limited", 0) / self.attempts if self.attempts else 0.0


@attrs.frozen
class ResourceSample:
    """One request resource: its newest pressure, what was counted, and what `ReplayedResource` says of it.

    oldest: since when the oldest of its leases is out. recent: of its latest calls how many failed, and how many they
    are. change, asked: the cause of a change of the limit, the limit before and after it, and what was asked for.
    not_answering: why its endpoint is not answering, or None.
    """

    pressure: RequestPressureSnapshot
    statistics: RequestStatistics = attrs.field(factory=RequestStatistics)
    static_cap: int | None = None
    rule: str | None = None
    oldest: float | None = None
    hinted_stop: float | None = None
    outage_since: float | None = None
    trial: bool = False
    change: tuple[str, int, int, int] | None = None
    asked: tuple[str, int, int, int] | None = None
    calls: int = 0
    failures: Mapping[str, int] = attrs.field(factory=dict[str, int])
    recent: tuple[int, int] = (0, 0)
    not_answering: str | None = None


@attrs.frozen
class RunSample:
    """Both stages at one instant."""

    scheduler: SchedulerSample
    requests: tuple[ResourceSample, ...] = ()

"""Joins both streams per execution: its timestamps, its model calls, and how its time divides among the layers.

The time of one execution is divided so:

    started_at            dependency_ready   enqueued          lease acquired                            lease released
        |    readiness         |   readiness    | task_admission    | provider / request_admission /          |
        | (or what it waited   |                | or fairness       | cooldown / completion                   |
        |  out as deferred)    |                |                   |                                         |

While it is queued, the time in which one of its stage resources was full is `task_admission`, the rest `fairness`.
While it runs, it is in `provider` as long as any of its calls holds a request lease; else, while any of its calls
waits, in `cooldown` while the resource of the oldest of them is stopped, or in `request_admission`; else it does its
own work, `completion`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import attrs

from trio_sched._events.records import RequestAdmissionEvent, SchedulerAdmissionEvent
from trio_sched._observe.layers import LAYERS, Layer, WaitBreakdown, layer_of_deferral, nanoseconds, seconds
from trio_sched._resources.identity import RequestResourceKey, RuntimeCorrelation

__all__ = ["ColumnWaits", "ExecutionBook", "ExecutionView", "RequestMarks", "TaskMarks", "WaitClocks"]

_FIRST: Final[dict[str, str]] = {
    "request_wait_started": "request_wait_started_at",
    "request_wait_completed": "request_wait_completed_at",
    "request_lease_acquired": "request_lease_acquired_at",
    "model_request_started": "model_request_started_at",
}
_LAST: Final[dict[str, str]] = {
    "model_request_completed": "model_request_completed_at",
    "request_lease_released": "request_lease_released_at",
}
_UNSERVED: Final = frozenset({"request_wait_timeout", "request_wait_cancelled", "request_acquire_denied"})


@attrs.frozen
class TaskMarks:
    """The thirteen timestamps of an execution, in seconds of the run's clock.

    None where it did not get so far, or where the stream that reports it is missing.

    Of several model calls the first says when waiting started and ended, and when a lease was got and a call went out;
    the last says when a call was over and its lease came back.
    """

    dependency_ready_at: float | None = None
    ready_enqueued_at: float | None = None
    selected_at: float | None = None
    task_lease_acquired_at: float | None = None
    worker_spawned_at: float | None = None
    request_wait_started_at: float | None = None
    request_wait_completed_at: float | None = None
    request_lease_acquired_at: float | None = None
    model_request_started_at: float | None = None
    model_request_completed_at: float | None = None
    request_lease_released_at: float | None = None
    task_completed_at: float | None = None
    task_lease_released_at: float | None = None


@attrs.frozen
class RequestMarks:
    """One outbound attempt of an execution, from its wait to the release of its lease. Times as in `TaskMarks`.

    outcome: that of the lease, or why none was given; None while it is under way.
    """

    resource: RequestResourceKey
    request_attempt_id: str | None
    request_lease_id: int | None
    wait_started_at: float | None
    wait_ended_at: float | None
    lease_acquired_at: float | None
    model_request_started_at: float | None
    model_request_completed_at: float | None
    lease_released_at: float | None
    outcome: str | None


@attrs.frozen
class ExecutionView:
    """One execution of a task, with everything that both streams report of it.

    result: `success`, `failed`, `cancelled` and the like; None while it runs. `waits` divides the time from
    `started_at` to `ended_at` among the layers, and sums to it exactly. It starts when the row group was admitted, or
    where the same task failed before, when it was deferred; it ends when the task lease is released.
    """

    task_execution_id: str
    task_id: str | None
    task_lease_id: int | None
    column: str | None
    row_group: int | None
    task_type: str | None
    group_kind: str | None
    result: str | None
    started_at: float
    ended_at: float | None
    marks: TaskMarks
    requests: tuple[RequestMarks, ...]
    waits: WaitBreakdown


@attrs.frozen
class ColumnWaits:
    """All finished executions of one column together. `by_result` counts them by result."""

    executions: int
    by_result: Mapping[str, int]
    waits: WaitBreakdown


class LayerTimes:
    """Nanoseconds by layer, and up to when they are divided."""

    __slots__ = ("by_layer", "since", "until")

    def __init__(self, since: int) -> None:
        self.since = self.until = since
        self.by_layer: dict[Layer, int] = dict.fromkeys(LAYERS, 0)

    def spend(self, until: int, layer: Layer) -> None:
        """The time up to `until` is of `layer`."""
        if until > self.until:
            self.by_layer[layer] += until - self.until
            self.until = until

    def split(self, until: int, layer: Layer, part: int, rest: Layer) -> None:
        """Of the time up to `until`, `part` is of `layer`, and what is left of `rest`."""
        if until > self.until:
            part = max(0, min(part, until - self.until))
            self.by_layer[layer] += part
            self.by_layer[rest] += until - self.until - part
            self.until = until

    def breakdown(self) -> WaitBreakdown:
        """The times so far."""
        return WaitBreakdown(**self.by_layer)


class ReadyTask:
    """A task on its way to a lease. full: what its column's clock of full resources showed when it was enqueued."""

    __slots__ = ("enqueued_at", "full", "ready_at", "selected_at", "times")

    def __init__(self, times: LayerTimes) -> None:
        self.times = times
        self.ready_at: float | None = None
        self.enqueued_at: float | None = None
        self.selected_at: float | None = None
        self.full = 0


@attrs.define(eq=False)
class ModelCall:
    """One outbound attempt so far; the fields are those of `RequestMarks`."""

    resource: RequestResourceKey
    request_attempt_id: str | None
    request_lease_id: int | None
    wait_started_at: float | None = None
    wait_ended_at: float | None = None
    lease_acquired_at: float | None = None
    model_request_started_at: float | None = None
    model_request_completed_at: float | None = None
    lease_released_at: float | None = None
    outcome: str | None = None

    def apply(self, event: RequestAdmissionEvent) -> None:
        """Take in an event of this attempt."""
        at, kind = event.captured_at_monotonic, event.event_kind
        if self.request_lease_id is None:
            self.request_lease_id = event.request_lease_id
        if kind == "request_wait_started":
            self.wait_started_at = at
        elif kind == "request_wait_completed":
            self.wait_ended_at = at
        elif kind in _UNSERVED:
            self.wait_ended_at, self.outcome = at, event.reason_or_outcome or kind
        elif kind == "request_lease_acquired":
            self.lease_acquired_at = at
        elif kind == "model_request_started":
            self.model_request_started_at = at
        elif kind == "model_request_completed":
            self.model_request_completed_at = at
        elif kind == "request_lease_released":
            self.lease_released_at, self.outcome = at, event.reason_or_outcome

    def knows(self, event: RequestAdmissionEvent) -> bool:
        """Whether `event` is of this attempt."""
        attempt, lease_id = event.request_attempt_id, event.request_lease_id
        return (attempt is not None and self.request_attempt_id == attempt) or (
            lease_id is not None and self.request_lease_id == lease_id
        )

    def timestamps(self) -> RequestMarks:
        """The attempt so far."""
        return RequestMarks(*attrs.astuple(self, recurse=False))


class Execution:
    """A task that has, or has had, a lease; without the scheduler's stream one that is known by its calls alone."""

    __slots__ = (
        "_calls",
        "_held",
        "_stopped_before",
        "_waiting",
        "correlation",
        "lease_id",
        "ready",
        "result",
        "task_id",
        "timestamps",
    )

    def __init__(self, correlation: RuntimeCorrelation, ready: ReadyTask) -> None:
        self.correlation = correlation
        self.ready = ready
        self.task_id: str | None = None
        self.lease_id: int | None = None
        self.result: str | None = None
        self.timestamps: dict[str, float] = {}
        self._calls: list[ModelCall] = []
        self._held = 0
        self._waiting: list[RequestResourceKey] = []
        self._stopped_before = 0

    @property
    def times(self) -> LayerTimes:
        """Its time so far, from where the task began to wait."""
        return self.ready.times

    def spend(self, now: int, stopped: Mapping[RequestResourceKey, int]) -> None:
        """The time up to `now` passed in its present state. stopped: the clocks of resources that were stopped."""
        if self._held > 0:
            self.times.spend(now, "provider")
        elif self._waiting:
            clock = stopped.get(self._waiting[0], 0)
            self.times.split(now, "cooldown", clock - self._stopped_before, "request_admission")
            self._stopped_before = clock
        else:
            self.times.spend(now, "completion")

    def request_event(
        self, event: RequestAdmissionEvent, resource: RequestResourceKey, stopped: Mapping[RequestResourceKey, int]
    ) -> None:
        """Take in an event of one of its calls, after the time before it was spent."""
        kind = event.event_kind
        if kind in _FIRST:
            self.timestamps.setdefault(_FIRST[kind], event.captured_at_monotonic)
        elif kind in _LAST:
            self.timestamps[_LAST[kind]] = event.captured_at_monotonic
        if kind == "request_wait_started":
            self._waiting.append(resource)
        elif (kind == "request_wait_completed" or kind in _UNSERVED) and resource in self._waiting:
            self._waiting.remove(resource)
        elif kind == "request_lease_acquired":
            self._held += 1
        elif kind == "request_lease_released":
            self._held -= 1
        if self._waiting:
            self._stopped_before = stopped.get(self._waiting[0], 0)
        call = next((each for each in reversed(self._calls) if each.knows(event)), None)
        if call is None:
            call = ModelCall(resource, event.request_attempt_id, event.request_lease_id)
            self._calls.append(call)
        call.apply(event)

    def view(self, execution_id: str) -> ExecutionView:
        """The execution so far."""
        correlation, ready, times = self.correlation, self.ready, self.times
        released = self.timestamps.get("task_lease_released_at")
        return ExecutionView(
            task_execution_id=execution_id,
            task_id=self.task_id,
            task_lease_id=self.lease_id,
            column=correlation.task_column,
            row_group=correlation.row_group,
            task_type=correlation.task_type,
            group_kind=correlation.scheduling_group_kind,
            result=self.result,
            started_at=seconds(times.since),
            ended_at=seconds(times.until) if released is not None else None,
            marks=TaskMarks(
                dependency_ready_at=ready.ready_at,
                ready_enqueued_at=ready.enqueued_at,
                selected_at=ready.selected_at,
                **self.timestamps,
            ),
            requests=tuple(call.timestamps() for call in self._calls),
            waits=times.breakdown(),
        )


@attrs.define(eq=False)
class WaitClocks:
    """Nanoseconds so far in which tasks of a column waited for a stage resource, and a request resource was stopped."""

    waited: Callable[[str], int]
    stopped: dict[RequestResourceKey, int] = attrs.field(factory=dict[RequestResourceKey, int])


_Sum: TypeAlias = "tuple[dict[str, int], dict[Layer, int]]"
"""Of one column: executions by result, and their nanoseconds by layer."""


class ExecutionBook:
    """Follows every execution of a run. Keeps at most `max_kept` finished ones; the others are only summed up."""

    def __init__(self, clocks: WaitClocks, *, max_kept: int, follows_tasks: bool) -> None:
        self._clocks = clocks
        self._max_kept = max_kept
        self._follows_tasks = follows_tasks
        self._row_groups: dict[int, int] = {}
        self._ready: dict[str, ReadyTask] = {}
        self._open: dict[str, Execution] = {}
        self._closing: list[str] = []
        self._closing_at = 0
        self._kept: list[ExecutionView] = []
        self._sums: dict[str, _Sum] = {}
        self.not_kept = 0
        self.late_request_events = 0

    # Events

    def scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
        """Take in the next scheduler event."""
        now = nanoseconds(event.captured_at_monotonic)
        self._close_before(now)
        correlation, task_id = event.captured_correlation, event.task_id
        if correlation is None:
            return
        match event.event_kind:
            case "row_group_admitted" if correlation.row_group is not None:
                self._row_groups[correlation.row_group] = now
            case "row_group_checkpointed" if correlation.row_group is not None:
                self._row_groups.pop(correlation.row_group, None)
            case "dependency_ready" if task_id is not None:
                ready = self._ready_of(task_id, correlation, now)
                ready.times.spend(now, "readiness")
                ready.ready_at = event.captured_at_monotonic
            case "ready_enqueued" if task_id is not None:
                ready = self._ready_of(task_id, correlation, now)
                ready.times.spend(now, "readiness")
                ready.enqueued_at = event.captured_at_monotonic
                ready.full = self._clocks.waited(correlation.task_column or "")
            case "selected" if task_id is not None:
                self._ready_of(task_id, correlation, now).selected_at = event.captured_at_monotonic
            case "retry_deferred" if task_id is not None:
                self._ready[task_id] = ReadyTask(LayerTimes(now))
            case "salvage_redispatched" if task_id is not None:
                reason = event.reason_or_result or ""
                self._ready_of(task_id, correlation, now).times.spend(now, layer_of_deferral(reason))
            case "cancelled" | "non_retryable_dropped" if event.task_lease_id is None and task_id is not None:
                self._ready.pop(task_id, None)
            case _ if correlation.task_execution_id is not None:
                self._lease_event(event, correlation, correlation.task_execution_id, now)
            case _:
                pass

    def request_event(self, event: RequestAdmissionEvent) -> None:
        """Take in the next request event."""
        now = nanoseconds(event.captured_at_monotonic)
        self._close_before(now)
        correlation, resource = event.captured_correlation, event.request_resource_key
        if correlation is None or correlation.task_execution_id is None or resource is None:
            return
        execution = self._open.get(correlation.task_execution_id)
        if execution is None:
            if self._follows_tasks:
                self.late_request_events += 1
                return
            execution = self._open[correlation.task_execution_id] = Execution(correlation, ReadyTask(LayerTimes(now)))
        execution.spend(now, self._clocks.stopped)
        execution.request_event(event, resource, self._clocks.stopped)

    # Results

    def executions(self) -> tuple[ExecutionView, ...]:
        """The finished executions that were kept, in the order they ended, and then those under way."""
        under_way = tuple(each.view(key) for key, each in self._open.items())
        return (*self._kept, *under_way)

    def columns(self) -> dict[str, ColumnWaits]:
        """All finished executions, summed up by column."""
        closing = {key: self._open[key] for key in self._closing if key in self._open}
        sums = {column: (dict(counts), dict(times)) for column, (counts, times) in self._sums.items()}
        for execution in closing.values():
            _sum_up(sums, execution)
        return {
            column: ColumnWaits(sum(counts.values()), counts, WaitBreakdown(**times))
            for column, (counts, times) in sorted(sums.items())
        }

    # Parts

    def _lease_event(
        self, event: SchedulerAdmissionEvent, correlation: RuntimeCorrelation, execution_id: str, now: int
    ) -> None:
        at, task_id = event.captured_at_monotonic, event.task_id
        if event.event_kind == "task_lease_acquired" and task_id is not None:
            ready = self._ready_of(task_id, correlation, now)
            self._ready.pop(task_id, None)
            full = self._clocks.waited(correlation.task_column or "") - ready.full
            ready.times.split(now, "task_admission", full, "fairness")
            execution = self._open[execution_id] = Execution(correlation, ready)
            execution.task_id, execution.lease_id = task_id, event.task_lease_id
            execution.timestamps["task_lease_acquired_at"] = at
            return
        execution_or_none = self._open.get(execution_id)
        if execution_or_none is None:
            return
        execution = execution_or_none
        execution.spend(now, self._clocks.stopped)
        match event.event_kind:
            case "worker_spawned":
                execution.timestamps["worker_spawned_at"] = at
            case "task_completed":
                execution.timestamps["task_completed_at"] = at
                execution.result = event.reason_or_result
            case "cancelled" | "worker_spawn_failed" | "stale_selection":
                execution.result = event.reason_or_result or event.event_kind
            case "task_lease_released":
                execution.timestamps["task_lease_released_at"] = at
                self._closing.append(execution_id)
                self._closing_at = now
            case _:
                pass

    def _ready_of(self, task_id: str, correlation: RuntimeCorrelation, now: int) -> ReadyTask:
        ready = self._ready.get(task_id)
        if ready is None:
            row_group = correlation.row_group
            since = now if row_group is None else self._row_groups.get(row_group, now)
            ready = self._ready[task_id] = ReadyTask(LayerTimes(since))
        return ready

    def _close_before(self, now: int) -> None:
        """Let go of what ended earlier. Events of the same instant may still come, in any order."""
        if not self._closing or now <= self._closing_at:
            return
        for execution_id in self._closing:
            execution = self._open.pop(execution_id, None)
            if execution is None:
                continue
            _sum_up(self._sums, execution)
            if len(self._kept) < self._max_kept:
                self._kept.append(execution.view(execution_id))
            else:
                self.not_kept += 1
        self._closing.clear()


def _sum_up(sums: dict[str, _Sum], execution: Execution) -> None:
    counts, times = sums.setdefault(execution.correlation.task_column or "", ({}, dict.fromkeys(LAYERS, 0)))
    result = execution.result or "unknown"
    counts[result] = counts.get(result, 0) + 1
    for layer, time in execution.times.by_layer.items():
        times[layer] += time

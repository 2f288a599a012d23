"""Joins both streams per execution: its marks, its model calls, and how its time divides among the layers.

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
from typing import TypeAlias

import attrs

from trio_sched._events.records import RequestAdmissionEvent, SchedulerAdmissionEvent
from trio_sched._observe.execution_state import Execution, LayerTimes, ReadyTask
from trio_sched._observe.limiting import layer_of_deferral
from trio_sched._observe.marks import ExecutionView
from trio_sched._observe.waits import LAYERS, Layer, WaitBreakdown, nanoseconds
from trio_sched._resources.correlation import RuntimeCorrelation
from trio_sched._resources.identity import RequestResourceKey

__all__ = ["ColumnWaits", "ExecutionBook", "WaitClocks"]


@attrs.define(eq=False)
class WaitClocks:
    """Nanoseconds so far in which tasks of a column waited for a stage resource, and in which a request resource was
    stopped.
    """

    waited: Callable[[str], int]
    stopped: dict[RequestResourceKey, int] = attrs.field(factory=dict[RequestResourceKey, int])


@attrs.frozen
class ColumnWaits:
    """All finished executions of one column together. `by_result` counts them by result."""

    executions: int
    by_result: Mapping[str, int]
    waits: WaitBreakdown


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

    # Taking in

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

    # Telling

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
            execution.marks["task_lease_acquired_at"] = at
            return
        execution_or_none = self._open.get(execution_id)
        if execution_or_none is None:
            return
        execution = execution_or_none
        execution.spend(now, self._clocks.stopped)
        match event.event_kind:
            case "worker_spawned":
                execution.marks["worker_spawned_at"] = at
            case "task_completed":
                execution.marks["task_completed_at"] = at
                execution.result = event.reason_or_result
            case "cancelled" | "worker_spawn_failed" | "stale_selection":
                execution.result = event.reason_or_result or event.event_kind
            case "task_lease_released":
                execution.marks["task_lease_released_at"] = at
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

"""Tells the scheduler's event stream what happened; one method per transition, free where nobody listens.

Owners call these after their state change is complete. Each method first asks whether its kind is wanted, so building
an event, and everything that is needed to build it, is paid only by runs that asked for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

import trio

from trio_sched._events.json_value import JsonValue
from trio_sched._events.scheduler import SchedulerAdmissionEvent, SchedulerAdmissionEventKind, make_scheduler_event
from trio_sched._events.sinks import EventStream
from trio_sched._resources.correlation import RuntimeCorrelation, make_correlation
from trio_sched._resources.task import SUBMISSION, SchedulableTask, Task, TaskGroupKey
from trio_sched._task.graph import ExecutionGraph
from trio_sched._task.leases import TaskAdmissionDenyReason, TaskAdmissionLease
from trio_sched._task.resolver import TaskSchedulingResolver

__all__ = ["SchedulerEvents"]

_MOST_REMEMBERED: Final = 1024


class SchedulerEvents:
    """The scheduler's voice on its event stream."""

    def __init__(self, stream: EventStream[SchedulerAdmissionEvent], run_id: str) -> None:
        self._stream = stream
        self._run_id = run_id
        self._wanted = stream.wanted
        self._group_hashes: dict[TaskGroupKey, str] = {}
        self._of_columns: dict[tuple[str, int], RuntimeCorrelation] = {}
        self._labels: dict[str, str] = {}

    def correlation(self, task: Task, group: TaskGroupKey, task_execution_id: str | None) -> RuntimeCorrelation:
        """The correlation of one task, or with an execution id of one execution of it.

        Without one it is the same for all tasks of a column in a row group, and the same object for most of them.
        """
        if task_execution_id is not None:
            return self._new_correlation(task, group, task_execution_id)
        key = (task.column, task.row_group)
        known = self._of_columns.get(key)
        if known is None:
            if len(self._of_columns) >= _MOST_REMEMBERED:
                self._of_columns.clear()
            known = self._of_columns[key] = self._new_correlation(task, group, None)
        return known

    def _new_correlation(self, task: Task, group: TaskGroupKey, task_execution_id: str | None) -> RuntimeCorrelation:
        return make_correlation(
            self._run_id,
            task.row_group,
            task.column,
            task.task_type,
            group.kind,
            self._identity_hash(group),
            task_execution_id,
        )

    def job_started(
        self,
        graph: ExecutionGraph,
        resolver: TaskSchedulingResolver,
        snapshot: dict[str, JsonValue],
        *,
        repays_only_borrowed: bool,
    ) -> None:
        """The run began. Told once: what each column needs, its group and its resources, where the resolver goes on
        with a fallback although a generator's metadata failed, and if so that a lease repays only what it borrowed.
        """
        if "scheduler_job_started" in self._wanted:
            columns: dict[str, JsonValue] = {
                column: {
                    "task_type": graph.nodes[column].task_type,
                    "needs": list(graph.nodes[column].needs),
                    "group": str(resolved.group.key),
                    "group_kind": resolved.group.key.kind,
                    "resources": dict(resolved.resource_request.amounts),
                }
                for column, resolved in resolver.by_column.items()
                if column in graph.nodes
            }
            told: list[JsonValue] = [
                {"columns": list(each.columns), "code": each.code, "fallback": list(each.fallback.identity)}
                for each in resolver.diagnostics
            ]
            diagnostics: dict[str, JsonValue] = {"columns": columns}
            if told:
                diagnostics["metadata_fallbacks"] = told
            if repays_only_borrowed:
                diagnostics["repays_only_borrowed"] = True
            self._emit("scheduler_job_started", snapshot=snapshot, diagnostics=diagnostics)

    def job_completed(self, result: str, snapshot: dict[str, JsonValue]) -> None:
        """The run ended, with nothing left to do or before."""
        if "scheduler_job_completed" in self._wanted:
            self._emit("scheduler_job_completed", reason_or_result=result, snapshot=snapshot)

    def row_group(self, kind: SchedulerAdmissionEventKind, row_group: int, **diagnostics: JsonValue) -> None:
        """A row group was admitted, or is durable."""
        if kind in self._wanted:
            self._emit(
                kind,
                correlation=RuntimeCorrelation(self._run_id, row_group, None, None, None, None, None),
                diagnostics=diagnostics,
            )

    def row_group_abandoned(self, row_group: int) -> None:
        """A row group was cancelled before it was complete; nothing of it is written."""
        if "cancelled" in self._wanted:
            self._emit(
                "cancelled",
                correlation=RuntimeCorrelation(self._run_id, row_group, None, None, None, None, None),
                reason_or_result="row_group_abandoned",
            )

    def row_group_blocked(self, reason: str, *, in_flight: int, admitted_rows: int) -> None:
        """The next row group has to wait."""
        if "row_group_admission_blocked" in self._wanted:
            self._emit(
                "row_group_admission_blocked",
                reason_or_result=reason,
                diagnostics={"in_flight": in_flight, "admitted_rows": admitted_rows},
            )

    def row_group_target_changed(self, target: int) -> None:
        """More row groups may be in flight from now on."""
        if "row_group_admission_target_changed" in self._wanted:
            self._emit("row_group_admission_target_changed", diagnostics={"target": target})

    def health(self, reason: str, snapshot: dict[str, JsonValue], **diagnostics: JsonValue) -> None:
        """How the run stands."""
        if "scheduler_health_snapshot" in self._wanted:
            self._emit("scheduler_health_snapshot", reason_or_result=reason, snapshot=snapshot, diagnostics=diagnostics)

    def release_diagnostic(self, reason: str, count: int) -> None:
        """Task admission noted something about leases given back, `count` times by now."""
        if "release_diagnostic" in self._wanted:
            self._emit("release_diagnostic", reason_or_result=reason, diagnostics={"count": count})

    def group_capped(self, group: str, reason: str) -> None:
        """A group with ready tasks has reached its cap, or its debt holds it back, while others compete with it."""
        if "group_capped" in self._wanted:
            self._emit("group_capped", reason_or_result=reason, diagnostics={"group": group})

    def pressure_advisory_skipped(self, item: SchedulableTask, preferred: SchedulableTask) -> None:
        """A task could run, but its endpoint is under pressure and `preferred` goes first."""
        if "request_pressure_advisory_skipped" in self._wanted:
            self._emit(
                "request_pressure_advisory_skipped",
                task_id=item.task_id,
                scheduler_resource_key=_resource_label(item),
                reason_or_result="request_pressure",
                diagnostics={"preferred_task_id": preferred.task_id},
            )

    def queued(self, kind: SchedulerAdmissionEventKind, item: SchedulableTask, task: Task) -> None:
        """A task became ready, was enqueued, or was selected."""
        if kind in self._wanted:
            # Told of every task, so the event is made here, with its fields in order: both are half the cost.
            column = task.column
            self._stream.deliver(
                make_scheduler_event(
                    kind,
                    trio.current_time(),
                    self._stream.next_sequence(),
                    self._of_columns.get((column, task.row_group)) or self.correlation(task, item.group.key, None),
                    item.task_id,
                    None,
                    None,
                    self._labels.get(column) or self._label(column, item),
                )
            )

    def withdrawn(self, item: SchedulableTask, task: Task) -> None:
        """A task left the queue, or its wait for another run, because nobody needs it any more."""
        if "cancelled" in self._wanted:
            self._emit(
                "cancelled",
                task_id=item.task_id,
                correlation=self.correlation(task, item.group.key, None),
                scheduler_resource_key=_resource_label(item),
                reason_or_result="withdrawn",
            )

    def wants(self, kind: SchedulerAdmissionEventKind) -> bool:
        """Whether anyone listens for `kind`, for events that are costly to prepare."""
        return kind in self._wanted

    def queue_state(
        self,
        kind: SchedulerAdmissionEventKind,
        reasons: Mapping[TaskAdmissionDenyReason, int] | None = None,
        *,
        queued: int = 0,
    ) -> None:
        """The queue drained, or what is queued cannot be admitted now, for the reason that holds back most groups."""
        if kind in self._wanted:
            counts: dict[str, JsonValue] = dict(reasons.items()) if reasons is not None else {}
            reason = max(reasons.items(), key=lambda entry: entry[1])[0] if reasons else None
            self._emit(kind, reason_or_result=reason, diagnostics={**counts, "queued": queued})

    def admission_denied(self, item: SchedulableTask, reason: str) -> None:
        """A selected task was refused."""
        if "admission_denied" in self._wanted:
            self._emit(
                "admission_denied",
                task_id=item.task_id,
                reason_or_result=reason,
                scheduler_resource_key=_resource_label(item),
            )

    def task_lease(
        self,
        kind: SchedulerAdmissionEventKind,
        lease: TaskAdmissionLease,
        correlation: RuntimeCorrelation,
        result: str | None = None,
        diagnostics: dict[str, JsonValue] | None = None,
    ) -> None:
        """Something happened to a task that holds, or has just held, a lease."""
        if kind in self._wanted:
            # As in `queued`.
            item, column = lease.item, correlation.task_column or ""
            self._stream.deliver(
                make_scheduler_event(
                    kind,
                    trio.current_time(),
                    self._stream.next_sequence(),
                    correlation,
                    item.task_id,
                    correlation.task_execution_id,
                    lease.lease_id,
                    self._labels.get(column) or self._label(column, item),
                    result,
                    None,
                    {} if diagnostics is None else diagnostics,
                )
            )

    def task_lease_acquired(self, lease: TaskAdmissionLease, correlation: RuntimeCorrelation) -> None:
        """A lease was granted; what it holds above its group's share is told."""
        borrowed: dict[str, JsonValue] | None = {"borrowed": dict(lease.borrowed)} if lease.borrowed else None
        self.task_lease("task_lease_acquired", lease, correlation, diagnostics=borrowed)

    def task_completed(
        self, lease: TaskAdmissionLease, correlation: RuntimeCorrelation, error: Exception | None
    ) -> None:
        """A worker's generator returned or raised; only the error's type is told."""
        if "task_completed" in self._wanted:
            diagnostics: dict[str, JsonValue] | None = None if error is None else {"error": type(error).__name__}
            self.task_lease("task_completed", lease, correlation, "failed" if error else "success", diagnostics)

    def cancelled(self, lease: TaskAdmissionLease, correlation: RuntimeCorrelation, error: BaseException) -> None:
        """A worker was cancelled, or ended by what ends the whole run."""
        result = "cancelled" if isinstance(error, trio.Cancelled) else type(error).__name__
        self.task_lease("cancelled", lease, correlation, result)

    def stopped(self, lease: TaskAdmissionLease, correlation: RuntimeCorrelation) -> None:
        """A worker was cancelled alone, because its rows were given up while it ran."""
        self.task_lease("cancelled", lease, correlation, "row_given_up")

    def task_lease_released(self, lease: TaskAdmissionLease, correlation: RuntimeCorrelation) -> None:
        """A worker left its lease."""
        self.task_lease("task_lease_released", lease, correlation, "released")

    def failure(
        self,
        kind: SchedulerAdmissionEventKind,
        task: Task,
        task_id: str,
        reason: str,
        error: str | None,
        **diagnostics: JsonValue,
    ) -> None:
        """A task was deferred or given up because of `reason`, or is ready again that was. error: the error's type."""
        if kind in self._wanted:
            if error is not None:
                diagnostics = {"error": error, **diagnostics}
            self._emit(
                kind,
                task_id=task_id,
                correlation=RuntimeCorrelation(
                    self._run_id, task.row_group, task.column, task.task_type, None, None, None
                ),
                reason_or_result=reason,
                diagnostics=diagnostics,
            )

    def _emit(
        self,
        kind: SchedulerAdmissionEventKind,
        *,
        task_id: str | None = None,
        correlation: RuntimeCorrelation | None = None,
        task_lease_id: int | None = None,
        scheduler_resource_key: str | None = None,
        reason_or_result: str | None = None,
        snapshot: dict[str, JsonValue] | None = None,
        diagnostics: dict[str, JsonValue] | None = None,
    ) -> None:
        self._stream.deliver(
            make_scheduler_event(
                kind,
                trio.current_time(),
                self._stream.next_sequence(),
                correlation,
                task_id,
                correlation.task_execution_id if correlation is not None else None,
                task_lease_id,
                scheduler_resource_key,
                reason_or_result,
                snapshot,
                diagnostics if diagnostics is not None else {},
            )
        )

    def _label(self, column: str, item: SchedulableTask) -> str:
        """The resource that events of a column's tasks name; all tasks of a column ask for the same."""
        label = self._labels[column] = _resource_label(item)
        return label

    def _identity_hash(self, group: TaskGroupKey) -> str:
        known = self._group_hashes.get(group)
        if known is None:
            text = "\0".join((group.kind, *group.identity))
            known = self._group_hashes[group] = hashlib.sha256(text.encode()).hexdigest()[:16]
        return known


def _resource_label(item: SchedulableTask) -> str:
    """The most specific stage resource that a task asks for."""
    return next(iter(item.resource_request.competed_for), SUBMISSION)

"""Reports what happened to the scheduler's event stream; one method per transition, free where nobody listens.

Owners call these after their state change is complete. Each method first asks whether its kind is wanted, so building
an event, and everything that is needed to build it, is paid only by runs that asked for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import attrs
import trio

from trio_sched._events.records import JsonValue, SchedulerAdmissionEvent, SchedulerAdmissionEventKind
from trio_sched._events.sinks import SchedulerEventStream
from trio_sched._resources.identity import RuntimeCorrelation
from trio_sched._resources.task import SUBMISSION, SchedulableTask, Task
from trio_sched._task.graph import ExecutionGraph
from trio_sched._task.ledger import TaskAdmissionLease
from trio_sched._task.policies import TaskAdmissionDenyReason
from trio_sched._task.resolver import TaskSchedulingResolver

__all__ = ["SchedulerEventContext", "SchedulerEvents"]

_MOST_REMEMBERED: Final = 1024
_FAILURES: Final = frozenset({"retry_deferred", "non_retryable_dropped"})


@attrs.define(eq=False)
class SchedulerEventContext:
    """What all events of one execution, one failed task, one row group or the run have in common."""

    correlation: RuntimeCorrelation
    task_id: str | None = None
    task_execution_id: str | None = None
    task_lease_id: int | None = None
    scheduler_resource_key: str | None = None


class SchedulerEvents:
    """Reports to the scheduler's event stream, and counts what samples say of the past.

    results: executions that ended, by column and result. failures: tasks, or rows that tasks named, that failed, by
    column, type of error, reason, and whether their rows were rejected.
    """

    def __init__(self, stream: SchedulerEventStream, run_id: str) -> None:
        self._run_id = run_id
        self._the_run = SchedulerEventContext(RuntimeCorrelation(run_id))
        self._handlers = stream.handlers
        self._next_sequence = stream.next_sequence
        self._now: Callable[[], float] = self._now_at_first
        self._of_columns: dict[tuple[str, int], tuple[RuntimeCorrelation, str]] = {}
        self.results: dict[str, dict[str, int]] = {}
        self.failures: dict[tuple[str, str, str, bool], int] = {}

    def execution(self, task: Task, lease: TaskAdmissionLease, attempt: int) -> SchedulerEventContext:
        """The event context of one execution of a task, under a lease."""
        item = lease.item
        column, label = self._of_columns.get((task.column, task.row_group)) or self._of_column(task, item)
        task_execution_id = f"{item.task_id}@{attempt}"
        correlation = RuntimeCorrelation(
            column.run_id,
            column.row_group,
            column.task_column,
            column.task_type,
            column.scheduling_group_kind,
            column.scheduling_group_identity_hash,
            task_execution_id,
        )
        return SchedulerEventContext(correlation, item.task_id, task_execution_id, lease.lease_id, label)

    def _of_column(self, task: Task, item: SchedulableTask) -> tuple[RuntimeCorrelation, str]:
        """What events of all tasks of a column in a row group have in common: the correlation of those that are not
        executed, and the resource that they ask for.
        """
        key = item.group.key
        identity_hash = hashlib.sha256("\0".join((key.kind, *key.identity)).encode()).hexdigest()[:16]
        correlation = RuntimeCorrelation(
            self._run_id, task.row_group, task.column, task.task_type, key.kind, identity_hash, None
        )
        if len(self._of_columns) >= _MOST_REMEMBERED:
            self._of_columns.clear()
        known = self._of_columns[task.column, task.row_group] = (correlation, _resource_label(item))
        return known

    def job_started(
        self,
        graph: ExecutionGraph,
        resolver: TaskSchedulingResolver,
        snapshot: dict[str, JsonValue],
        *,
        repays_only_borrowed: bool,
    ) -> None:
        """The run began. Reported once: what each column needs, its group and its resources, where the resolver goes on
        with a fallback although a generator's metadata failed, and if so that a lease repays only what it borrowed.
        """
        if "scheduler_job_started" in self._handlers:
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
            fallbacks: list[JsonValue] = [
                {"columns": list(each.columns), "code": each.code, "fallback": list(each.fallback.identity)}
                for each in resolver.diagnostics
            ]
            diagnostics: dict[str, JsonValue] = {"columns": columns}
            if fallbacks:
                diagnostics["metadata_fallbacks"] = fallbacks
            if repays_only_borrowed:
                diagnostics["repays_only_borrowed"] = True
            self._emit("scheduler_job_started", snapshot=snapshot, diagnostics=diagnostics)

    def job_completed(self, result: str, snapshot: dict[str, JsonValue]) -> None:
        """The run ended, with nothing left to do or before."""
        if "scheduler_job_completed" in self._handlers:
            self._emit("scheduler_job_completed", reason_or_result=result, snapshot=snapshot)

    def row_group(self, kind: SchedulerAdmissionEventKind, row_group: int, **diagnostics: JsonValue) -> None:
        """A row group was admitted, or is durable."""
        if kind in self._handlers:
            self._emit(
                kind,
                self._row_group(row_group),
                diagnostics=diagnostics,
            )

    def row_group_abandoned(self, row_group: int) -> None:
        """A row group was cancelled before it was complete; nothing of it is written."""
        if "cancelled" in self._handlers:
            self._emit(
                "cancelled",
                self._row_group(row_group),
                reason_or_result="row_group_abandoned",
            )

    def row_group_blocked(self, reason: str, *, in_flight: int, admitted_rows: int) -> None:
        """The next row group has to wait."""
        if "row_group_admission_blocked" in self._handlers:
            self._emit(
                "row_group_admission_blocked",
                reason_or_result=reason,
                diagnostics={"in_flight": in_flight, "admitted_rows": admitted_rows},
            )

    def row_group_target_changed(self, target: int) -> None:
        """More row groups may be in flight from now on."""
        if "row_group_admission_target_changed" in self._handlers:
            self._emit("row_group_admission_target_changed", diagnostics={"target": target})

    def health(self, reason: str, snapshot: dict[str, JsonValue], **diagnostics: JsonValue) -> None:
        """The state of the run."""
        if "scheduler_health_snapshot" in self._handlers:
            self._emit("scheduler_health_snapshot", reason_or_result=reason, snapshot=snapshot, diagnostics=diagnostics)

    def release_diagnostic(self, reason: str, count: int) -> None:
        """Task admission noted something about leases given back, `count` times by now."""
        if "release_diagnostic" in self._handlers:
            self._emit("release_diagnostic", reason_or_result=reason, diagnostics={"count": count})

    def group_capped(self, group: str, reason: str) -> None:
        """A group with ready tasks has reached its cap, or its debt holds it back, while others compete with it."""
        if "group_capped" in self._handlers:
            self._emit("group_capped", reason_or_result=reason, diagnostics={"group": group})

    def pressure_advisory_skipped(self, item: SchedulableTask, preferred: SchedulableTask) -> None:
        """A task could run, but its endpoint is under pressure and `preferred` goes first."""
        handle = self._handlers.get("request_pressure_advisory_skipped")
        if handle is not None:
            facts: dict[str, JsonValue] = {"preferred_task_id": preferred.task_id}
            handle(self._of_task("request_pressure_advisory_skipped", item, "request_pressure", facts))

    def frontier(self, kind: SchedulerAdmissionEventKind, items: Iterable[SchedulableTask]) -> None:
        """Tasks became ready, or were enqueued, at one instant."""
        handle = self._handlers.get(kind)
        if handle is not None:
            at = self._now()
            for item in items:
                handle(self._of_task(kind, item, at=at))

    def selected(self, item: SchedulableTask) -> None:
        """A task is at the head of its group, and its group's turn has come."""
        handle = self._handlers.get("selected")
        if handle is not None:
            handle(self._of_task("selected", item))

    def withdrawn(self, item: SchedulableTask) -> None:
        """A task left the queue, or its wait for another run, because nobody needs it any more."""
        handle = self._handlers.get("cancelled")
        if handle is not None:
            handle(self._of_task("cancelled", item, "withdrawn"))

    def wants(self, kind: SchedulerAdmissionEventKind) -> bool:
        """Whether anyone listens for `kind`, for events that are costly to prepare."""
        return kind in self._handlers

    def queue_state(
        self,
        kind: SchedulerAdmissionEventKind,
        reasons: Mapping[TaskAdmissionDenyReason, int] | None = None,
        *,
        queued: int = 0,
    ) -> None:
        """The queue drained, or what is queued cannot be admitted now, for the reason that holds back most groups."""
        if kind in self._handlers:
            counts: dict[str, JsonValue] = dict(reasons.items()) if reasons is not None else {}
            reason = max(reasons.items(), key=lambda entry: entry[1])[0] if reasons else None
            self._emit(kind, reason_or_result=reason, diagnostics={**counts, "queued": queued})

    def admission_denied(self, item: SchedulableTask, reason: str) -> None:
        """A selected task was refused."""
        handle = self._handlers.get("admission_denied")
        if handle is not None:
            handle(self._of_task("admission_denied", item, reason))

    def task_lease(
        self,
        kind: SchedulerAdmissionEventKind,
        execution: SchedulerEventContext,
        result: str | None = None,
        diagnostics: dict[str, JsonValue] | None = None,
    ) -> None:
        """Something happened to a task that holds, or has just held, a lease."""
        handle = self._handlers.get(kind)
        if handle is not None:
            handle(self._event(kind, execution, result, None, diagnostics))

    def task_lease_acquired(self, lease: TaskAdmissionLease, execution: SchedulerEventContext) -> None:
        """A lease was granted; the event says what it holds above its group's share."""
        borrowed: dict[str, JsonValue] | None = {"borrowed": dict(lease.borrowed)} if lease.borrowed else None
        self.task_lease("task_lease_acquired", execution, diagnostics=borrowed)

    def task_completed(self, execution: SchedulerEventContext, error: Exception | None) -> None:
        """A worker's generator returned or raised; of an error the event says the type only."""
        self._count(execution, "success" if error is None else "failed")
        if error is None:
            self.task_lease("task_completed", execution, "success")
        else:
            self.task_lease("task_completed", execution, "failed", {"error": type(error).__name__})

    def cancelled(self, execution: SchedulerEventContext, error: BaseException) -> None:
        """A worker was cancelled, or ended by what ends the whole run."""
        result = "cancelled" if isinstance(error, trio.Cancelled) else type(error).__name__
        self._count(execution, result)
        self.task_lease("cancelled", execution, result)

    def stopped(self, execution: SchedulerEventContext) -> None:
        """A worker was cancelled alone, because its rows were rejected while it ran."""
        self._count(execution, "row_given_up")
        self.task_lease("cancelled", execution, "row_given_up")

    def task_lease_released(self, execution: SchedulerEventContext) -> None:
        """A worker left its lease."""
        self.task_lease("task_lease_released", execution, "released")

    def failure(
        self,
        kind: SchedulerAdmissionEventKind,
        task: Task,
        task_id: str,
        reason: str,
        error: str | None,
        **diagnostics: JsonValue,
    ) -> None:
        """A task was deferred, or its rows were rejected, for `reason`; or it is ready again. error: its type."""
        if kind in _FAILURES:
            rows = diagnostics.get("rows")
            key = (task.column, error or "unknown", reason, kind == "non_retryable_dropped")
            self.failures[key] = self.failures.get(key, 0) + (rows if isinstance(rows, int) else 1)
        if kind in self._handlers:
            if error is not None:
                diagnostics = {"error": error, **diagnostics}
            self._emit(
                kind,
                SchedulerEventContext(
                    RuntimeCorrelation(self._run_id, task.row_group, task.column, task.task_type),
                    task_id,
                ),
                reason_or_result=reason,
                diagnostics=diagnostics,
            )

    def _of_task(
        self,
        kind: SchedulerAdmissionEventKind,
        item: SchedulableTask,
        reason: str | None = None,
        diagnostics: dict[str, JsonValue] | None = None,
        *,
        at: float | None = None,
    ) -> SchedulerAdmissionEvent:
        """An event of a task that holds no lease, at `at`, now by default."""
        task = item.payload
        assert isinstance(task, Task)
        correlation, label = self._of_columns.get((task.column, task.row_group)) or self._of_column(task, item)
        return SchedulerAdmissionEvent(
            kind,
            self._now() if at is None else at,
            self._next_sequence(),
            correlation,
            item.task_id,
            None,
            None,
            label,
            reason,
            None,
            {} if diagnostics is None else diagnostics,
        )

    def _emit(
        self,
        kind: SchedulerAdmissionEventKind,
        context: SchedulerEventContext | None = None,
        *,
        reason_or_result: str | None = None,
        snapshot: dict[str, JsonValue] | None = None,
        diagnostics: dict[str, JsonValue] | None = None,
    ) -> None:
        self._handlers[kind](self._event(kind, context or self._the_run, reason_or_result, snapshot, diagnostics))

    def _event(
        self,
        kind: SchedulerAdmissionEventKind,
        context: SchedulerEventContext,
        reason_or_result: str | None,
        snapshot: dict[str, JsonValue] | None,
        diagnostics: dict[str, JsonValue] | None,
    ) -> SchedulerAdmissionEvent:
        return SchedulerAdmissionEvent(
            kind,
            self._now(),
            self._next_sequence(),
            context.correlation,
            context.task_id,
            context.task_execution_id,
            context.task_lease_id,
            context.scheduler_resource_key,
            reason_or_result,
            snapshot,
            {} if diagnostics is None else diagnostics,
        )

    def _count(self, execution: SchedulerEventContext, result: str) -> None:
        column = execution.correlation.task_column or ""
        results = self.results.get(column)
        if results is None:
            results = self.results[column] = {}
        results[result] = results.get(result, 0) + 1

    def _now_at_first(self) -> float:
        """The run's clock, which is asked directly from then on."""
        self._now = trio.lowlevel.current_clock().current_time
        return self._now()

    def _row_group(self, row_group: int) -> SchedulerEventContext:
        return SchedulerEventContext(RuntimeCorrelation(self._run_id, row_group))


def _resource_label(item: SchedulableTask) -> str:
    """The most specific stage resource that a task asks for."""
    return next(iter(item.resource_request.competed_for), SUBMISSION)

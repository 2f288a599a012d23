"""Tells the scheduler's event stream what happened; one method per transition, free where nobody listens.

Owners call these after their state change is complete. Each method first asks whether its kind is wanted, so building
an event, and everything that is needed to build it, is paid only by runs that asked for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import trio

from trio_sched._events.json_value import JsonValue
from trio_sched._events.scheduler import SchedulerAdmissionEventKind, SchedulerEventSubject
from trio_sched._events.sinks import SchedulerEventStream
from trio_sched._resources.identity import RuntimeCorrelation, make_correlation
from trio_sched._resources.task import SUBMISSION, SchedulableTask, Task
from trio_sched._task.graph import ExecutionGraph
from trio_sched._task.leases import TaskAdmissionDenyReason, TaskAdmissionLease
from trio_sched._task.resolver import TaskSchedulingResolver

__all__ = ["SchedulerEvents"]

_MOST_REMEMBERED: Final = 1024
_THE_RUN: Final = SchedulerEventSubject()
"""The subject of events about the run as a whole."""


class SchedulerEvents:
    """The scheduler's voice on its event stream."""

    def __init__(self, stream: SchedulerEventStream, run_id: str) -> None:
        self._run_id = run_id
        self._tellers = stream.tellers
        self._next_sequence = stream.next_sequence
        self._now: Callable[[], float] = self._now_at_first
        self._of_columns: dict[tuple[str, int], tuple[RuntimeCorrelation, str]] = {}
        self._queued: dict[str, SchedulerEventSubject] = {}  # by task id, of queued tasks that something was told of

    def execution(self, task: Task, lease: TaskAdmissionLease, attempt: int) -> SchedulerEventSubject:
        """One execution of a task, under a lease: whom its events are about, and its correlation."""
        item = lease.item
        column, label = self._of_columns.get((task.column, task.row_group)) or self._of_column(task, item)
        task_execution_id = f"{item.task_id}@{attempt}"
        if self._queued:
            self._queued.pop(item.task_id, None)
        correlation = make_correlation(
            column.run_id,
            column.row_group,
            column.task_column,
            column.task_type,
            column.scheduling_group_kind,
            column.scheduling_group_identity_hash,
            task_execution_id,
        )
        return SchedulerEventSubject(correlation, item.task_id, task_execution_id, lease.lease_id, label)

    def _unleased(self, item: SchedulableTask) -> SchedulerEventSubject:
        """A task that no lease was granted for."""
        task = item.payload
        assert isinstance(task, Task)
        column, label = self._of_columns.get((task.column, task.row_group)) or self._of_column(task, item)
        return SchedulerEventSubject(column, item.task_id, None, None, label)

    def _of_column(self, task: Task, item: SchedulableTask) -> tuple[RuntimeCorrelation, str]:
        """What events tell of all tasks of a column in a row group: their correlation while none is executed, and the
        resource that they ask for.
        """
        key = item.group.key
        identity_hash = hashlib.sha256("\0".join((key.kind, *key.identity)).encode()).hexdigest()[:16]
        correlation = make_correlation(
            self._run_id, task.row_group, task.column, task.task_type, key.kind, identity_hash, None
        )
        if len(self._of_columns) >= _MOST_REMEMBERED:
            self._of_columns.clear()
        told = self._of_columns[task.column, task.row_group] = (correlation, _resource_label(item))
        return told

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
        if "scheduler_job_started" in self._tellers:
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
        if "scheduler_job_completed" in self._tellers:
            self._emit("scheduler_job_completed", reason_or_result=result, snapshot=snapshot)

    def row_group(self, kind: SchedulerAdmissionEventKind, row_group: int, **diagnostics: JsonValue) -> None:
        """A row group was admitted, or is durable."""
        if kind in self._tellers:
            self._emit(
                kind,
                self._row_group(row_group),
                diagnostics=diagnostics,
            )

    def row_group_abandoned(self, row_group: int) -> None:
        """A row group was cancelled before it was complete; nothing of it is written."""
        if "cancelled" in self._tellers:
            self._emit(
                "cancelled",
                self._row_group(row_group),
                reason_or_result="row_group_abandoned",
            )

    def row_group_blocked(self, reason: str, *, in_flight: int, admitted_rows: int) -> None:
        """The next row group has to wait."""
        if "row_group_admission_blocked" in self._tellers:
            self._emit(
                "row_group_admission_blocked",
                reason_or_result=reason,
                diagnostics={"in_flight": in_flight, "admitted_rows": admitted_rows},
            )

    def row_group_target_changed(self, target: int) -> None:
        """More row groups may be in flight from now on."""
        if "row_group_admission_target_changed" in self._tellers:
            self._emit("row_group_admission_target_changed", diagnostics={"target": target})

    def health(self, reason: str, snapshot: dict[str, JsonValue], **diagnostics: JsonValue) -> None:
        """How the run stands."""
        if "scheduler_health_snapshot" in self._tellers:
            self._emit("scheduler_health_snapshot", reason_or_result=reason, snapshot=snapshot, diagnostics=diagnostics)

    def release_diagnostic(self, reason: str, count: int) -> None:
        """Task admission noted something about leases given back, `count` times by now."""
        if "release_diagnostic" in self._tellers:
            self._emit("release_diagnostic", reason_or_result=reason, diagnostics={"count": count})

    def group_capped(self, group: str, reason: str) -> None:
        """A group with ready tasks has reached its cap, or its debt holds it back, while others compete with it."""
        if "group_capped" in self._tellers:
            self._emit("group_capped", reason_or_result=reason, diagnostics={"group": group})

    def pressure_advisory_skipped(self, item: SchedulableTask, preferred: SchedulableTask) -> None:
        """A task could run, but its endpoint is under pressure and `preferred` goes first."""
        if "request_pressure_advisory_skipped" in self._tellers:
            self._emit(
                "request_pressure_advisory_skipped",
                _refused(item),
                reason_or_result="request_pressure",
                diagnostics={"preferred_task_id": preferred.task_id},
            )

    def frontier(self, kind: SchedulerAdmissionEventKind, items: Iterable[SchedulableTask]) -> None:
        """Tasks became ready, or were enqueued, at one instant."""
        tell = self._tellers.get(kind)
        if tell is not None:
            at = self._now()
            for item in items:
                subject = self._queued.get(item.task_id)
                if subject is None:
                    subject = self._queued[item.task_id] = self._unleased(item)
                tell((kind, at, self._next_sequence(), subject, None, None, None))

    def selected(self, item: SchedulableTask) -> None:
        """A task is at the head of its group, and its group's turn has come."""
        tell = self._tellers.get("selected")
        if tell is not None:
            subject = self._queued.get(item.task_id) or self._unleased(item)
            tell(("selected", self._now(), self._next_sequence(), subject, None, None, None))

    def withdrawn(self, item: SchedulableTask) -> None:
        """A task left the queue, or its wait for another run, because nobody needs it any more."""
        subject = self._queued.pop(item.task_id, None)
        if "cancelled" in self._tellers:
            self._emit("cancelled", subject or self._unleased(item), reason_or_result="withdrawn")

    def wants(self, kind: SchedulerAdmissionEventKind) -> bool:
        """Whether anyone listens for `kind`, for events that are costly to prepare."""
        return kind in self._tellers

    def queue_state(
        self,
        kind: SchedulerAdmissionEventKind,
        reasons: Mapping[TaskAdmissionDenyReason, int] | None = None,
        *,
        queued: int = 0,
    ) -> None:
        """The queue drained, or what is queued cannot be admitted now, for the reason that holds back most groups."""
        if kind in self._tellers:
            counts: dict[str, JsonValue] = dict(reasons.items()) if reasons is not None else {}
            reason = max(reasons.items(), key=lambda entry: entry[1])[0] if reasons else None
            self._emit(kind, reason_or_result=reason, diagnostics={**counts, "queued": queued})

    def admission_denied(self, item: SchedulableTask, reason: str) -> None:
        """A selected task was refused."""
        if "admission_denied" in self._tellers:
            self._emit(
                "admission_denied",
                _refused(item),
                reason_or_result=reason,
            )

    def task_lease(
        self,
        kind: SchedulerAdmissionEventKind,
        execution: SchedulerEventSubject,
        result: str | None = None,
        diagnostics: dict[str, JsonValue] | None = None,
    ) -> None:
        """Something happened to a task that holds, or has just held, a lease."""
        tell = self._tellers.get(kind)
        if tell is not None:
            tell((kind, self._now(), self._next_sequence(), execution, result, None, diagnostics))

    def task_lease_acquired(self, lease: TaskAdmissionLease, execution: SchedulerEventSubject) -> None:
        """A lease was granted; what it holds above its group's share is told."""
        borrowed: dict[str, JsonValue] | None = {"borrowed": dict(lease.borrowed)} if lease.borrowed else None
        self.task_lease("task_lease_acquired", execution, diagnostics=borrowed)

    def task_completed(self, execution: SchedulerEventSubject, error: Exception | None) -> None:
        """A worker's generator returned or raised; only the error's type is told."""
        if error is None:
            self.task_lease("task_completed", execution, "success")
        else:
            self.task_lease("task_completed", execution, "failed", {"error": type(error).__name__})

    def cancelled(self, execution: SchedulerEventSubject, error: BaseException) -> None:
        """A worker was cancelled, or ended by what ends the whole run."""
        result = "cancelled" if isinstance(error, trio.Cancelled) else type(error).__name__
        self.task_lease("cancelled", execution, result)

    def stopped(self, execution: SchedulerEventSubject) -> None:
        """A worker was cancelled alone, because its rows were given up while it ran."""
        self.task_lease("cancelled", execution, "row_given_up")

    def task_lease_released(self, execution: SchedulerEventSubject) -> None:
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
        """A task was deferred or given up because of `reason`, or is ready again that was. error: the error's type."""
        if kind in self._tellers:
            if error is not None:
                diagnostics = {"error": error, **diagnostics}
            self._emit(
                kind,
                SchedulerEventSubject(
                    RuntimeCorrelation(self._run_id, task.row_group, task.column, task.task_type, None, None, None),
                    task_id,
                ),
                reason_or_result=reason,
                diagnostics=diagnostics,
            )

    def _emit(
        self,
        kind: SchedulerAdmissionEventKind,
        subject: SchedulerEventSubject = _THE_RUN,
        *,
        reason_or_result: str | None = None,
        snapshot: dict[str, JsonValue] | None = None,
        diagnostics: dict[str, JsonValue] | None = None,
    ) -> None:
        parts = (kind, self._now(), self._next_sequence(), subject, reason_or_result, snapshot, diagnostics)
        self._tellers[kind](parts)

    def _now_at_first(self) -> float:
        """The run's clock, which is asked directly from then on."""
        self._now = trio.lowlevel.current_clock().current_time
        return self._now()

    def _row_group(self, row_group: int) -> SchedulerEventSubject:
        return SchedulerEventSubject(RuntimeCorrelation(self._run_id, row_group, None, None, None, None, None))


def _refused(item: SchedulableTask) -> SchedulerEventSubject:
    return SchedulerEventSubject(None, item.task_id, scheduler_resource_key=_resource_label(item))


def _resource_label(item: SchedulableTask) -> str:
    """The most specific stage resource that a task asks for."""
    return next(iter(item.resource_request.competed_for), SUBMISSION)

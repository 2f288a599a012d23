"""The run: one loop that is told everything and decides everything.

The scheduler owns control flow and nothing else. Row groups are opened and closed by `RowGroupAdmission`, workers run
by themselves, and both only report. The loop below is the single reader of those reports and the only code that touches
tracker, queue and task admission. It sleeps only in one place, and before it sleeps it has offered every ready task and
started every eligible one. It wakes for a report, when it is told of a raised limit, for the next deferred task, and
when a policy said that it would think again; so it never sleeps while an eligible task and free capacity exist.

A run ends when the plan is exhausted and every row group is durable. It ends early when it is cancelled (from any
thread, `request_cancel`), or with the error of whatever broke: the plan, the store, or the scheduler itself. A
generator that raises breaks nothing; see `retry.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from typing import TypeVar

import attrs
import trio

from trio_sched._capacity import AsyncCapacityObservedMaxima
from trio_sched._errors import TrioSchedError
from trio_sched._events.json_value import JsonValue
from trio_sched._events.scheduler import SchedulerAdmissionEvent
from trio_sched._events.sinks import EventStream
from trio_sched._resources.correlation import RuntimeCorrelation
from trio_sched._resources.task import SchedulerResourceKey, Task, TaskGroupKey, stable_task_id
from trio_sched._scheduler.dispatch import Dispatcher
from trio_sched._scheduler.events import SchedulerEvents
from trio_sched._scheduler.reports import (
    AdmissionChanged,
    PlanExhausted,
    Report,
    RowFiltered,
    RowGroupDurable,
    RowGroupOpened,
    WorkerDone,
)
from trio_sched._scheduler.retry import Failure, FailureClassifier, RetryBook, RetryConfig
from trio_sched._scheduler.row_group_admission import RowGroupAdmission
from trio_sched._scheduler.row_groups import RowGroupPlan, RowGroupStore
from trio_sched._scheduler.snapshot import scheduler_snapshot
from trio_sched._scheduler.worker import TaskRunner, run_worker
from trio_sched._task.completion import CompletionTracker
from trio_sched._task.config import BoundedBorrowTaskAdmissionPolicyConfig, TaskAdmissionConfig
from trio_sched._task.controller import TaskAdmissionController
from trio_sched._task.graph import ExecutionGraph
from trio_sched._task.leases import TaskAdmissionDenyReason, TaskAdmissionLease
from trio_sched._task.resolver import TaskSchedulingResolver
from trio_sched._unwrap import single_error

__all__ = ["AsyncTaskScheduler", "DropCause", "SchedulerResult", "SchedulerStalledError", "default_task_admission"]

K = TypeVar("K", bound=Hashable)


def default_task_admission(resolver: TaskSchedulingResolver, *, submission_capacity: int = 1024) -> TaskAdmissionConfig:
    """The engine's own choice: the stage limits that the generators call for, and bounded borrow between groups."""
    return TaskAdmissionConfig(
        submission_capacity, resolver.resource_limits, bounded_borrow=BoundedBorrowTaskAdmissionPolicyConfig()
    )


class SchedulerStalledError(TrioSchedError):
    """Tasks are queued, none is eligible, and nothing that could change that is under way."""

    def __init__(self, queued: int, reasons: Mapping[TaskAdmissionDenyReason, int]) -> None:
        self.queued = queued
        self.reasons = reasons
        super().__init__(queued, reasons)

    def __str__(self) -> str:
        why = ", ".join(f"{reason} ({count})" for reason, count in self.reasons.items())
        return f"{self.queued} queued tasks can never run: {why}; look at the admission policy and the resource limits"


@attrs.define(eq=False)
class DropCause:
    """Why rows were given up: one per column and error type, with how many rows, and the first error itself."""

    column: str
    error_type: str
    rows: int
    first_error: Exception


@attrs.frozen(eq=False)
class SchedulerResult:
    """What a run came to. `cancelled`: it was stopped by `request_cancel`; what is durable is complete.

    rows: rows that are durable. dropped_rows: rows given up because something failed. filtered_rows: rows that a task
    removed on purpose. No row counts twice.
    """

    row_groups: int
    rows: int
    dropped_rows: int
    filtered_rows: int
    drop_causes: tuple[DropCause, ...]
    first_non_retryable_error: Exception | None
    cancelled: bool


class AsyncTaskScheduler:
    """Runs every task of an `ExecutionGraph` over the row groups of a plan. One object, one run."""

    def __init__(
        self,
        graph: ExecutionGraph,
        resolver: TaskSchedulingResolver,
        runner: TaskRunner,
        plan: RowGroupPlan,
        store: RowGroupStore,
        *,
        admission: TaskAdmissionController | None = None,
        classify: FailureClassifier,
        max_concurrent_row_groups: int = 3,
        retry: RetryConfig | None = None,
        events: EventStream[SchedulerAdmissionEvent] | None = None,
        run_id: str = "run",
    ) -> None:
        if admission is None:
            admission = TaskAdmissionController(default_task_admission(resolver))
        self._runner = runner
        self._admission = admission
        self._graph = graph
        self._resolver = resolver
        self._classify = classify
        self._tracker = CompletionTracker(graph)
        self._events = SchedulerEvents(events if events is not None else EventStream(None, ()), run_id)
        self._retries = RetryBook(retry if retry is not None else RetryConfig())
        self._send, self._receive = trio.open_memory_channel[Report](math.inf)
        self._dispatcher = Dispatcher(
            self._tracker, resolver, admission, self._events, attempt=self._retries.attempt, spawn=self._spawn
        )
        self._row_groups = RowGroupAdmission(
            plan,
            store,
            max_concurrent_row_groups=max_concurrent_row_groups,
            report=self._send.send_nowait,
            living_rows=self._tracker.living_rows,
        )
        self._open: dict[int, RowGroupOpened] = {}
        self._planned: int | None = None
        self._bell_rung = False
        self._blocked = False
        self._think_again_at: float | None = None
        self._started = False
        self._cancel_scope = trio.CancelScope()
        self._cancel: Callable[[], None] = self._cancel_scope.cancel
        self._durable_groups = 0
        self._durable_rows = 0
        self._dropped_rows = 0
        self._filtered_rows = 0
        self._running: set[Task] = set()
        self._max_queued: dict[TaskGroupKey, int] = {}
        self._max_leased: dict[SchedulerResourceKey, int] = {}
        self._drop_causes: dict[tuple[str, str], DropCause] = {}
        self._first_non_retryable_error: Exception | None = None

    def request_cancel(self) -> None:
        """Stop the run soon. May be called from any thread, at any time, any number of times."""
        self._cancel()

    async def run(self) -> SchedulerResult:
        """Run to the end and say what came of it. A single error leaves as itself, not in an exception group."""
        if self._started:
            raise TrioSchedError("an AsyncTaskScheduler runs once; make a new one for another run")
        self._started = True
        token = trio.lowlevel.current_trio_token()
        self._cancel = lambda: token.run_sync_soon(self._cancel_scope.cancel, idempotent=True)
        self._events.job_started(self._graph, self._resolver, self._snapshot())
        result = "failed"
        try:
            with single_error(), self._cancel_scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._row_groups.run, nursery, name="row group admission")
                    await self._loop()
            result = "cancelled" if self._cancel_scope.cancelled_caught else "completed"
        except trio.Cancelled:
            result = "cancelled"
            raise
        finally:
            self._cancel = self._cancel_scope.cancel
            self._admission.shutdown()
            self._events.job_completed(result, self._snapshot())
        return SchedulerResult(
            row_groups=self._durable_groups,
            rows=self._durable_rows,
            dropped_rows=self._dropped_rows,
            filtered_rows=self._filtered_rows,
            drop_causes=tuple(self._drop_causes.values()),
            first_non_retryable_error=self._first_non_retryable_error,
            cancelled=self._cancel_scope.cancelled_caught,
        )

    def living_rows(self, row_group: int) -> tuple[int, ...]:
        """Row indices of an open row group that were not given up, ascending."""
        return self._tracker.living_rows(row_group)

    def observed_maxima(self) -> AsyncCapacityObservedMaxima:
        """The most of each of the scheduler's own capacities that was ever in use at once; the rest is left empty."""
        return AsyncCapacityObservedMaxima(
            row_groups_in_flight=self._row_groups.max_in_flight,
            queued_tasks_by_group={str(group): count for group, count in self._max_queued.items()},
            task_leases_by_resource=dict(self._max_leased),
        )

    def admission_changed(self) -> None:
        """Look again: task admission may take what it refused, because a limit was raised from outside."""
        if not self._bell_rung:
            self._bell_rung = True
            self._send.send_nowait(AdmissionChanged())

    def _snapshot(self) -> dict[str, JsonValue]:
        return scheduler_snapshot(self._dispatcher.queue.view(), self._admission.view())

    @trio.lowlevel.enable_ki_protection
    async def _loop(self) -> None:
        while self._durable_groups != self._planned:
            await self._wait_for_report()
            # A run that is coming down has closed its row groups' nurseries: nothing may be started any more.
            await trio.lowlevel.checkpoint_if_cancelled()
            for deferral in self._retries.take_due(trio.current_time()):
                self._tracker.reopen(deferral.task)
                self._events.failure(
                    "salvage_redispatched", deferral.task, stable_task_id(deferral.task), deferral.reason, ""
                )
            self._dispatcher.offer_ready()
            _keep_maxima(self._max_queued, self._dispatcher.queue.view().queued_by_group)
            self._dispatcher.dispatch()
            _keep_maxima(self._max_leased, self._admission.view().leased_resources)
            self._note_what_is_left()

    async def _wait_for_report(self) -> None:
        """Wait for a report or the next deferred task, then take in every report there is."""
        times = [time for time in (self._retries.next_due(), self._think_again_at) if time is not None]
        reports: list[Report] = []
        with trio.move_on_at(min(times, default=math.inf)):
            reports.append(await self._receive.receive())
        with suppress(trio.WouldBlock):
            while True:
                reports.append(self._receive.receive_nowait())
        for report in reports:
            self._take(report)

    def _take(self, report: Report) -> None:
        match report:
            case WorkerDone():
                self._take_worker(report)
            case RowGroupOpened():
                row_group = report.row_group
                self._open[row_group.index] = report
                self._tracker.open_row_group(row_group.index, row_group.size)
                self._events.row_group("row_group_admitted", row_group.index, size=row_group.size)
            case RowGroupDurable():
                index = report.row_group.index
                living = len(self._tracker.living_rows(index))
                self._tracker.mark_durable(index)
                del self._open[index]
                self._durable_groups += 1
                self._durable_rows += living
                self._events.row_group("row_group_checkpointed", index, rows=living)
            case PlanExhausted():
                self._planned = report.row_groups
            case AdmissionChanged():
                self._bell_rung = False

    def _take_worker(self, done: WorkerDone) -> None:
        task = done.task
        self._running.remove(task)
        for drop in done.row_drops:
            self._drop_row(task, drop.row_index, None if isinstance(drop, RowFiltered) else drop.error)
        if done.error is None:
            self._retries.forget(task)
            self._tracker.mark_complete(task)
        else:
            self._take_failure(task, done.error)
        if self._tracker.is_complete(task.row_group):
            self._open[task.row_group].complete.set()

    def _take_failure(self, task: Task, error: Exception) -> None:
        if self._tracker.is_needless(task):
            self._retries.forget(task)
            self._tracker.mark_ended(task)
            return
        failure = _unprotected(self._classify, error)
        if failure.kind == "fatal":
            raise error
        task_id = stable_task_id(task)
        deferral = self._retries.defer(task, failure, trio.current_time())
        if deferral is not None:
            self._events.failure(
                "retry_deferred", task, task_id, failure.reason, type(error).__name__, due_monotonic=deferral.due
            )
            return
        if failure.kind == "non_retryable" and self._first_non_retryable_error is None:
            self._first_non_retryable_error = error
        self._events.failure("non_retryable_dropped", task, task_id, failure.reason, type(error).__name__)
        rows = self._tracker.living_rows(task.row_group) if task.row_index is None else (task.row_index,)
        for row in rows:
            self._drop_row(task, row, error)

    def _drop_row(self, task: Task, row_index: int, error: Exception | None) -> None:
        """Give up a row that `task` could not make; with no error, one that it removed on purpose."""
        if self._tracker.is_dropped(task.row_group, row_index):
            return
        for removed in self._tracker.drop_row(task.row_group, row_index).removed:
            self._dispatcher.withdraw(stable_task_id(removed))
            if self._retries.forget(removed):
                self._events.withdrawn(self._resolver.schedulable(removed), removed)
            if removed not in self._running:
                self._tracker.mark_ended(removed)
        if error is None:
            self._filtered_rows += 1
            return
        self._dropped_rows += 1
        key = (task.column, type(error).__name__)
        cause = self._drop_causes.get(key)
        if cause is None:
            self._drop_causes[key] = DropCause(task.column, type(error).__name__, 1, error)
        else:
            cause.rows += 1

    def _spawn(self, task: Task, attempt: int, lease: TaskAdmissionLease, correlation: RuntimeCorrelation) -> None:
        self._running.add(task)
        self._open[task.row_group].nursery.start_soon(
            run_worker,
            self._runner,
            task,
            attempt,
            lease,
            correlation,
            self._events,
            self._send.send_nowait,
            name=f"{stable_task_id(task)}@{attempt}",
        )

    def _note_what_is_left(self) -> None:
        """Say when the queue becomes blocked or empty, note when to think again, and refuse to wait for nothing."""
        queue = self._dispatcher.queue
        was_blocked, self._blocked = self._blocked, len(queue) > 0
        self._think_again_at = None
        if not self._blocked:
            if was_blocked:
                self._events.queue_state("queue_drained")
            return
        idle = not self._admission.view().leased_resources and not len(self._retries)
        newly_blocked = not was_blocked and self._events.wants("admission_blocked")
        if not idle and not newly_blocked and self._admission.standings is not None:
            return
        summary = self._admission.explain_blocked(queue.view())
        self._think_again_at = summary.available_after
        if newly_blocked:
            self._events.queue_state("admission_blocked", summary.dominant_denial_reasons, queued=len(queue))
        if idle and summary.available_after is None:
            raise SchedulerStalledError(len(queue), summary.dominant_denial_reasons)


@trio.lowlevel.disable_ki_protection
def _unprotected(classify: FailureClassifier, error: Exception) -> Failure:
    return classify(error)


def _keep_maxima(maxima: dict[K, int], counts: Mapping[K, int]) -> None:
    for key, count in counts.items():
        if count > maxima.get(key, 0):
            maxima[key] = count

"""The run: one loop to which everything is reported and which decides everything.

The scheduler owns control flow and nothing else. Row groups are opened and closed by `RowGroupAdmission`, workers run
by themselves, and both only report. The loop below is the single reader of those reports, and no other code touches
tracker, queue and task admission but what it calls. It sleeps only in one place, and before it sleeps it has offered
every ready task and started every eligible one. It wakes for a report, for a raised limit (`admission_changed`), for
the next deferred task, and when a policy said that it would think again; so it never sleeps while an eligible task and
free capacity exist.

A run ends when the plan is exhausted and every row group is durable. It ends early when it is cancelled (from any
thread, `request_cancel`), when too many rows fail or an endpoint is gone (`open_row_groups.py`), or with the error of
whatever broke: the plan, the store, or the scheduler itself. A generator that raises breaks nothing; see `retry.py`.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from contextlib import suppress

import attrs
import trio

from trio_sched import _validation as check
from trio_sched._capacity import AsyncCapacityObservedMaxima
from trio_sched._errors import TrioSchedError
from trio_sched._events.records import JsonValue, SchedulerSample
from trio_sched._events.sinks import SchedulerEventStream, scheduler_event_stream
from trio_sched._request.pressure import RequestPressureSnapshotProvider
from trio_sched._resources.task import SUBMISSION
from trio_sched._scheduler.advisory import PressureAdvisory
from trio_sched._scheduler.context import SchedulerContext
from trio_sched._scheduler.dispatch import Dispatcher
from trio_sched._scheduler.events import SchedulerEvents
from trio_sched._scheduler.foreign_cancel import ForeignCancellationError
from trio_sched._scheduler.health import EarlyStop, HealthConfig, HealthMonitor
from trio_sched._scheduler.messages import (
    AdmissionChanged,
    NoProgress,
    PlanExhausted,
    Report,
    RowGroupAbandoned,
    RowGroupDurable,
    RowGroupOpened,
    RowGroupPlan,
    RowGroupStore,
    WorkerDone,
)
from trio_sched._scheduler.open_row_groups import OpenRowGroups
from trio_sched._scheduler.outcomes import DropCause, TaskOutcomes
from trio_sched._scheduler.retry import FailureClassifier, RetryBook, RetryConfig
from trio_sched._scheduler.row_group_admission import RowGroupAdmission, RowGroupConfig
from trio_sched._scheduler.snapshot import release_diagnostics, scheduler_sample, scheduler_snapshot
from trio_sched._scheduler.stall import StallWatch
from trio_sched._scheduler.worker import TaskRunner, Workers
from trio_sched._task.bounded_borrow import BoundedBorrowTaskAdmissionPolicyConfig, repays_only_borrowed
from trio_sched._task.controller import TaskAdmissionConfig, TaskAdmissionController
from trio_sched._task.graph import ExecutionGraph
from trio_sched._task.resolver import TaskSchedulingResolver
from trio_sched._util import single_error

__all__ = ["AsyncTaskScheduler", "SchedulerConfig", "SchedulerResult", "default_task_admission"]

logger = logging.getLogger("trio_sched.scheduler")


def default_task_admission(resolver: TaskSchedulingResolver, *, submission_capacity: int = 1024) -> TaskAdmissionConfig:
    """The engine's own choice: the stage limits that the generators call for, and bounded borrow between groups."""
    return TaskAdmissionConfig(
        submission_capacity, resolver.resource_limits, bounded_borrow=BoundedBorrowTaskAdmissionPolicyConfig()
    )


@attrs.frozen
class SchedulerConfig:
    """no_progress_seconds: how long nothing at all may happen before the run fails, or None for no bound.

    A cooldown that request admission knows the end of, and a deferred task that is due later, do not count as nothing.
    """

    row_groups: RowGroupConfig = attrs.field(factory=RowGroupConfig)
    retry: RetryConfig = attrs.field(factory=RetryConfig)
    health: HealthConfig = attrs.field(factory=HealthConfig)
    no_progress_seconds: float | None = attrs.field(default=1800.0, validator=check.optional_positive_finite)


@attrs.frozen(eq=False)
class SchedulerResult:
    """What a run came to.

    row_groups, rows: those that are durable. dropped_rows: rejected in durable row groups because something failed, as
    drop_causes says. filtered_rows: removed there by a task on purpose. No row counts twice. cancelled: it was stopped
    by `request_cancel`. early_stop: why it stopped before its plan ended, if it did by itself.
    abandoned_row_groups: those that an early stop left unwritten; like those that were never begun, they can still be
    made by another run.
    """

    row_groups: int
    rows: int
    dropped_rows: int
    filtered_rows: int
    drop_causes: tuple[DropCause, ...]
    first_non_retryable_error: Exception | None
    cancelled: bool
    early_stop: EarlyStop | None = None
    abandoned_row_groups: int = 0


class AsyncTaskScheduler:
    """Runs every task of an `ExecutionGraph` over the row groups of a plan. One object, one run.

    pressure: what request admission shows of itself; with it, tasks whose endpoint has room are preferred.
    """

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
        config: SchedulerConfig | None = None,
        pressure: RequestPressureSnapshotProvider | None = None,
        events: SchedulerEventStream | None = None,
        run_id: str = "run",
    ) -> None:
        config = SchedulerConfig() if config is None else config
        if admission is None:
            admission = TaskAdmissionController(default_task_admission(resolver))
        self._send, self._receive = trio.open_memory_channel[Report](math.inf)
        self._context = context = SchedulerContext(
            graph=graph,
            resolver=resolver,
            admission=admission,
            classify=classify,
            pressure=pressure,
            events=SchedulerEvents(events if events is not None else scheduler_event_stream(None), run_id),
            retries=RetryBook(config.retry),
            health=HealthMonitor(config.health),
            report=self._send.send_nowait,
        )
        self._workers = Workers(context, runner)
        advisory = None
        if pressure is not None and _endpoints_differ(resolver):
            advisory = PressureAdvisory(admission, pressure, context.events)
        self._dispatcher = Dispatcher(context, self._workers, advisory)
        self._outcomes = TaskOutcomes(context, self._workers)
        self._row_groups = RowGroupAdmission(context, plan, store, config.row_groups)
        self._open = OpenRowGroups(context, self._row_groups, self._workers, self._outcomes)
        self._stall = StallWatch(context, self._open, self._workers, config.no_progress_seconds)
        self._reports: deque[Report] = deque()
        self._is_bell_rung = False
        self._cancel_scope = trio.CancelScope()
        self._cancel_requested = False
        self._token: trio.lowlevel.TrioToken | None = None
        self._reported_releases: dict[str, int] = {}

    def request_cancel(self) -> None:
        """Stop the run soon. May be called from any thread, at any time, any number of times."""
        self._cancel_requested = True
        token = self._token
        if token is not None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(self._cancel_scope.cancel, idempotent=True)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> SchedulerResult:
        """Run to the end and say what came of it. A single error leaves as itself, not in an exception group.

        Task leases that are still held then are named in a warning, with the tasks that hold them.
        """
        if self._token is not None:
            raise TrioSchedError("an AsyncTaskScheduler runs once; make a new one for another run")
        # In this order: whoever asks for the end after the question below finds the token.
        self._token = trio.lowlevel.current_trio_token()
        if self._cancel_requested:
            self._cancel_scope.cancel()
        context = self._context
        context.events.job_started(
            context.graph,
            context.resolver,
            self._snapshot(),
            repays_only_borrowed=repays_only_borrowed(context.admission.policy),
        )
        result = "failed"
        try:
            with single_error(), self._cancel_scope:
                await self._run_to_end()
            result = "completed" if self._open.early_stop is None else "stopped"
            if self._cancel_scope.cancelled_caught:
                result = "cancelled"
        except trio.Cancelled:
            result = "cancelled"
            raise
        except KeyboardInterrupt:
            result = "interrupted"
            raise
        finally:
            self._take_late_writes()
            context.admission.shutdown()
            self._report_releases()
            context.events.job_completed(result, self._snapshot())
            if leaks := context.admission.leak_report():
                logger.warning("Task leases not released at the end of the run: %s", "; ".join(map(str, leaks)))
        drops = self._outcomes.drops
        return SchedulerResult(
            row_groups=self._open.durable,
            rows=self._open.durable_rows,
            dropped_rows=drops.dropped_rows,
            filtered_rows=drops.filtered_rows,
            drop_causes=drops.causes,
            first_non_retryable_error=drops.first_non_retryable_error,
            cancelled=self._cancel_scope.cancelled_caught,
            early_stop=self._open.early_stop,
            abandoned_row_groups=self._open.abandoned,
        )

    def living_rows(self, row_group: int) -> tuple[int, ...]:
        """Indices of the active rows of an open row group, which are those not dropped, ascending."""
        return self._context.tracker.living_rows(row_group)

    def sample(self) -> SchedulerSample:
        """The state of the run now, as counts. May be called between any two steps of the run."""
        context = self._context
        columns = {
            column: resolved.group.key
            for column, resolved in context.resolver.by_column.items()
            if column in context.graph.nodes
        }
        return scheduler_sample(
            columns,
            context.events,
            context.queue.view(),
            context.admission,
            self._workers,
            context.retries.deferred(),
        )

    def observed_maxima(self) -> AsyncCapacityObservedMaxima:
        """The most of each of the scheduler's own capacities that was ever in use at once; the rest is left empty."""
        return AsyncCapacityObservedMaxima(
            row_groups_in_flight=self._row_groups.max_in_flight,
            queued_tasks_by_group={str(group): count for group, count in self._dispatcher.most_queued.items()},
            task_leases_by_resource=dict(self._dispatcher.most_leased),
            hidden_scheduler_resource_waiters=(
                {SUBMISSION: self._workers.most_waiting} if self._workers.most_waiting else {}
            ),
        )

    @property
    def row_group_admission(self) -> RowGroupAdmission:
        """How row groups are admitted: the target now, and why they had to wait. For reading only."""
        return self._row_groups

    def admission_changed(self) -> None:
        """Look again: task admission may take what it refused, because a limit was raised from outside."""
        if not self._is_bell_rung:
            self._is_bell_rung = True
            self._send.send_nowait(AdmissionChanged())

    async def _run_to_end(self) -> None:
        # A plan that starts nothing still meets a request to cancel.
        await trio.lowlevel.checkpoint()
        async with trio.open_nursery() as nursery:
            watching = trio.CancelScope()
            self._stall.last_progress = trio.current_time()
            nursery.start_soon(self._row_groups.run, nursery, name="row group admission")
            nursery.start_soon(self._watch, watching, name="no-progress guard")
            await self._loop()
            watching.cancel()
        if not self._open.are_done:
            raise ForeignCancellationError(None)

    async def _watch(self, scope: trio.CancelScope) -> None:
        with scope:
            await self._stall.watch()

    async def _loop(self) -> None:
        while not self._open.are_done:
            await self._wait_for_reports()
            # A run that is coming down has closed its row groups' nurseries: nothing may be started any more.
            await trio.lowlevel.checkpoint_if_cancelled()
            now = self._stall.last_progress = trio.current_time()
            while self._reports:
                self._take(self._reports.popleft())
            self._outcomes.run_again(now)
            self._dispatcher.offer_ready()
            self._context.retries.budget.first_attempts(self._dispatcher.dispatch())
            self._before_sleep(now)

    async def _wait_for_reports(self) -> None:
        """Fetch every report there is; if there is none, wait for one, or for the next deferred task."""
        self._fetch_reports()
        if not self._reports:
            self._workers.note_sleep()
            due, again = self._context.retries.next_due(trio.current_time()), self._stall.think_again_at
            with trio.move_on_at(min((time for time in (due, again) if time is not None), default=math.inf)):
                self._reports.append(await self._receive.receive())
            self._fetch_reports()

    def _fetch_reports(self) -> None:
        with suppress(trio.WouldBlock):
            while True:
                self._reports.append(self._receive.receive_nowait())

    def _take_late_writes(self) -> None:
        """A row group that was written while the run came down is durable all the same."""
        self._fetch_reports()
        for report in self._reports:
            if isinstance(report, RowGroupDurable):
                self._open.take_durable(report)

    def _take(self, report: Report) -> None:
        match report:
            case WorkerDone():
                if self._open.take_worker(report):
                    self._context.events.health("degraded", self._snapshot())
            case RowGroupOpened():
                self._open.take_opened(report)
            case RowGroupDurable():
                self._open.take_durable(report)
            case RowGroupAbandoned():
                self._open.take_abandoned(report)
            case PlanExhausted():
                self._open.take_plan_exhausted(report)
            case AdmissionChanged():
                self._is_bell_rung = False
            case NoProgress():
                self._stall.check(trio.current_time())

    def _before_sleep(self, now: float) -> None:
        context = self._context
        self._stall.before_sleep(now)
        if self._row_groups.target.is_adaptive:
            has_free_capacity = context.admission.view().resources_available[SUBMISSION] > 0
            self._row_groups.consider_growth(queued=len(context.queue), has_free_capacity=has_free_capacity)
        self._report_releases()
        if context.events.wants("scheduler_health_snapshot") and context.health.is_snapshot_due(now):
            context.events.health(
                "interval", self._snapshot(), running=len(self._workers), deferred=len(context.retries)
            )

    def _report_releases(self) -> None:
        events = self._context.events
        if not events.wants("release_diagnostic"):
            return
        counts = release_diagnostics(self._context.admission)
        if counts != self._reported_releases:
            for reason, count in counts.items():
                if count != self._reported_releases.get(reason):
                    events.release_diagnostic(reason, count)
            self._reported_releases = counts

    def _snapshot(self) -> dict[str, JsonValue]:
        return scheduler_snapshot(self._context.queue.view(), self._context.admission)


def _endpoints_differ(resolver: TaskSchedulingResolver) -> bool:
    """Whether there is anything to prefer: tasks of more than one endpoint, or of one and of none."""
    return len({resolved.request_resource_key for resolved in resolver.by_column.values()}) > 1

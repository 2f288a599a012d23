"""The run: one loop that is told everything and decides everything.

The scheduler owns control flow and nothing else. Row groups are opened and closed by `RowGroupAdmission`, workers run
by themselves, and both only report. The loop below is the single reader of those reports and the only code that touches
tracker, queue and task admission. It sleeps only in one place, and before it sleeps it has offered every ready task and
started every eligible one. It wakes for a report, when it is told of a raised limit, for the next deferred task, and
when a policy said that it would think again; so it never sleeps while an eligible task and free capacity exist.

A run ends when the plan is exhausted and every row group is durable. It ends early when it is cancelled (from any
thread, `request_cancel`), when too many attempts fail (`open_row_groups.py`), or with the error of whatever broke: the
plan, the store, or the scheduler itself. A generator that raises breaks nothing; see `retry.py`.
"""

from __future__ import annotations

import math
from collections import deque
from contextlib import suppress

import trio

from trio_sched._capacity import AsyncCapacityObservedMaxima
from trio_sched._errors import TrioSchedError
from trio_sched._events.json_value import JsonValue
from trio_sched._events.scheduler import SchedulerEventSubject
from trio_sched._events.sinks import SchedulerEventStream, scheduler_event_stream
from trio_sched._request.pressure import RequestPressureSnapshotProvider
from trio_sched._resources.task import SUBMISSION, Task
from trio_sched._scheduler.advisory import PressureAdvisory
from trio_sched._scheduler.config import SchedulerConfig
from trio_sched._scheduler.dispatch import Dispatcher
from trio_sched._scheduler.events import SchedulerEvents
from trio_sched._scheduler.foreign_cancel import ForeignCancellationError
from trio_sched._scheduler.health import HealthMonitor
from trio_sched._scheduler.open_row_groups import OpenRowGroups
from trio_sched._scheduler.outcomes import TaskOutcomes
from trio_sched._scheduler.reports import (
    AdmissionChanged,
    NothingMoved,
    PlanExhausted,
    Report,
    RowGroupAbandoned,
    RowGroupDurable,
    RowGroupOpened,
    WorkerDone,
)
from trio_sched._scheduler.result import SchedulerResult
from trio_sched._scheduler.retry import FailureClassifier, RetryBook
from trio_sched._scheduler.row_group_admission import RowGroupAdmission
from trio_sched._scheduler.row_groups import RowGroupPlan, RowGroupStore
from trio_sched._scheduler.snapshot import release_diagnostics, scheduler_snapshot
from trio_sched._scheduler.standstill import Standstill
from trio_sched._scheduler.worker import TaskRunner, Workers
from trio_sched._task.bounded_borrow import repays_only_borrowed
from trio_sched._task.completion import CompletionTracker
from trio_sched._task.config import BoundedBorrowTaskAdmissionPolicyConfig, TaskAdmissionConfig
from trio_sched._task.controller import TaskAdmissionController
from trio_sched._task.graph import ExecutionGraph
from trio_sched._task.leases import TaskAdmissionLease
from trio_sched._task.resolver import TaskSchedulingResolver
from trio_sched._util import single_error

__all__ = ["AsyncTaskScheduler", "default_task_admission"]


def default_task_admission(resolver: TaskSchedulingResolver, *, submission_capacity: int = 1024) -> TaskAdmissionConfig:
    """The engine's own choice: the stage limits that the generators call for, and bounded borrow between groups."""
    return TaskAdmissionConfig(
        submission_capacity, resolver.resource_limits, bounded_borrow=BoundedBorrowTaskAdmissionPolicyConfig()
    )


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
        self._admission = admission
        self._graph = graph
        self._resolver = resolver
        self._events = SchedulerEvents(events if events is not None else scheduler_event_stream(None), run_id)
        self._send, self._receive = trio.open_memory_channel[Report](math.inf)
        self._tracker = CompletionTracker(graph)
        self._retries = RetryBook(config.retry)
        self._health = HealthMonitor(config.health)
        self._workers = Workers(graph, runner, self._events, self._send.send_nowait)
        advisory = None
        if pressure is not None and _endpoints_differ(resolver):
            advisory = PressureAdvisory(admission, pressure, self._events)
        self._dispatcher = Dispatcher(
            self._tracker,
            resolver,
            admission,
            self._events,
            attempt=self._retries.attempt,
            spawn=self._spawn,
            advisory=advisory,
        )
        self._outcomes = TaskOutcomes(
            self._tracker,
            resolver,
            self._dispatcher,
            self._workers,
            self._retries,
            self._health,
            self._events,
            classify,
        )
        self._row_groups = RowGroupAdmission(
            plan,
            store,
            config.row_groups,
            events=self._events,
            report=self._send.send_nowait,
            living_rows=self._tracker.living_rows,
        )
        self._open = OpenRowGroups(
            self._tracker,
            self._row_groups,
            self._workers,
            self._outcomes,
            self._retries,
            self._health,
            self._events,
        )
        self._standstill = Standstill(
            self._dispatcher.queue,
            admission,
            self._retries,
            self._events,
            self._open,
            pressure,
            config.no_progress_seconds,
        )
        self._reports: deque[Report] = deque()
        self._bell_rung = False
        self._cancel_scope = trio.CancelScope()
        self._cancel_requested = False
        self._token: trio.lowlevel.TrioToken | None = None
        self._told_releases: dict[str, int] = {}

    def request_cancel(self) -> None:
        """Stop the run soon. May be called from any thread, at any time, any number of times."""
        self._cancel_requested = True
        token = self._token
        if token is not None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(self._cancel_scope.cancel, idempotent=True)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> SchedulerResult:
        """Run to the end and say what came of it. A single error leaves as itself, not in an exception group."""
        if self._token is not None:
            raise TrioSchedError("an AsyncTaskScheduler runs once; make a new one for another run")
        # In this order: whoever asks for the end after the question below finds the token.
        self._token = trio.lowlevel.current_trio_token()
        if self._cancel_requested:
            self._cancel_scope.cancel()
        self._events.job_started(
            self._graph,
            self._resolver,
            self._snapshot(),
            repays_only_borrowed=repays_only_borrowed(self._admission.policy),
        )
        result = "failed"
        try:
            with single_error(), self._cancel_scope:
                await self._run_to_the_end()
            result = "completed" if self._open.early_stop is None else "stopped_early"
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
            self._admission.shutdown()
            if self._events.wants("release_diagnostic"):
                self._tell_releases()
            self._events.job_completed(result, self._snapshot())
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
        """Row indices of an open row group that were not given up, ascending."""
        return self._tracker.living_rows(row_group)

    def observed_maxima(self) -> AsyncCapacityObservedMaxima:
        """The most of each of the scheduler's own capacities that was ever in use at once; the rest is left empty."""
        peaks = self._dispatcher.peaks
        return AsyncCapacityObservedMaxima(
            row_groups_in_flight=self._row_groups.max_in_flight,
            queued_tasks_by_group={str(group): count for group, count in peaks.queued.items()},
            task_leases_by_resource=dict(peaks.leased),
        )

    @property
    def row_group_admission(self) -> RowGroupAdmission:
        """How row groups are admitted: the target now, and why they had to wait. For reading only."""
        return self._row_groups

    def admission_changed(self) -> None:
        """Look again: task admission may take what it refused, because a limit was raised from outside."""
        if not self._bell_rung:
            self._bell_rung = True
            self._send.send_nowait(AdmissionChanged())

    async def _run_to_the_end(self) -> None:
        # A plan that starts nothing still meets a request to cancel.
        await trio.lowlevel.checkpoint()
        async with trio.open_nursery() as nursery:
            watching = trio.CancelScope()
            self._standstill.last_progress = trio.current_time()
            nursery.start_soon(self._row_groups.run, nursery, name="row group admission")
            nursery.start_soon(self._watch, watching, name="no-progress guard")
            await self._loop()
            watching.cancel()
        if not self._open.are_done:
            raise ForeignCancellationError(None)

    async def _watch(self, scope: trio.CancelScope) -> None:
        with scope:
            await self._standstill.watch(self._send.send_nowait)

    async def _loop(self) -> None:
        while not self._open.are_done:
            await self._wait_for_reports()
            # A run that is coming down has closed its row groups' nurseries: nothing may be started any more.
            await trio.lowlevel.checkpoint_if_cancelled()
            now = self._standstill.last_progress = trio.current_time()
            while self._reports:
                self._take(self._reports.popleft())
            self._outcomes.run_again(now)
            self._dispatcher.offer_ready()
            self._retries.budget.first_attempts(self._dispatcher.dispatch())
            self._before_sleep(now)

    async def _wait_for_reports(self) -> None:
        """Fetch every report there is; if there is none, wait for one, or for the next deferred task."""
        self._fetch_reports()
        if not self._reports:
            due, again = self._retries.next_due(trio.current_time()), self._standstill.think_again_at
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
                    self._events.health("degraded", self._snapshot())
            case RowGroupOpened():
                self._open.take_opened(report)
            case RowGroupDurable():
                self._open.take_durable(report)
            case RowGroupAbandoned():
                self._open.take_abandoned(report)
            case PlanExhausted():
                self._open.take_plan_exhausted(report)
            case AdmissionChanged():
                self._bell_rung = False
            case NothingMoved():
                self._standstill.check(trio.current_time())

    def _spawn(self, task: Task, lease: TaskAdmissionLease, execution: SchedulerEventSubject) -> None:
        self._workers.start(self._open.nursery(task.row_group), task, lease, execution)

    def _before_sleep(self, now: float) -> None:
        self._standstill.before_sleep(now)
        if self._row_groups.target.is_adaptive:
            free = self._admission.view().resources_available[SUBMISSION] > 0
            self._row_groups.consider_growth(queued=len(self._dispatcher.queue), has_free_capacity=free)
        if self._events.wants("release_diagnostic"):
            self._tell_releases()
        if self._events.wants("scheduler_health_snapshot") and self._health.is_snapshot_due(now):
            self._events.health("interval", self._snapshot(), running=len(self._workers), deferred=len(self._retries))

    def _tell_releases(self) -> None:
        counts = release_diagnostics(self._admission)
        if counts != self._told_releases:
            for reason, count in counts.items():
                if count != self._told_releases.get(reason):
                    self._events.release_diagnostic(reason, count)
            self._told_releases = counts

    def _snapshot(self) -> dict[str, JsonValue]:
        return scheduler_snapshot(self._dispatcher.queue.view(), self._admission)


def _endpoints_differ(resolver: TaskSchedulingResolver) -> bool:
    """Whether there is anything to prefer: tasks of more than one endpoint, or of one and of none."""
    return len({resolved.request_resource_key for resolved in resolver.by_column.values()}) > 1

"""What follows from the end of a task: its cells are done, it waits and runs again, or its rows are given up.

A row that is given up takes everything of it along: what is ready of it leaves the queue, what is deferred is
forgotten, what runs is stopped. A running task of it still reports, and its report then changes nothing. The task's
turn at an ordered node is only passed on when nobody runs it any more.
"""

from __future__ import annotations

import trio

from trio_sched._resources.task import Task, stable_task_id
from trio_sched._scheduler.dispatch import Dispatcher
from trio_sched._scheduler.drops import DropLedger
from trio_sched._scheduler.events import SchedulerEvents
from trio_sched._scheduler.health import HealthMonitor
from trio_sched._scheduler.reports import RowFiltered, WorkerDone
from trio_sched._scheduler.retry import Failure, FailureClassifier, RetryBook
from trio_sched._scheduler.worker import Workers
from trio_sched._task.completion import CompletionTracker
from trio_sched._task.resolver import TaskSchedulingResolver

__all__ = ["TaskOutcomes"]


class TaskOutcomes:
    """Takes in how tasks ended. drops: the rows given up so far."""

    def __init__(
        self,
        tracker: CompletionTracker,
        resolver: TaskSchedulingResolver,
        dispatcher: Dispatcher,
        workers: Workers,
        retries: RetryBook,
        health: HealthMonitor,
        events: SchedulerEvents,
        classify: FailureClassifier,
    ) -> None:
        self._tracker = tracker
        self._resolver = resolver
        self._dispatcher = dispatcher
        self._workers = workers
        self._retries = retries
        self._health = health
        self._events = events
        self._classify = classify
        self.drops = DropLedger()

    def take(self, done: WorkerDone) -> bool:
        """Take in one report; whether it showed trouble that is to be told. Raises the error of a fatal failure."""
        task = done.task
        self._workers.ended(task)
        if done.row_drops:
            self._take_row_drops(done)
        if done.error is not None:
            return self._take_failure(task, done.error)
        self._retries.forget(task)
        if done.stopped:
            self._tracker.mark_ended(task)
            return False
        in_trouble = self._note_health(done)
        self._tracker.mark_complete(task)
        return in_trouble

    def run_again(self, now: float) -> None:
        """Make those deferred tasks ready again that may run now."""
        for deferral in self._retries.take_due(now):
            task = deferral.task
            self._tracker.reopen(task)
            self._events.failure("salvage_redispatched", task, stable_task_id(task), deferral.reason, None)

    def abandon(self, row_group: int) -> None:
        """Forget everything of a row group that will not be finished; its workers are cancelled by its owner."""
        self._tracker.abandon(row_group)
        self.drops.forget(row_group)
        self._dispatcher.withdraw_row_group(row_group)
        for deferral in self._retries.deferred():
            if deferral.task.row_group == row_group:
                self._forget_deferred(deferral.task)

    def _take_row_drops(self, done: WorkerDone) -> None:
        failed: dict[tuple[str, str], int] = {}
        for drop in done.row_drops:
            if isinstance(drop, RowFiltered):
                self._drop_row(done.task, drop.row_index, None)
                continue
            self.drops.note_non_retryable(drop.error)
            if self._drop_row(done.task, drop.row_index, drop.error):
                cause = (_unprotected(self._classify, drop.error).reason, type(drop.error).__name__)
                failed[cause] = failed.get(cause, 0) + 1
        for (reason, error), rows in failed.items():
            self._events.failure(
                "non_retryable_dropped", done.task, stable_task_id(done.task), reason, error, rows=rows
            )

    def _note_health(self, done: WorkerDone) -> bool:
        """A task that failed every row it had left has failed, although it named them one by one."""
        error = next((drop.error for drop in done.row_drops if not isinstance(drop, RowFiltered)), None)
        if error is None or not self._tracker.is_needless(done.task):
            self._health.succeeded()
            return False
        failure = _unprotected(self._classify, error)
        return self._health.failed(failure.kind, done.task.column, failure.reason, trio.current_time())

    def _take_failure(self, task: Task, error: Exception) -> bool:
        if self._tracker.is_needless(task):
            self._retries.forget(task)
            self._tracker.mark_ended(task)
            return False
        failure = _unprotected(self._classify, error)
        if failure.kind == "fatal":
            raise error
        now = trio.current_time()
        in_trouble = self._health.failed(failure.kind, task.column, failure.reason, now)
        task_id = stable_task_id(task)
        deferral = self._retries.defer(task, failure, now)
        if deferral is not None:
            self._events.failure(
                "retry_deferred", task, task_id, failure.reason, type(error).__name__, due_monotonic=deferral.due
            )
            return in_trouble
        if failure.kind == "non_retryable":
            self.drops.note_non_retryable(error)
        self._events.failure("non_retryable_dropped", task, task_id, failure.reason, type(error).__name__)
        rows = self._tracker.living_rows(task.row_group) if task.row_index is None else (task.row_index,)
        for row in rows:
            self._drop_row(task, row, error)
        return in_trouble

    def _drop_row(self, task: Task, row_index: int, error: Exception | None) -> bool:
        """Give up a row that `task` could not make; with no error, one that it removed on purpose.

        False if it was given up before.
        """
        if self._tracker.is_dropped(task.row_group, row_index):
            return False
        for removed in self._tracker.drop_row(task.row_group, row_index).removed:
            if not self._workers.stop(removed):
                self._dispatcher.withdraw(removed)
                self._forget_deferred(removed)
                self._tracker.mark_ended(removed)
        self.drops.count(task.column, task.row_group, error)
        return True

    def _forget_deferred(self, task: Task) -> None:
        if self._retries.forget(task):
            self._events.withdrawn(self._resolver.schedulable(task))


@trio.lowlevel.disable_ki_protection
def _unprotected(classify: FailureClassifier, error: Exception) -> Failure:
    return classify(error)

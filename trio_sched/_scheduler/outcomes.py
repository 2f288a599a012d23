"""What follows from the end of a task: its cells are done, it waits and runs again, or its rows are rejected.

A rejected row takes everything of it along: what is ready of it leaves the queue, what is deferred is dropped, what
runs is stopped. A running task of it still reports, and its report then changes nothing. The task's place in an ordered
sequence is only passed on when nobody runs it any more. Rows are counted by column and error type, with the first error
of each.
"""

from __future__ import annotations

import attrs
import trio

from trio_sched._resources.task import SchedulableTask, Task, stable_task_id
from trio_sched._scheduler.context import SchedulerContext, task_of
from trio_sched._scheduler.messages import RowFiltered, WorkerDone
from trio_sched._scheduler.retry import Failure, FailureClassifier
from trio_sched._scheduler.worker import Workers

__all__ = ["DropCause", "DropLedger", "TaskOutcomes"]


@attrs.define(eq=False)
class DropCause:
    """Why rows were rejected: one per column and error type, with how many rows, and the first error itself."""

    column: str
    error_type: str
    rows: int
    first_error: Exception


@attrs.define(eq=False)
class _OpenDrops:
    """What was dropped in one row group that is not durable."""

    filtered: int = 0
    causes: dict[tuple[str, str], DropCause] = attrs.field(factory=dict[tuple[str, str], DropCause])


@attrs.define(eq=False)
class DropLedger:
    """Counts each dropped row of durable row groups once, by cause. filtered_rows: removed on purpose, no failure.

    Until a row group is durable its rows are kept apart: those of one that is never written can still be made.
    """

    dropped_rows: int = attrs.field(default=0, init=False)
    filtered_rows: int = attrs.field(default=0, init=False)
    first_non_retryable_error: Exception | None = attrs.field(default=None, init=False)
    _open: dict[int, _OpenDrops] = attrs.field(factory=dict[int, _OpenDrops], init=False)
    _causes: dict[tuple[str, str], DropCause] = attrs.field(factory=dict[tuple[str, str], DropCause], init=False)

    @property
    def causes(self) -> tuple[DropCause, ...]:
        """The causes, in the order in which their first row groups became durable."""
        return tuple(self._causes.values())

    def has_failed_row(self, row_group: int) -> bool:
        """Whether a row of an open row group was rejected because something failed."""
        held = self._open.get(row_group)
        return held is not None and bool(held.causes)

    def note_non_retryable(self, error: Exception) -> None:
        """A failure that no further attempt could mend; the first one is kept."""
        if self.first_non_retryable_error is None:
            self.first_non_retryable_error = error

    def take_durable(self, row_group: int) -> int:
        """A row group is durable, so what was dropped in it counts. How many of its rows were removed on purpose."""
        held = self._open.pop(row_group, None)
        if held is None:
            return 0
        self.filtered_rows += held.filtered
        for key, cause in held.causes.items():
            self.dropped_rows += cause.rows
            counted = self._causes.setdefault(key, cause)
            if counted is not cause:
                counted.rows += cause.rows
        return held.filtered

    def forget(self, row_group: int) -> None:
        """A row group is abandoned: nothing of it counts."""
        self._open.pop(row_group, None)

    def count(self, column: str, row_group: int, error: Exception | None) -> None:
        """One more row was rejected because of `error`, or with None removed on purpose."""
        held = self._open.setdefault(row_group, _OpenDrops())
        if error is None:
            held.filtered += 1
            return
        error_type = type(error).__name__
        cause = held.causes.setdefault((column, error_type), DropCause(column, error_type, 0, error))
        cause.rows += 1


class TaskOutcomes:
    """Takes in how tasks ended. drops: the rows dropped so far. settles: whether a failed row may be rejected yet."""

    def __init__(self, context: SchedulerContext, workers: Workers) -> None:
        self._tracker = context.tracker
        self._resolver = context.resolver
        self._queue = context.queue
        self._retries = context.retries
        self._health = context.health
        self._events = context.events
        self._classify = context.classify
        self._workers = workers
        self.drops = DropLedger()
        self.settles = True
        self._unsettled: tuple[Failure, Exception] | None = None

    def take(self, done: WorkerDone) -> bool:
        """Take in one report; whether it showed trouble that is to be reported. Raises the error of a fatal failure."""
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

    def judge(self, error: Exception) -> Failure:
        """What an error means."""
        return _unprotected(self._classify, error)

    def take_unsettled(self) -> tuple[Failure, Exception] | None:
        """The failure because of which the row group of the task taken in last cannot be finished; None without one."""
        unsettled, self._unsettled = self._unsettled, None
        return unsettled

    def run_again(self, now: float) -> None:
        """Make those deferred tasks ready again that may run now."""
        for deferral in self._retries.take_due(now):
            task = deferral.task
            self._tracker.reopen(task)
            self._events.failure("salvage_redispatched", task, stable_task_id(task), deferral.reason, None)

    def abandon(self, row_group: int, *, cancels: bool) -> None:
        """Drop everything of a row group that will not be finished. cancels: whether what runs of it is stopped."""
        self._workers.leave_row_group(row_group, cancels=cancels)
        self._tracker.abandon(row_group)
        self.drops.forget(row_group)
        self._withdraw_row_group(row_group)
        for deferral in self._retries.deferred():
            if deferral.task.row_group == row_group:
                self._forget_deferred(deferral.task)

    def _take_row_drops(self, done: WorkerDone) -> None:
        failed: dict[tuple[str, str], int] = {}
        for drop in done.row_drops:
            if isinstance(drop, RowFiltered):
                self._drop_row(done.task, drop.row_index, None)
                continue
            if not self.settles:
                self._unsettled = (_unprotected(self._classify, drop.error), drop.error)
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
        if not done.row_drops:
            self._health.succeeded()
            return False
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
        if failure.kind == "unsettled":
            self._unsettled = (failure, error)
            return False
        now = trio.current_time()
        in_trouble = self._health.failed(failure.kind, task.column, failure.reason, now)
        task_id = stable_task_id(task)
        deferral = self._retries.defer(task, failure, now)
        if deferral is not None:
            self._events.failure(
                "retry_deferred", task, task_id, failure.reason, type(error).__name__, due_monotonic=deferral.due
            )
            return in_trouble
        if not self.settles:
            self._unsettled = (failure, error)
            return in_trouble
        if failure.kind == "non_retryable":
            self.drops.note_non_retryable(error)
        self._events.failure("non_retryable_dropped", task, task_id, failure.reason, type(error).__name__)
        rows = self._tracker.living_rows(task.row_group) if task.row_index is None else (task.row_index,)
        for row in rows:
            self._drop_row(task, row, error)
        return in_trouble

    def _drop_row(self, task: Task, row_index: int, error: Exception | None) -> bool:
        """Drop a row that `task` could not make; with no error, one that it removed on purpose.

        False if it was dropped before.
        """
        if self._tracker.is_dropped(task.row_group, row_index):
            return False
        for removed in self._tracker.drop_row(task.row_group, row_index).removed:
            if not self._workers.stop(removed):
                self._withdraw(removed)
                self._forget_deferred(removed)
                self._tracker.mark_ended(removed)
        self.drops.count(task.column, task.row_group, error)
        if error is not None:
            self._health.rejected(task.row_group, row_index)
        return True

    def _withdraw(self, task: Task) -> None:
        """Take a task out of the queue if it is there."""
        if self._queue.discard(stable_task_id(task)):
            self._events.withdrawn(self._resolver.schedulable(task))

    def _withdraw_row_group(self, row_group: int) -> None:
        """Take all tasks of a row group out of the queue."""
        withdrawn: list[SchedulableTask] = []

        def belongs(item: SchedulableTask) -> bool:
            if task_of(item).row_group != row_group:
                return False
            withdrawn.append(item)
            return True

        self._queue.discard_where(belongs)
        for item in withdrawn:
            self._events.withdrawn(item)

    def _forget_deferred(self, task: Task) -> None:
        if self._retries.forget(task):
            self._events.withdrawn(self._resolver.schedulable(task))


@trio.lowlevel.disable_ki_protection
def _unprotected(classify: FailureClassifier, error: Exception) -> Failure:
    return classify(error)

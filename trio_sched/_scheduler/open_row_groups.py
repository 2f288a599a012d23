"""The row groups in flight, as the loop sees them: open, complete, durable, or abandoned.

After too many failures no row group is admitted any more. Row groups without a single finished row are abandoned:
cancelled, not written, and free to be made by another run. The others go on, without further salvage rounds, so that
what is finished in them is kept; but no further row is rejected, so one in which another row fails is abandoned too.
Where a node is ordered, an open row group that follows an abandoned one is abandoned too, since it would be made
without its predecessor.

A row that cannot be made now, since its endpoint does not answer or is closed, is not settled either. Its row group is
abandoned, and no other is admitted. What can be made without that endpoint is completed.

A row group that lost its last row to a failure has nothing to keep, and to write it is to settle that its rows are
never made. So it is *held*, without a slot, while its failures are among those by which the run may stop: until as many
attempts as are judged have ended after them, or nothing else is left to do. Then it is written. Each of them had a
failed attempt, so no more are held than attempts are judged.
"""

from __future__ import annotations

from trio_sched._scheduler.context import SchedulerContext
from trio_sched._scheduler.health import EarlyStop, StopReason
from trio_sched._scheduler.messages import (
    PlanExhausted,
    RowFailure,
    RowGroupAbandoned,
    RowGroupDurable,
    RowGroupOpened,
    WorkerDone,
)
from trio_sched._scheduler.outcomes import TaskOutcomes
from trio_sched._scheduler.retry import Failure
from trio_sched._scheduler.row_group_admission import RowGroupAdmission
from trio_sched._scheduler.worker import Workers

__all__ = ["OpenRowGroups"]


class OpenRowGroups:
    """Opens, completes, holds and abandons row groups."""

    def __init__(
        self, context: SchedulerContext, admission: RowGroupAdmission, workers: Workers, outcomes: TaskOutcomes
    ) -> None:
        self._tracker = context.tracker
        self._retries = context.retries
        self._health = context.health
        self._events = context.events
        self._admission = admission
        self._workers = workers
        self._outcomes = outcomes
        self._open: dict[int, RowGroupOpened] = {}
        self._held: dict[int, int] = {}
        """At how many attempts each row group without an active row is written."""
        self._planned: int | None = None
        self.durable = 0
        self.durable_rows = 0
        self.abandoned = 0
        self._admits_none = False
        self.early_stop: EarlyStop | None = None

    @property
    def are_done(self) -> bool:
        """Whether every row group of the plan is durable or abandoned."""
        return self.durable + self.abandoned == self._planned

    def take_opened(self, opened: RowGroupOpened) -> None:
        """A row group was admitted; its roots become ready."""
        row_group = opened.row_group
        self._open[row_group.index] = opened
        self._workers.open_row_group(row_group.index, opened.nursery)
        self._tracker.open_row_group(row_group.index, row_group.size)
        self._health.opened(row_group.index, row_group.size)
        self._admission.target.opened(row_group.index)
        self._events.row_group("row_group_admitted", row_group.index, size=row_group.size)
        if self._admits_none:
            self._abandon(row_group.index)

    def take_worker(self, done: WorkerDone) -> bool:
        """A task ended; whether that showed trouble that is to be reported."""
        index = done.task.row_group
        opened = self._open.get(index)
        if opened is None:
            self._look_for_cause(done)
            return False
        in_trouble = self._outcomes.take(done)
        self._admission.target.task_ended(index)
        unsettled = self._outcomes.take_unsettled()
        if unsettled is not None:
            failure, error = unsettled
            if self.early_stop is None or _says_more(error, self.early_stop.last_error):
                self.early_stop = _stop_of(failure, error)
            if not failure.admits_more:
                self._admits_none = True
                self._admission.stop_admitting()
            self._abandon_with_followers(index, drains=True)
            return in_trouble
        if self._tracker.is_complete(index):
            self._take_complete(index, opened)
        if (done.error is not None or done.row_drops) and self.early_stop is None:
            self.early_stop = self._health.early_stop(_error_of(done))
            if self.early_stop is not None:
                self._stop_early()
        if self._held:
            self._write_held()
        return in_trouble

    def take_plan_exhausted(self, report: PlanExhausted) -> None:
        """No row group will be admitted any more."""
        self._planned = report.row_groups
        self._write_held()

    def take_durable(self, report: RowGroupDurable) -> None:
        """A row group is written; all that is remembered of it is which rows were dropped."""
        index = report.row_group.index
        rows = len(self._tracker.living_rows(index))
        self._tracker.mark_durable(index)
        self._workers.close_row_group(index)
        del self._open[index]
        self._health.closed(index)
        self.durable += 1
        self.durable_rows += rows
        filtered = self._outcomes.drops.take_durable(index)
        self._events.row_group("row_group_checkpointed", index, rows=rows, filtered=filtered)
        self._write_held()

    def take_abandoned(self, report: RowGroupAbandoned) -> None:
        """The last worker of an abandoned row group has ended. Raises if it was cancelled by somebody else."""
        index = report.row_group.index
        if index in self._open:
            raise self._workers.strays.error(index, self._open[index].row_group.start)
        self._workers.close_row_group(index)
        self.abandoned += 1
        self._events.row_group_abandoned(index)
        self._write_held()

    def listed(self, *, complete: bool) -> tuple[int, ...]:
        """The open row groups whose rows are all finished, or those where some are not."""
        return tuple(index for index, opened in self._open.items() if opened.complete.is_set() is complete)

    def _look_for_cause(self, done: WorkerDone) -> None:
        """The task whose row group was abandoned already may know best why the run stops."""
        stop, error = self.early_stop, done.error
        if stop is not None and stop.reason != "error_rate" and error is not None and error.__cause__ is not None:
            failure = self._outcomes.judge(error)
            if failure.kind == "unsettled" and _says_more(error, stop.last_error):
                self.early_stop = _stop_of(failure, error)

    def _take_complete(self, index: int, opened: RowGroupOpened) -> None:
        if index in self._held or opened.complete.is_set():
            return
        until = self._health.judged_until
        is_lost = not self._tracker.has_living_row(index) and self._outcomes.drops.has_failed_row(index)
        if not is_lost or until is None:
            opened.complete.set()
        elif self.early_stop is not None:
            self._abandon(index)
        else:
            self._held[index] = until
            self._admission.release_slot(index)

    def _write_held(self) -> None:
        nothing_else = self.durable + self.abandoned + len(self._held) == self._planned
        for index, until in tuple(self._held.items()):
            if self._health.attempts < until and not nothing_else:
                break  # Those that were held later wait for longer.
            del self._held[index]
            self._open[index].complete.set()

    def _stop_early(self) -> None:
        self._admits_none = True
        self._admission.stop_admitting()
        self._retries.stop_salvage()
        self._outcomes.settles = False
        for index in self.listed(complete=False):
            if index in self._open and not self._tracker.has_finished_row(index):
                self._abandon_with_followers(index)

    def _abandon_with_followers(self, row_group: int, *, drains: bool = False) -> None:
        """Abandon a row group, and where a node is ordered those that follow it. drains: what runs of it may end."""
        followers = self.listed(complete=False) if self._tracker.is_ordered else ()
        self._abandon(row_group, drains=drains)
        for index in followers:
            if index > row_group and index in self._open:
                self._abandon(index)

    def _abandon(self, row_group: int, *, drains: bool = False) -> None:
        opened = self._open.pop(row_group)
        if drains:
            opened.abandoned.set()
            opened.complete.set()
        self._held.pop(row_group, None)
        self._health.closed(row_group)
        self._outcomes.abandon(row_group, cancels=not drains)


def _stop_of(failure: Failure, error: Exception) -> EarlyStop:
    reason: StopReason = "endpoint_closed" if failure.reason == "endpoint_closed" else "endpoint_not_answering"
    return EarlyStop(reason, str(error), error)


def _says_more(error: Exception, than: Exception | None) -> bool:
    """Whether `error` has the provider's own error as its cause, and the other one has not."""
    return than is None or (than.__cause__ is None and error.__cause__ is not None)


def _error_of(done: WorkerDone) -> Exception | None:
    if done.error is not None:
        return done.error
    return next((drop.error for drop in done.row_drops if isinstance(drop, RowFailure)), None)

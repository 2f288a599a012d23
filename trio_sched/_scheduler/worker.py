"""One admitted task, from its first step to its report.

A worker is started by the dispatcher right after commit, in its row group's nursery, and owns its lease from its first
step: a task that a nursery has started always runs to its first checkpoint, so the `with lease` block is always
entered and always left; the worker's own steps are protected from Ctrl-C, the generator is not. It leaves the block,
then reports, with no checkpoint between, so whoever reads the report finds the capacity free.

A worker whose rows are rejected while it runs is stopped through a cancel scope of its own, and reports like any other.
Only workers of nodes that can run beside another for one row get such a scope; nobody else can lose a row while it
runs. A worker that is cancelled from outside does not report: its row group, or the run, is over.

Nothing waits between the grant of a lease and the call of the generator. Should something ever do, a figure shows it:
`most_waiting` counts workers that hold a lease and wait before they work. Every task that is ready runs before the loop
has slept twice. So a worker that was there when the loop was about to sleep, and two sleeps later has not called its
generator, waits for something.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Collection, Iterator, Sequence
from typing import Final, Protocol

import trio

from trio_sched._resources.identity import runtime_correlation
from trio_sched._resources.task import Task
from trio_sched._scheduler.context import SchedulerContext
from trio_sched._scheduler.events import SchedulerEventContext
from trio_sched._scheduler.foreign_cancel import StrayCancellations
from trio_sched._scheduler.messages import RowDrop, WorkerDone
from trio_sched._task.ledger import TaskAdmissionLease

__all__ = ["TaskRunner", "Workers"]

_SLEEPS_UNTIL_CALLED: Final = 2


class TaskRunner(Protocol):
    """Makes the cells of one task."""

    def run(self, task: Task) -> Awaitable[Sequence[RowDrop]]:
        """Make and keep the task's cells; return the rows it could not make, or removed. Raise if it made nothing."""
        ...


class Workers(Collection[Task]):
    """The tasks that run now, and the nurseries of the open row groups, in which they run.

    strays: cancellations that came out of a task while nobody had cancelled its row group.
    most_waiting: the most workers at once that waited under their lease before they called the generator. Always 0.
    """

    def __init__(self, context: SchedulerContext, runner: TaskRunner) -> None:
        self._runner = runner
        self._events = context.events
        self._report = context.report
        graph = context.graph
        self._may_lose_rows = frozenset(column for column in graph.order if graph.may_run_beside_another(column))
        self._nurseries: dict[int, trio.Nursery] = {}
        self._running: dict[Task, trio.CancelScope | None] = {}
        self.strays = StrayCancellations()
        self._starting: dict[int, int] = {}
        """By lease, of workers whose generator was not called yet: how often the loop had slept when they started."""
        self._sleeps = 0
        self.most_waiting = 0

    def __len__(self) -> int:
        return len(self._running)

    def __contains__(self, task: object) -> bool:
        return task in self._running

    def __iter__(self) -> Iterator[Task]:
        return iter(self._running)

    def open_row_group(self, row_group: int, nursery: trio.Nursery) -> None:
        """The workers of `row_group` are to run in `nursery`."""
        self._nurseries[row_group] = nursery

    def start(self, task: Task, lease: TaskAdmissionLease, execution: SchedulerEventContext) -> None:
        """Start the worker of `task`, which owns `lease` from then on. May raise, and then has not started it."""
        scope = trio.CancelScope() if task.column in self._may_lose_rows else None
        self._nurseries[task.row_group].start_soon(
            self._run, task, lease, execution, scope, name=execution.task_execution_id
        )
        self._running[task] = scope
        self._starting[lease.lease_id] = self._sleeps

    def note_sleep(self) -> None:
        """The loop is about to sleep: see whether any worker waits."""
        self._sleeps += 1
        latest = self._sleeps - _SLEEPS_UNTIL_CALLED
        waiting = sum(1 for _ in itertools.takewhile(lambda since: since < latest, self._starting.values()))
        self.most_waiting = max(self.most_waiting, waiting)

    def stop(self, task: Task) -> bool:
        """Cancel the worker of `task`, if there is one; whether there is. It still reports when it has ended."""
        if task not in self._running:
            return False
        scope = self._running[task]
        if scope is not None:
            scope.cancel()
        return True

    def leave_row_group(self, row_group: int, *, cancels: bool) -> None:
        """Start no other worker in `row_group`. cancels: whether those that run are stopped, and do not report then."""
        nursery = self._nurseries.pop(row_group)
        if cancels:
            nursery.cancel_scope.cancel()

    def ended(self, task: Task) -> None:
        """The worker of `task` has reported."""
        del self._running[task]

    def close_row_group(self, row_group: int) -> None:
        """All workers of `row_group` have ended, some perhaps without a report."""
        self._nurseries.pop(row_group, None)
        for task in [task for task in self._running if task.row_group == row_group]:
            del self._running[task]

    @trio.lowlevel.enable_ki_protection
    async def _run(
        self, task: Task, lease: TaskAdmissionLease, execution: SchedulerEventContext, scope: trio.CancelScope | None
    ) -> None:
        """Run `task` under `lease` and report how it ended."""
        events = self._events
        error: Exception | None = None
        row_drops: Sequence[RowDrop] = ()
        stopped = False
        try:
            with lease:
                token = runtime_correlation.set(execution.correlation)
                try:
                    if scope is None:
                        row_drops = await self._call_generator(task, lease)
                    else:
                        with scope:
                            row_drops = await self._call_generator(task, lease)
                        stopped = scope.cancelled_caught
                except Exception as exc:
                    error = exc
                except BaseException as exc:
                    self.strays.note(task, exc)
                    events.cancelled(execution, exc)
                    raise
                finally:
                    runtime_correlation.reset(token)
                if stopped:
                    events.stopped(execution)
                else:
                    events.task_completed(execution, error)
        finally:
            events.task_lease_released(execution)
        self._report(WorkerDone(task, row_drops, error, stopped))

    @trio.lowlevel.disable_ki_protection
    async def _call_generator(self, task: Task, lease: TaskAdmissionLease) -> Sequence[RowDrop]:
        del self._starting[lease.lease_id]
        return await self._runner.run(task)

"""One admitted task, from its first step to its report.

A worker is started by the dispatcher right after commit, in its row group's nursery, and owns its lease from its first
step: a task that a nursery has started always runs to its first checkpoint, so the `with lease` block is always
entered and always left; the worker's own steps are protected from Ctrl-C, the generator is not. It leaves the block,
then reports, with no checkpoint between, so whoever reads the report finds the capacity free.

A worker whose rows are given up while it runs is stopped through a cancel scope of its own, and reports like any other.
Only workers of nodes that can run beside another for one row get such a scope; nobody else can lose a row while it
runs. A worker that is cancelled from outside does not report: its row group, or the run, is over.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import trio

from trio_sched._events.correlation import runtime_correlation
from trio_sched._resources.task import Task
from trio_sched._scheduler.events import SchedulerEventContext, SchedulerEvents
from trio_sched._scheduler.reports import RowDrop, WorkerDone
from trio_sched._task.graph import ExecutionGraph
from trio_sched._task.leases import TaskAdmissionLease

__all__ = ["TaskRunner", "Workers"]


class TaskRunner(Protocol):
    """Makes the cells of one task."""

    def run(self, task: Task) -> Awaitable[Sequence[RowDrop]]:
        """Make and keep the task's cells; return the rows it could not make, or removed. Raise if it made nothing."""
        ...


class Workers:
    """The tasks that run now. Belongs to the dispatcher's task, which starts and stops them."""

    def __init__(
        self,
        graph: ExecutionGraph,
        runner: TaskRunner,
        events: SchedulerEvents,
        report: Callable[[WorkerDone], None],
    ) -> None:
        self._runner = runner
        self._events = events
        self._report = report
        self._may_lose_rows = frozenset(column for column in graph.order if graph.may_run_beside_another(column))
        self._running: dict[Task, trio.CancelScope | None] = {}

    def __len__(self) -> int:
        return len(self._running)

    def __contains__(self, task: Task) -> bool:
        return task in self._running

    def start(
        self,
        nursery: trio.Nursery,
        task: Task,
        lease: TaskAdmissionLease,
        execution: SchedulerEventContext,
    ) -> None:
        """Start the worker of `task`, which owns `lease` from then on."""
        scope = trio.CancelScope() if task.column in self._may_lose_rows else None
        nursery.start_soon(
            _run_worker,
            self._runner,
            task,
            lease,
            execution,
            self._events,
            self._report,
            scope,
            name=execution.task_execution_id,
        )
        self._running[task] = scope

    def stop(self, task: Task) -> bool:
        """Cancel the worker of `task`, if there is one; whether there is. It still reports when it has ended."""
        if task not in self._running:
            return False
        scope = self._running[task]
        if scope is not None:
            scope.cancel()
        return True

    def ended(self, task: Task) -> None:
        """The worker of `task` has reported."""
        del self._running[task]

    def forget_row_group(self, row_group: int) -> None:
        """The workers of `row_group` have ended without a report."""
        for task in [task for task in self._running if task.row_group == row_group]:
            del self._running[task]


@trio.lowlevel.enable_ki_protection
async def _run_worker(
    runner: TaskRunner,
    task: Task,
    lease: TaskAdmissionLease,
    execution: SchedulerEventContext,
    events: SchedulerEvents,
    report: Callable[[WorkerDone], None],
    scope: trio.CancelScope | None,
) -> None:
    """Run `task` under `lease` and report how it ended."""
    error: Exception | None = None
    row_drops: Sequence[RowDrop] = ()
    stopped = False
    try:
        with lease:
            token = runtime_correlation.set(execution.correlation)
            try:
                if scope is None:
                    row_drops = await _run_generator(runner, task)
                else:
                    with scope:
                        row_drops = await _run_generator(runner, task)
                    stopped = scope.cancelled_caught
            except Exception as exc:
                error = exc
            except BaseException as exc:
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
    report(WorkerDone(task, row_drops, error, stopped))


@trio.lowlevel.disable_ki_protection
async def _run_generator(runner: TaskRunner, task: Task) -> Sequence[RowDrop]:
    return await runner.run(task)

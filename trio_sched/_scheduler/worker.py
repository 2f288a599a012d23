"""One admitted task, from its first step to its report.

A worker is started by the dispatcher right after commit, in its row group's nursery, and owns its lease from its first
step: a task that a nursery has started always runs to its first checkpoint, so the `with lease` block is always
entered and always left; the worker's own steps are protected from Ctrl-C, the generator is not. It leaves the block,
then reports, with no checkpoint between, so whoever reads the report finds the capacity free. A cancelled worker does
not report: its row group, or the run, is over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from trio_sched._events.correlation import runtime_correlation
from trio_sched._resources.correlation import RuntimeCorrelation
from trio_sched._resources.task import Task
from trio_sched._scheduler.events import SchedulerEvents
from trio_sched._scheduler.reports import RowDrop, WorkerDone
from trio_sched._task.leases import TaskAdmissionLease

__all__ = ["TaskRunner", "run_worker"]


class TaskRunner(Protocol):
    """Makes the cells of one task."""

    async def run(self, task: Task) -> Sequence[RowDrop]:
        """Make and keep the task's cells; return the rows it could not make, or removed. Raise if it made nothing."""
        ...


@trio.lowlevel.enable_ki_protection
async def run_worker(
    runner: TaskRunner,
    task: Task,
    attempt: int,
    lease: TaskAdmissionLease,
    correlation: RuntimeCorrelation,
    events: SchedulerEvents,
    report: Callable[[WorkerDone], None],
) -> None:
    """Run `task` under `lease` and report how it ended."""
    error: Exception | None = None
    row_drops: Sequence[RowDrop] = ()
    try:
        with lease:
            token = runtime_correlation.set(correlation)
            try:
                row_drops = await _run_generator(runner, task)
            except Exception as exc:
                error = exc
            except BaseException as exc:
                events.cancelled(lease, correlation, exc)
                raise
            finally:
                runtime_correlation.reset(token)
            events.task_completed(lease, correlation, error)
    finally:
        events.task_lease_released(lease, correlation)
    report(WorkerDone(task, attempt, row_drops, error))


@trio.lowlevel.disable_ki_protection
async def _run_generator(runner: TaskRunner, task: Task) -> Sequence[RowDrop]:
    return await runner.run(task)

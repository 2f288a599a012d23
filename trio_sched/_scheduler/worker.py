"""One admitted task, from its first step to its report.

A worker is started by the dispatcher right after commit, in its row group's nursery, and owns its lease from its first
step: a task that a nursery has started always runs to its first checkpoint, so the `with lease` block is always
entered and always left. It leaves the block, then reports, with no checkpoint between, so whoever reads the report
finds the capacity free. A cancelled worker does not report: its row group, or the run, is over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from trio_sched._events.correlation import runtime_correlation
from trio_sched._resources.correlation import RuntimeCorrelation
from trio_sched._resources.task import Task
from trio_sched._scheduler.events import SchedulerEvents
from trio_sched._scheduler.reports import RowFailure, WorkerDone
from trio_sched._task.leases import TaskAdmissionLease

__all__ = ["TaskRunner", "run_worker"]


class TaskRunner(Protocol):
    """Makes the cells of one task."""

    async def run(self, task: Task) -> Sequence[RowFailure]:
        """Make and keep the task's cells; return the rows it could not make. Raise if it made nothing."""
        ...


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
    row_failures: Sequence[RowFailure] = ()
    token = runtime_correlation.set(correlation)
    finished = False
    try:
        with lease:
            try:
                row_failures = await runner.run(task)
            except Exception as exc:
                error = exc
            finished = True
            events.task_completed(lease, correlation, error)
    finally:
        runtime_correlation.reset(token)
        if not finished:
            events.cancelled(lease, correlation)
        events.task_lease_released(lease, correlation)
    report(WorkerDone(task, attempt, row_failures, error))

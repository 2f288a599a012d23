"""What the parts of one run share: the inputs, the state that they work on, and where they report.

A part of the scheduler is given this context and, beside it, only the parts that it commands. Nothing in the context
refers to a part, so the parts form a line and no circle: `OpenRowGroups` commands `TaskOutcomes`, and both, like
`Dispatcher`, command `Workers`. All of it belongs to the task that runs the scheduler's loop.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from trio_sched._request.pressure import RequestPressureSnapshotProvider
from trio_sched._resources.task import SchedulableTask, Task
from trio_sched._scheduler.events import SchedulerEvents
from trio_sched._scheduler.health import HealthMonitor
from trio_sched._scheduler.messages import Report
from trio_sched._scheduler.retry import FailureClassifier, RetryBook
from trio_sched._task.completion import CompletionTracker
from trio_sched._task.controller import TaskAdmissionController
from trio_sched._task.graph import ExecutionGraph
from trio_sched._task.queue import FairTaskQueue
from trio_sched._task.resolver import TaskSchedulingResolver

__all__ = ["SchedulerContext", "task_of"]


def _tracker_of(context: SchedulerContext) -> CompletionTracker:
    return CompletionTracker(context.graph)


@attrs.frozen(eq=False, kw_only=True)
class SchedulerContext:
    """Everything that belongs to one run and commands nothing.

    pressure: what request admission shows of itself, or None. report: hands a report to the loop; never blocks.
    """

    graph: ExecutionGraph
    resolver: TaskSchedulingResolver
    admission: TaskAdmissionController
    classify: FailureClassifier
    pressure: RequestPressureSnapshotProvider | None = None
    events: SchedulerEvents
    retries: RetryBook
    health: HealthMonitor
    report: Callable[[Report], None]
    tracker: CompletionTracker = attrs.field(default=attrs.Factory(_tracker_of, takes_self=True), init=False)
    queue: FairTaskQueue = attrs.field(factory=FairTaskQueue, init=False)


def task_of(item: SchedulableTask) -> Task:
    """The task that `item` was made for; see `TaskSchedulingResolver.schedulable`."""
    task = item.payload
    assert isinstance(task, Task)
    return task

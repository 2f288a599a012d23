"""From ready task to running worker: frontier, enqueue, select, acquire, commit, spawn.

`offer_ready` takes the tracker's frontier to the queue and acknowledges what the queue accepted. `dispatch` then starts
workers until no queued task is eligible. There is no checkpoint between select and commit, nor anywhere else here, so
nothing can change under a selection but by this code's own doing. If a commit is stale all the same, or if a worker
cannot be spawned, the lease goes back before anything else happens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import trio

from trio_sched._events.json_value import JsonValue
from trio_sched._events.scheduler import SchedulerAdmissionEventKind, SchedulerEventSubject
from trio_sched._resources.task import SchedulableTask, Task, stable_task_id
from trio_sched._scheduler.advisory import PressureAdvisory
from trio_sched._scheduler.events import SchedulerEvents
from trio_sched._scheduler.peaks import CapacityPeaks
from trio_sched._task.completion import CompletionTracker
from trio_sched._task.controller import TaskAdmissionController
from trio_sched._task.leases import TaskAdmissionDenied, TaskAdmissionLease
from trio_sched._task.queue import FairTaskQueue, QueueSelection
from trio_sched._task.resolver import TaskSchedulingResolver

__all__ = ["Dispatcher", "Spawn"]


class Spawn(Protocol):
    """Starts the worker of an admitted task. May raise, and then has not started it."""

    def __call__(self, task: Task, lease: TaskAdmissionLease, execution: SchedulerEventSubject) -> None:
        """Start the worker; it owns `lease` from then on."""
        ...


class Dispatcher:
    """Moves tasks from the tracker through queue and admission to workers. Synchronous; belongs to one task."""

    def __init__(
        self,
        tracker: CompletionTracker,
        resolver: TaskSchedulingResolver,
        admission: TaskAdmissionController,
        events: SchedulerEvents,
        *,
        attempt: Callable[[str], int],
        spawn: Spawn,
        advisory: PressureAdvisory | None = None,
    ) -> None:
        self._tracker = tracker
        self._resolver = resolver
        self._admission = admission
        self._events = events
        self._attempt = attempt
        self._spawn = spawn
        self._advisory = advisory
        self._queue = FairTaskQueue()
        self.peaks = CapacityPeaks()

    @property
    def queue(self) -> FairTaskQueue:
        """The ready tasks that are not running."""
        return self._queue

    def offer_ready(self) -> None:
        """Enqueue the frontier. A task that could never be admitted is refused here, with an error."""
        frontier = self._tracker.ready_frontier()
        if not frontier:
            return
        items: dict[str, SchedulableTask] = {}
        for task in frontier:
            item = self._resolver.schedulable(task)
            self._admission.validate(item)
            items[item.task_id] = item
        self._events.frontier("dependency_ready", items.values())
        accepted = self._queue.enqueue(items.values())
        self._tracker.mark_enqueued(accepted)
        groups = {items[task_id].group.key for task_id in accepted}
        self.peaks.note_queued(groups, self._queue.view().queued_by_group)
        self._events.frontier("ready_enqueued", map(items.__getitem__, accepted))

    def withdraw(self, task: Task) -> None:
        """Take a task out of the queue if it is there."""
        if self._queue.discard(stable_task_id(task)):
            self._events.withdrawn(self._resolver.schedulable(task))

    def withdraw_row_group(self, row_group: int) -> None:
        """Take all tasks of a row group out of the queue."""
        withdrawn: list[SchedulableTask] = []

        def belongs(item: SchedulableTask) -> bool:
            if _task_of(item).row_group != row_group:
                return False
            withdrawn.append(item)
            return True

        self._queue.discard_where(belongs)
        for item in withdrawn:
            self._events.withdrawn(item)

    @trio.lowlevel.enable_ki_protection
    def dispatch(self) -> int:
        """Start workers until nothing queued is eligible; how many of them make a first attempt."""
        first_attempts, started = 0, False
        queue, admission, advisory = self._queue, self._admission, self._advisory
        if advisory is not None:
            advisory.begin_round()
        while True:
            selection = queue.select_next(admission.is_eligible) if advisory is None else advisory.select(queue)
            if selection is None:
                break
            item = selection.item
            task = _task_of(item)
            self._events.selected(item)
            decision = admission.try_acquire(item, selection.queue_view)
            if isinstance(decision, TaskAdmissionDenied):
                self._events.admission_denied(item, decision.reason)
                break
            attempt = self._attempt(item.task_id)
            execution = self._events.execution(task, decision, attempt)
            if self._start(selection, task, decision, execution):
                self._events.task_lease("worker_spawned", execution)
                started = True
                first_attempts += attempt == 1
        if started:
            # Nothing is given back within a round, so the most is leased at its end.
            leased = admission.view().leased_resources
            self.peaks.note_leased(leased, leased)
        return first_attempts

    def _start(
        self,
        selection: QueueSelection,
        task: Task,
        lease: TaskAdmissionLease,
        execution: SchedulerEventSubject,
    ) -> bool:
        """Commit and spawn under `lease`, which is the worker's from then on; on any other way it goes back."""
        event: SchedulerAdmissionEventKind = "worker_spawn_failed"
        try:
            self._events.task_lease_acquired(lease, execution)
            if self._queue.commit(selection) is not None:
                self._spawn(task, lease, execution)
                return True
            event = "stale_selection"
        except BaseException:
            self._give_back(event, lease, execution)
            raise
        self._give_back(event, lease, execution)
        return False

    def _give_back(
        self, event: SchedulerAdmissionEventKind, lease: TaskAdmissionLease, execution: SchedulerEventSubject
    ) -> None:
        self._admission.release(lease)
        facts: dict[str, JsonValue] = {"still_queued": True} if lease.item.task_id in self._queue else {}
        self._events.task_lease(event, execution, diagnostics=facts)
        self._events.task_lease_released(execution)


def _task_of(item: SchedulableTask) -> Task:
    task = item.payload
    assert isinstance(task, Task)
    return task

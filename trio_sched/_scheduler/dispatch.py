"""From ready task to running worker: frontier, enqueue, select, acquire, commit, spawn.

`offer_ready` takes the tracker's frontier to the queue and acknowledges what the queue accepted. `dispatch` then starts
workers until no queued task is eligible. There is no checkpoint between select and commit, nor anywhere else here, so
nothing can change under a selection but by this code's own doing. If a commit is stale all the same, or if a worker
cannot be spawned, the lease is released before anything else happens.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

import trio

from trio_sched._events.records import JsonValue, SchedulerAdmissionEventKind
from trio_sched._resources.task import SchedulableTask, SchedulerResourceKey, Task, TaskGroupKey
from trio_sched._scheduler.advisory import PressureAdvisory
from trio_sched._scheduler.context import SchedulerContext, task_of
from trio_sched._scheduler.events import SchedulerEventContext
from trio_sched._scheduler.worker import Workers
from trio_sched._task.controller import TaskAdmissionDenied
from trio_sched._task.ledger import TaskAdmissionLease
from trio_sched._task.queue import QueueSelection

__all__ = ["Dispatcher"]

K = TypeVar("K", bound=Hashable)


class Dispatcher:
    """Moves tasks from the tracker through queue and admission to workers.

    most_queued, most_leased: the most tasks of each group that were ever queued at once, and the most units of each
    resource that were ever leased at once.
    """

    def __init__(self, context: SchedulerContext, workers: Workers, advisory: PressureAdvisory | None = None) -> None:
        self._tracker = context.tracker
        self._resolver = context.resolver
        self._admission = context.admission
        self._queue = context.queue
        self._retries = context.retries
        self._health = context.health
        self._events = context.events
        self._workers = workers
        self._advisory = advisory
        self.most_queued: dict[TaskGroupKey, int] = {}
        self.most_leased: dict[SchedulerResourceKey, int] = {}

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
        _keep_highest(self.most_queued, groups, self._queue.view().queued_by_group)
        self._events.frontier("ready_enqueued", map(items.__getitem__, accepted))

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
            task = task_of(item)
            self._events.selected(item)
            decision = admission.try_acquire(item, selection.queue_view)
            if isinstance(decision, TaskAdmissionDenied):
                self._events.admission_denied(item, decision.reason)
                break
            attempt = self._retries.attempt(item.task_id)
            execution = self._events.execution(task, decision, attempt)
            if self._start(selection, task, decision, execution):
                self._events.task_lease("worker_spawned", execution)
                started = True
                if attempt == 1:
                    first_attempts += 1
                    self._health.began(task)
        if started:
            # Nothing is released within a round, so the most is leased at its end.
            leased = admission.view().leased_resources
            _keep_highest(self.most_leased, leased, leased)
        return first_attempts

    def _start(
        self, selection: QueueSelection, task: Task, lease: TaskAdmissionLease, execution: SchedulerEventContext
    ) -> bool:
        """Commit and spawn under `lease`, which is the worker's from then on; if that fails, release it."""
        event: SchedulerAdmissionEventKind = "worker_spawn_failed"
        try:
            self._events.task_lease_acquired(lease, execution)
            if self._queue.commit(selection) is not None:
                self._workers.start(task, lease, execution)
                return True
            event = "stale_selection"
        except BaseException:
            self._release(event, lease, execution)
            raise
        self._release(event, lease, execution)
        return False

    def _release(
        self, event: SchedulerAdmissionEventKind, lease: TaskAdmissionLease, execution: SchedulerEventContext
    ) -> None:
        self._admission.release(lease)
        facts: dict[str, JsonValue] = {"still_queued": True} if lease.item.task_id in self._queue else {}
        self._events.task_lease(event, execution, diagnostics=facts)
        self._events.task_lease_released(execution)


def _keep_highest(peaks: dict[K, int], keys: Iterable[K], counts: Mapping[K, int]) -> None:
    for key in keys:
        count = counts.get(key, 0)
        if count > peaks.get(key, 0):
            peaks[key] = count

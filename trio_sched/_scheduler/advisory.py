"""Prefers ready tasks whose endpoint is not under pressure, as long as there are any.

An endpoint is under pressure when a request to it would have to wait: it cools down, it has waiters, or its limit is
used up. A task that is skipped for that is not refused. It keeps its place and earns no credit, like any head that
is not eligible, and when no other head is eligible either it runs all the same, so pressure never stops progress.

The advisory only reads pressure snapshots, one for each endpoint and round of dispatch: within a round nothing can
change, since no worker runs.
"""

from __future__ import annotations

from collections.abc import Callable

from trio_sched._request.pressure import RequestPressureSnapshotProvider
from trio_sched._resources.identity import RequestResourceKey
from trio_sched._resources.task import SchedulableTask, SchedulerResourceRequest, TaskGroupKey
from trio_sched._scheduler.events import SchedulerEvents
from trio_sched._task.controller import TaskAdmissionController
from trio_sched._task.queue import FairTaskQueue, QueueSelection, QueueView

__all__ = ["PressureAdvisory"]


class PressureAdvisory:
    """Task admission's eligibility with a preference; satisfies `Eligibility`."""

    def __init__(
        self, admission: TaskAdmissionController, pressure: RequestPressureSnapshotProvider, events: SchedulerEvents
    ) -> None:
        self._admission = admission
        self._pressure = pressure
        self._events = events
        self._prefers = True
        self._pressured: dict[RequestResourceKey, bool] = {}
        self._skipped: dict[TaskGroupKey, SchedulableTask] = {}
        self._reported: dict[TaskGroupKey, RequestResourceKey | None] = {}

    def begin_round(self) -> None:
        """A round of dispatch begins: look at pressure anew."""
        self._pressured.clear()
        if self._reported:
            self._reported = {
                group: resource for group, resource in self._reported.items() if self._is_pressured(resource)
            }

    def select(self, queue: FairTaskQueue) -> QueueSelection | None:
        """The first eligible task in fair order whose endpoint is free, or else the first eligible one."""
        self._skipped.clear()
        selection = queue.select_next(self.is_eligible)
        if selection is None and self._skipped:
            self._prefers = False
            try:
                selection = queue.select_next(self.is_eligible)
            finally:
                self._prefers = True
        if selection is not None:
            self._report(selection.item)
        return selection

    def fits(self, request: SchedulerResourceRequest) -> bool:
        """As of task admission."""
        return self._admission.fits(request)

    def allows(self, queue_view: QueueView) -> Callable[[SchedulableTask], bool]:
        """`is_eligible` as a function of heads whose requests fit."""
        allows = self._admission.allows(queue_view)
        return lambda head: allows(head) and self._is_preferred(head)

    def is_eligible(self, item: SchedulableTask, queue_view: QueueView) -> bool:
        """Whether `item` may run now, and there is no reason to prefer another."""
        return self._admission.is_eligible(item, queue_view) and self._is_preferred(item)

    def _is_preferred(self, item: SchedulableTask) -> bool:
        """Whether there is no reason to prefer another to `item`, which may run."""
        if not self._prefers or not self._is_pressured(item.request_resource_key):
            return True
        self._skipped[item.group.key] = item
        return False

    def _is_pressured(self, resource: RequestResourceKey | None) -> bool:
        if resource is None:
            return False
        known = self._pressured.get(resource)
        if known is None:
            seen = self._pressure.snapshot(resource)
            known = self._pressured[resource] = seen is not None and (
                seen.cooldown_remaining_seconds > 0 or seen.waiters > 0 or seen.in_flight_count >= seen.current_limit
            )
        return known

    def _report(self, selected: SchedulableTask) -> None:
        """Report a group once, when it begins to be skipped; again after it was served, or its endpoint free."""
        self._reported.pop(selected.group.key, None)
        for group, item in self._skipped.items():
            if group != selected.group.key and group not in self._reported:
                self._reported[group] = item.request_resource_key
                self._events.pressure_advisory_skipped(item, selected)

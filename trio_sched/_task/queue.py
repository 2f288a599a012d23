"""The ready queue: which ready task is next, fairly.

Tasks wait in their groups, first in, first out; `FairOrder` says which group is next. Selecting changes nothing.
Committing is the only removal by selection, and what charges the group: one unit of service at the weight of the task
served. A group passed over as ineligible keeps its place but earns no credit. A selection is stale when its task is no
longer the head of its group, and only then. What is remembered is bounded by the groups that have backlog.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from functools import partial
from typing import Final

import trio

from trio_sched._errors import InvalidTypeError
from trio_sched._fair import FairOrder
from trio_sched._resources.task import SchedulableTask, SchedulerResourceKey, TaskGroupKey
from trio_sched._task.eligibility import LaneEligibility, no_aspect
from trio_sched._task.head_index import HeadIndex
from trio_sched._task.heads import QueuedGroup, StandingSource
from trio_sched._task.live import LiveMapping
from trio_sched._task.queue_view import QueueSelection, QueueView, make_selection

__all__ = ["FairTaskQueue"]

_SPARE_IDLE: Final = 16


class _DemandByResource(Mapping[SchedulerResourceKey, int]):
    """What all queued tasks together ask for, summed when it is looked at."""

    __slots__ = ("_groups",)

    def __init__(self, groups: Mapping[TaskGroupKey, QueuedGroup]) -> None:
        self._groups = groups

    def _sums(self) -> dict[SchedulerResourceKey, int]:
        sums: dict[SchedulerResourceKey, int] = {}
        for group in self._groups.values():
            for resource, amount in group.demand.items():
                sums[resource] = sums.get(resource, 0) + amount
        return sums

    def __getitem__(self, key: SchedulerResourceKey) -> int:
        return self._sums()[key]

    def __iter__(self) -> Iterator[SchedulerResourceKey]:
        return iter(self._sums())

    def __len__(self) -> int:
        return len(self._sums())

    def __repr__(self) -> str:
        return repr(self._sums())


@trio.lowlevel.disable_ki_protection
def _ask(is_eligible: Callable[[SchedulableTask, QueueView], bool], view: QueueView, group: QueuedGroup) -> bool:
    return is_eligible(group.head, view)


def _check_tasks(items: Iterable[object]) -> None:
    for item in items:
        if not isinstance(item, SchedulableTask):
            raise InvalidTypeError("an item to enqueue", item, "a SchedulableTask")


class FairTaskQueue:
    """Ready tasks in weighted fair order over their groups. Synchronous; belongs to one task."""

    __slots__ = ("_ask", "_classed_for", "_group_of", "_groups", "_heads", "_idle", "_order", "_show_total", "_view")

    _ask: Callable[[QueuedGroup], bool]
    """Asks `_classed_for`, once there is one."""

    def __init__(self) -> None:
        self._groups: dict[TaskGroupKey, QueuedGroup] = {}
        self._group_of: dict[str, QueuedGroup] = {}
        self._order: FairOrder[QueuedGroup] = FairOrder()
        self._idle: dict[TaskGroupKey, QueuedGroup] = {}
        self._classed_for: Callable[[SchedulableTask, QueueView], bool] | None = None
        groups = self._groups
        heads = LiveMapping(groups, lambda group: group.head)
        self._heads = HeadIndex(groups, heads, self._order)
        self._view = QueueView(
            queued_total=0,
            queued_by_group=LiveMapping(groups, lambda group: len(group.items)),
            queued_resource_demand_by_group=LiveMapping(groups, lambda group: group.demand),
            first_candidate_resources_by_group=LiveMapping(groups, lambda group: group.head.resource_request.amounts),
            first_candidate_tasks_by_group=heads,
            first_candidate_group_specs_by_group=LiveMapping(groups, lambda group: group.head.group),
            queued_peer_demand_by_resource=_DemandByResource(groups),
            heads=self._heads,
        )
        # A view is frozen to whoever holds it; this is the short way past that, for every task twice.
        self._show_total = partial(vars(QueueView)["queued_total"].__set__, self._view)

    def __len__(self) -> int:
        return len(self._group_of)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._group_of

    def __repr__(self) -> str:
        return f"<FairTaskQueue: {len(self._group_of)} tasks in {len(self._groups)} groups>"

    @trio.lowlevel.enable_ki_protection
    def enqueue(self, items: Iterable[SchedulableTask]) -> tuple[str, ...]:
        """Queue those items whose ids are not queued; return their ids.

        Raises InvalidTypeError, and queues nothing, if any of them is no `SchedulableTask`.
        """
        accepted: list[str] = []
        groups, group_of = self._groups, self._group_of
        items = tuple(items)
        _check_tasks(items)
        for item in items:
            task_id = item.task_id
            if task_id in group_of:
                continue
            key = item.group.key
            group = groups.get(key)
            if group is None:
                idle = self._idle.pop(key, None)
                group = groups[key] = QueuedGroup(key) if idle is None else idle
                group.begin(item)
                self._order.activate(group, weight=item.group.weight)
                self._heads.head_changed(group)
            elif group.common is not item.resource_request:
                group.add_demand(item.resource_request)
            group.items[task_id] = item
            group_of[task_id] = group
            accepted.append(task_id)
        if accepted:
            self._heads.queue_version += 1
            self._show_total(len(group_of))
        return tuple(accepted)

    def select_next(self, is_eligible: Callable[[SchedulableTask, QueueView], bool]) -> QueueSelection | None:
        """The first item in fair order that is eligible, or None. Changes nothing."""
        if is_eligible == self._classed_for or self._is_classed(is_eligible):
            item = self._heads.first_eligible(self._ask)
        else:
            item = self._first(is_eligible) if self._groups else None
        return None if item is None else make_selection(item, self._view, self._heads.queue_version)

    @trio.lowlevel.enable_ki_protection
    def commit(self, selection: QueueSelection) -> SchedulableTask | None:
        """Take the selected item out and charge its group; None if it is no longer its group's head."""
        item = selection.item
        group = self._group_of.get(item.task_id)
        if group is None or group.head is not item:
            return None
        self._order.serve(group, item.group.weight)
        self._remove(group, item)
        return item

    @trio.lowlevel.enable_ki_protection
    def discard(self, task_id: str) -> bool:
        """Take the item out without charging its group; whether it was queued."""
        group = self._group_of.get(task_id)
        if group is None:
            return False
        self._remove(group, group.items[task_id])
        return True

    def discard_where(self, predicate: Callable[[SchedulableTask], bool]) -> tuple[str, ...]:
        """Discard every item that `predicate` holds for; return their ids."""
        chosen = tuple(task_id for task_id, group in self._group_of.items() if predicate(group.items[task_id]))
        return tuple(task_id for task_id in chosen if self.discard(task_id))

    def view(self) -> QueueView:
        """The live view: always the same object, always the present state."""
        return self._view

    def _is_classed(self, is_eligible: Callable[[SchedulableTask, QueueView], bool]) -> bool:
        """Whether answers are shared within classes of heads; if so the classes are kept for who answers."""
        owner = getattr(is_eligible, "__self__", None)
        if not isinstance(owner, LaneEligibility) or is_eligible != owner.is_eligible or owner.standings is None:
            return False
        self._class_for(is_eligible, owner.standings, None if owner.aspect is no_aspect else owner.aspect)
        return True

    @trio.lowlevel.enable_ki_protection
    def _class_for(
        self,
        is_eligible: Callable[[SchedulableTask, QueueView], bool],
        standings: StandingSource,
        aspect: Callable[[SchedulableTask], Hashable] | None,
    ) -> None:
        self._heads.bind(standings, aspect)
        self._classed_for = is_eligible
        self._ask = partial(_ask, is_eligible, self._view)

    def _first(self, is_eligible: Callable[[SchedulableTask, QueueView], bool]) -> SchedulableTask | None:
        first = next(self._order.ranked())
        if is_eligible(first.head, self._view):
            return first.head
        # An answer may move heads between lanes, so the rest is listed before anything else is asked.
        for group in list(self._order.ranked()):
            if group is not first and is_eligible(group.head, self._view):
                return group.head
        return None

    def _remove(self, group: QueuedGroup, item: SchedulableTask) -> None:
        heads, items, group_of = self._heads, group.items, self._group_of
        del group_of[item.task_id]
        del items[item.task_id]
        if not items:
            heads.remove(group)
            self._order.deactivate(group)
            del self._groups[group.key]
            self._end(group)
        else:
            if group.common is None:
                group.remove_demand(item.resource_request)
            if item is group.head:
                head = group.head = items[next(iter(items))]
                if (
                    head.resource_request is not item.resource_request
                    or head.group is not item.group
                    or heads.claims
                    or not heads.is_decided
                ):
                    heads.head_changed(group)
        heads.queue_version += 1
        self._show_total(len(group_of))

    def _end(self, group: QueuedGroup) -> None:
        """Keep a group without backlog while the order remembers it, or not much longer."""
        del group.head
        remembered = self._order.remembered
        if group in remembered:
            self._idle[group.key] = group
        if len(self._idle) > 2 * len(remembered) + _SPARE_IDLE:
            self._idle = {each.key: each for each in remembered}

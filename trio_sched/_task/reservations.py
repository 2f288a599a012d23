"""Reservations: a multi-unit head does not starve behind smaller tasks.

A head is *multi-unit* if it asks for several units of one resource, or for several resources that it competes for. It
may wait for ever although nothing is wrong: whenever some of its units come free, a smaller task behind it takes them.
So it is counted how often it is skipped. A grant *skips* a multi-unit head of another group if

- the head is before the granted task in fair order, and the first of those that ask for the same;
- its units were not all free before the grant, and of a resource that the grant takes, fewer are left than it needs.

After `bound` such grants in a row all its units are *reserved*: what is free of them counts as taken for everybody
else, so they stay free until the head can run. Older reservations go first; those made by one grant, in fair order. A
reservation ends when its item is granted, or no longer heads its group. It is suspended while the item asks for more
than a limit, or the policy would refuse it even if nobody else were queued: reserved units would help nobody then.

The count is taken in the grant, the one step that changes the ledger in somebody's favour. Asking changes nothing. A
view made by hand says nothing of order: there every head counts as being before the granted task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import trio

from trio_sched._resources.task import SchedulableTask, SchedulerResourceRequest, TaskGroupKey
from trio_sched._task.ledger import TaskLedger, TaskReservation
from trio_sched._task.policies import TaskAdmissionPolicy
from trio_sched._task.queue import QueuedGroup, QueueView, heads_of

__all__ = ["Reservations"]


class Reservations(Sequence[TaskReservation]):
    """As a sequence: the reservations in force, the oldest first. made: all, those that are suspended included."""

    def __init__(self, bound: int, ledger: TaskLedger, policy: TaskAdmissionPolicy) -> None:
        self._bound = bound
        self._ledger = ledger
        self._policy = policy
        self._view = ledger.view()
        self.made: dict[TaskGroupKey, TaskReservation] = {}
        self._skipped: dict[SchedulerResourceRequest, tuple[str, int]] = {}
        """Of each multi-unit request, which task was skipped last, and how often in a row."""
        self._in_force: tuple[TaskReservation, ...] = ()
        self._in_force_at = 0

    @overload
    def __getitem__(self, index: int) -> TaskReservation: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[TaskReservation, ...]: ...
    def __getitem__(self, index: int | slice) -> TaskReservation | tuple[TaskReservation, ...]:
        return self._all_in_force()[index]

    def __len__(self) -> int:
        return len(self._all_in_force()) if self.made else 0

    def __repr__(self) -> str:
        return repr(self._all_in_force())

    def granted(self, item: SchedulableTask, queue_view: QueueView) -> None:
        """`item` was granted and its units are booked: end its reservation, and count whom that skipped."""
        if not self.made and not heads_of(queue_view).multi_unit_lanes:
            self._skipped = {}
            return
        heads = queue_view.first_candidate_tasks_by_group
        for key, made in list(self.made.items()):
            head = heads.get(key)
            if head is None or head.task_id != made.item.task_id or made.item.task_id == item.task_id:
                del self.made[key]
                self._ledger.version += 1
        skipped: dict[SchedulerResourceRequest, tuple[str, int]] = {}
        for group in self._waiting(queue_view):
            head = group.head
            if group.key == item.group.key:
                continue
            task_id, count = self._skipped.get(head.resource_request, ("", 0))
            if task_id != head.task_id:
                count = 0
            if self._is_before(group, item, queue_view) and self._is_skipped(head, item):
                count += 1
            if count >= self._bound:
                self.made[group.key] = TaskReservation(head)
                self._ledger.version += 1
            elif count:
                skipped[head.resource_request] = head.task_id, count
        self._skipped = skipped

    def _waiting(self, queue_view: QueueView) -> list[QueuedGroup]:
        """Of each multi-unit request the first group whose head has no reservation, all in fair order."""
        groups = queue_view.groups
        firsts: list[QueuedGroup] = []
        for lane in heads_of(queue_view).multi_unit_lanes:
            without = [group for group in lane.groups if not self._is_made_for(group)]
            if without:
                firsts.append(without[0] if groups is None else min(without, key=groups.rank))
        return firsts if groups is None else sorted(firsts, key=groups.rank)

    def _is_made_for(self, group: QueuedGroup) -> bool:
        made = self.made.get(group.key)
        return made is not None and made.item.task_id == group.head.task_id

    def _is_before(self, group: QueuedGroup, granted: SchedulableTask, queue_view: QueueView) -> bool:
        groups = queue_view.groups
        if groups is None:
            return True
        other = groups.by_key.get(granted.group.key)
        return other is None or groups.rank(group) < groups.rank(other)

    def _is_skipped(self, head: SchedulableTask, granted: SchedulableTask) -> bool:
        taken = granted.resource_request.amounts
        was_short = is_short = False
        for resource, amount in head.resource_request.amounts.items():
            missing = amount - self._ledger.free.get(resource, 0)
            was_short = was_short or missing > taken.get(resource, 0)
            is_short = is_short or (missing > 0 and resource in taken)
        return was_short and is_short

    def _all_in_force(self) -> tuple[TaskReservation, ...]:
        if self._in_force_at != self._ledger.version:
            self._in_force = tuple(made for made in self.made.values() if not self._is_suspended(made.item))
            self._in_force_at = self._ledger.version
        return self._in_force

    @trio.lowlevel.disable_ki_protection
    def _is_suspended(self, item: SchedulableTask) -> bool:
        """Whether limits or the policy refuse `item` even if nobody else is queued."""
        key, wanted = item.group.key, item.resource_request.amounts
        if any(amount > self._ledger.limits.get(resource, 0) for resource, amount in wanted.items()):
            return True
        uncontended = QueueView(1, {key: 1}, {key: wanted}, {key: wanted}, {key: item}, {key: item.group}, wanted)
        return not self._policy.evaluate(item, uncontended, self._view).allowed

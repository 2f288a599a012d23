"""Keeps a head whose units must gather from starving behind smaller ones.

A head that asks for several units of one resource, or of several resources that it competes for, may wait for ever
although nothing is wrong: whenever some of its units come free, a smaller task behind it takes them. So its being
passed over is counted. A grant *passes over* a head of another group if

- the head asks for units that must gather, is before the granted task in fair order, and is the first of those that ask
  for the same;
- the units it asks for were not all free before the grant, and of a resource that the granted task takes, fewer are
  left after it than the head needs.

When that has happened `bound` times to the same head, all its units are *reserved*: what is free of them counts as
taken for everybody else, so they gather until the head can run. Several reservations are served in the order in which
they were made, those made at once in fair order. A reservation ends when its item is granted or no longer heads its
group, and is suspended while it asks for more than a limit, or the policy would refuse it even if no other group were
queued, as no gathering helps then.

The count is taken in the one step that changes the ledger in somebody's favour, the grant; asking changes nothing.
A view made by hand says nothing of order: there every head counts as being before the granted task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol, overload

from trio_sched._resources.task import (
    SchedulableTask,
    SchedulerResourceKey,
    SchedulerResourceRequest,
    TaskGroupKey,
)
from trio_sched._task.heads import StandingSource, gathers
from trio_sched._task.leases import TaskAdmissionView, TaskReservation
from trio_sched._task.ledger import TaskLedger
from trio_sched._task.queue_view import QueueView

__all__ = ["Reservations", "has_room_in", "reserved_before"]

Heads = Mapping[TaskGroupKey, SchedulableTask]

_NOTHING: Mapping[SchedulerResourceKey, int] = MappingProxyType({})


def reserved_before(
    reservations: Sequence[TaskReservation], claim: object, heads: Heads
) -> Mapping[SchedulerResourceKey, int]:
    """What older reservations than `claim`, or without a claim all of them, keep for one of `heads`."""
    reserved: dict[SchedulerResourceKey, int] = {}
    for reservation in reservations:
        if reservation is claim:
            break
        item = reservation.item
        head = heads.get(item.group.key)
        if head is not None and head.task_id == item.task_id:
            for resource, amount in item.resource_request.amounts.items():
                reserved[resource] = reserved.get(resource, 0) + amount
    return reserved


def has_room_in(view: TaskAdmissionView, head: SchedulableTask, heads: Heads) -> bool:
    """Whether `view` shows the units of `head` free to it."""
    reserved = _NOTHING
    if view.reservations:
        claim = next((each for each in view.reservations if each.item.task_id == head.task_id), None)
        reserved = reserved_before(view.reservations, claim, heads)
    available = view.resources_available
    for resource, amount in head.resource_request.amounts.items():
        if available.get(resource, 0) - reserved.get(resource, 0) < amount:
            return False
    return True


class ReservationJudge(StandingSource, Protocol):
    """The controller, which asks its policy."""

    def is_refused_alone(self, item: SchedulableTask) -> bool:
        """Whether limits or the policy refuse `item` even if nobody else is queued."""
        ...


class Reservations(Sequence[TaskReservation]):
    """Who waits for units to gather. As a sequence: the reservations in force, the oldest first; `made`: all.

    passed_over: of each request whose units must gather, who was passed over last, and how often in a row.
    """

    __slots__ = ("_bound", "_in_force", "_in_force_at", "_judge", "_ledger", "made", "passed_over")

    def __init__(self, bound: int, ledger: TaskLedger, judge: ReservationJudge) -> None:
        self._bound = bound
        self._ledger = ledger
        self._judge = judge
        self.made: dict[TaskGroupKey, TaskReservation] = {}
        self._in_force: tuple[TaskReservation, ...] = ()
        self._in_force_at = -1
        self.passed_over: dict[SchedulerResourceRequest, tuple[str, int]] = {}

    @overload
    def __getitem__(self, index: int) -> TaskReservation: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[TaskReservation, ...]: ...
    def __getitem__(self, index: int | slice) -> TaskReservation | tuple[TaskReservation, ...]:
        return self._all_in_force()[index]

    def __len__(self) -> int:
        return len(self._all_in_force())

    def __repr__(self) -> str:
        return repr(self._all_in_force())

    def claim(self, head: SchedulableTask) -> TaskReservation | None:
        """The reservation made for `head`."""
        made = self.made.get(head.group.key)
        return made if made is not None and made.item.task_id == head.task_id else None

    def reserved_before(self, claim: object, heads: Heads) -> Mapping[SchedulerResourceKey, int]:
        """What those in force keep from whoever has `claim`."""
        return reserved_before(self._all_in_force(), claim, heads)

    def end_stale(self, granted: SchedulableTask, heads: Heads) -> Sequence[TaskGroupKey]:
        """End the reservations of `granted` and of items that are none of `heads`; return their groups."""
        ended: list[TaskGroupKey] = []
        for group, made in self.made.items():
            head = heads.get(group)
            if head is None or head.task_id != made.item.task_id or made.item.task_id == granted.task_id:
                ended.append(group)
        for group in ended:
            del self.made[group]
        return ended

    def granted(self, item: SchedulableTask, queue_view: QueueView) -> Sequence[TaskGroupKey]:
        """`item` was granted, its units are booked, what is stale has ended; return the groups that now have a claim.

        Raises what the policy raises, and changes nothing then.
        """
        claiming: list[TaskGroupKey] = []
        counts: dict[SchedulerResourceRequest, tuple[str, int]] = {}
        for head in self._waiting(item, queue_view):
            request = head.resource_request
            task_id, count = self.passed_over.get(request, ("", 0))
            if task_id != head.task_id:
                count = 0
            if self._is_passed_over(head, item, queue_view):
                count += 1
            if count >= self._bound:
                self.made[head.group.key] = TaskReservation(head)
                claiming.append(head.group.key)
            elif count:
                counts[request] = (head.task_id, count)
        self.passed_over = counts
        return claiming

    def _all_in_force(self) -> tuple[TaskReservation, ...]:
        version = self._judge.version
        if self._in_force_at != version:
            self._in_force = tuple(made for made in self.made.values() if not self._judge.is_refused_alone(made.item))
            self._in_force_at = version
        return self._in_force

    def _waiting(self, granted: SchedulableTask, queue_view: QueueView) -> Sequence[SchedulableTask]:
        """Of each request whose units must gather, the first head that has no reservation; all in fair order."""
        index = queue_view.heads
        if index is not None and index.source is self._judge:
            heads = index.in_order([index.first_of(bucket) for bucket in index.gathering() if bucket.claim is None])
        else:
            heads = [
                head
                for head in queue_view.first_candidate_tasks_by_group.values()
                if gathers(head.resource_request) and self.claim(head) is None
            ]
            if index is not None:
                heads = index.in_order(heads)
        first: dict[SchedulerResourceRequest, SchedulableTask] = {}
        for head in heads:
            first.setdefault(head.resource_request, head)
        return [head for head in first.values() if head.group.key != granted.group.key]

    def _is_passed_over(self, head: SchedulableTask, granted: SchedulableTask, queue_view: QueueView) -> bool:
        wanted = head.resource_request.amounts
        taken = granted.resource_request.amounts
        was_short = is_short = False
        for resource, amount in wanted.items():
            missing = amount - self._ledger.free(resource)
            was_short = was_short or missing > taken.get(resource, 0)
            is_short = is_short or (missing > 0 and resource in taken)
        if not (was_short and is_short):
            return False
        index = queue_view.heads
        return index is None or index.precedes(head.group.key, granted.group.key)

"""Task admission policies: may this task run now, given that its units are free?

A policy is pure. It sees the queue and the ledger and answers; what a grant or a release does to a group's debt it
returns as a delta, which the controller applies in the same step as the ledger.

Both policies here judge a group against its *peers*: the other groups whose heads ask for a resource that the item
competes for, and find their own units free now. A peer is *entitled* if it could run by its own right, whoever else is
queued. Only an entitled peer holds anybody back, so whenever somebody is held back there is somebody else who may run:
two groups that are both beyond their right never block each other.

An entitled item is allowed. Any other is judged by resource: refused what an entitled peer competes for, else up to
the policy. As entitlement is a matter of a group's standing, all heads of one class (`_task/heads.py`) have the same,
and on a live view the field of competitors is summed over classes, once for every state of queue and ledger. On any
other view it is built from the heads that the view shows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Generic, Protocol, TypeVar, cast

import attrs

from trio_sched._resources.task import (
    SchedulableTask,
    SchedulerResourceKey,
    SchedulerResourceRequest,
    TaskGroupKey,
    TaskGroupSpec,
)
from trio_sched._task.head_index import HeadIndex
from trio_sched._task.heads import exact_weight
from trio_sched._task.leases import TaskAdmissionDenyReason, TaskAdmissionLease, TaskAdmissionView
from trio_sched._task.queue_view import QueueView
from trio_sched._task.reservations import has_room_in

__all__ = [
    "Competition",
    "PeerPolicy",
    "PolicyStateDelta",
    "StrictFairTaskAdmissionPolicy",
    "TaskAdmissionPolicy",
    "TaskAdmissionPolicyDecision",
]

S = TypeVar("S", bound=Hashable)

_NO_UNITS: Mapping[SchedulerResourceKey, int] = MappingProxyType({})
_NO_DIAGNOSTICS: Mapping[str, object] = MappingProxyType({})


@attrs.frozen
class TaskAdmissionPolicyDecision:
    """A policy's answer. `borrowed`: the units that a grant would take above the group's share."""

    allowed: bool
    reason: TaskAdmissionDenyReason | None = None
    available_after: float | None = None
    diagnostics: Mapping[str, object] = _NO_DIAGNOSTICS
    borrowed: Mapping[SchedulerResourceKey, int] = _NO_UNITS


@attrs.frozen
class PolicyStateDelta:
    """What a grant or release does to debt. A negative change is a repayment, and repays min(debt, units)."""

    debt_changes: Mapping[tuple[TaskGroupKey, SchedulerResourceKey], int] = attrs.field(
        factory=dict[tuple[TaskGroupKey, SchedulerResourceKey], int]
    )
    diagnostic_counters: Mapping[str, int] = attrs.field(factory=dict[str, int])


ALLOWED = TaskAdmissionPolicyDecision(allowed=True)
NO_CHANGE = PolicyStateDelta(MappingProxyType({}), MappingProxyType({}))


class TaskAdmissionPolicy(Protocol):
    """Decides whether a task whose units are free may run now.

    A policy may also have `standing(item, admission_view)`: a hashable value such that heads of equal request and equal
    standing always get the same answer at any one instant, and that changes only with what the item's own group holds
    and owes. The queue then examines one head of each kind; without it, one of each group, in fair order.
    """

    def evaluate(
        self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
    ) -> TaskAdmissionPolicyDecision:
        """Answer for `item` as head of its group. Pure; may be called any number of times."""
        ...

    def on_acquire(self, lease: TaskAdmissionLease, decision: TaskAdmissionPolicyDecision) -> PolicyStateDelta:
        """`lease` was granted by `decision`."""
        ...

    def on_release(self, lease: TaskAdmissionLease) -> PolicyStateDelta:
        """`lease` was given back."""
        ...


@attrs.frozen
class Contender(Generic[S]):
    """One or more groups of this exact weight in all, whose heads ask for `request` and stand in one of these ways."""

    request: SchedulerResourceRequest
    exact_weight: int
    groups: int
    standings: Sequence[S]


class Competition(Generic[S]):
    """Who competes for which resource, at one instant."""

    __slots__ = ("_contenders", "_contested", "_field", "_is_entitled")

    def __init__(
        self,
        contenders: Callable[[SchedulerResourceKey], Iterable[Contender[S]]],
        is_entitled: Callable[[S, Competition[S]], bool],
    ) -> None:
        self._contenders = contenders
        self._is_entitled = is_entitled
        self._field: dict[SchedulerResourceKey, tuple[int, int]] = {}
        self._contested: dict[SchedulerResourceKey, bool] = {}

    def field(self, resource: SchedulerResourceKey) -> tuple[int, int]:
        """Exact weight and number of the groups that compete for `resource`."""
        found = self._field.get(resource)
        if found is None:
            weight = groups = 0
            for contender in self._contenders(resource):
                weight += contender.exact_weight
                groups += contender.groups
            found = self._field[resource] = (weight, groups)
        return found

    def is_contested(self, resource: SchedulerResourceKey) -> bool:
        """Whether an entitled head asks for `resource`. To a group that is not entitled itself, that is a peer's."""
        found = self._contested.get(resource)
        if found is None:
            found = self._contested[resource] = any(
                self._is_entitled(standing, self)
                for contender in self._contenders(resource)
                for standing in contender.standings
            )
        return found


class PeerPolicy(ABC, Generic[S]):
    """What both policies share: how competitors are found."""

    @abstractmethod
    def standing(self, item: SchedulableTask, admission_view: TaskAdmissionView) -> S:
        """What entitlement and verdict depend on besides the request and the competition."""

    @abstractmethod
    def is_entitled(self, standing: S, competition: Competition[S], admission_view: TaskAdmissionView) -> bool:
        """Whether a head that stands like that may run whoever else is queued."""

    def competition(
        self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
    ) -> Competition[S]:
        """Everybody who competes now, with `item` as head of its group."""
        index = queue_view.heads
        if index is not None:
            source = index.source
            if (
                source is not None
                and source is admission_view.source
                and source.policy is self
                and index.class_with_room(item) is not None
            ):
                if index.memo is None:
                    index.memo = Competition(
                        partial(self._contenders_in, index),
                        lambda standing, competition: self.is_entitled(standing, competition, admission_view),
                    )
                return cast("Competition[S]", index.memo)
        contenders = self._contenders_among(item, queue_view, admission_view)
        return Competition(
            lambda resource: (each for each in contenders if resource in each.request.amounts),
            lambda standing, competition: self.is_entitled(standing, competition, admission_view),
        )

    def _contenders_in(self, index: HeadIndex, resource: SchedulerResourceKey) -> Iterator[Contender[S]]:
        for bucket in index.with_room(resource):
            # The index knows standings as hashables only. Its source's policy is this one, so they are this one's.
            standings = [cast("S", each.standing) for each in bucket.classes.values()]
            yield Contender(bucket.request, bucket.exact_weight, bucket.count, standings)

    def _contenders_among(
        self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
    ) -> list[Contender[S]]:
        own = item.group.key
        heads = [item]
        tasks = queue_view.first_candidate_tasks_by_group
        specs = queue_view.first_candidate_group_specs_by_group
        for group, amounts in queue_view.first_candidate_resources_by_group.items():
            if group != own:
                head = tasks.get(group)
                if head is None:
                    spec = specs.get(group, TaskGroupSpec(group))
                    head = SchedulableTask("", None, spec, SchedulerResourceRequest(amounts))
                if has_room_in(admission_view, head, tasks):
                    heads.append(head)
        return [
            Contender(head.resource_request, exact_weight(head.group.weight), 1, (self.standing(head, admission_view),))
            for head in heads
        ]


class StrictFairTaskAdmissionPolicy(PeerPolicy[bool]):
    """A group at its `admitted_limit` waits while an entitled peer competes with it. There is no debt.

    Entitled is who is below its limit, or has none. A group's standing is whether it is at its limit.
    """

    def standing(self, item: SchedulableTask, admission_view: TaskAdmissionView) -> bool:
        """Whether the item's group is at its limit."""
        limit = item.group.admitted_limit
        return limit is not None and admission_view.running_counts_by_group.get(item.group.key, 0) >= limit

    def is_entitled(self, standing: bool, competition: Competition[bool], admission_view: TaskAdmissionView) -> bool:
        """Whoever is not at its limit is entitled."""
        return not standing

    def evaluate(
        self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
    ) -> TaskAdmissionPolicyDecision:
        """Refuse with `group_cap` a group at its limit that an entitled peer competes with."""
        if not self.standing(item, admission_view):
            return ALLOWED
        competition = self.competition(item, queue_view, admission_view)
        wanted = tuple(
            resource for resource in item.resource_request.competed_for if competition.is_contested(resource)
        )
        if not wanted:
            return ALLOWED
        return TaskAdmissionPolicyDecision(
            allowed=False,
            reason="group_cap",
            diagnostics={"admitted_limit": item.group.admitted_limit, "contested_resources": wanted},
        )

    def on_acquire(self, lease: TaskAdmissionLease, decision: TaskAdmissionPolicyDecision) -> PolicyStateDelta:
        """Nothing is owed."""
        return NO_CHANGE

    def on_release(self, lease: TaskAdmissionLease) -> PolicyStateDelta:
        """Nothing was owed."""
        return NO_CHANGE

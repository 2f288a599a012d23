"""Task admission policies: may this task run now, given that its units are free?

A policy is pure. It sees the queue and the ledger, and answers. What a grant or a release changes of a group's debt it
returns as a delta, which the controller applies in the same step as the ledger.

The policies of this package, strict fair sharing (below) and bounded borrowing (`bounded_borrow.py`), judge a group
against its *peers*. A peer of an item is another group whose head asks for a resource that the item competes for, and
whose units are free now. An item competes for what it names beside `submission`, or for `submission` where it names
nothing more; a peer competes with everything it asks for.

Each policy says who is *within its share*, and may run whoever else is queued. Only a peer within its share holds
anybody back: a resource that such a peer asks for is *contested*. So when a head is held back somebody else may run,
and groups beyond their share never block each other.

Strict fair sharing is the simplest such policy. The share of a group is its `admitted_limit`, counted in tasks; a group
without one is always within its share. A group at its limit is refused, with `group_cap`, while something that its task
competes for is contested. Nothing is borrowed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Literal, Protocol

import attrs

from trio_sched import _validation as check
from trio_sched._errors import InvalidTypeError
from trio_sched._resources.task import SchedulableTask, SchedulerResourceKey, TaskGroupKey
from trio_sched._task.ledger import TaskAdmissionLease, TaskAdmissionView
from trio_sched._task.queue import Lane, QueuedGroup, QueueView, exact_weight, heads_of, heads_with

__all__ = [
    "ALLOWED",
    "NO_CHANGE",
    "Contention",
    "PeerPolicy",
    "PolicyStateDelta",
    "StrictFairTaskAdmissionPolicy",
    "TaskAdmissionDenyReason",
    "TaskAdmissionPolicy",
    "TaskAdmissionPolicyDecision",
    "as_peer_policy",
]

TaskAdmissionDenyReason = Literal["no_capacity", "group_cap", "borrow_debt", "shutdown", "policy_denial"]

_NO_UNITS: Final[Mapping[SchedulerResourceKey, int]] = MappingProxyType({})
_NO_DIAGNOSTICS: Final[Mapping[str, object]] = MappingProxyType({})


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

    def __attrs_post_init__(self) -> None:
        for debt, change in self.debt_changes.items():
            _check_change(debt, change)
        for name, count in self.diagnostic_counters.items():
            check.check_text("PolicyStateDelta.diagnostic_counters key", name)
            check.check_int(f"PolicyStateDelta.diagnostic_counters[{name!r}]", count, minimum=0)


def _check_change(debt: object, change: object) -> None:
    match debt:
        case (TaskGroupKey(), str()):
            if not isinstance(change, int) or isinstance(change, bool):
                raise InvalidTypeError(f"PolicyStateDelta.debt_changes[{debt!r}]", change, "an int")
        case _:
            raise InvalidTypeError("a key of PolicyStateDelta.debt_changes", debt, "a group and a resource")


ALLOWED: Final = TaskAdmissionPolicyDecision(allowed=True)
NO_CHANGE: Final = PolicyStateDelta(MappingProxyType({}), MappingProxyType({}))


class TaskAdmissionPolicy(Protocol):
    """Decides whether a task whose units are free may run now."""

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


class Contention(ABC):
    """Who competes for which resource in one state of queue and ledger, and what a policy answers in that state.

    Sums are made when they are first asked for. item: None, or who is judged as the head of its group although it is
    not, or lacks units.
    """

    __slots__ = ("_competing", "_contested", "_heads", "_item", "_totals", "queue_view", "view")

    def __init__(
        self, queue_view: QueueView, admission_view: TaskAdmissionView, item: SchedulableTask | None = None
    ) -> None:
        self.queue_view: QueueView = queue_view
        self.view: TaskAdmissionView = admission_view
        self._item = item
        self._heads = heads_of(queue_view) if item is None else heads_with(queue_view, item)
        self._competing: dict[Lane, Collection[QueuedGroup]] = {}
        self._totals: dict[SchedulerResourceKey, tuple[int, int]] = {}
        self._contested: dict[SchedulerResourceKey, bool] = {}

    @abstractmethod
    def is_within_share(self, item: SchedulableTask) -> bool:
        """Whether `item` may run whoever else is queued, if its units are free."""

    @abstractmethod
    def decide(self, item: SchedulableTask) -> TaskAdmissionPolicyDecision:
        """The answer for `item`, whose group is one of those that compete."""

    def totals(self, resource: SchedulerResourceKey) -> tuple[int, int]:
        """Exact weight and number of the groups that compete for `resource`."""
        found = self._totals.get(resource)
        if found is None:
            weight = number = 0
            for lane in self._heads.lanes_of.get(resource, ()):
                groups = self._competing_in(lane)
                number += len(groups)
                weight += lane.weight if groups is lane.groups else _weight(groups)
            found = self._totals[resource] = weight, number
        return found

    def is_contested(self, resource: SchedulerResourceKey) -> bool:
        """Whether a group that is within its share competes for `resource`. Who asks is not within its own."""
        found = self._contested.get(resource)
        if found is None:
            found = self._contested[resource] = self._has_peer_within_share(resource)
        return found

    def _has_peer_within_share(self, resource: SchedulerResourceKey) -> bool:
        for lane in self._heads.lanes_of.get(resource, ()):
            for group in self._competing_in(lane):
                if self.is_within_share(group.head):
                    return True
        return False

    def includes(self, item: SchedulableTask) -> bool:
        """Whether `item` is one of the heads that compete."""
        groups = self.queue_view.groups
        group = None if groups is None else groups.by_task.get(item.task_id)
        if group is None or group.head is not item:
            return False
        return group in self._competing_in(self._heads.lanes[item.resource_request])

    def _competing_in(self, lane: Lane) -> Collection[QueuedGroup]:
        """The groups of `lane` whose units are free."""
        found = self._competing.get(lane)
        if found is None:
            fits, queue_view = self.view.fits, self.queue_view
            if self._item is None and not self.view.reservations:
                first = next(iter(lane.groups))  # The same units are free to all.
                found = lane.groups if fits(first.head, queue_view) else ()
            else:
                found = [group for group in lane.groups if group.head is self._item or fits(group.head, queue_view)]
            self._competing[lane] = found
        return found


def _weight(groups: Collection[QueuedGroup]) -> int:
    return sum(exact_weight(group.head.group.weight) for group in groups)


class PeerPolicy(ABC):
    """A policy that judges a group against its peers."""

    _last: tuple[int, int, Contention] | None = None
    """The contention of live views that was asked for last, and the versions of queue and ledger that it is of."""

    @abstractmethod
    def make_contention(
        self, queue_view: QueueView, admission_view: TaskAdmissionView, item: SchedulableTask | None = None
    ) -> Contention:
        """What this policy answers in the state that the views show."""

    def contention(self, queue_view: QueueView, admission_view: TaskAdmissionView) -> Contention:
        """What this policy answers about heads whose units are free. Of live views it is kept while nothing changes."""
        groups, ledger, last = queue_view.groups, admission_view.ledger, self._last
        if groups is None or ledger is None:
            return self.make_contention(queue_view, admission_view)
        if last is not None and last[0] == groups.version and last[1] == ledger.version:
            contention = last[2]
            if contention.queue_view is queue_view and contention.view is admission_view:
                return contention
        contention = self.make_contention(queue_view, admission_view)
        self._last = groups.version, ledger.version, contention
        return contention

    def evaluate(
        self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
    ) -> TaskAdmissionPolicyDecision:
        """Answer for `item` as head of its group."""
        contention = self.contention(queue_view, admission_view)
        if not contention.includes(item):
            contention = self.make_contention(queue_view, admission_view, item)
        return contention.decide(item)


def as_peer_policy(policy: TaskAdmissionPolicy) -> PeerPolicy | None:
    """`policy`, if it answers as its contention does. A subclass with an `evaluate` of its own may judge otherwise."""
    evaluate: object = type(policy).evaluate
    return policy if isinstance(policy, PeerPolicy) and evaluate is PeerPolicy.evaluate else None


class StrictFairTaskAdmissionPolicy(PeerPolicy):
    """A group at its `admitted_limit` waits while a peer below its own competes with it. There is no debt."""

    def make_contention(
        self, queue_view: QueueView, admission_view: TaskAdmissionView, item: SchedulableTask | None = None
    ) -> Contention:
        """What this policy answers in the state that the views show."""
        return _StrictContention(queue_view, admission_view, item)

    def on_acquire(self, lease: TaskAdmissionLease, decision: TaskAdmissionPolicyDecision) -> PolicyStateDelta:
        """Nothing is borrowed."""
        return NO_CHANGE

    def on_release(self, lease: TaskAdmissionLease) -> PolicyStateDelta:
        """Nothing was borrowed."""
        return NO_CHANGE


class _StrictContention(Contention):
    __slots__ = ("_contested_of",)

    def __init__(self, queue_view: QueueView, admission_view: TaskAdmissionView, item: SchedulableTask | None) -> None:
        super().__init__(queue_view, admission_view, item)
        self._contested_of: dict[tuple[SchedulerResourceKey, ...], tuple[SchedulerResourceKey, ...]] = {}

    def is_within_share(self, item: SchedulableTask) -> bool:
        limit = item.group.admitted_limit
        return limit is None or self.view.account(item.group.key).running < limit

    def decide(self, item: SchedulableTask) -> TaskAdmissionPolicyDecision:
        limit, resources = item.group.admitted_limit, item.resource_request.competed_for
        if limit is None or self.view.account(item.group.key).running < limit:
            return ALLOWED
        contested = self._contested_of.get(resources)
        if contested is None:
            contested = self._contested_of[resources] = tuple(filter(self.is_contested, resources))
        return _refused(limit, contested) if contested else ALLOWED


@lru_cache(1024)
def _refused(limit: int, contested: tuple[SchedulerResourceKey, ...]) -> TaskAdmissionPolicyDecision:
    facts = {"admitted_limit": limit, "contested_resources": contested}
    return TaskAdmissionPolicyDecision(allowed=False, reason="group_cap", diagnostics=MappingProxyType(facts))

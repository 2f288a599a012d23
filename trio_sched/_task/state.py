"""The state that task admission judges by: ledger, reservations and policy, under one version.

It is the `StandingSource` of the queue's index of heads. `version` rises with every change, and watchers are told.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias, cast

import trio

from trio_sched._resources.task import (
    SchedulableTask,
    SchedulerResourceKey,
    SchedulerResourceRequest,
    TaskGroupKey,
)
from trio_sched._task.borrow import BoundedBorrowTaskAdmissionPolicy
from trio_sched._task.competition import PeerPolicy
from trio_sched._task.config import TaskAdmissionConfig
from trio_sched._task.heads import ClassedHeads, StandingKind, StandingWatcher, Verdict
from trio_sched._task.leases import TaskAdmissionLease, TaskAdmissionView
from trio_sched._task.ledger import TaskLedger
from trio_sched._task.policies import (
    PolicyStateDelta,
    TaskAdmissionPolicy,
    TaskAdmissionPolicyDecision,
)
from trio_sched._task.queue_view import QueueView
from trio_sched._task.reservations import Reservations
from trio_sched._task.strict import StrictFairTaskAdmissionPolicy

__all__ = ["TaskAdmissionState"]

_NOTHING: Final[Mapping[SchedulerResourceKey, int]] = MappingProxyType({})


# A subclass may judge otherwise than its standings say, so of that nothing is taken for granted.
_OWN_POLICIES: Final = (StrictFairTaskAdmissionPolicy, BoundedBorrowTaskAdmissionPolicy)
_StandingOf: TypeAlias = Callable[[SchedulableTask, TaskAdmissionView], Hashable]


class _AskStanding(Protocol):
    def __call__(self, head: SchedulableTask, view: TaskAdmissionView, /) -> Hashable: ...


@trio.lowlevel.disable_ki_protection
def _ask_standing(standing_of: _StandingOf | None, head: SchedulableTask, view: TaskAdmissionView) -> Hashable:
    assert standing_of is not None
    return standing_of(head, view)


@trio.lowlevel.disable_ki_protection
def _tell_acquired(
    policy: TaskAdmissionPolicy, lease: TaskAdmissionLease, decision: TaskAdmissionPolicyDecision
) -> PolicyStateDelta:
    return policy.on_acquire(lease, decision)


@trio.lowlevel.disable_ki_protection
def _tell_released(policy: TaskAdmissionPolicy, lease: TaskAdmissionLease) -> PolicyStateDelta:
    return policy.on_release(lease)


class TaskAdmissionState:
    """What is held, owed and reserved, and who judges.

    view: the live view of it. is_open: whether anything is granted at all. has_standings: whether the policy says how
    groups stand; it is then taken to be as pure as it should be. keeps_debt: whether the policy has to be told of
    leases. standing, evaluate, on_acquire, on_release: the policy's, called without protection from Ctrl-C if it is not
    of this package. lone_verdict: that of a policy of this package, or None. lone_decision: that of bounded
    borrowing, or None.
    """

    __slots__ = (
        "_peer_policy",
        "_watchers",
        "accounts",
        "claims",
        "decides",
        "has_standings",
        "is_open",
        "keeps_debt",
        "ledger",
        "limiters",
        "limits",
        "lone_decision",
        "lone_verdict",
        "on_acquire",
        "on_release",
        "policy",
        "reservations",
        "standing",
        "version",
        "view",
    )

    def __init__(self, config: TaskAdmissionConfig, policy: TaskAdmissionPolicy) -> None:
        self.policy = policy
        self.version = 0
        self.is_open = True
        self.ledger = TaskLedger(config.limits)
        self.accounts = self.ledger.accounts
        self.limiters = self.ledger.limiters
        self.limits = self.ledger.limits
        self.reservations = Reservations(config.multi_unit_skip_bound, self.ledger, self)
        self.claims = self.reservations.made
        self.view = self.ledger.view(self.reservations, self)
        self._watchers: list[weakref.ref[StandingWatcher]] = []
        self._peer_policy = cast("PeerPolicy[Hashable]", policy) if type(policy) in _OWN_POLICIES else None
        standing_of = cast("_StandingOf | None", getattr(policy, "standing", None))
        self.has_standings = standing_of is not None
        self.decides = self._peer_policy is not None
        self.lone_verdict: Verdict | None = None if self._peer_policy is None else self._peer_policy.lone_verdict
        self.lone_decision = policy.lone_decision if type(policy) is BoundedBorrowTaskAdmissionPolicy else None
        self.keeps_debt = type(policy) is not StrictFairTaskAdmissionPolicy
        self.standing: _AskStanding = (
            partial(_ask_standing, standing_of) if self._peer_policy is None else self._peer_policy.standing
        )
        self.on_acquire = policy.on_acquire if self._peer_policy is not None else partial(_tell_acquired, policy)
        self.on_release = policy.on_release if self._peer_policy is not None else partial(_tell_released, policy)

    # Changes

    def changed(self, group: TaskGroupKey | None, freed: Iterable[SchedulerResourceKey]) -> None:
        """What `group` holds or owes has changed, and more of what is `freed` may be free."""
        self.version += 1
        for reference in self._watchers:
            watcher = reference()
            if watcher is not None:
                watcher.changed(group, freed)

    def granted(self, item: SchedulableTask, queue_view: QueueView) -> None:
        """`item` was granted, so its group holds or owes more: count whom that passed over, end its own reservation.

        Watchers need not know, except of a foreign policy that may like the group better so.
        """
        self.version += 1
        if self.claims or not self.decides:
            self.changed(item.group.key, ())
        index = queue_view.heads
        if index is not None and not index.gathering_heads and not self.claims:
            if self.reservations.passed_over:
                self.reservations.passed_over = {}
            return
        for group in self.reservations.end_stale(item, queue_view.first_candidate_tasks_by_group):
            self._claim_changed(group)
        for group in self.reservations.granted(item, queue_view):
            self._claim_changed(group)

    def _claim_changed(self, group: TaskGroupKey) -> None:
        self.version += 1
        for reference in self._watchers:
            watcher = reference()
            if watcher is not None:
                watcher.claim_changed(group)

    # Questions

    def claim(self, head: SchedulableTask) -> Hashable:
        """The reservation made for `head`, or None."""
        return self.reservations.claim(head)

    def lacking(
        self, request: SchedulerResourceRequest, claim: Hashable, heads: Mapping[TaskGroupKey, SchedulableTask]
    ) -> SchedulerResourceKey | None:
        """A resource of which too little is free for `request` to a head that has `claim`, or None."""
        if self.claims:
            return self.ledger.lacking(request.amounts, self.reservations.reserved_before(claim, heads))
        return self.ledger.lacking(request.amounts, _NOTHING)

    def lacking_for(self, item: SchedulableTask, queue_view: QueueView) -> SchedulerResourceKey | None:
        """A resource of which too little is free to `item`, or None."""
        return self.lacking(item.resource_request, self.claim(item), queue_view.first_candidate_tasks_by_group)

    def shortage(self, item: SchedulableTask, queue_view: QueueView) -> Mapping[str, object]:
        """What `item` lacks, as facts for a denial."""
        free = self.ledger.free
        reserved = self.reservations.reserved_before(self.claim(item), queue_view.first_candidate_tasks_by_group)
        missing = {
            resource: {
                "requested": amount,
                "available": free(resource),
                "reserved_for_others": reserved.get(resource, 0),
                "limit": self.view.resource_limits.get(resource),
            }
            for resource, amount in item.resource_request.amounts.items()
            if free(resource) - reserved.get(resource, 0) < amount
        }
        return MappingProxyType({"missing_resources": missing})

    @trio.lowlevel.disable_ki_protection
    def evaluate(self, item: SchedulableTask, queue_view: QueueView) -> TaskAdmissionPolicyDecision:
        """The policy's answer."""
        return self.policy.evaluate(item, queue_view, self.view)

    def kind(self, standing: Hashable) -> StandingKind:
        """Of which kind a standing is; of a foreign policy's nothing is known."""
        policy = self._peer_policy
        return "depends" if policy is None else policy.kind(standing)

    def verdict(self, request: SchedulerResourceRequest, standing: Hashable, heads: ClassedHeads) -> Verdict:
        """Whether heads that have room may run, if they ask and stand like that."""
        policy = self._peer_policy
        assert policy is not None
        return policy.class_verdict(request, standing, heads, self.view)

    def is_refused_alone(self, item: SchedulableTask) -> bool:
        """Whether limits or the policy refuse `item` even if nobody else is queued."""
        group = item.group.key
        wanted = item.resource_request.amounts
        if any(amount > self.limits.get(resource, 0) for resource, amount in wanted.items()):
            return True
        alone = QueueView(1, {group: 1}, {group: wanted}, {group: wanted}, {group: item}, {group: item.group}, wanted)
        return not self.evaluate(item, alone).allowed

    def watch(self, watcher: StandingWatcher) -> None:
        """Tell `watcher` of changes for as long as it lives. Those that are gone are forgotten."""
        others = [reference for reference in self._watchers if reference() not in {None, watcher}]
        self._watchers = [*others, weakref.ref(watcher)]

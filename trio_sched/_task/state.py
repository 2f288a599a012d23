"""The state that task admission judges by: ledger, reservations and policy, under one version.

It is the `StandingSource` of the queue's index of heads. `version` rises with every change, and watchers are told.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping
from types import MappingProxyType
from typing import Final, cast

import trio

from trio_sched._resources.task import (
    SchedulableTask,
    SchedulerResourceKey,
    SchedulerResourceRequest,
    TaskGroupKey,
)
from trio_sched._task.competition import PeerPolicy
from trio_sched._task.config import TaskAdmissionConfig
from trio_sched._task.heads import ClassedHeads, StandingKind, StandingWatcher
from trio_sched._task.leases import TaskAdmissionView
from trio_sched._task.ledger import TaskLedger
from trio_sched._task.policies import PolicyStateDelta, TaskAdmissionPolicy, TaskAdmissionPolicyDecision
from trio_sched._task.queue_view import QueueView
from trio_sched._task.reservations import Reservations

__all__ = ["TaskAdmissionState"]

_NOTHING: Final[Mapping[SchedulerResourceKey, int]] = MappingProxyType({})


class TaskAdmissionState:
    """What is held, owed and reserved, and who judges.

    view: the live view of it. is_open: whether anything is granted at all. has_standings: whether the policy says how groups stand; it is then taken to be as pure
    as it should be. standing_of, evaluate, on_acquire, on_release: the policy's, called without protection from Ctrl-C
    unless it is one of this package's own.
    """

    __slots__ = (
        "_peer_policy",
        "_roomy_request",
        "_roomy_version",
        "_standing_of",
        "_watchers",
        "claims",
        "has_standings",
        "is_open",
        "ledger",
        "policy",
        "reservations",
        "version",
        "view",
    )

    def __init__(self, config: TaskAdmissionConfig, policy: TaskAdmissionPolicy) -> None:
        self.policy = policy
        self.version = 0
        self.is_open = True
        self.ledger = TaskLedger(config.limits)
        self.reservations = Reservations(config.multi_unit_skip_bound, self.ledger, self)
        self.claims = self.reservations.made
        self.view = self.ledger.view(self.reservations, self)
        self._watchers: list[weakref.ref[StandingWatcher]] = []
        self._peer_policy = cast("PeerPolicy[Hashable]", policy) if isinstance(policy, PeerPolicy) else None
        self._standing_of = cast(
            "Callable[[SchedulableTask, TaskAdmissionView], Hashable] | None", getattr(policy, "standing", None)
        )
        self.has_standings = self._standing_of is not None
        self._roomy_request: SchedulerResourceRequest | None = None
        self._roomy_version = 0

    # Changes

    def changed(self, group: TaskGroupKey | None, freed: Iterable[SchedulerResourceKey]) -> None:
        """What `group` holds or owes has changed, and more of what is `freed` may be free."""
        self.version += 1
        for reference in self._watchers:
            watcher = reference()
            if watcher is not None:
                watcher.changed(group, freed)

    def apply(self, delta: PolicyStateDelta) -> None:
        """Change debt as the policy says."""
        for group in self.ledger.change_debt(delta.debt_changes):
            self.changed(group, ())

    def reserve_after_grant(self, item: SchedulableTask, queue_view: QueueView) -> None:
        """`item` was granted: count whom that passed over, and end its own reservation."""
        for group in self.reservations.granted(item, queue_view):
            self.changed(group, self.ledger.limiters)

    # Questions

    @trio.lowlevel.disable_ki_protection
    def standing(self, head: SchedulableTask) -> Hashable:
        """How the head's group stands with the policy."""
        assert self._standing_of is not None
        return self._standing_of(head, self.view)

    def claim(self, head: SchedulableTask) -> Hashable:
        """The reservation made for `head`, or None."""
        return self.reservations.claim(head)

    def lacking(
        self, request: SchedulerResourceRequest, claim: Hashable, heads: Mapping[TaskGroupKey, SchedulableTask]
    ) -> SchedulerResourceKey | None:
        """A resource of which too little is free for `request` to a head that has `claim`, or None."""
        if self.claims:
            return self.ledger.lacking(request.amounts, self.reservations.reserved_before(claim, heads))
        resource = self.ledger.lacking(request.amounts, _NOTHING)
        if resource is None:
            # Selecting looks whether a request has room, and then asks about an item that has the same request.
            self._roomy_request, self._roomy_version = request, self.version
        return resource

    def lacking_for(self, item: SchedulableTask, queue_view: QueueView) -> SchedulerResourceKey | None:
        """A resource of which too little is free to `item`, or None."""
        request = item.resource_request
        if request is self._roomy_request and self.version == self._roomy_version and not self.claims:
            return None
        return self.lacking(request, self.claim(item), queue_view.first_candidate_tasks_by_group)

    def has_free(self, resource: SchedulerResourceKey) -> bool:
        """Whether any unit of `resource` is free to anybody."""
        return self.ledger.free(resource) > 0

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

    @trio.lowlevel.disable_ki_protection
    def refuses(self, request: SchedulerResourceRequest, standing: Hashable, heads: ClassedHeads) -> bool:
        """Whether entitled heads compete with those, unentitled, that ask and stand like that."""
        policy = self._peer_policy
        assert policy is not None
        return policy.refuses_class(request, heads, self.view)

    def is_refused_alone(self, item: SchedulableTask) -> bool:
        """Whether the policy refuses `item` even if nobody else is queued."""
        group = item.group.key
        wanted = item.resource_request.amounts
        alone = QueueView(1, {group: 1}, {group: wanted}, {group: wanted}, {group: item}, {group: item.group}, wanted)
        return not self.evaluate(item, alone).allowed

    def watch(self, watcher: StandingWatcher) -> None:
        """Tell `watcher` of changes for as long as it lives. Those that are gone are forgotten."""
        others = [reference for reference in self._watchers if reference() not in {None, watcher}]
        self._watchers = [*others, weakref.ref(watcher)]

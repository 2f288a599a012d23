"""Strict fair sharing: a group at its limit waits while a peer below its own limit asks for the same.

The share of a group is its `admitted_limit`, counted in tasks; a group without one is always within its share. A group
at its limit is refused, with `group_cap`, while something that its task competes for is contested. Nothing is borrowed.
"""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType

from trio_sched._resources.task import SchedulableTask, SchedulerResourceKey
from trio_sched._task.leases import TaskAdmissionLease
from trio_sched._task.ledger import TaskAdmissionView
from trio_sched._task.policies import (
    ALLOWED,
    NO_CHANGE,
    Contention,
    PeerPolicy,
    PolicyStateDelta,
    TaskAdmissionPolicyDecision,
)
from trio_sched._task.queue import QueueView

__all__ = ["StrictFairTaskAdmissionPolicy"]


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

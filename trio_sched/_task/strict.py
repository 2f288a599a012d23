"""Strict fair sharing: a group at its limit waits while others are entitled to what it asks for."""

from __future__ import annotations

from trio_sched._resources.task import SchedulableTask, SchedulerResourceRequest
from trio_sched._task.competition import ClassedCompetition, Competition, PeerPolicy
from trio_sched._task.heads import StandingKind, Verdict
from trio_sched._task.leases import TaskAdmissionLease, TaskAdmissionView
from trio_sched._task.policies import ALLOWED, NO_CHANGE, PolicyStateDelta, TaskAdmissionPolicyDecision
from trio_sched._task.queue_view import QueueView

__all__ = ["StrictFairTaskAdmissionPolicy"]


class StrictFairTaskAdmissionPolicy(PeerPolicy[bool]):
    """A group at its `admitted_limit` waits while an entitled peer competes with it. There is no debt.

    Entitled is who is below its limit, or has none. A group's standing is whether it is at its limit.
    """

    def standing(self, item: SchedulableTask, admission_view: TaskAdmissionView) -> bool:
        """Whether the item's group is at its limit."""
        limit = item.group.admitted_limit
        return limit is not None and admission_view.account(item.group.key).running >= limit

    def is_entitled(self, standing: bool, request: SchedulerResourceRequest, competition: Competition[bool]) -> bool:
        """Whoever is not at its limit is entitled."""
        return not standing

    def kind(self, standing: bool) -> StandingKind:
        """It always does."""
        return "unentitled" if standing else "entitled"

    @property
    def lone_verdict(self) -> Verdict:
        """A limit does not bind then."""
        return "uncharged"

    def verdict(
        self, standing: bool, request: SchedulerResourceRequest, competition: ClassedCompetition[bool]
    ) -> Verdict:
        """Refused is who is at its limit and competes with an entitled peer; nothing is ever owed."""
        return "refused" if competition.is_contested_for(request) else "uncharged"

    def evaluate(
        self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
    ) -> TaskAdmissionPolicyDecision:
        """Refuse with `group_cap` a group at its limit that an entitled peer competes with."""
        limit = item.group.admitted_limit
        if limit is None or admission_view.account(item.group.key).running < limit:
            return ALLOWED
        request = item.resource_request
        competition = self.competition(item, queue_view, admission_view)
        contested = tuple([resource for resource in request.competed_for if competition.is_contested(resource)])
        if not contested:
            return ALLOWED
        return TaskAdmissionPolicyDecision(
            allowed=False,
            reason="group_cap",
            diagnostics={"admitted_limit": limit, "contested_resources": contested},
        )

    def on_acquire(self, lease: TaskAdmissionLease, decision: TaskAdmissionPolicyDecision) -> PolicyStateDelta:
        """Nothing is owed."""
        return NO_CHANGE

    def on_release(self, lease: TaskAdmissionLease) -> PolicyStateDelta:
        """Nothing was owed."""
        return NO_CHANGE

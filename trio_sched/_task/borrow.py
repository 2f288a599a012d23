"""Bounded borrowing: what a group's peers leave unused it may use, and gives back before it gets more.

Of each resource that a task competes for, its group has a strict share:

    limit x weight / weights of the groups that compete for it now

rounded, at least 1, at most the group's `admitted_limit`. A group that competes with nobody is measured against one
imagined equal peer. What a grant takes above the share is borrowed, and the group owes it; while it owes, or would go
above its share, it is not entitled. An entitled peer that competes for the resource therefore gets the next unit, and
the group gets no more of it until what it finishes has repaid the debt.

While no entitled peer competes a group may borrow, debt or no debt, and up to a bound:

- by a ceiling, if there is one: what it owes then is at most the ceiling;
- else all of the resource but the reserve. This bounds what the group *holds*, as limit - share - reserve would bound
  what it owes if its share had always been the same. Debt may date from a time of more peers and smaller shares, and
  must not hold a group back that is now alone.

Debt never exceeds what the group holds of the resource, so it is always repaid when the group's tasks end.

Shares are computed from sums of exact weights: no rounding error decides who is within its share.
"""

from __future__ import annotations

import math
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, TypeAlias

from trio_sched._resources.task import (
    SchedulableTask,
    SchedulerResourceKey,
    SchedulerResourceRequest,
    TaskGroupKey,
    TaskGroupSpec,
)
from trio_sched._task.competition import ClassedCompetition, Competition, PeerPolicy
from trio_sched._task.config import BoundedBorrowTaskAdmissionPolicyConfig
from trio_sched._task.heads import StandingKind, Verdict, exact_weight
from trio_sched._task.leases import GroupAccount, TaskAdmissionDenyReason, TaskAdmissionLease, TaskAdmissionView
from trio_sched._task.policies import (
    ALLOWED,
    NO_CHANGE,
    PolicyStateDelta,
    TaskAdmissionPolicy,
    TaskAdmissionPolicyDecision,
)
from trio_sched._task.queue_view import QueueView

__all__ = ["BorrowStanding", "BoundedBorrowTaskAdmissionPolicy", "ResourceStanding", "repays_only_borrowed"]


# The same few decisions and changes of debt come again and again.
_REMEMBERED: Final = 1024


class ResourceStanding(NamedTuple):
    """How a group would stand with one resource if its head were granted: what it would hold, and what it owes now."""

    resource: SchedulerResourceKey
    amount: int
    projected: int
    debt: int
    weight: float
    admitted_limit: int | None
    ceiling: int | None


BorrowStanding: TypeAlias = Literal["always entitled", "never entitled"] | TaskGroupSpec | tuple[ResourceStanding, ...]


class BoundedBorrowTaskAdmissionPolicy(PeerPolicy[BorrowStanding]):
    """A group may go above its strict share while no entitled peer competes, and owes what it borrowed."""

    def __init__(self, config: BoundedBorrowTaskAdmissionPolicyConfig | None = None) -> None:
        self._config = config = BoundedBorrowTaskAdmissionPolicyConfig() if config is None else config
        self._rounds_up = config.strict_share_rounding == "ceil"
        self._borrows_freely = (
            config.default_borrow_ceiling is None
            and not config.borrow_ceiling_by_group_resource
            and not config.dynamic_borrow_reserve_fraction
        )

    @property
    def config(self) -> BoundedBorrowTaskAdmissionPolicyConfig:
        """The terms."""
        return self._config

    def standing(self, item: SchedulableTask, admission_view: TaskAdmissionView) -> BorrowStanding:
        """How the group stands with all that its head competes for, or as little of it as decides every answer.

        Who owes nothing and would hold one unit is within any share. Where only one resource is competed for, and
        neither ceiling nor reserve bounds borrowing, who owes something or would hold more than its admitted limit is
        entitled to nothing, and nothing else about it matters; and who holds no more than an equal part of the resource
        stands for itself, as it will mostly be entitled, and would change its class with every grant.
        """
        account = admission_view.account(item.group.key)
        request = item.resource_request
        if not self._borrows_freely or len(request.competed_for) != 1:
            if self._is_within_any_share(request, account):
                return "always entitled"
        else:
            (resource,) = request.competed_for
            projected = account.held.get(resource, 0) + request.amounts[resource]
            owes = resource in account.debt
            if projected == 1 and not owes:
                return "always entitled"
            spec = item.group
            if owes or (spec.admitted_limit is not None and projected > spec.admitted_limit):
                return "never entitled"
            source = admission_view.source
            if source is not None and projected * len(source.accounts) <= admission_view.resource_limits[resource]:
                return spec
        return self._parts(item.group, request, account)

    def is_entitled(
        self, standing: BorrowStanding, request: SchedulerResourceRequest, competition: Competition[BorrowStanding]
    ) -> bool:
        """Whoever owes nothing and would stay within its share of everything it competes for."""
        if isinstance(standing, str):
            return standing == "always entitled"
        if isinstance(standing, TaskGroupSpec) and self._is_known_entitled(standing, request, competition):
            return True
        parts = self._parts_of(standing, request, competition)
        return all(not part.debt and part.projected <= self._share_of(part, competition) for part in parts)

    def kind(self, standing: BorrowStanding) -> StandingKind:
        """It does at the ends of the scale."""
        if isinstance(standing, str):
            return "entitled" if standing == "always entitled" else "unentitled"
        return "depends"

    @property
    def lone_verdict(self) -> Verdict | None:
        """It may borrow, unless a ceiling or a reserve bounds that."""
        return "alone" if self._borrows_freely else None

    def lone_decision(self, item: SchedulableTask, admission_view: TaskAdmissionView) -> TaskAdmissionPolicyDecision:
        """Allowed; what lies above half of a resource, or the group's limit, is borrowed."""
        spec, request = item.group, item.resource_request
        held, amounts = admission_view.account(spec.key).held, request.amounts
        borrowed: list[tuple[SchedulerResourceKey, int]] = []
        for resource in request.competed_for:
            amount = amounts[resource]
            share = self._lone_share(admission_view.resource_limits[resource], spec.admitted_limit)
            above = held.get(resource, 0) + amount - share
            if above > 0:
                borrowed.append((resource, min(above, amount)))
        return _borrowing(*borrowed) if borrowed else ALLOWED

    def verdict(
        self,
        standing: BorrowStanding,
        request: SchedulerResourceRequest,
        competition: ClassedCompetition[BorrowStanding],
    ) -> Verdict:
        """Refused is who is not entitled and competes with an entitled peer, or would borrow beyond its bound."""
        if isinstance(standing, str):
            return "refused" if competition.is_contested_for(request) else "allowed"
        if isinstance(standing, TaskGroupSpec) and self._is_known_entitled(standing, request, competition):
            return "uncharged"
        if self._borrows_freely and competition.is_alone(request):
            return "alone"
        parts = self._parts_of(standing, request, competition)
        if self._borrows_freely and not competition.is_contested_for(request):
            return "allowed"
        decision = self._judge(parts, competition)
        if not decision.allowed:
            return "refused"
        return "allowed" if decision.borrowed else "uncharged"

    def evaluate(
        self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
    ) -> TaskAdmissionPolicyDecision:
        """Refuse with `group_cap` who would go above its share, with `borrow_debt` who owes or would owe too much."""
        account = admission_view.account(item.group.key)
        request = item.resource_request
        if self._is_within_any_share(request, account):
            return ALLOWED
        competition = self.competition(item, queue_view, admission_view)
        if self._borrows_freely and len(request.competed_for) == 1:
            (resource,) = request.competed_for
            if not competition.is_contested(resource):
                amount = request.amounts[resource]
                share = self._strict_share(resource, item.group.weight, item.group.admitted_limit, competition)
                above = account.held.get(resource, 0) + amount - share
                return _borrowing((resource, min(amount, above))) if above > 0 else ALLOWED
        return self._judge(self._parts(item.group, request, account), competition)

    def _judge(
        self, parts: tuple[ResourceStanding, ...], competition: Competition[BorrowStanding]
    ) -> TaskAdmissionPolicyDecision:
        shares = [self._share_of(part, competition) for part in parts]
        if all(not part.debt and part.projected <= share for part, share in zip(parts, shares, strict=True)):
            return ALLOWED
        borrowed: list[tuple[SchedulerResourceKey, int]] = []
        for part, share in zip(parts, shares, strict=True):
            above = part.projected - share
            if competition.is_contested(part.resource):
                if part.debt:
                    return _refusal("borrow_debt", part, share, "an entitled peer competes")
                if above > 0:
                    return _refusal("group_cap", part, share, "an entitled peer competes")
            elif above > 0:
                units = min(part.amount, above)
                if not self._borrows_freely and self._exceeds_bound(part, units, competition.admission_view):
                    return _refusal("borrow_debt", part, share, "borrowing is bounded")
                borrowed.append((part.resource, units))
        return _borrowing(*borrowed)

    def _is_known_entitled(
        self, spec: TaskGroupSpec, request: SchedulerResourceRequest, competition: Competition[BorrowStanding]
    ) -> bool:
        """Whether totals show that the group is entitled: the common case, told without a look at its peers."""
        account = competition.admission_view.account(spec.key)
        for resource in request.competed_for:
            units = account.held.get(resource, 0) + request.amounts[resource]
            if (
                resource in account.debt
                or (spec.admitted_limit is not None and units > spec.admitted_limit)
                or not competition.is_surely_within_share(resource, units, spec.weight)
            ):
                return False
        return True

    def on_acquire(self, lease: TaskAdmissionLease, decision: TaskAdmissionPolicyDecision) -> PolicyStateDelta:
        """Owe what was borrowed."""
        if not decision.borrowed:
            return NO_CHANGE
        return _owed(lease.item.group.key, *decision.borrowed.items())

    def on_release(self, lease: TaskAdmissionLease) -> PolicyStateDelta:
        """Repay with what the lease held, or only what it borrowed itself if the terms say so."""
        repaid = lease.resources if self._config.repay_on_withheld_peer_pressure else lease.borrowed
        return _repaid(lease.item.group.key, *repaid.items())

    def _is_within_any_share(self, request: SchedulerResourceRequest, account: GroupAccount) -> bool:
        held, debt, amounts = account.held, account.debt, request.amounts
        for resource in request.competed_for:
            if held.get(resource, 0) + amounts[resource] > 1 or (debt and resource in debt):
                return False
        return True

    def _parts_of(
        self,
        standing: TaskGroupSpec | tuple[ResourceStanding, ...],
        request: SchedulerResourceRequest,
        competition: Competition[BorrowStanding],
    ) -> tuple[ResourceStanding, ...]:
        if isinstance(standing, TaskGroupSpec):
            return self._parts(standing, request, competition.admission_view.account(standing.key))
        return standing

    def _parts(
        self, spec: TaskGroupSpec, request: SchedulerResourceRequest, account: GroupAccount
    ) -> tuple[ResourceStanding, ...]:
        held, debt, amounts = account.held, account.debt, request.amounts
        return tuple(
            [
                ResourceStanding(
                    resource,
                    amounts[resource],
                    held.get(resource, 0) + amounts[resource],
                    debt.get(resource, 0),
                    spec.weight,
                    spec.admitted_limit,
                    self._ceiling(spec.key, resource),
                )
                for resource in request.competed_for
            ]
        )

    def _share_of(self, part: ResourceStanding, competition: Competition[BorrowStanding]) -> int:
        return self._strict_share(part.resource, part.weight, part.admitted_limit, competition)

    def _strict_share(
        self,
        resource: SchedulerResourceKey,
        weight: float,
        admitted_limit: int | None,
        competition: Competition[BorrowStanding],
    ) -> int:
        limit = competition.admission_view.resource_limits[resource]
        total_weight, groups = competition.field(resource)
        if groups == 1:
            return self._lone_share(limit, admitted_limit)
        own_weight = exact_weight(weight)
        part = -(-limit * own_weight // total_weight) if self._rounds_up else limit * own_weight // total_weight or 1
        return part if admitted_limit is None or part < admitted_limit else admitted_limit

    def _lone_share(self, limit: int, admitted_limit: int | None) -> int:
        half = (limit + 1) // 2 if self._rounds_up else limit // 2 or 1
        return half if admitted_limit is None or half < admitted_limit else admitted_limit

    def _ceiling(self, group: TaskGroupKey, resource: SchedulerResourceKey) -> int | None:
        config = self._config
        if config.borrow_ceiling_by_group_resource:
            return config.borrow_ceiling_by_group_resource.get((group, resource), config.default_borrow_ceiling)
        return config.default_borrow_ceiling

    def _exceeds_bound(self, part: ResourceStanding, units: int, admission_view: TaskAdmissionView) -> bool:
        if part.ceiling is not None:
            return part.debt + units > part.ceiling
        limit = admission_view.resource_limits[part.resource]
        # Rounded first: 0.07 of 100 is 7, though 0.07 * 100 lies just above.
        reserve = math.ceil(round(limit * self._config.dynamic_borrow_reserve_fraction, 9))
        return part.projected > limit - min(reserve, self._config.dynamic_borrow_max_reserved_slots)


def repays_only_borrowed(policy: TaskAdmissionPolicy) -> bool:
    """Whether by the terms of `policy` a lease repays no more than it borrowed itself."""
    return isinstance(policy, BoundedBorrowTaskAdmissionPolicy) and not policy.config.repay_on_withheld_peer_pressure


@lru_cache(_REMEMBERED)
def _owed(group: TaskGroupKey, *borrowed: tuple[SchedulerResourceKey, int]) -> PolicyStateDelta:
    return PolicyStateDelta(
        MappingProxyType({(group, resource): units for resource, units in borrowed}),
        MappingProxyType({"borrowed_units": sum(units for _, units in borrowed)}),
    )


@lru_cache(_REMEMBERED)
def _repaid(group: TaskGroupKey, *repaid: tuple[SchedulerResourceKey, int]) -> PolicyStateDelta:
    return PolicyStateDelta(
        MappingProxyType({(group, resource): -units for resource, units in repaid}), MappingProxyType({})
    )


@lru_cache(_REMEMBERED)
def _borrowing(*borrowed: tuple[SchedulerResourceKey, int]) -> TaskAdmissionPolicyDecision:
    return TaskAdmissionPolicyDecision(allowed=True, borrowed=MappingProxyType(dict(borrowed)))


def _refusal(
    reason: TaskAdmissionDenyReason, part: ResourceStanding, share: int, why: str
) -> TaskAdmissionPolicyDecision:
    return TaskAdmissionPolicyDecision(
        allowed=False,
        reason=reason,
        diagnostics={
            "resource": part.resource,
            "held": part.projected - part.amount,
            "requested": part.amount,
            "strict_share": share,
            "debt": part.debt,
            "because": why,
        },
    )

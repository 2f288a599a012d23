"""Bounded borrowing: what a group's peers leave unused it may use, and gives back before it gets more.

Of each resource that an item competes for, its group has a strict share:

    limit x weight / weights of the groups that compete for it now

rounded, at least 1, and at most the group's `admitted_limit`. The group itself counts among those that compete. A group
that competes with nobody is measured against one imagined equal peer. A group is within its share if it has no debt,
and would hold no more than its share, of everything that the item competes for.

A group beyond its share is refused what is contested, if it has a debt there or would hold more than its share. So a
peer within its share gets the next unit. What is not contested the group may borrow, debt or no debt, up to a bound:

- with a ceiling, until its debt would exceed the ceiling;
- without one, until it holds all of the resource but the reserve. This bounds what the group *holds*, as
  limit - share - reserve would bound its debt if its share had always been the same. Debt may date from a time of more
  peers and smaller shares, and must not hold a group back that is uncontended now.

Debt is taken at the grant, for the units above the share of that moment. It never exceeds what the group holds of the
resource, so it is always repaid when the group's tasks end. Sums of weights are exact: no rounding error decides who is
within its share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Literal

import attrs

from trio_sched import _validation as check
from trio_sched._errors import InvalidTypeError, InvalidValueError
from trio_sched._resources.task import SchedulableTask, SchedulerResourceKey, TaskGroupKey, TaskGroupSpec
from trio_sched._task.ledger import GroupAccount, TaskAdmissionLease, TaskAdmissionView
from trio_sched._task.policies import (
    ALLOWED,
    NO_CHANGE,
    Contention,
    PeerPolicy,
    PolicyStateDelta,
    TaskAdmissionDenyReason,
    TaskAdmissionPolicy,
    TaskAdmissionPolicyDecision,
)
from trio_sched._task.queue import QueueView, exact_weight

__all__ = [
    "BoundedBorrowTaskAdmissionPolicy",
    "BoundedBorrowTaskAdmissionPolicyConfig",
    "StrictShareRounding",
    "repays_only_borrowed",
]

_CONTESTED: Final = "a peer within its share competes"
_BOUNDED: Final = "borrowing is bounded"


StrictShareRounding = Literal["ceil", "floor"]


def _ceilings(
    value: Mapping[tuple[TaskGroupKey, SchedulerResourceKey], int],
) -> Mapping[tuple[TaskGroupKey, SchedulerResourceKey], int]:
    for key, ceiling in value.items():
        check.check_int(f"borrow_ceiling_by_group_resource[{key!r}]", ceiling, minimum=0)
    return check.frozen_mapping(value)


def _optional_ceiling(instance: object, attribute: attrs.Attribute[int | None], value: int | None) -> None:
    if value is not None:
        check.check_int(f"{type(instance).__name__}.{attribute.name}", value, minimum=0)


def _rounding(instance: object, attribute: attrs.Attribute[StrictShareRounding], value: object) -> None:
    if value not in {"ceil", "floor"}:
        raise InvalidValueError(f"{type(instance).__name__}.{attribute.name}", value, "'ceil' or 'floor'")


def _flag(instance: object, attribute: attrs.Attribute[bool], value: object) -> None:
    if not isinstance(value, bool):
        raise InvalidTypeError(f"{type(instance).__name__}.{attribute.name}", value, "a bool")


@attrs.frozen
class BoundedBorrowTaskAdmissionPolicyConfig:
    """How far a group may borrow above its strict share.

    A ceiling bounds the debt of a group: the one of (group, resource), else `default_borrow_ceiling`, else none. Where
    there is no ceiling, a group may use the whole resource but for a reserve, `dynamic_borrow_reserve_fraction` of its
    limit rounded up and at most `dynamic_borrow_max_reserved_slots`. With the defaults nothing is held back, so
    capacity is idle only when nobody wants it; a ceiling or a reserve keeps some idle, which is what it is for.

    strict_share_rounding: how a share that is not whole is rounded. repay_on_withheld_peer_pressure: any lease that the
    indebted group finishes repays, so that a peer that is kept waiting is served soon; otherwise each lease repays only
    what it borrowed itself.
    """

    borrow_ceiling_by_group_resource: Mapping[tuple[TaskGroupKey, SchedulerResourceKey], int] = attrs.field(
        factory=dict[tuple[TaskGroupKey, SchedulerResourceKey], int], converter=_ceilings
    )
    default_borrow_ceiling: int | None = attrs.field(default=None, validator=_optional_ceiling)
    dynamic_borrow_reserve_fraction: float = attrs.field(default=0.0, validator=check.closed_unit_interval)
    dynamic_borrow_max_reserved_slots: int = attrs.field(default=8, validator=check.positive_int)
    strict_share_rounding: StrictShareRounding = attrs.field(default="ceil", validator=_rounding)
    repay_on_withheld_peer_pressure: bool = attrs.field(default=True, validator=_flag)


class BoundedBorrowTaskAdmissionPolicy(PeerPolicy):
    """A group may go above its strict share of what is not contested, and has borrowed what lies above."""

    def __init__(self, config: BoundedBorrowTaskAdmissionPolicyConfig | None = None) -> None:
        self._config = BoundedBorrowTaskAdmissionPolicyConfig() if config is None else config

    @property
    def config(self) -> BoundedBorrowTaskAdmissionPolicyConfig:
        """The terms."""
        return self._config

    def make_contention(
        self, queue_view: QueueView, admission_view: TaskAdmissionView, item: SchedulableTask | None = None
    ) -> Contention:
        """What this policy answers in the state that the views show."""
        return _BorrowContention(self._config, queue_view, admission_view, item)

    def on_acquire(self, lease: TaskAdmissionLease, decision: TaskAdmissionPolicyDecision) -> PolicyStateDelta:
        """What was borrowed is the group's debt."""
        return _debt(lease.item.group.key, *decision.borrowed.items()) if decision.borrowed else NO_CHANGE

    def on_release(self, lease: TaskAdmissionLease) -> PolicyStateDelta:
        """Repay with what the lease held, or only what it borrowed itself if the terms say so."""
        repaid = lease.resources if self._config.repay_on_withheld_peer_pressure else lease.borrowed
        return _repayment(lease.item.group.key, *repaid.items()) if repaid else NO_CHANGE


class _BorrowContention(Contention):
    __slots__ = ("_config", "_shares")

    def __init__(
        self,
        config: BoundedBorrowTaskAdmissionPolicyConfig,
        queue_view: QueueView,
        admission_view: TaskAdmissionView,
        item: SchedulableTask | None,
    ) -> None:
        super().__init__(queue_view, admission_view, item)
        self._config = config
        self._shares: dict[tuple[SchedulerResourceKey, float, int | None], int] = {}

    def is_within_share(self, item: SchedulableTask) -> bool:
        return not self._beyond_share(item, self.view.account(item.group.key))

    def decide(self, item: SchedulableTask) -> TaskAdmissionPolicyDecision:
        key, amounts = item.group.key, item.resource_request.amounts
        account = self.view.account(key)
        beyond = self._beyond_share(item, account)
        if not beyond:
            return ALLOWED
        borrowed: list[tuple[SchedulerResourceKey, int]] = []
        for resource, above in beyond:
            amount, held, debt = amounts[resource], account.held.get(resource, 0), account.debt.get(resource, 0)
            if self.is_contested(resource):
                reason: TaskAdmissionDenyReason = "borrow_debt" if debt else "group_cap"
                return _refused(reason, resource, held, amount, above, debt, _CONTESTED)
            if above > 0:
                units = min(amount, above)
                if self._exceeds_bound(key, resource, held + amount, debt + units):
                    return _refused("borrow_debt", resource, held, amount, above, debt, _BOUNDED)
                borrowed.append((resource, units))
        return _borrowing(*borrowed)

    def _beyond_share(self, item: SchedulableTask, account: GroupAccount) -> list[tuple[SchedulerResourceKey, int]]:
        """The resources of which the group has a debt, or would hold more than its share, and how many units more."""
        request, spec = item.resource_request, item.group
        held, debts, amounts = account.held, account.debt, request.amounts
        beyond: list[tuple[SchedulerResourceKey, int]] = []
        for resource in request.competed_for:
            above = held.get(resource, 0) + amounts[resource] - self._share(resource, spec)
            if above > 0 or resource in debts:
                beyond.append((resource, above))
        return beyond

    def _share(self, resource: SchedulerResourceKey, spec: TaskGroupSpec) -> int:
        key = resource, spec.weight, spec.admitted_limit
        share = self._shares.get(key)
        if share is None:
            limit, own = self.view.resource_limits[resource], exact_weight(spec.weight)
            total, groups = self.totals(resource)
            if groups == 1:
                total = 2 * own
            rounds_up = self._config.strict_share_rounding == "ceil"
            share = -(-limit * own // total) if rounds_up else limit * own // total or 1
            if spec.admitted_limit is not None:
                share = min(share, spec.admitted_limit)
            self._shares[key] = share
        return share

    def _exceeds_bound(self, group: TaskGroupKey, resource: SchedulerResourceKey, held: int, debt: int) -> bool:
        config = self._config
        ceiling = config.borrow_ceiling_by_group_resource.get((group, resource), config.default_borrow_ceiling)
        if ceiling is not None:
            return debt > ceiling
        if not config.dynamic_borrow_reserve_fraction:
            return False
        limit = self.view.resource_limits[resource]
        # Rounded first: 0.07 of 100 is 7, though 0.07 * 100 lies just above.
        reserve = math.ceil(round(limit * config.dynamic_borrow_reserve_fraction, 9))
        return held > limit - min(reserve, config.dynamic_borrow_max_reserved_slots)


def repays_only_borrowed(policy: TaskAdmissionPolicy) -> bool:
    """Whether by the terms of `policy` a lease repays no more than it borrowed itself."""
    return isinstance(policy, BoundedBorrowTaskAdmissionPolicy) and not policy.config.repay_on_withheld_peer_pressure


# The same few decisions and changes come again and again.


@lru_cache(1024)
def _borrowing(*borrowed: tuple[SchedulerResourceKey, int]) -> TaskAdmissionPolicyDecision:
    return TaskAdmissionPolicyDecision(allowed=True, borrowed=MappingProxyType(dict(borrowed)))


@lru_cache(1024)
def _refused(
    reason: TaskAdmissionDenyReason, resource: str, held: int, requested: int, above: int, debt: int, because: str
) -> TaskAdmissionPolicyDecision:
    facts = {
        "resource": resource,
        "held": held,
        "requested": requested,
        "strict_share": held + requested - above,
        "debt": debt,
        "because": because,
    }
    return TaskAdmissionPolicyDecision(allowed=False, reason=reason, diagnostics=MappingProxyType(facts))


@lru_cache(1024)
def _debt(group: TaskGroupKey, *borrowed: tuple[SchedulerResourceKey, int]) -> PolicyStateDelta:
    counters = {"borrowed_units": sum(units for _, units in borrowed)}
    return PolicyStateDelta(
        MappingProxyType({(group, resource): units for resource, units in borrowed}), MappingProxyType(counters)
    )


@lru_cache(1024)
def _repayment(group: TaskGroupKey, *repaid: tuple[SchedulerResourceKey, int]) -> PolicyStateDelta:
    return PolicyStateDelta(MappingProxyType({(group, resource): -units for resource, units in repaid}))

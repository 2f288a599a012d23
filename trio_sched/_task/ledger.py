"""The ledger of the task stage: what is held, by which group, and what groups owe.

Each resource has one `trio.CapacityLimiter`, and the limiter is the count: what is held is what is borrowed. Beside it
the ledger keeps only what no limiter can tell: how much of it each group holds and owes, and how many tasks it runs.
Entries that come to zero are dropped, so the ledger is as large as what runs. Nothing here is clamped: a count that
would go below zero is a bug and is asserted against.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import trio

from trio_sched._resources.task import SchedulerResourceKey, TaskGroupKey
from trio_sched._task.leases import LeaseUnit, TaskAdmissionLease, TaskAdmissionView, TaskReservation
from trio_sched._task.live import LiveMapping

__all__ = ["GroupHoldings", "TaskLedger"]


class GroupHoldings:
    """What the running tasks of one group hold."""

    __slots__ = ("held", "running")

    def __init__(self) -> None:
        self.running = 0
        self.held: dict[SchedulerResourceKey, int] = {}


def _limit(limiter: trio.CapacityLimiter) -> int:
    total = limiter.total_tokens
    assert isinstance(total, int)
    return total


def _free(limiter: trio.CapacityLimiter) -> int:
    return _limit(limiter) - limiter.borrowed_tokens


class TaskLedger:
    """Units of every resource, lent to leases."""

    __slots__ = ("debt", "groups", "limiters")

    def __init__(self, limits: Mapping[SchedulerResourceKey, int]) -> None:
        self.limiters = {resource: trio.CapacityLimiter(limit) for resource, limit in limits.items()}
        self.groups: dict[TaskGroupKey, GroupHoldings] = {}
        self.debt: dict[tuple[TaskGroupKey, SchedulerResourceKey], int] = {}

    def limit(self, resource: SchedulerResourceKey) -> int:
        """The limit of `resource`."""
        return _limit(self.limiters[resource])

    def has_free(
        self, amounts: Mapping[SchedulerResourceKey, int], reserved: Mapping[SchedulerResourceKey, int]
    ) -> bool:
        """Whether `amounts` are free beside what is `reserved`. Nothing is free of a resource that has no limit."""
        limiters = self.limiters
        for resource, amount in amounts.items():
            limiter = limiters.get(resource)
            if limiter is None:
                return False
            if reserved:
                amount += reserved.get(resource, 0)
            if limiter.borrowed_tokens + amount > limiter.total_tokens:
                return False
        return True

    def book(self, lease: TaskAdmissionLease) -> None:
        """Lend `lease` all its units. They are free: the caller has looked."""
        group = lease.item.group.key
        holdings = self.groups.get(group)
        if holdings is None:
            holdings = self.groups[group] = GroupHoldings()
        holdings.running += 1
        held = holdings.held
        for resource, amount in lease.resources.items():
            limiter = self.limiters[resource]
            limiter.acquire_on_behalf_of_nowait(lease)
            for number in range(1, amount):
                limiter.acquire_on_behalf_of_nowait(LeaseUnit(lease, number))
            held[resource] = held.get(resource, 0) + amount

    def unbook(self, lease: TaskAdmissionLease) -> None:
        """Take all of the lease's units back."""
        group = lease.item.group.key
        holdings = self.groups[group]
        held = holdings.held
        for resource, amount in lease.resources.items():
            limiter = self.limiters[resource]
            limiter.release_on_behalf_of(lease)
            for number in range(1, amount):
                limiter.release_on_behalf_of(LeaseUnit(lease, number))
            rest = held[resource] - amount
            assert rest >= 0
            if rest:
                held[resource] = rest
            else:
                del held[resource]
        holdings.running -= 1
        if not holdings.running:
            assert not held
            del self.groups[group]

    def change_debt(self, changes: Mapping[tuple[TaskGroupKey, SchedulerResourceKey], int]) -> None:
        """Apply a policy's changes. A negative one is a repayment, and repays min(debt, units)."""
        for key, change in changes.items():
            debt = self.debt.get(key, 0)
            debt += change if change > 0 else -min(debt, -change)
            if debt:
                self.debt[key] = debt
            else:
                self.debt.pop(key, None)

    def view(self, reservations: Sequence[TaskReservation], source: object) -> TaskAdmissionView:
        """The live view of this ledger."""
        return TaskAdmissionView(
            resource_limits=LiveMapping(self.limiters, _limit),
            resources_available=LiveMapping(self.limiters, _free),
            leased_resources=LiveMapping(self.limiters, lambda limiter: limiter.borrowed_tokens, omit_zero=True),
            leased_resources_by_group=LiveMapping(self.groups, lambda group: MappingProxyType(group.held)),
            running_counts_by_group=LiveMapping(self.groups, lambda group: group.running),
            policy_debt_by_group_resource=MappingProxyType(self.debt),
            reservations=reservations,
            source=source,
        )

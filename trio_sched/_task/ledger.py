"""The ledger of the task stage: what is held, by which group, and what groups owe.

Each resource has one `trio.CapacityLimiter`, and the limiter is the count: what is held is what is borrowed. Beside it
the ledger keeps only what no limiter can tell: how much of it each group holds and owes, and how many tasks it runs.
Entries that come to zero are dropped, so the ledger is as large as what runs. Nothing here is clamped: a count that
would go below zero is a bug and is asserted against.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import trio

from trio_sched._resources.task import SchedulerResourceKey, TaskGroupKey
from trio_sched._task.leases import LeaseUnit, TaskAdmissionLease, TaskAdmissionView, TaskReservation
from trio_sched._task.live import LiveMapping

__all__ = ["TaskLedger"]


def _limit(limiter: trio.CapacityLimiter) -> int:
    total = limiter.total_tokens
    assert isinstance(total, int)
    return total


def _free(limiter: trio.CapacityLimiter) -> int:
    return _limit(limiter) - limiter.borrowed_tokens


class GroupHoldings:
    """What the running tasks of one group hold."""

    __slots__ = ("held", "running")

    def __init__(self) -> None:
        self.running = 0
        self.held: dict[SchedulerResourceKey, int] = {}


class TaskLedger:
    """Units of every resource, lent to leases."""

    __slots__ = ("_groups", "debt", "limiters")

    def __init__(self, limits: Mapping[SchedulerResourceKey, int]) -> None:
        self.limiters = {resource: trio.CapacityLimiter(limit) for resource, limit in limits.items()}
        self.debt: dict[tuple[TaskGroupKey, SchedulerResourceKey], int] = {}
        self._groups: dict[TaskGroupKey, GroupHoldings] = {}

    def free(self, resource: SchedulerResourceKey) -> int:
        """Units that nobody holds: 0 of a resource without a limit, negative after a limit shrank."""
        limiter = self.limiters.get(resource)
        return 0 if limiter is None else _free(limiter)

    def lacking(
        self, amounts: Mapping[SchedulerResourceKey, int], reserved: Mapping[SchedulerResourceKey, int]
    ) -> SchedulerResourceKey | None:
        """A resource of which less than in `amounts` is free beside what is `reserved`, or None."""
        limiters = self.limiters
        for resource, amount in amounts.items():
            limiter = limiters.get(resource)
            if limiter is None:
                return resource
            if reserved:
                amount += reserved.get(resource, 0)
            if limiter.borrowed_tokens + amount > limiter.total_tokens:
                return resource
        return None

    def book(self, lease: TaskAdmissionLease) -> None:
        """Lend `lease` all its units. They are free: the caller has looked."""
        group = lease.item.group.key
        holdings = self._groups.get(group)
        if holdings is None:
            holdings = self._groups[group] = GroupHoldings()
        holdings.running += 1
        held = holdings.held
        for resource, amount in lease.resources.items():
            limiter = self.limiters[resource]
            limiter.acquire_on_behalf_of_nowait(lease)
            if amount > 1:
                for number in range(1, amount):
                    limiter.acquire_on_behalf_of_nowait(LeaseUnit(lease, number))
            held[resource] = held.get(resource, 0) + amount

    def unbook(self, lease: TaskAdmissionLease) -> None:
        """Take all of the lease's units back."""
        group = lease.item.group.key
        holdings = self._groups[group]
        held = holdings.held
        for resource, amount in lease.resources.items():
            limiter = self.limiters[resource]
            limiter.release_on_behalf_of(lease)
            if amount > 1:
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
            del self._groups[group]

    def change_debt(self, changes: Mapping[tuple[TaskGroupKey, SchedulerResourceKey], int]) -> Iterable[TaskGroupKey]:
        """Apply a policy's changes and return the groups whose debt changed.

        A negative change is a repayment, and repays min(debt, units).
        """
        debts = self.debt
        changed: list[TaskGroupKey] = []
        for key, change in changes.items():
            if change > 0 or debts:
                debt = debts.get(key, 0)
                rest = debt + max(change, -debt)
                if rest != debt:
                    changed.append(key[0])
                    if rest:
                        debts[key] = rest
                    else:
                        del debts[key]
        return changed

    def view(self, reservations: Sequence[TaskReservation], source: object) -> TaskAdmissionView:
        """The live view of this ledger."""
        return TaskAdmissionView(
            resource_limits=LiveMapping(self.limiters, _limit),
            resources_available=LiveMapping(self.limiters, _free),
            leased_resources=LiveMapping(self.limiters, lambda limiter: limiter.borrowed_tokens, omit_zero=True),
            leased_resources_by_group=LiveMapping(self._groups, lambda group: MappingProxyType(group.held)),
            running_counts_by_group=LiveMapping(self._groups, lambda group: group.running),
            policy_debt_by_group_resource=MappingProxyType(self.debt),
            reservations=reservations,
            source=source,
        )

"""The ledger of the task stage: what is held, by which group, and what groups owe.

Each resource has one `trio.CapacityLimiter`, and the limiter is the count: what is held is what is borrowed. Beside it
the ledger keeps only what no limiter can tell: how much of it each group holds and owes, and how many tasks it runs.
Entries that come to zero are dropped, so the ledger is as large as what is held and owed. Nothing here is clamped: a
count that would go below zero is a bug and is asserted against.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

import trio

from trio_sched._resources.task import SchedulerResourceKey, TaskGroupKey
from trio_sched._task.leases import (
    AdmissionSource,
    GroupAccount,
    LeaseUnit,
    TaskAdmissionLease,
    TaskAdmissionView,
    TaskReservation,
)
from trio_sched._task.live import LiveMapping

__all__ = ["TaskLedger"]


def _limit(limiter: trio.CapacityLimiter) -> int:
    total = limiter.total_tokens
    assert isinstance(total, int)
    return total


def _free(limiter: trio.CapacityLimiter) -> int:
    return _limit(limiter) - limiter.borrowed_tokens


class TaskLedger:
    """Units of every resource, lent to leases. accounts: of the groups that hold or owe anything."""

    __slots__ = ("accounts", "limiters")

    def __init__(self, limits: Mapping[SchedulerResourceKey, int]) -> None:
        self.limiters = {resource: trio.CapacityLimiter(limit) for resource, limit in limits.items()}
        self.accounts: dict[TaskGroupKey, GroupAccount] = {}

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
        account = self.accounts.get(group)
        if account is None:
            account = self.accounts[group] = GroupAccount()
        account.running += 1
        held = account.held
        limiters = self.limiters
        for resource, amount in lease.resources.items():
            limiter = limiters[resource]
            limiter.acquire_on_behalf_of_nowait(lease)
            if amount > 1:
                for number in range(1, amount):
                    limiter.acquire_on_behalf_of_nowait(LeaseUnit(lease, number))
            held[resource] = held.get(resource, 0) + amount

    def unbook(self, lease: TaskAdmissionLease) -> GroupAccount:
        """Take all of the lease's units back; the account of its group, as it is then."""
        group = lease.item.group.key
        account = self.accounts[group]
        held = account.held
        limiters = self.limiters
        for resource, amount in lease.resources.items():
            limiter = limiters[resource]
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
        account.running -= 1
        if not account.running:
            assert not held
            if not account.debt:
                del self.accounts[group]
        return account

    def change_debt(self, changes: Mapping[tuple[TaskGroupKey, SchedulerResourceKey], int]) -> Iterable[TaskGroupKey]:
        """Apply a policy's changes and return the groups whose debt changed.

        A negative change is a repayment, and repays min(debt, units).
        """
        changed: list[TaskGroupKey] = []
        for (group, resource), change in changes.items():
            account = self.accounts.get(group)
            if account is None and change > 0:
                account = self.accounts[group] = GroupAccount()
            if account is not None and (account.debt or change > 0):
                debt = account.debt.get(resource, 0)
                rest = debt + max(change, -debt)
                if rest != debt:
                    changed.append(group)
                    if rest:
                        account.debt[resource] = rest
                    else:
                        del account.debt[resource]
                        if not account.running and not account.debt:
                            del self.accounts[group]
        return changed

    def view(self, reservations: Sequence[TaskReservation], source: AdmissionSource) -> TaskAdmissionView:
        """The live view of this ledger."""
        accounts = self.accounts
        return TaskAdmissionView(
            resource_limits=LiveMapping(self.limiters, _limit),
            resources_available=LiveMapping(self.limiters, _free),
            leased_resources=LiveMapping(self.limiters, lambda limiter: limiter.borrowed_tokens, omit_zero=True),
            leased_resources_by_group=LiveMapping(accounts, _held, omit_zero=True),
            running_counts_by_group=LiveMapping(accounts, lambda account: account.running, omit_zero=True),
            policy_debt_by_group_resource=_DebtByGroupResource(accounts),
            reservations=reservations,
            source=source,
        )


def _held(account: GroupAccount) -> Mapping[SchedulerResourceKey, int]:
    return MappingProxyType(account.held)


class _DebtByGroupResource(Mapping[tuple[TaskGroupKey, SchedulerResourceKey], int]):
    """What all groups owe, read from their accounts."""

    __slots__ = ("_accounts",)

    def __init__(self, accounts: Mapping[TaskGroupKey, GroupAccount]) -> None:
        self._accounts = accounts

    def __getitem__(self, key: tuple[TaskGroupKey, SchedulerResourceKey]) -> int:
        return self._accounts[key[0]].debt[key[1]]

    def __iter__(self) -> Iterator[tuple[TaskGroupKey, SchedulerResourceKey]]:
        return ((group, resource) for group, account in self._accounts.items() for resource in account.debt)

    def __len__(self) -> int:
        return sum(len(account.debt) for account in self._accounts.values())

    def __repr__(self) -> str:
        return repr(dict(self))

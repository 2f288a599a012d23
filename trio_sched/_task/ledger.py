"""The ledger of the task stage: what is held, by which group, and what groups owe.

Each resource has one `trio.CapacityLimiter`, and the limiter is the count: what is held is what is borrowed. Beside it
the ledger keeps the limits as plain numbers, which are read at every turn, and what no limiter can tell: how much of it
each group holds and owes, and how many tasks it runs.
Entries that come to zero are dropped, so the ledger is as large as what is held and owed. Nothing here is clamped: a
count that would go below zero is a bug and is asserted against.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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


def _free(limiter: trio.CapacityLimiter) -> int:
    free = limiter.available_tokens
    assert isinstance(free, int)
    return free


class TaskLedger:
    """Units of every resource, lent to leases. limits: of every resource. accounts: of the groups that hold or owe
    anything.
    """

    __slots__ = ("accounts", "limiters", "limits")

    def __init__(self, limits: Mapping[SchedulerResourceKey, int]) -> None:
        self.limits: dict[SchedulerResourceKey, int] = dict(limits)
        self.limiters = {resource: trio.CapacityLimiter(limit) for resource, limit in limits.items()}
        self.accounts: dict[TaskGroupKey, GroupAccount] = {}

    def free(self, resource: SchedulerResourceKey) -> int:
        """Units that nobody holds: 0 of a resource without a limit, negative after a limit shrank."""
        limiter = self.limiters.get(resource)
        return 0 if limiter is None else self.limits[resource] - limiter.borrowed_tokens

    def set_limit(self, resource: SchedulerResourceKey, limit: int) -> None:
        """Change the limit of `resource`, which has one."""
        self.limits[resource] = limit
        self.limiters[resource].total_tokens = limit

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
            if limiter.borrowed_tokens + amount > self.limits[resource]:
                return resource
        return None

    def book(self, lease: TaskAdmissionLease) -> GroupAccount:
        """Lend `lease` all its units, which are free: the caller has looked. Returns its group's account."""
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
        return account

    def unbook(self, lease: TaskAdmissionLease) -> GroupAccount:
        """Take all of the lease's units back. Returns its group's account, which may be forgotten by then."""
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
            if rest > 0:
                held[resource] = rest
            else:
                assert not rest
                del held[resource]
        account.running -= 1
        if not account.running:
            assert not held
            if not account.debt:
                del self.accounts[group]
        return account

    def change_debt(
        self,
        changes: Mapping[tuple[TaskGroupKey, SchedulerResourceKey], int],
        own: TaskGroupKey,
        own_account: GroupAccount,
    ) -> list[TaskGroupKey]:
        """Apply a policy's changes and return the groups but `own` whose debt changed.

        A negative change is a repayment, and repays min(debt, units). own_account: that of `own`, which may have been
        forgotten by now.
        """
        others: list[TaskGroupKey] = []
        accounts = self.accounts
        for (group, resource), change in changes.items():
            is_own = group is own or group == own
            account = own_account if is_own else accounts.get(group)
            if account is None:
                if change <= 0:
                    continue
                account = accounts[group] = GroupAccount()
            debts = account.debt
            if resource in debts:
                rest = debts[resource] + change
                if rest > 0:
                    debts[resource] = rest
                else:
                    del debts[resource]
                    if not debts and not account.running:
                        del accounts[group]
            elif change > 0:
                if not debts and not account.running:
                    accounts[group] = account  # Its group has just given back all it held.
                debts[resource] = change
            else:
                continue
            if not is_own:
                others.append(group)
        return others

    def view(self, reservations: Sequence[TaskReservation], source: AdmissionSource) -> TaskAdmissionView:
        """The live view of this ledger."""
        accounts = self.accounts
        return TaskAdmissionView(
            resource_limits=MappingProxyType(self.limits),
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

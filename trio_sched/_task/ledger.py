"""The ledger of the task stage: leases, the units that they hold, and what groups have borrowed.

A lease is the right to run one task, and holds all units that the task asks for. It is a context manager whose exit
gives them back.

Each resource has one `trio.CapacityLimiter`, of which every unit that is held is borrowed, by the lease that holds it.
Beside it the ledger keeps what is free as a plain number, as it is read in every cycle, and one *account* for each
group: how much it holds, how many tasks it runs, and its debt, the units that it took above its share and has not given
back yet.

Entries that come to zero are dropped, so the ledger is as large as what is held and borrowed. Nothing is clamped: a
count that would go below zero is a bug, and is asserted against.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Final, Protocol

import attrs
import trio

from trio_sched._resources import ReleaseResult
from trio_sched._resources.task import SchedulableTask, SchedulerResourceKey, SchedulerResourceRequest, TaskGroupKey
from trio_sched._task.queue import LiveMapping, QueueView

__all__ = [
    "GroupAccount",
    "LeakedTaskLease",
    "LeaseUnit",
    "TaskAdmissionLease",
    "TaskAdmissionView",
    "TaskLedger",
    "TaskReservation",
]

_NOTHING: Final[Mapping[SchedulerResourceKey, int]] = MappingProxyType({})


class LeaseIssuer(Protocol):
    """Whoever granted a lease and takes it back."""

    def release(self, lease: TaskAdmissionLease) -> ReleaseResult:
        """Take `lease` back; never raises."""
        ...


@attrs.frozen(eq=False)
class TaskAdmissionLease:
    """The right to run `item`, which holds `resources` until it is released. Leaving its `with` block releases it.

    lease_id is unique within a controller, controller_generation among the controllers of a process. borrowed: the part
    of `resources` that lies above the group's share.
    """

    lease_id: int
    item: SchedulableTask
    resources: Mapping[SchedulerResourceKey, int]
    acquired_at: float
    controller_generation: int
    borrowed: Mapping[SchedulerResourceKey, int] = _NOTHING
    issuer: LeaseIssuer | None = attrs.field(default=None, repr=False)

    @trio.lowlevel.enable_ki_protection
    def __enter__(self) -> TaskAdmissionLease:  # noqa: PYI034 - `Self` needs Python 3.11, and nobody subclasses a lease
        if self.issuer is None:
            raise RuntimeError("a lease that no controller granted cannot be entered")
        return self

    @trio.lowlevel.enable_ki_protection
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self.issuer is not None
        self.issuer.release(self)


@attrs.frozen
class LeakedTaskLease:
    """A task lease that is still held, and by which task."""

    lease_id: int
    task_id: str
    group: TaskGroupKey
    resources: Mapping[SchedulerResourceKey, int]
    held_since: float

    @classmethod
    def of(cls, lease: TaskAdmissionLease) -> LeakedTaskLease:
        """Describe `lease`."""
        item = lease.item
        return cls(lease.lease_id, item.task_id, item.group.key, lease.resources, lease.acquired_at)

    def __str__(self) -> str:
        held = ", ".join(f"{amount} of {resource}" for resource, amount in self.resources.items())
        return f"task lease {self.lease_id} of task {self.task_id!r} (group {self.group}) holds {held}"


class GroupAccount:
    """What one group holds and its debt, by resource, and how many tasks it runs. Zeros are absent."""

    __slots__ = ("debt", "held", "running")

    def __init__(self) -> None:
        self.running: int = 0
        self.held: dict[SchedulerResourceKey, int] = {}
        self.debt: dict[SchedulerResourceKey, int] = {}


_NO_ACCOUNT: Final = GroupAccount()


@attrs.frozen
class LeaseUnit:
    """Borrower of a lease's second and further units of one resource; a limiter lends one unit to each borrower."""

    lease: Hashable
    number: int


@attrs.frozen(eq=False)
class TaskReservation:
    """All units that `item` asks for are kept for it, as it has been skipped too often; nobody else is given them."""

    item: SchedulableTask


class TaskLedger:
    """Units of every resource, lent to leases: the first unit to the lease itself, each further one to a `LeaseUnit`.

    limits: of every resource. free: the units of it that nobody holds, negative after a limit shrank. accounts: of the
    groups that hold anything or have a debt. version: rises with every change; who changes anything else that an answer
    of the stage depends on raises it too.
    """

    def __init__(self, limits: Mapping[SchedulerResourceKey, int]) -> None:
        self.limits: dict[SchedulerResourceKey, int] = dict(limits)
        self.free: dict[SchedulerResourceKey, int] = dict(limits)
        self.limiters: dict[SchedulerResourceKey, trio.CapacityLimiter] = {
            resource: trio.CapacityLimiter(limit) for resource, limit in limits.items()
        }
        self.accounts: dict[TaskGroupKey, GroupAccount] = {}
        self.version: int = 0

    def fits(self, request: SchedulerResourceRequest, reserved: Mapping[SchedulerResourceKey, int] = _NOTHING) -> bool:
        """Whether all units of `request` are free beside what is `reserved`. Nothing is free of what has no limit."""
        free = self.free
        for resource, amount in request.amounts.items():
            if reserved:
                amount += reserved.get(resource, 0)
            if amount > free.get(resource, 0):
                return False
        return True

    def book(self, group: TaskGroupKey, amounts: Mapping[SchedulerResourceKey, int], lease: Hashable) -> None:
        """Lend `lease` all of `amounts`, which are free: the caller has looked."""
        self.version += 1
        account = self.accounts.get(group)
        if account is None:
            account = self.accounts[group] = GroupAccount()
        account.running += 1
        held = account.held
        for resource, amount in amounts.items():
            self.free[resource] -= amount
            limiter = self.limiters[resource]
            limiter.acquire_on_behalf_of_nowait(lease)
            for number in range(1, amount):
                limiter.acquire_on_behalf_of_nowait(LeaseUnit(lease, number))
            held[resource] = held.get(resource, 0) + amount

    def unbook(self, group: TaskGroupKey, amounts: Mapping[SchedulerResourceKey, int], lease: Hashable) -> None:
        """Take all of `amounts` back from `lease`."""
        self.version += 1
        account = self.accounts[group]
        held = account.held
        for resource, amount in amounts.items():
            self.free[resource] += amount
            limiter = self.limiters[resource]
            limiter.release_on_behalf_of(lease)
            for number in range(1, amount):
                limiter.release_on_behalf_of(LeaseUnit(lease, number))
            rest = held[resource] - amount
            if rest > 0:
                held[resource] = rest
            else:
                assert not rest
                del held[resource]
        account.running -= 1
        self._forget_if_empty(group, account)

    def change_debt(self, changes: Mapping[tuple[TaskGroupKey, SchedulerResourceKey], int]) -> None:
        """Apply a policy's changes. A negative change is a repayment, and repays min(debt, units)."""
        self.version += 1
        for (group, resource), change in changes.items():
            account = self.accounts.get(group)
            rest = change if account is None else account.debt.get(resource, 0) + change
            if rest > 0:
                if account is None:
                    account = self.accounts[group] = GroupAccount()
                account.debt[resource] = rest
            elif account is not None and resource in account.debt:
                del account.debt[resource]
                self._forget_if_empty(group, account)

    def set_limit(self, resource: SchedulerResourceKey, limit: int) -> None:
        """Change the limit of `resource`, which has one."""
        self.version += 1
        self.free[resource] += limit - self.limits[resource]
        self.limits[resource] = limit
        self.limiters[resource].total_tokens = limit

    def view(self, reservations: Sequence[TaskReservation] = ()) -> TaskAdmissionView:
        """A live view of this ledger, and of `reservations`."""
        accounts = self.accounts
        return TaskAdmissionView(
            resource_limits=MappingProxyType(self.limits),
            resources_available=LiveMapping(self.free, int),
            leased_resources=LiveMapping(self.limiters, lambda limiter: limiter.borrowed_tokens, omit_zero=True),
            leased_resources_by_group=LiveMapping(
                accounts, lambda account: MappingProxyType(account.held), omit_zero=True
            ),
            running_counts_by_group=LiveMapping(accounts, lambda account: account.running, omit_zero=True),
            policy_debt_by_group_resource=_DebtByGroupResource(accounts),
            reservations=reservations,
            ledger=self,
        )

    def _forget_if_empty(self, group: TaskGroupKey, account: GroupAccount) -> None:
        if not account.running and not account.debt:
            assert not account.held
            del self.accounts[group]


@attrs.frozen
class TaskAdmissionView:
    """What is held and what is free. Of each resource, held + free = limit; free is negative after a limit shrank.

    `reservations` are in force while their item heads its group, the oldest first; reserved units count as free here.
    A view that a controller hands out is live and read-only; `snapshot()` freezes it. Only a live view has a `ledger`.
    """

    resource_limits: Mapping[SchedulerResourceKey, int]
    resources_available: Mapping[SchedulerResourceKey, int]
    leased_resources: Mapping[SchedulerResourceKey, int]
    leased_resources_by_group: Mapping[TaskGroupKey, Mapping[SchedulerResourceKey, int]]
    running_counts_by_group: Mapping[TaskGroupKey, int]
    policy_debt_by_group_resource: Mapping[tuple[TaskGroupKey, SchedulerResourceKey], int]
    reservations: Sequence[TaskReservation] = attrs.field(default=(), eq=tuple)
    ledger: TaskLedger | None = attrs.field(default=None, eq=False, repr=False)

    def account(self, group: TaskGroupKey) -> GroupAccount:
        """What `group` holds and its debt, to be read and not kept."""
        if self.ledger is not None:
            return self.ledger.accounts.get(group, _NO_ACCOUNT)
        account = GroupAccount()
        account.running = self.running_counts_by_group.get(group, 0)
        account.held.update(self.leased_resources_by_group.get(group, _NOTHING))
        account.debt.update(
            {resource: debt for (key, resource), debt in self.policy_debt_by_group_resource.items() if key == group}
        )
        return account

    def fits(self, item: SchedulableTask, queue_view: QueueView) -> bool:
        """Whether all units of `item` are free to it: what is reserved for another head is not."""
        reserved = self.reserved_for_others(item, queue_view) if self.reservations else _NOTHING
        if self.ledger is not None:
            return self.ledger.fits(item.resource_request, reserved)
        available = self.resources_available
        return all(
            available.get(resource, 0) - reserved.get(resource, 0) >= amount
            for resource, amount in item.resource_request.amounts.items()
        )

    def reserved_for_others(self, item: SchedulableTask, queue_view: QueueView) -> Mapping[SchedulerResourceKey, int]:
        """The units that reservations keep from `item`: older ones than its own, or all if it has none."""
        reserved: dict[SchedulerResourceKey, int] = {}
        for reservation in self.reservations:
            owner = reservation.item
            if owner.task_id == item.task_id:
                break
            head = queue_view.first_candidate_tasks_by_group.get(owner.group.key)
            if head is not None and head.task_id == owner.task_id:
                for resource, amount in owner.resource_request.amounts.items():
                    reserved[resource] = reserved.get(resource, 0) + amount
        return reserved

    def snapshot(self) -> TaskAdmissionView:
        """This view at this instant; later changes do not show in it."""
        return TaskAdmissionView(
            MappingProxyType(dict(self.resource_limits)),
            MappingProxyType(dict(self.resources_available)),
            MappingProxyType(dict(self.leased_resources)),
            MappingProxyType(
                {group: MappingProxyType(dict(amounts)) for group, amounts in self.leased_resources_by_group.items()}
            ),
            MappingProxyType(dict(self.running_counts_by_group)),
            MappingProxyType(dict(self.policy_debt_by_group_resource)),
            tuple(self.reservations),
        )


class _DebtByGroupResource(Mapping[tuple[TaskGroupKey, SchedulerResourceKey], int]):
    """The debts of all groups, read from their accounts."""

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

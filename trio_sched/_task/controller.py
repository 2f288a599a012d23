"""Task admission: leases for the units that a task holds while it runs.

The controller has three parts. The *ledger* counts units. The *policy* judges between groups. *Reservations* keep units
together for a multi-unit task that smaller ones would otherwise skip for ever. A task is granted a lease if all its
units are free to it and the policy allows it; it gets all of them or none.

Asking (`is_eligible`, `view`, `explain_blocked`) changes nothing. Two steps change something, and each is atomic:

- A grant asks the policy, books the ledger, and reports the lease to the policy (`on_acquire`). If that raises, the
  ledger is as before.
- A release books the ledger, and reports to the policy (`on_release`). If that raises, the error is kept and raised by
  the next `try_acquire`, as a release raises nothing.

Policies are called without protection from Ctrl-C; everything that changes something is protected.

Whoever waits asks again when the queue or `version` has changed, or when `available_after` has come.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

import attrs
import trio

from trio_sched import _validation as check
from trio_sched._errors import InvalidValueError, UnknownNameError
from trio_sched._resources import ReleaseReason, ReleaseResult
from trio_sched._resources.task import SUBMISSION, SchedulableTask, SchedulerResourceKey, SchedulerResourceRequest
from trio_sched._task.bounded_borrow import BoundedBorrowTaskAdmissionPolicy, BoundedBorrowTaskAdmissionPolicyConfig
from trio_sched._task.ledger import LeakedTaskLease, TaskAdmissionLease, TaskAdmissionView, TaskLedger
from trio_sched._task.policies import (
    NO_CHANGE,
    Contention,
    PolicyStateDelta,
    StrictFairTaskAdmissionPolicy,
    TaskAdmissionDenyReason,
    TaskAdmissionPolicy,
    TaskAdmissionPolicyDecision,
    as_peer_policy,
)
from trio_sched._task.queue import QueueView
from trio_sched._task.reservations import Reservations
from trio_sched._util import run_clock

__all__ = [
    "TaskAdmissionBlockSummary",
    "TaskAdmissionConfig",
    "TaskAdmissionController",
    "TaskAdmissionDecision",
    "TaskAdmissionDenied",
]

_MOST_NAMED: Final = 8
_GENERATIONS = itertools.count(1)
_RELEASED: Final = ReleaseResult(released=True, reason="released", diagnostics=MappingProxyType({}))


def _limits(value: Mapping[SchedulerResourceKey, int]) -> Mapping[SchedulerResourceKey, int]:
    for resource, limit in value.items():
        check.check_text("TaskAdmissionConfig.resource_limits key", resource)
        check.check_int(f"TaskAdmissionConfig.resource_limits[{resource!r}]", limit, minimum=1)
    return MappingProxyType(dict(value))


@attrs.frozen
class TaskAdmissionConfig:
    """Limits of the stage's resources, all positive ints.

    submission_capacity: most tasks in flight over all groups; it is the limit of `submission` unless `resource_limits`
    names one. bounded_borrow: the terms of borrowing, or None for strict fair sharing. multi_unit_skip_bound: how often
    a head that asks for more than one unit may be skipped for want of capacity before units are reserved for it.
    """

    submission_capacity: int = attrs.field(default=1024, validator=check.positive_int)
    resource_limits: Mapping[SchedulerResourceKey, int] = attrs.field(
        factory=dict[SchedulerResourceKey, int], converter=_limits
    )
    bounded_borrow: BoundedBorrowTaskAdmissionPolicyConfig | None = None
    multi_unit_skip_bound: int = attrs.field(default=8, validator=check.positive_int)

    @property
    def limits(self) -> Mapping[SchedulerResourceKey, int]:
        """The limit of every resource, `submission` included."""
        return MappingProxyType({SUBMISSION: self.submission_capacity, **self.resource_limits})


@attrs.frozen
class TaskAdmissionDenied:
    """Why `item` may not run now. diagnostics: the facts that decided.

    available_after: when waiting alone may change the answer, on the controller's clock; None if only a release or
    another change can, as is always so with the policies of this package. snapshot: what was held and free when
    `try_acquire` refused; it says nothing of the item, so denials are compared without it.
    """

    item: SchedulableTask
    reason: TaskAdmissionDenyReason
    available_after: float | None = None
    snapshot: TaskAdmissionView | None = attrs.field(default=None, eq=False)
    diagnostics: Mapping[str, object] = attrs.field(factory=dict[str, object])


TaskAdmissionDecision: TypeAlias = TaskAdmissionLease | TaskAdmissionDenied


@attrs.frozen
class TaskAdmissionBlockSummary:
    """Why the queued heads cannot run: how many groups' heads are refused for each reason, the most frequent first.

    available_after: the earliest time at which waiting alone may change an answer. groups_by_reason: the groups
    concerned, at most eight for each reason.
    """

    queued_count: int
    dominant_denial_reasons: Mapping[TaskAdmissionDenyReason, int]
    available_after: float | None = None
    diagnostics: Mapping[str, object] = attrs.field(factory=dict[str, object])
    groups_by_reason: Mapping[TaskAdmissionDenyReason, tuple[str, ...]] = attrs.field(
        factory=dict[TaskAdmissionDenyReason, tuple[str, ...]]
    )

    @classmethod
    def of(cls, queued_count: int, denials: Iterable[TaskAdmissionDenied]) -> TaskAdmissionBlockSummary:
        """Sum up the denials of all heads."""
        groups: dict[TaskAdmissionDenyReason, list[str]] = {}
        times: list[float] = []
        for denied in denials:
            groups.setdefault(denied.reason, []).append(str(denied.item.group.key))
            if denied.available_after is not None:
                times.append(denied.available_after)
        by_count = sorted(groups.items(), key=lambda refused: -len(refused[1]))
        return cls(
            queued_count,
            MappingProxyType({reason: len(named) for reason, named in by_count}),
            min(times, default=None),
            groups_by_reason=MappingProxyType({reason: tuple(named[:_MOST_NAMED]) for reason, named in by_count}),
        )


class TaskAdmissionController:
    """Owns the limits of the stage's resources and the leases held of them. Synchronous; needs no running loop.

    policy: None means bounded borrowing if `config.bounded_borrow` is set, else strict fair sharing. clock: what stamps
    leases; None means Trio's clock inside a run and `time.perf_counter` outside.
    """

    def __init__(
        self,
        config: TaskAdmissionConfig | None = None,
        policy: TaskAdmissionPolicy | None = None,
        *,
        clock: Callable[[], float] | None = None,
    ) -> None:
        config = TaskAdmissionConfig() if config is None else config
        if policy is None:
            borrow = config.bounded_borrow
            policy = StrictFairTaskAdmissionPolicy() if borrow is None else BoundedBorrowTaskAdmissionPolicy(borrow)
        self._policy = policy
        # A subclass that answers for itself is asked about every head, as a policy of others is.
        answers_itself = type(self).is_eligible is not TaskAdmissionController.is_eligible
        self._peer_policy = None if answers_itself else as_peer_policy(policy)
        self._ledger = TaskLedger(config.limits)
        self._reservations = Reservations(config.multi_unit_skip_bound, self._ledger, policy)
        self._view = self._ledger.view(self._reservations)
        self._is_open = True
        self._clock = run_clock if clock is None else clock
        self._generation = next(_GENERATIONS)
        self._leases: dict[int, TaskAdmissionLease] = {}
        self._last_lease_id = 0
        self._granted = 0
        self._policy_error: Exception | None = None
        self._allowed: tuple[SchedulableTask, Contention, TaskAdmissionPolicyDecision] | None = None
        self._counters: dict[str, int] = {}

    def __repr__(self) -> str:
        count = len(self._leases)
        leases = "1 lease" if count == 1 else f"{count} leases"
        return f"<TaskAdmissionController: {leases} of {dict(self._view.leased_resources)}>"

    # Asking

    @property
    def policy(self) -> TaskAdmissionPolicy:
        """Who judges between groups."""
        return self._policy

    @property
    def names_times(self) -> bool:
        """Whether denials may have an `available_after`: the policies of this package never say one."""
        return self._peer_policy is None

    @property
    def version(self) -> int:
        """Rises with every grant, release, change of a limit, and shutdown."""
        return self._ledger.version

    def view(self) -> TaskAdmissionView:
        """The live view of the ledger: always the same object, always the present state."""
        return self._view

    def diagnostics(self) -> Mapping[str, int]:
        """How often what happened: grants, denials and releases by reason, and what the policy counts."""
        released = self._granted - len(self._leases)
        return MappingProxyType({"granted": self._granted, "released": released, **self._counters})

    def limiter_statistics(self) -> Mapping[SchedulerResourceKey, trio.CapacityLimiterStatistics]:
        """The statistics of every resource's limiter; nobody ever waits there."""
        return {resource: limiter.statistics() for resource, limiter in self._ledger.limiters.items()}

    def leak_report(self) -> tuple[LeakedTaskLease, ...]:
        """The leases that are held now, and by which task. Empty when everything was given back."""
        return tuple(map(LeakedTaskLease.of, self._leases.values()))

    def validate(self, item: SchedulableTask) -> None:
        """Raise if `item` could never be granted: it names a resource without a limit, or more than a limit."""
        limits = self._ledger.limits
        for resource, amount in item.resource_request.amounts.items():
            limit = limits.get(resource)
            if limit is None:
                raise UnknownNameError("stage resource", resource, used_by=f"task {item.task_id!r}", known=limits)
            if amount > limit:
                raise InvalidValueError(
                    f"SchedulerResourceRequest.amounts[{resource!r}] of task {item.task_id!r}",
                    amount,
                    f"at most {limit}, the limit of {resource!r}",
                )

    def fits(self, request: SchedulerResourceRequest) -> bool:
        """False only if no head that asks for `request` is eligible now."""
        return self._is_open and self._ledger.fits(request)

    def is_eligible(self, item: SchedulableTask, queue_view: QueueView) -> bool:
        """Whether `try_acquire` would grant `item` now."""
        if not self.fits(item.resource_request) or (self._reservations.made and not self._view.fits(item, queue_view)):
            return False
        return self._policy.evaluate(item, queue_view, self._view).allowed

    def allows(self, queue_view: QueueView) -> Callable[[SchedulableTask], bool]:
        """`is_eligible` as a function of heads whose requests fit. It is good for as long as nothing changes."""
        if self._peer_policy is None or self._reservations.made:
            return lambda head: self.is_eligible(head, queue_view)
        contention = self._peer_policy.contention(queue_view, self._view)
        decide = contention.decide

        def is_allowed(head: SchedulableTask) -> bool:
            decision = decide(head)
            if decision.allowed:
                self._allowed = head, contention, decision
            return decision.allowed

        return is_allowed

    def explain_blocked(self, queue_view: QueueView) -> TaskAdmissionBlockSummary:
        """Why the heads in `queue_view` cannot run, by reason; heads that could run now are left out."""
        answers = [self._judge(head, queue_view) for head in queue_view.first_candidate_tasks_by_group.values()]
        denials = [answer for answer in answers if isinstance(answer, TaskAdmissionDenied)]
        return TaskAdmissionBlockSummary.of(queue_view.queued_total, denials)

    # Changing

    @trio.lowlevel.enable_ki_protection
    def try_acquire(self, item: SchedulableTask, queue_view: QueueView) -> TaskAdmissionDecision:
        """Grant `item` all its units, or say why not. Raises what the policy raised, then or in an earlier release."""
        if self._policy_error is not None:
            error, self._policy_error = self._policy_error, None
            raise error
        answer = self._last_answer(item, queue_view) or self._judge(item, queue_view)
        if isinstance(answer, TaskAdmissionDenied):
            self._count(f"denied_{answer.reason}")
            return attrs.evolve(answer, snapshot=self._view.snapshot())
        self._last_lease_id += 1
        key, amounts = item.group.key, item.resource_request.amounts
        lease = TaskAdmissionLease(
            self._last_lease_id, item, amounts, self._clock(), self._generation, answer.borrowed, self
        )
        self._ledger.book(key, amounts, lease)
        try:
            self._apply(_on_acquire(self._policy, lease, answer))
        except BaseException:
            self._ledger.unbook(key, amounts, lease)
            raise
        self._leases[lease.lease_id] = lease
        self._granted += 1
        self._reservations.granted(item, queue_view)
        return lease

    @trio.lowlevel.enable_ki_protection
    def release(self, lease: TaskAdmissionLease) -> ReleaseResult:
        """Take `lease` back. Raises nothing, and takes nothing back twice; the result says why not."""
        held = self._leases.get(lease.lease_id)
        if held is None or (held is not lease and not _is_same(held, lease)):
            return self._not_released(lease, held)
        del self._leases[held.lease_id]
        self._ledger.unbook(held.item.group.key, held.resources, held)
        try:
            self._apply(_on_release(self._policy, held))
        except Exception as error:
            self._count("policy_release_errors")
            self._policy_error = self._policy_error or error
        return _RELEASED

    @trio.lowlevel.enable_ki_protection
    def set_limit(self, resource: SchedulerResourceKey, limit: int) -> None:
        """Change the limit of a resource. A lower one revokes nothing: what is free is negative until it fits again.

        Queued tasks that ask for more than the new limit wait until it is raised; `explain_blocked` shows them.
        """
        check.check_int(f"limit of {resource!r}", limit, minimum=1)
        if resource not in self._ledger.limits:
            raise UnknownNameError("stage resource", resource, used_by="set_limit", known=self._ledger.limits)
        self._ledger.set_limit(resource, limit)

    @trio.lowlevel.enable_ki_protection
    def shutdown(self) -> None:
        """Grant nothing from now on. Leases that are held stay held and can be given back."""
        self._is_open = False
        self._ledger.version += 1

    # Inside

    def _last_answer(self, item: SchedulableTask, queue_view: QueueView) -> TaskAdmissionPolicyDecision | None:
        """What a policy of this package has just said of `item`, if nothing has changed since."""
        if self._allowed is None or self._peer_policy is None:
            return None
        head, contention, decision = self._allowed
        is_same = head is item and contention is self._peer_policy.contention(queue_view, self._view)
        return decision if is_same else None

    def _judge(self, item: SchedulableTask, queue_view: QueueView) -> TaskAdmissionPolicyDecision | TaskAdmissionDenied:
        if not self._is_open:
            return TaskAdmissionDenied(item, "shutdown")
        if not self._view.fits(item, queue_view):
            return TaskAdmissionDenied(item, "no_capacity", diagnostics=self._shortage(item, queue_view))
        decision = _evaluate(self._policy, item, queue_view, self._view)
        if decision.allowed:
            return decision
        reason = decision.reason or "policy_denial"
        return TaskAdmissionDenied(item, reason, decision.available_after, diagnostics=decision.diagnostics)

    def _shortage(self, item: SchedulableTask, queue_view: QueueView) -> Mapping[str, object]:
        """What `item` lacks, as facts for a denial."""
        free, limits = self._ledger.free, self._ledger.limits
        reserved = self._view.reserved_for_others(item, queue_view)
        missing = {
            resource: {
                "requested": amount,
                "available": free.get(resource, 0),
                "reserved_for_others": reserved.get(resource, 0),
                "limit": limits.get(resource),
            }
            for resource, amount in item.resource_request.amounts.items()
            if free.get(resource, 0) - reserved.get(resource, 0) < amount
        }
        return MappingProxyType({"missing_resources": missing})

    def _apply(self, delta: PolicyStateDelta) -> None:
        if delta is NO_CHANGE:
            return
        if delta.debt_changes:
            self._ledger.change_debt(delta.debt_changes)
        for name, count in delta.diagnostic_counters.items():
            self._count(name, count)

    def _not_released(self, lease: TaskAdmissionLease, held: TaskAdmissionLease | None) -> ReleaseResult:
        reason: ReleaseReason
        if lease.controller_generation != self._generation:
            reason = "wrong_controller_generation"
        elif held is not None:
            reason = "stale_lease"
        elif lease.lease_id in range(1, self._last_lease_id + 1):
            reason = "duplicate"
        else:
            reason = "unknown_lease"
        self._count(reason)
        facts = {"lease_id": lease.lease_id, "task_id": lease.item.task_id}
        return ReleaseResult(released=False, reason=reason, diagnostics=facts)

    def _count(self, name: str, count: int = 1) -> None:
        self._counters[name] = self._counters.get(name, 0) + count


def _is_same(held: TaskAdmissionLease, lease: TaskAdmissionLease) -> bool:
    return (
        held.controller_generation == lease.controller_generation
        and held.item is lease.item
        and held.resources == lease.resources
    )


@trio.lowlevel.disable_ki_protection
def _evaluate(
    policy: TaskAdmissionPolicy, item: SchedulableTask, queue_view: QueueView, view: TaskAdmissionView
) -> TaskAdmissionPolicyDecision:
    return policy.evaluate(item, queue_view, view)


@trio.lowlevel.disable_ki_protection
def _on_acquire(
    policy: TaskAdmissionPolicy, lease: TaskAdmissionLease, decision: TaskAdmissionPolicyDecision
) -> PolicyStateDelta:
    return policy.on_acquire(lease, decision)


@trio.lowlevel.disable_ki_protection
def _on_release(policy: TaskAdmissionPolicy, lease: TaskAdmissionLease) -> PolicyStateDelta:
    return policy.on_release(lease)

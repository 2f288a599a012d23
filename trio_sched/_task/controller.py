"""Task admission: leases for the units a task holds while it runs.

The controller has three parts. The *ledger* counts units; the *policy* judges between groups; *reservations* let units
gather for a head that smaller tasks would otherwise pass over for ever. A task is granted a lease if its units are free
to it and the policy allows it, and then all of its units at once.

Asking (`is_eligible`, `view`, `explain_blocked`) changes nothing. Two steps change something: a grant and a release,
each atomic. In a grant the policy is asked first, then the ledger is booked, then the policy is told; if it raises, the
ledger is as before. In a release the ledger is settled first, then the policy is told; if it raises, the error is kept
and raised by the next `try_acquire`, as a release raises nothing. Policies are called without protection from Ctrl-C;
everything that changes something is protected.

For whoever waits: every answer is a function of the queue and of the state at `version`, and time where a policy says
`available_after`. After a denial, ask again when the queue or `version` has changed, or that time has come.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from types import MappingProxyType
from typing import Final, cast

import trio

from trio_sched import _validation as check
from trio_sched._errors import InvalidValueError, UnknownNameError
from trio_sched._resources.release import ReleaseReason, ReleaseResult
from trio_sched._resources.task import (
    SchedulableTask,
    SchedulerResourceKey,
    SchedulerResourceRequest,
    TaskGroupKey,
)
from trio_sched._task.borrow import BoundedBorrowTaskAdmissionPolicy
from trio_sched._task.config import TaskAdmissionConfig
from trio_sched._task.heads import StandingSource
from trio_sched._task.leases import (
    LeakedTaskLease,
    TaskAdmissionBlockSummary,
    TaskAdmissionDecision,
    TaskAdmissionDenied,
    TaskAdmissionLease,
    TaskAdmissionView,
)
from trio_sched._task.ledger import TaskLedger
from trio_sched._task.policies import (
    PolicyStateDelta,
    StrictFairTaskAdmissionPolicy,
    TaskAdmissionPolicy,
    TaskAdmissionPolicyDecision,
)
from trio_sched._task.queue_view import QueueView
from trio_sched._task.reservations import Reservations
from trio_sched._task.watchers import StandingWatcher, Watchers

__all__ = ["TaskAdmissionController"]

_GENERATIONS = itertools.count(1)
_NOTHING: Final[Mapping[SchedulerResourceKey, int]] = MappingProxyType({})
_RELEASED: Final = ReleaseResult(released=True, reason="released", diagnostics=MappingProxyType({}))


def _run_clock() -> float:
    return trio.current_time() if trio.lowlevel.in_trio_run() else time.perf_counter()


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
        self._policy: TaskAdmissionPolicy = policy
        self._standing_of = cast(
            "Callable[[SchedulableTask, TaskAdmissionView], Hashable] | None", getattr(policy, "standing", None)
        )
        self._clock = _run_clock if clock is None else clock
        self._generation = next(_GENERATIONS)
        self._ledger = TaskLedger(config.limits)
        self._watchers = Watchers()
        self._reservations = Reservations(config.multi_unit_skip_bound, self._ledger, self)
        self._view = self._ledger.view(self._reservations, self)
        self._leases: dict[int, TaskAdmissionLease] = {}
        self._last_lease_id = 0
        self._version = 0
        self._is_shut_down = False
        self._policy_error: Exception | None = None
        self._counters: dict[str, int] = {}
        self._granted = 0
        self._roomy_request: SchedulerResourceRequest | None = None
        self._roomy_version = 0
        self._answered: tuple[SchedulableTask, QueueView, int | None, int, TaskAdmissionPolicyDecision] | None = None

    def __repr__(self) -> str:
        return f"<TaskAdmissionController: {len(self._leases)} leases of {dict(self._view.leased_resources)}>"

    # Asking

    @property
    def policy(self) -> TaskAdmissionPolicy:
        """Who judges between groups."""
        return self._policy

    @property
    def version(self) -> int:
        """Rises with every grant, release, change of a limit, and shutdown."""
        return self._version

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
        return tuple(LeakedTaskLease.of(lease) for lease in self._leases.values())

    def validate(self, item: SchedulableTask) -> None:
        """Raise if `item` could never be granted: it names a resource without a limit, or more than a limit."""
        limiters = self._ledger.limiters
        for resource, amount in item.resource_request.amounts.items():
            if resource not in limiters:
                raise UnknownNameError("stage resource", resource, used_by=f"task {item.task_id!r}", known=limiters)
            limit = self._ledger.limit(resource)
            if amount > limit:
                raise InvalidValueError(
                    f"SchedulerResourceRequest.amounts[{resource!r}] of task {item.task_id!r}",
                    amount,
                    f"at most {limit}, the limit of {resource!r}",
                )

    def is_eligible(self, item: SchedulableTask, queue_view: QueueView) -> bool:
        """Whether `try_acquire` would grant `item` now."""
        if self._is_shut_down or self._lacking(item, queue_view) is not None:
            return False
        decision = self._policy.evaluate(item, queue_view, self._view)
        self._answered = (item, queue_view, queue_view.version, self._version, decision)
        return decision.allowed

    def explain_blocked(self, queue_view: QueueView) -> TaskAdmissionBlockSummary:
        """Why the heads in `queue_view` cannot run, by reason; heads that could run now are left out."""
        answers = (self._judge(head, queue_view) for head in queue_view.first_candidate_tasks_by_group.values())
        denials = [answer for answer in answers if isinstance(answer, TaskAdmissionDenied)]
        return TaskAdmissionBlockSummary.of(queue_view.queued_total, denials)

    # Changing

    @trio.lowlevel.enable_ki_protection
    def try_acquire(self, item: SchedulableTask, queue_view: QueueView) -> TaskAdmissionDecision:
        """Grant `item` all its units, or say why not. Raises what the policy raised, then or in an earlier release."""
        if self._policy_error is not None:
            error, self._policy_error = self._policy_error, None
            raise error
        answer = self._judge(item, queue_view)
        if isinstance(answer, TaskAdmissionDenied):
            self._count(f"denied_{answer.reason}")
            return answer
        self._last_lease_id += 1
        lease = TaskAdmissionLease(
            self._last_lease_id,
            item,
            item.resource_request.amounts,
            self._clock(),
            self._generation,
            answer.borrowed,
            self,
        )
        self._ledger.book(lease)
        self._ledger_changed(item.group.key)
        try:
            delta = self._tell_acquired(lease, answer)
        except BaseException:
            self._unbook(lease)
            raise
        self._leases[lease.lease_id] = lease
        self._granted += 1
        self._apply(delta)
        changed = self._reservations.granted(item, queue_view)
        if changed:
            self._version += 1
            for group in changed:
                self._watchers.changed(group, self._ledger.limiters)
        return lease

    @trio.lowlevel.enable_ki_protection
    def release(self, lease: TaskAdmissionLease) -> ReleaseResult:
        """Take `lease` back. Raises nothing, and takes nothing back twice; the result says why not."""
        held = self._leases.get(lease.lease_id) if lease.controller_generation == self._generation else None
        if held is None or (held is not lease and (held.item is not lease.item or held.resources != lease.resources)):
            return self._not_released(lease, held)
        del self._leases[held.lease_id]
        self._unbook(held)
        try:
            delta = self._tell_released(held)
        except Exception as error:
            self._count("policy_release_errors")
            if self._policy_error is None:
                self._policy_error = error
        else:
            self._apply(delta)
        return _RELEASED

    @trio.lowlevel.enable_ki_protection
    def set_limit(self, resource: SchedulerResourceKey, limit: int) -> None:
        """Change the limit of a resource. A lower one revokes nothing: what is free is negative until it fits again.

        Queued tasks that ask for more than the new limit wait until it is raised; `explain_blocked` shows them.
        """
        check.check_int(f"limit of {resource!r}", limit, minimum=1)
        limiters = self._ledger.limiters
        if resource not in limiters:
            raise UnknownNameError("stage resource", resource, used_by="set_limit", known=limiters)
        limiters[resource].total_tokens = limit
        self._version += 1
        self._reservations.ledger_changed()
        self._watchers.room_changed((resource,))

    @trio.lowlevel.enable_ki_protection
    def shutdown(self) -> None:
        """Grant nothing from now on. Leases that are held stay held and can be given back."""
        self._is_shut_down = True
        self._version += 1

    # For the queue's index of heads (`StandingSource`, `LaneEligibility`)

    @property
    def standings(self) -> StandingSource | None:
        """This controller, if its policy says how groups stand."""
        return None if self._standing_of is None else self

    @property
    def has_claims(self) -> bool:
        """Whether any reservation exists."""
        return bool(self._reservations.made)

    def aspect(self, head: SchedulableTask) -> Hashable:
        """Nothing but standing tells heads apart."""
        return None

    @trio.lowlevel.disable_ki_protection
    def standing(self, head: SchedulableTask) -> Hashable:
        """How the head's group stands with the policy."""
        assert self._standing_of is not None
        return self._standing_of(head, self._view)

    def claim(self, head: SchedulableTask) -> Hashable:
        """The reservation made for `head`, or None."""
        reservations = self._reservations
        return reservations.claim(head) if reservations.made else None

    def lacking(
        self, request: SchedulerResourceRequest, claim: Hashable, heads: Mapping[TaskGroupKey, SchedulableTask]
    ) -> SchedulerResourceKey | None:
        """A resource of which too little is free for `request` to a head that has `claim`, or None."""
        reservations = self._reservations
        if reservations.made:
            return self._ledger.lacking(request.amounts, reservations.reserved_before(claim, heads))
        if request is self._roomy_request and self._version == self._roomy_version:
            return None
        resource = self._ledger.lacking(request.amounts, _NOTHING)
        if resource is None:
            # Selecting, asking and granting look at the same request one after the other.
            self._roomy_request, self._roomy_version = request, self._version
        return resource

    def has_free(self, resource: SchedulerResourceKey) -> bool:
        """Whether any unit of `resource` is free to anybody."""
        return self._ledger.free(resource) > 0

    @trio.lowlevel.enable_ki_protection
    def watch(self, watcher: StandingWatcher) -> None:
        """Tell `watcher` of changes for as long as it lives."""
        self._watchers.add(watcher)

    def is_refused_alone(self, item: SchedulableTask) -> bool:
        """Whether the policy refuses `item` even if nobody else is queued."""
        group = item.group.key
        wanted = item.resource_request.amounts
        alone = QueueView(1, {group: 1}, {group: wanted}, {group: wanted}, {group: item}, {group: item.group}, wanted)
        return not self._evaluate(item, alone).allowed

    # Inside

    def _recalled(self, item: SchedulableTask, queue_view: QueueView) -> TaskAdmissionPolicyDecision | None:
        """The answer just given to the same question in the same state: selecting and granting ask alike.

        Only of a live view can it be known that it is in the same state, and only of a policy that has standings that
        it is as pure as it should be.
        """
        answered = self._answered
        if (
            answered is None
            or answered[0] is not item
            or answered[1] is not queue_view
            or answered[2] is None
            or answered[2] != queue_view.version
            or answered[3] != self._version
            or self._standing_of is None
        ):
            return None
        return answered[4]

    def _judge(self, item: SchedulableTask, queue_view: QueueView) -> TaskAdmissionPolicyDecision | TaskAdmissionDenied:
        if self._is_shut_down:
            return TaskAdmissionDenied(item, "shutdown")
        if self._lacking(item, queue_view) is not None:
            return TaskAdmissionDenied(item, "no_capacity", diagnostics=self._shortage(item, queue_view))
        decision = self._recalled(item, queue_view) or self._evaluate(item, queue_view)
        if decision.allowed:
            return decision
        reason = decision.reason or "policy_denial"
        return TaskAdmissionDenied(item, reason, decision.available_after, diagnostics=decision.diagnostics)

    def _lacking(self, item: SchedulableTask, queue_view: QueueView) -> SchedulerResourceKey | None:
        return self.lacking(item.resource_request, self.claim(item), queue_view.first_candidate_tasks_by_group)

    def _shortage(self, item: SchedulableTask, queue_view: QueueView) -> Mapping[str, object]:
        ledger = self._ledger
        heads = queue_view.first_candidate_tasks_by_group
        reserved = self._reservations.reserved_before(self.claim(item), heads)
        missing = {
            resource: {
                "requested": amount,
                "available": ledger.free(resource),
                "reserved_for_others": reserved.get(resource, 0),
                "limit": self._view.resource_limits.get(resource),
            }
            for resource, amount in item.resource_request.amounts.items()
            if ledger.free(resource) - reserved.get(resource, 0) < amount
        }
        return MappingProxyType({"missing_resources": missing})

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
        return ReleaseResult(
            released=False, reason=reason, diagnostics={"lease_id": lease.lease_id, "task_id": lease.item.task_id}
        )

    def _apply(self, delta: PolicyStateDelta) -> None:
        if delta.debt_changes:
            for group in self._ledger.change_debt(delta.debt_changes):
                self._ledger_changed(group)
        for name, count in delta.diagnostic_counters.items():
            self._count(name, count)

    def _unbook(self, lease: TaskAdmissionLease) -> None:
        self._ledger.unbook(lease)
        self._ledger_changed(lease.item.group.key, lease.resources)

    def _ledger_changed(self, group: TaskGroupKey, freed: Iterable[SchedulerResourceKey] = ()) -> None:
        self._version += 1
        self._reservations.ledger_changed()
        self._watchers.changed(group, freed)

    def _count(self, name: str, count: int = 1) -> None:
        self._counters[name] = self._counters.get(name, 0) + count

    @trio.lowlevel.disable_ki_protection
    def _evaluate(self, item: SchedulableTask, queue_view: QueueView) -> TaskAdmissionPolicyDecision:
        return self._policy.evaluate(item, queue_view, self._view)

    @trio.lowlevel.disable_ki_protection
    def _tell_acquired(self, lease: TaskAdmissionLease, decision: TaskAdmissionPolicyDecision) -> PolicyStateDelta:
        return self._policy.on_acquire(lease, decision)

    @trio.lowlevel.disable_ki_protection
    def _tell_released(self, lease: TaskAdmissionLease) -> PolicyStateDelta:
        return self._policy.on_release(lease)

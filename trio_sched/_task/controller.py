"""Task admission: leases for the units a task holds while it runs.

The controller has three parts. The *ledger* counts units; the *policy* judges between groups; *reservations* let units
gather for a head that smaller tasks would otherwise pass over for ever. A task is granted a lease if its units are free
to it and the policy allows it, and then all of its units at once.

Asking (`is_eligible`, `view`, `explain_blocked`) changes nothing. Two steps change something: a grant and a release,
each atomic. In a grant the policy is asked first, then the ledger is booked, then the policy is told; if it raises, the
ledger is as before. To tell whom the grant passed over the policy may be asked how groups stand; if it raises then, the
lease is released. In a release the ledger is settled first, then the policy is told; if it raises, the error is kept
and raised by the next `try_acquire`, as a release raises nothing. Policies are called without protection from Ctrl-C;
everything that changes something is protected.

For whoever waits: every answer is a function of the queue and of the state at `version`, and time where a policy says
`available_after`. After a denial, ask again when the queue or `version` has changed, or that time has come.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping
from types import MappingProxyType
from typing import Final

import trio

from trio_sched import _validation as check
from trio_sched._errors import InvalidValueError, UnknownNameError
from trio_sched._resources.release import ReleaseReason, ReleaseResult
from trio_sched._resources.task import SchedulableTask, SchedulerResourceKey, SchedulerResourceRequest
from trio_sched._task.borrow import BoundedBorrowTaskAdmissionPolicy
from trio_sched._task.config import TaskAdmissionConfig
from trio_sched._task.eligibility import no_aspect
from trio_sched._task.heads import StandingSource
from trio_sched._task.leases import (
    LeakedTaskLease,
    TaskAdmissionBlockSummary,
    TaskAdmissionDecision,
    TaskAdmissionDenied,
    TaskAdmissionLease,
    TaskAdmissionView,
    make_lease,
)
from trio_sched._task.policies import (
    ALLOWED,
    TaskAdmissionPolicy,
    TaskAdmissionPolicyDecision,
)
from trio_sched._task.queue_view import QueueView
from trio_sched._task.state import TaskAdmissionState
from trio_sched._task.strict import StrictFairTaskAdmissionPolicy
from trio_sched._util import run_clock

__all__ = ["TaskAdmissionController"]

_GENERATIONS = itertools.count(1)
_MOST_REMEMBERED: Final = 1024
_RELEASED: Final = ReleaseResult(released=True, reason="released", diagnostics=MappingProxyType({}))


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
        self._state = TaskAdmissionState(config, policy)
        self._clock = run_clock if clock is None else clock
        self._generation = next(_GENERATIONS)
        self._leases: dict[int, TaskAdmissionLease] = {}
        self._last_lease_id = 0
        self._undone = 0
        self._policy_error: Exception | None = None
        self._counters: dict[str, int] = {}
        self._grantable: set[SchedulerResourceRequest] = set()
        self._allowed: tuple[SchedulableTask, QueueView, int, int, TaskAdmissionPolicyDecision] | None = None

    def __repr__(self) -> str:
        return f"<TaskAdmissionController: {len(self._leases)} leases of {dict(self.view().leased_resources)}>"

    # Asking

    @property
    def policy(self) -> TaskAdmissionPolicy:
        """Who judges between groups."""
        return self._state.policy

    @property
    def version(self) -> int:
        """Rises with every grant, release, change of a limit, and shutdown."""
        return self._state.version

    @property
    def standings(self) -> StandingSource | None:
        """Who tells a queue how groups stand; None if the policy does not say. See `LaneEligibility`.

        Also None of a subclass that answers for itself, as it may judge otherwise than the standings tell.
        """
        answers = type(self).is_eligible is TaskAdmissionController.is_eligible
        return self._state if answers and self._state.has_standings else None

    @property
    def aspect(self) -> Callable[[SchedulableTask], Hashable]:
        """That of `LaneEligibility`: nothing but standing tells heads apart, and no entitled head is refused."""
        return no_aspect

    def view(self) -> TaskAdmissionView:
        """The live view of the ledger: always the same object, always the present state."""
        return self._state.view

    def diagnostics(self) -> Mapping[str, int]:
        """How often what happened: grants, denials and releases by reason, and what the policy counts."""
        granted = self._last_lease_id - self._undone
        return MappingProxyType({"granted": granted, "released": granted - len(self._leases), **self._counters})

    def limiter_statistics(self) -> Mapping[SchedulerResourceKey, trio.CapacityLimiterStatistics]:
        """The statistics of every resource's limiter; nobody ever waits there."""
        return {resource: limiter.statistics() for resource, limiter in self._state.ledger.limiters.items()}

    def leak_report(self) -> tuple[LeakedTaskLease, ...]:
        """The leases that are held now, and by which task. Empty when everything was given back."""
        return tuple(LeakedTaskLease.of(lease) for lease in self._leases.values())

    def validate(self, item: SchedulableTask) -> None:
        """Raise if `item` could never be granted: it names a resource without a limit, or more than a limit."""
        request = item.resource_request
        if request in self._grantable:
            return
        limits = self.view().resource_limits
        for resource, amount in request.amounts.items():
            limit = limits.get(resource)
            if limit is None:
                raise UnknownNameError("stage resource", resource, used_by=f"task {item.task_id!r}", known=limits)
            if amount > limit:
                raise InvalidValueError(
                    f"SchedulerResourceRequest.amounts[{resource!r}] of task {item.task_id!r}",
                    amount,
                    f"at most {limit}, the limit of {resource!r}",
                )
        if len(self._grantable) >= _MOST_REMEMBERED:
            self._grantable.clear()
        self._grantable.add(request)

    def is_eligible(self, item: SchedulableTask, queue_view: QueueView) -> bool:
        """Whether `try_acquire` would grant `item` now."""
        state = self._state
        if not state.is_open or state.lacking_for(item, queue_view) is not None:
            return False
        decision = state.policy.evaluate(item, queue_view, state.view)
        index = queue_view.heads
        if decision.allowed and state.has_standings and index is not None:
            # `try_acquire` will ask the same at once. Only of a live view can it be known that it shows the same state,
            # and only of a policy that says how groups stand that it is as pure as it should be.
            self._allowed = (item, queue_view, index.queue_version, state.version, decision)
        return decision.allowed

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
        state, index = self._state, queue_view.heads
        verdict = None if index is None else index.verdict_on(item, state)
        answer: TaskAdmissionPolicyDecision | None
        if verdict == "uncharged" or verdict == "entitled":
            answer = ALLOWED
        elif verdict == "alone" and state.lone_decision is not None:
            answer = state.lone_decision(item, state.view)
        elif verdict is not None:
            answer = state.policy.evaluate(item, queue_view, state.view)
        else:
            answer = self._remembered_answer(item, queue_view)
        if answer is None or not answer.allowed:
            judgement = self._judge(item, queue_view)
            if isinstance(judgement, TaskAdmissionDenied):
                self._count(f"denied_{judgement.reason}")
                return judgement
            answer = judgement
        lease_id = self._last_lease_id + 1
        lease = make_lease(
            lease_id,
            item,
            item.resource_request.amounts,
            self._clock(),
            self._generation,
            answer.borrowed,
            self,
        )
        self._last_lease_id = lease_id
        account = state.ledger.book(lease)
        try:
            if state.keeps_debt:
                state.version += 1
                delta = state.on_acquire(lease, answer)
                for group in state.ledger.change_debt(delta.debt_changes, item.group.key, account):
                    state.changed(group, ())
                if delta.diagnostic_counters:
                    self._count_all(delta.diagnostic_counters)
        except BaseException:
            state.ledger.unbook(lease)
            self._undone += 1
            # The policy may have looked at a queue while the units were taken.
            state.changed(item.group.key, lease.resources)
            raise
        self._leases[lease_id] = lease
        try:
            state.granted(item, queue_view)
        except BaseException:
            self.release(lease)
            raise
        return lease

    @trio.lowlevel.enable_ki_protection
    def release(self, lease: TaskAdmissionLease) -> ReleaseResult:
        """Take `lease` back. Raises nothing, and takes nothing back twice; the result says why not."""
        held = self._leases.get(lease.lease_id)
        if held is None or (held is not lease and not _is_same(held, lease)):
            return self._not_released(lease, held)
        del self._leases[held.lease_id]
        state = self._state
        account = state.ledger.unbook(held)
        try:
            # The policies of this package do no more than repay, and who owes nothing has nothing to repay.
            if state.keeps_debt and (account.debt or not state.decides):
                state.version += 1
                delta = state.on_release(held)
                for group in state.ledger.change_debt(delta.debt_changes, held.item.group.key, account):
                    state.changed(group, ())
                if delta.diagnostic_counters:
                    self._count_all(delta.diagnostic_counters)
        except Exception as error:
            self._count("policy_release_errors")
            if self._policy_error is None:
                self._policy_error = error
        finally:
            state.changed(held.item.group.key, held.resources)
        return _RELEASED

    @trio.lowlevel.enable_ki_protection
    def set_limit(self, resource: SchedulerResourceKey, limit: int) -> None:
        """Change the limit of a resource. A lower one revokes nothing: what is free is negative until it fits again.

        Queued tasks that ask for more than the new limit wait until it is raised; `explain_blocked` shows them.
        """
        check.check_int(f"limit of {resource!r}", limit, minimum=1)
        ledger = self._state.ledger
        if resource not in ledger.limits:
            raise UnknownNameError("stage resource", resource, used_by="set_limit", known=ledger.limits)
        ledger.set_limit(resource, limit)
        self._grantable.clear()
        self._state.changed(None, (resource,))

    @trio.lowlevel.enable_ki_protection
    def shutdown(self) -> None:
        """Grant nothing from now on. Leases that are held stay held and can be given back."""
        self._state.is_open = False
        self._state.changed(None, ())

    # Inside

    def _remembered_answer(self, item: SchedulableTask, queue_view: QueueView) -> TaskAdmissionPolicyDecision | None:
        """What the policy last said to `is_eligible`, if it was asked of `item` in this state."""
        index, allowed = queue_view.heads, self._allowed
        if (
            index is not None
            and allowed is not None
            and allowed[0] is item
            and allowed[1] is queue_view
            and allowed[2] == index.queue_version
            and allowed[3] == self._state.version
        ):
            return allowed[4]
        return None

    def _judge(self, item: SchedulableTask, queue_view: QueueView) -> TaskAdmissionPolicyDecision | TaskAdmissionDenied:
        state = self._state
        if not state.is_open:
            return TaskAdmissionDenied(item, "shutdown")
        if state.lacking_for(item, queue_view) is not None:
            return TaskAdmissionDenied(item, "no_capacity", diagnostics=state.shortage(item, queue_view))
        decision = state.evaluate(item, queue_view)
        if decision.allowed:
            return decision
        reason = decision.reason or "policy_denial"
        return TaskAdmissionDenied(item, reason, decision.available_after, diagnostics=decision.diagnostics)

    def _count_all(self, counts: Mapping[str, int]) -> None:
        for name, count in counts.items():
            self._counters[name] = self._counters.get(name, 0) + count

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

    def _count(self, name: str, count: int = 1) -> None:
        self._counters[name] = self._counters.get(name, 0) + count


def _is_same(held: TaskAdmissionLease, lease: TaskAdmissionLease) -> bool:
    return (
        held.controller_generation == lease.controller_generation
        and held.item is lease.item
        and held.resources == lease.resources
    )

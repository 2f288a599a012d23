"""How the controller uses its policy: when it asks, what it takes over, what it applies, and what an error leaves."""

from __future__ import annotations

import attrs
import pytest
import trio
from task_values import (
    NOBODY,
    ScriptedPolicy,
    acquire,
    denied,
    group_key,
    make_task,
    make_tasks,
    start_next,
)

from trio_sched._resources.task import SchedulableTask
from trio_sched._task.controller import TaskAdmissionConfig, TaskAdmissionController, TaskAdmissionDenied
from trio_sched._task.ledger import TaskAdmissionLease, TaskAdmissionView
from trio_sched._task.policies import (
    PolicyStateDelta,
    StrictFairTaskAdmissionPolicy,
    TaskAdmissionDenyReason,
    TaskAdmissionPolicyDecision,
)
from trio_sched._task.queue import FairTaskQueue, QueueView


@pytest.mark.parametrize(
    ("given", "reason"),
    [(None, "policy_denial"), ("group_cap", "group_cap"), ("borrow_debt", "borrow_debt")],
)
def test_a_denial_carries_the_policys_reason(
    given: TaskAdmissionDenyReason | None, reason: TaskAdmissionDenyReason
) -> None:
    policy = ScriptedPolicy()
    policy.decision = TaskAdmissionPolicyDecision(
        allowed=False, reason=given, available_after=7.0, diagnostics={"because": "of this"}
    )
    controller = TaskAdmissionController(policy=policy)
    item = make_task("t", "a")
    assert not controller.is_eligible(item, NOBODY)
    assert denied(controller, item) == TaskAdmissionDenied(item, reason, 7.0, diagnostics={"because": "of this"})
    assert controller.diagnostics() == {"granted": 0, "released": 0, f"denied_{reason}": 1}


def test_a_policy_may_change_its_mind_between_asking_and_granting() -> None:
    """Only a policy of this package is taken at its word for one state."""
    policy = ScriptedPolicy()
    controller = TaskAdmissionController(policy=policy)
    queue = FairTaskQueue()
    queue.enqueue(make_tasks("a", 1))
    selection = queue.select_next(controller.is_eligible)
    assert selection is not None
    policy.decision = TaskAdmissionPolicyDecision(allowed=False)
    assert isinstance(controller.try_acquire(selection.item, selection.queue_view), TaskAdmissionDenied)


def test_a_policy_of_others_is_asked_about_every_head() -> None:
    class OnlyOne(ScriptedPolicy):
        def evaluate(
            self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
        ) -> TaskAdmissionPolicyDecision:
            return TaskAdmissionPolicyDecision(allowed=item.task_id == "t7")

    controller = TaskAdmissionController(policy=OnlyOne())
    assert controller.names_times
    assert not TaskAdmissionController().names_times
    queue = FairTaskQueue()
    queue.enqueue(make_task(f"t{number}", f"g{number}") for number in range(10))
    lease = start_next(queue, controller)
    assert lease is not None
    assert lease.item.task_id == "t7"
    assert start_next(queue, controller) is None


def test_what_a_policy_saw_in_on_acquire_is_no_answer_for_the_state_after_it() -> None:
    class Owing(ScriptedPolicy):
        """A group with a debt is refused; every grant is a debt."""

        def has_debt(self, item: SchedulableTask, admission_view: TaskAdmissionView) -> bool:
            return bool(admission_view.account(item.group.key).debt)

        def evaluate(
            self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
        ) -> TaskAdmissionPolicyDecision:
            return TaskAdmissionPolicyDecision(allowed=not self.has_debt(item, admission_view))

        def on_acquire(self, lease: TaskAdmissionLease, decision: TaskAdmissionPolicyDecision) -> PolicyStateDelta:
            self.seen.append(controller.is_eligible(head, queue.view()))
            return PolicyStateDelta({(lease.item.group.key, "submission"): 1})

    policy = Owing()
    controller = TaskAdmissionController(policy=policy)
    queue = FairTaskQueue()
    queue.enqueue([head := make_task("head", "a")])
    assert isinstance(controller.try_acquire(make_task("first", "a"), queue.view()), TaskAdmissionLease)
    assert policy.seen == [True]
    assert isinstance(controller.try_acquire(head, queue.view()), TaskAdmissionDenied)


def test_whether_a_reservation_helps_is_asked_as_if_nobody_else_were_queued() -> None:
    views: list[QueueView] = []

    class Noting(ScriptedPolicy):
        def evaluate(
            self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
        ) -> TaskAdmissionPolicyDecision:
            views.append(queue_view)
            return self.decision

    controller = TaskAdmissionController(TaskAdmissionConfig(2, multi_unit_skip_bound=1), Noting())
    queue = FairTaskQueue()
    queue.enqueue([wide := make_task("wide", "w", {"submission": 2}), make_task("other", "o")])
    for number in range(2):
        granted = controller.try_acquire(make_task(f"t{number}", "a"), queue.view())
        assert isinstance(granted, TaskAdmissionLease)
    assert len(controller.view().reservations) == 1
    key, amounts = wide.group.key, {"submission": 2}
    uncontended = QueueView(1, {key: 1}, {key: amounts}, {key: amounts}, {key: wide}, {key: wide.group}, amounts)
    assert views[-1] == uncontended


@pytest.mark.parametrize(("kinder", "grows", "expected"), [(False, "a", ("a0", "b0")), (True, "b", (None, "b0"))])
def test_a_policy_that_judges_by_what_groups_run_is_asked_again_after_each_grant(
    *, kinder: bool, grows: str, expected: tuple[str | None, str | None]
) -> None:
    """The grant is of a task that heads nothing; the head of its group may be judged better for it, or worse."""

    class Counting(ScriptedPolicy):
        def runs(self, item: SchedulableTask, admission_view: TaskAdmissionView) -> bool:
            return admission_view.account(item.group.key).running > 0

        def evaluate(
            self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
        ) -> TaskAdmissionPolicyDecision:
            allowed = item.payload == "elsewhere" or self.runs(item, admission_view) is kinder
            return TaskAdmissionPolicyDecision(allowed=allowed)

    controller = TaskAdmissionController(policy=Counting())
    queue = FairTaskQueue()
    queue.enqueue([*make_tasks("a", 1), *make_tasks("b", 1)])

    def chosen() -> str | None:
        selection = queue.select_next(controller.is_eligible)
        return None if selection is None else selection.item.task_id

    assert chosen() == expected[0]
    lease = controller.try_acquire(attrs.evolve(make_task("t", grows), payload="elsewhere"), queue.view())
    assert isinstance(lease, TaskAdmissionLease)
    assert chosen() == expected[1]
    controller.release(lease)
    assert chosen() == expected[0]


class Looking(ScriptedPolicy):
    """Allows what it can see at most one other group of, while nothing is leased."""

    def evaluate(
        self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
    ) -> TaskAdmissionPolicyDecision:
        is_uncontended = len(queue_view.first_candidate_tasks_by_group) < 3 and not admission_view.leased_resources
        return TaskAdmissionPolicyDecision(allowed=is_uncontended and item.payload != "refused")


@pytest.mark.parametrize("change", ["nothing", "other item", "other view", "other queue", "other state", "by hand"])
def test_what_was_said_of_one_item_in_one_state_is_said_of_nothing_else(change: str) -> None:
    controller = TaskAdmissionController(policy=Looking())
    queue, longer = FairTaskQueue(), FairTaskQueue()
    item, refused = make_task("t", "a"), attrs.evolve(make_task("u", "b"), payload="refused")
    queue.enqueue([item, refused])
    longer.enqueue(make_task(name, name) for name in "abc")
    heads = {item.group.key: item}
    by_hand = QueueView(1, {}, {}, {}, heads, {}, {})
    view = by_hand if change == "by hand" else queue.view()
    assert controller.is_eligible(item, view)
    if change == "other item":
        item = refused
    elif change == "other view":
        view = longer.view()
    elif change == "other queue":
        queue.enqueue([make_task("v", "c")])
    elif change == "other state":
        acquire(controller, make_task("running", "r"))
    elif change == "by hand":
        heads.update((group_key(name), make_task(name, name)) for name in "bc")
    decision = controller.try_acquire(item, view)
    assert isinstance(decision, TaskAdmissionLease) is (change == "nothing")


def test_a_selection_is_no_promise() -> None:
    """Between the selection and the grant another task takes the unit."""
    controller = TaskAdmissionController(TaskAdmissionConfig(1))
    queue = FairTaskQueue()
    queue.enqueue(make_tasks("a", 1))
    selection = queue.select_next(controller.is_eligible)
    assert selection is not None
    acquire(controller, make_task("quicker", "b"))
    late = controller.try_acquire(selection.item, selection.queue_view)
    assert isinstance(late, TaskAdmissionDenied)
    assert late.reason == "no_capacity"


def test_debt_and_counters_are_applied_and_repayment_stops_at_zero() -> None:
    policy = ScriptedPolicy()
    a, b = (group_key("a"), "x"), (group_key("b"), "x")
    policy.acquired = PolicyStateDelta({a: 3, b: -1}, {"seen": 2})
    policy.released = PolicyStateDelta({a: -2, b: 0}, {"seen": 1})
    controller = TaskAdmissionController(policy=policy)
    leases = [acquire(controller, make_task(name, "a")) for name in "tuv"]
    assert policy.seen == [policy.decision] * 3
    view = controller.view()
    assert view.policy_debt_by_group_resource == {a: 9}
    available = view.resources_available["submission"]
    for lease, debt in zip(leases, (7, 5, 3), strict=True):
        controller.release(lease)
        assert view.policy_debt_by_group_resource == {a: debt}
    assert view.resources_available["submission"] == available + 3
    for debts in ({a: 1}, {}):
        controller.release(acquire(controller, make_task("w", "a")))
        policy.acquired = PolicyStateDelta({a: -9})
        assert view.policy_debt_by_group_resource in ({a: 4}, debts)
    assert controller.diagnostics()["seen"] == 2 * 4 + 5


def test_a_group_that_runs_nothing_may_owe() -> None:
    policy = ScriptedPolicy()
    b = group_key("b")
    controller = TaskAdmissionController(policy=policy)
    view = controller.view()
    policy.acquired = PolicyStateDelta({(b, "x"): 2, (b, "y"): 1})
    lease = acquire(controller, make_task("t", "a"))
    assert view.policy_debt_by_group_resource == {(b, "x"): 2, (b, "y"): 1}
    assert view.snapshot().policy_debt_by_group_resource == view.policy_debt_by_group_resource
    assert len(view.policy_debt_by_group_resource) == 2
    assert b not in view.running_counts_by_group
    assert b not in view.leased_resources_by_group
    policy.acquired = PolicyStateDelta()
    policy.released = PolicyStateDelta({(b, "x"): -2})
    controller.release(lease)
    assert view.policy_debt_by_group_resource == {(b, "y"): 1}
    policy.released = PolicyStateDelta({(b, "y"): -5})
    controller.release(acquire(controller, make_task("u", "b")))
    assert view.policy_debt_by_group_resource == {}


def test_a_group_that_has_a_debt_only_after_its_last_release_may_be_named_by_any_equal_key() -> None:
    policy = ScriptedPolicy()
    controller = TaskAdmissionController(policy=policy)
    item = make_task("t", "a")
    policy.released = PolicyStateDelta({(item.group.key, "x"): 1})
    controller.release(acquire(controller, item))
    assert controller.view().policy_debt_by_group_resource == {(item.group.key, "x"): 1}
    policy.released = PolicyStateDelta({(item.group.key, "x"): -1})
    controller.release(acquire(controller, item))
    assert not controller.view().policy_debt_by_group_resource
    policy.released = PolicyStateDelta({(group_key("a"), "x"): 2, (item.group.key, "y"): 1})
    controller.release(acquire(controller, item))
    assert controller.view().policy_debt_by_group_resource == {(group_key("a"), "x"): 2, (group_key("a"), "y"): 1}


class RefusingDebtors(ScriptedPolicy):
    """A group with a debt gets nothing."""

    def has_debt(self, item: SchedulableTask, admission_view: TaskAdmissionView) -> bool:
        return (item.group.key, "submission") in admission_view.policy_debt_by_group_resource

    def evaluate(
        self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
    ) -> TaskAdmissionPolicyDecision:
        return TaskAdmissionPolicyDecision(allowed=not self.has_debt(item, admission_view))


def test_a_policy_may_let_another_group_pay() -> None:
    """A head is asked about again once its group has more debt, or less, because of somebody else's task."""
    policy = RefusingDebtors()
    controller = TaskAdmissionController(policy=policy)
    queue = FairTaskQueue()
    queue.enqueue(item for name in "abcd" for item in make_tasks(name, 1))
    b, d = ((group_key(name), "submission") for name in "bd")
    policy.acquired = PolicyStateDelta({b: 1, d: 1})
    policy.released = PolicyStateDelta({d: -1})
    leases = [start_next(queue, controller)]
    policy.acquired = PolicyStateDelta()
    leases.append(start_next(queue, controller))
    assert [lease and lease.item.task_id for lease in leases] == ["a0", "c0"]
    assert start_next(queue, controller) is None
    assert leases[0] is not None
    controller.release(leases[0])
    lease = start_next(queue, controller)
    assert lease is not None
    assert lease.item.task_id == "d0"


def test_a_grant_may_forgive_another_group() -> None:
    """A head is asked about again even if it is not the first in fair order."""
    policy = RefusingDebtors()
    controller = TaskAdmissionController(policy=policy)
    queue = FairTaskQueue()
    queue.enqueue(item for name in "abc" for item in make_tasks(name, 2))
    b, c = ((group_key(name), "submission") for name in "bc")
    for acquired in ({b: 1, c: 1}, {c: -1}):
        policy.acquired = PolicyStateDelta(acquired)
        lease = start_next(queue, controller)
        assert lease is not None
        assert lease.item.group.key == group_key("a")
    lease = start_next(queue, controller)
    assert lease is not None
    assert lease.item.task_id == "c0"


def test_no_change_of_debt_is_no_debt() -> None:
    policy = ScriptedPolicy()
    controller = TaskAdmissionController(policy=policy)
    policy.acquired = PolicyStateDelta({(group_key("a"), "x"): 0, (group_key("b"), "x"): 0})
    acquire(controller, make_task("t", "a"))
    assert dict(controller.view().policy_debt_by_group_resource) == {}


@pytest.mark.parametrize("error", [LookupError("policy"), KeyboardInterrupt()])
def test_an_error_in_on_acquire_leaves_the_ledger_as_it_was(error: BaseException) -> None:
    policy = ScriptedPolicy()
    controller = TaskAdmissionController(policy=policy)
    item = make_task("t", "a", {"submission": 3})
    policy.error = error
    with pytest.raises(type(error)) as caught:
        controller.try_acquire(item, NOBODY)
    assert caught.value is error
    assert controller.view().leased_resources == {}
    assert controller.leak_report() == ()
    policy.error = None
    assert acquire(controller, item).lease_id == 2
    assert controller.diagnostics() == {"granted": 1, "released": 0}


def test_an_error_in_on_release_is_raised_by_the_next_acquire() -> None:
    policy = ScriptedPolicy()
    controller = TaskAdmissionController(policy=policy)
    leases = [acquire(controller, item) for item in make_tasks("a", 2)]
    first = policy.release_error = LookupError("first")
    assert controller.release(leases[0]).released
    policy.release_error = LookupError("second")
    with leases[1]:
        pass
    assert controller.view().leased_resources == {}
    with pytest.raises(LookupError) as caught:
        controller.try_acquire(make_task("t", "a"), NOBODY)
    assert caught.value is first
    acquire(controller, make_task("t", "a"))
    assert controller.diagnostics() == {"granted": 3, "released": 2, "policy_release_errors": 2}


def test_ctrl_c_in_on_release_is_not_swallowed_and_the_ledger_is_booked() -> None:
    policy = ScriptedPolicy()
    controller = TaskAdmissionController(policy=policy)
    lease = acquire(controller, make_task("t", "a"))
    policy.release_error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        controller.release(lease)
    assert controller.view().leased_resources == {}
    assert controller.release(lease).reason == "duplicate"


def test_a_policy_that_looks_in_its_callbacks_sees_the_booked_state() -> None:
    class Looking(ScriptedPolicy):
        def on_acquire(self, lease: TaskAdmissionLease, decision: TaskAdmissionPolicyDecision) -> PolicyStateDelta:
            self.seen.append(controller.is_eligible(lease.item, NOBODY))
            return PolicyStateDelta()

        def on_release(self, lease: TaskAdmissionLease) -> PolicyStateDelta:
            self.seen.append(controller.is_eligible(lease.item, NOBODY))
            return PolicyStateDelta()

    policy = Looking()
    controller = TaskAdmissionController(TaskAdmissionConfig(1), policy)
    item = make_task("t", "a")
    assert controller.is_eligible(item, NOBODY)
    controller.release(acquire(controller, item))
    assert policy.seen == [False, True]


def test_a_policy_that_looks_at_the_queue_and_fails_leaves_nobody_behind_who_could_run() -> None:
    class LookingStrictFair(StrictFairTaskAdmissionPolicy):
        def on_acquire(self, lease: TaskAdmissionLease, decision: TaskAdmissionPolicyDecision) -> PolicyStateDelta:
            assert queue.select_next(controller.is_eligible) is None
            raise LookupError("policy")

    queue = FairTaskQueue()
    controller = TaskAdmissionController(TaskAdmissionConfig(1), LookingStrictFair())
    queue.enqueue([item := make_task("t", "a")])
    with pytest.raises(LookupError):
        controller.try_acquire(item, queue.view())
    selection = queue.select_next(controller.is_eligible)
    assert selection is not None
    assert selection.item is item


def test_policies_are_called_without_protection_and_everything_else_with_it() -> None:
    class Protected(ScriptedPolicy):
        def evaluate(
            self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
        ) -> TaskAdmissionPolicyDecision:
            self.seen.append(trio.lowlevel.currently_ki_protected())
            return self.decision

        def on_acquire(self, lease: TaskAdmissionLease, decision: TaskAdmissionPolicyDecision) -> PolicyStateDelta:
            self.seen.append(trio.lowlevel.currently_ki_protected())
            return PolicyStateDelta()

        def on_release(self, lease: TaskAdmissionLease) -> PolicyStateDelta:
            self.seen.append(trio.lowlevel.currently_ki_protected())
            return PolicyStateDelta()

    policy = Protected()
    clock_protected: list[bool] = []

    def clock() -> float:
        clock_protected.append(trio.lowlevel.currently_ki_protected())
        return 0.0

    async def main() -> None:
        controller = TaskAdmissionController(policy=policy, clock=clock)
        queue = FairTaskQueue()
        queue.enqueue(make_tasks("a", 1))
        lease = start_next(queue, controller)
        assert lease is not None
        with lease:
            pass

    trio.run(main)
    assert clock_protected == [True]
    assert policy.seen == [False] * 4

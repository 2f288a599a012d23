"""Strict fair sharing: who is within its share, who competes, and that nobody is held back for nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from task_values import group_key, group_spec, make_task, make_tasks, names, start_all, start_next

from trio_sched._errors import InvalidValueError
from trio_sched._resources.task import SchedulableTask, SchedulerResourceKey, TaskGroupKey, TaskGroupSpec
from trio_sched._task.bounded_borrow import BoundedBorrowTaskAdmissionPolicy
from trio_sched._task.controller import TaskAdmissionConfig, TaskAdmissionController
from trio_sched._task.ledger import TaskAdmissionLease, TaskAdmissionView
from trio_sched._task.policies import PolicyStateDelta, StrictFairTaskAdmissionPolicy
from trio_sched._task.queue import FairTaskQueue, QueueView

A, B = group_key("a"), group_key("b")
MODEL = {"submission": 1, "x": 1}


def queue_view(*heads: SchedulableTask) -> QueueView:
    """A view made by hand, as a policy may be given it."""
    amounts = {head.group.key: head.resource_request.amounts for head in heads}
    return QueueView(
        queued_total=len(heads),
        queued_by_group=dict.fromkeys(amounts, 1),
        queued_resource_demand_by_group=amounts,
        first_candidate_resources_by_group=amounts,
        first_candidate_tasks_by_group={head.group.key: head for head in heads},
        first_candidate_group_specs_by_group={head.group.key: head.group for head in heads},
        queued_peer_demand_by_resource={},
    )


def admission_view(
    available: Mapping[SchedulerResourceKey, int], running: Mapping[TaskGroupKey, int]
) -> TaskAdmissionView:
    """A view made by hand of limits of ten."""
    return TaskAdmissionView(
        resource_limits=dict.fromkeys(available, 10),
        resources_available=available,
        leased_resources={},
        leased_resources_by_group={},
        running_counts_by_group=running,
        policy_debt_by_group_resource={},
    )


def allows(item: SchedulableTask, queue: QueueView, admission: TaskAdmissionView) -> bool:
    return StrictFairTaskAdmissionPolicy().evaluate(item, queue, admission).allowed


CAPPED = make_task("t", group_spec("a", admitted_limit=2), MODEL)
PEER = make_task("u", group_spec("b", admitted_limit=2), MODEL)
ROOM = {"submission": 5, "x": 5}


@pytest.mark.parametrize(
    ("peer", "available", "running", "allowed"),
    [
        pytest.param(PEER, ROOM, {A: 1}, True, id="below its limit"),
        pytest.param(PEER, ROOM, {A: 2}, False, id="at its limit"),
        pytest.param(PEER, ROOM, {A: 2, B: 2}, True, id="the peer is at its own"),
        pytest.param(PEER, ROOM, {A: 2, B: 1}, False, id="the peer is below its own"),
        pytest.param(PEER, {"submission": 5, "x": 0}, {A: 2}, True, id="the peer's units are not free"),
        pytest.param(make_task("u", "b", MODEL), ROOM, {A: 2, B: 9}, False, id="the peer has no limit"),
        pytest.param(make_task("u", "b", {"x": 1}), ROOM, {A: 2}, False, id="the peer names no submission"),
        pytest.param(make_task("u", "b"), ROOM, {A: 2}, True, id="the peer competes for submission only"),
        pytest.param(make_task("u", "b", {"submission": 1, "y": 1}), {**ROOM, "y": 1}, {A: 2}, True, id="for another"),
        pytest.param(make_task("u", CAPPED.group, MODEL), ROOM, {A: 2}, True, id="it is of the same group"),
        pytest.param(make_task("u", "b", {"x": 1, "z": 1}), ROOM, {A: 2}, True, id="for what has no limit"),
        pytest.param(make_task("u", "b", {"x": 6}), ROOM, {A: 2}, True, id="the peer asks for more than is free"),
    ],
)
def test_a_limit_binds_only_while_a_peer_within_its_share_competes(
    peer: SchedulableTask, available: dict[str, int], running: dict[TaskGroupKey, int], allowed: bool
) -> None:
    assert allows(CAPPED, queue_view(CAPPED, peer), admission_view(available, running)) is allowed
    assert allows(CAPPED, queue_view(peer), admission_view(available, running)) is allowed


def test_submission_counts_for_tasks_that_name_nothing_more_specific() -> None:
    local = make_task("t", group_spec("a", admitted_limit=1))
    view = admission_view(ROOM, {A: 1})
    assert not allows(local, queue_view(local, PEER), view)
    assert not allows(local, queue_view(local, make_task("u", "b")), view)
    assert allows(local, queue_view(local), view)
    assert allows(local, queue_view(local, make_task("u", "b", {"x": 1})), view)


def test_a_refusal_says_by_what() -> None:
    decision = StrictFairTaskAdmissionPolicy().evaluate(CAPPED, queue_view(CAPPED, PEER), admission_view(ROOM, {A: 2}))
    assert (decision.allowed, decision.reason, decision.available_after) == (False, "group_cap", None)
    assert decision.diagnostics == {"admitted_limit": 2, "contested_resources": ("x",)}
    assert decision.borrowed == {}


def test_a_view_by_hand_may_leave_out_tasks_and_specs() -> None:
    """Resources say who competes; a head whose spec is left out has the default one."""
    facts = {A: CAPPED.resource_request.amounts, B: PEER.resource_request.amounts}
    specs: dict[TaskGroupKey, TaskGroupSpec] = {B: PEER.group}
    for known, running, allowed in ((specs, {A: 2, B: 2}, True), ({}, {A: 2, B: 2}, False), (specs, {A: 2}, False)):
        view = QueueView(2, {}, {}, facts, {}, known, {})
        assert allows(CAPPED, view, admission_view(ROOM, running)) is allowed


def test_nothing_is_borrowed() -> None:
    policy = StrictFairTaskAdmissionPolicy()
    controller = TaskAdmissionController(policy=policy)
    queue = FairTaskQueue()
    queue.enqueue(make_tasks("a", 1))
    lease = start_next(queue, controller)
    assert lease is not None
    decision = policy.evaluate(lease.item, queue.view(), controller.view())
    assert policy.on_acquire(lease, decision) == policy.on_release(lease) == PolicyStateDelta()


def test_an_uncontended_group_is_never_held_back() -> None:
    queue, controller = FairTaskQueue(), TaskAdmissionController(TaskAdmissionConfig(10))
    queue.enqueue(make_tasks(group_spec("a", admitted_limit=2), 20))
    assert len(start_all(queue, controller)) == 10


def test_a_new_peer_gets_the_next_free_unit_and_its_limit() -> None:
    queue, controller = FairTaskQueue(), TaskAdmissionController(TaskAdmissionConfig(10))
    queue.enqueue(make_tasks(group_spec("a", admitted_limit=2), 30))
    leases = start_all(queue, controller)
    queue.enqueue(make_tasks(group_spec("b", admitted_limit=3), 30))
    started: list[str] = []
    for lease in leases:
        controller.release(lease)
        started += names(start_all(queue, controller))
    assert started[:3] == ["b0", "b1", "b2"]
    # Both are beyond their limits from here on, so neither holds the other back.
    assert [task_id[0] for task_id in started[3:]] == list("abababa")


def test_two_groups_at_their_limits_do_not_block_each_other() -> None:
    queue, controller = FairTaskQueue(), TaskAdmissionController(TaskAdmissionConfig(10))
    queue.enqueue(
        [*make_tasks(group_spec("a", admitted_limit=1), 20), *make_tasks(group_spec("b", admitted_limit=2), 20)]
    )
    assert len(start_all(queue, controller)) == 10
    assert controller.view().running_counts_by_group == {A: 5, B: 5}


def test_groups_at_their_limits_wait_for_a_peer_within_its_share_whatever_amounts_they_ask_for() -> None:
    queue, controller = FairTaskQueue(), TaskAdmissionController(TaskAdmissionConfig(20, {"x": 8, "y": 1}))
    narrow, wide = group_spec("narrow", admitted_limit=1), group_spec("wide", admitted_limit=1)
    queue.enqueue([*make_tasks(narrow, 3, MODEL), *make_tasks(wide, 3, {"submission": 1, "x": 2})])
    assert [start_next(queue, controller) is not None for _ in range(2)] == [True, True]
    queue.enqueue(make_tasks("peer", 2, MODEL))
    assert names(start_all(queue, controller)) == ["peer0", "peer1", "narrow1", "wide1"]
    assert controller.explain_blocked(queue.view()).dominant_denial_reasons == {"no_capacity": 2}


def test_a_policy_of_another_controller_judges_by_the_heads_it_is_shown() -> None:
    """What one policy has kept of a state is not what another has, nor is it that of another controller."""
    queue, controller = FairTaskQueue(), TaskAdmissionController(TaskAdmissionConfig(10))
    capped = make_tasks(group_spec("a", admitted_limit=1), 2)
    queue.enqueue([*capped, *make_tasks("b", 1)])
    assert start_next(queue, controller) is not None
    view = queue.view()
    decision = StrictFairTaskAdmissionPolicy().evaluate(capped[1], view, controller.view())
    assert decision == controller.policy.evaluate(capped[1], view, controller.view())
    assert not decision.allowed
    assert controller.policy.evaluate(capped[1], view, controller.view().snapshot()) == decision
    other = TaskAdmissionController(TaskAdmissionConfig(10))
    assert other.is_eligible(capped[1], view)


@pytest.mark.parametrize("resource", ["x", "y"])
def test_one_contested_resource_of_several_is_enough(resource: str) -> None:
    queue, controller = FairTaskQueue(), TaskAdmissionController(TaskAdmissionConfig(10, {"x": 5, "y": 5}))
    both = {"submission": 1, "x": 1, "y": 1}
    queue.enqueue([*make_tasks(group_spec("a", admitted_limit=1), 3, both), make_task("early", group_spec("b", 0.1))])
    assert [start_next(queue, controller) is not None for _ in range(2)] == [True, True]
    queue.enqueue([make_task("peer", "b", {resource: 1})])
    assert controller.explain_blocked(queue.view()).dominant_denial_reasons == {"group_cap": 1}
    assert names(start_all(queue, controller)) == ["peer", "a1", "a2"]


def test_a_policy_judges_live_views_of_a_controller_that_is_not_its_own() -> None:
    """By the facts, whoever asked about the queue's heads before.

    To strict fairness `b`, which has no limit, is within its share; to bounded borrow it holds more.
    """
    queue, controller = FairTaskQueue(), TaskAdmissionController(TaskAdmissionConfig(20, {"x": 9}))
    for item in (*make_tasks("a", 3, MODEL), *make_tasks("b", 5, MODEL)):
        assert isinstance(controller.try_acquire(item, queue.view()), TaskAdmissionLease)
    queue.enqueue([make_task("head", group_spec("a", admitted_limit=1), MODEL), make_task("peer", "b", MODEL)])
    assert names(start_all(queue, controller)) == ["peer"]
    queue.enqueue([make_task("again", "b", MODEL)])
    controller.set_limit("x", 10)
    assert queue.select_next(controller.is_eligible) is not None
    view, admission = queue.view(), controller.view()
    head = view.first_candidate_tasks_by_group[A]
    unasked = FairTaskQueue()
    unasked.enqueue([*view.first_candidate_tasks_by_group.values()])
    for queue_view in (view, view.snapshot(), unasked.view()):
        for admission_view in (admission, admission.snapshot()):
            assert BoundedBorrowTaskAdmissionPolicy().evaluate(head, queue_view, admission_view).borrowed == {"x": 1}
            strict = StrictFairTaskAdmissionPolicy().evaluate(head, queue_view, admission_view)
            assert strict.diagnostics["contested_resources"] == ("x",)


def test_an_item_that_heads_nothing_is_judged_as_if_it_did() -> None:
    queue, controller = FairTaskQueue(), TaskAdmissionController(TaskAdmissionConfig(10))
    capped = group_spec("a", admitted_limit=1)
    queue.enqueue([*make_tasks(capped, 3), *make_tasks("b", 1)])
    assert start_next(queue, controller) is not None
    view = queue.view()
    for item in (make_task("new", capped), view.first_candidate_tasks_by_group[A]):
        assert controller.policy.evaluate(item, view, controller.view()).reason == "group_cap"
    wide = make_task("wide", group_spec("w", admitted_limit=1), {"submission": 20})
    queue.enqueue([wide])
    assert controller.policy.evaluate(wide, view, controller.view()).allowed


@pytest.mark.parametrize(
    ("changes", "counters", "problem"),
    [
        ({"a": 1}, {}, "a key of PolicyStateDelta.debt_changes must be a group and a resource, got 'a'"),
        ({("a", "x"): 1}, {}, "a key of PolicyStateDelta.debt_changes must be a group and a resource"),
        ({(group_key("a"), "x"): 0.5}, {}, "must be an int, got 0.5"),
        ({}, {"": 1}, "PolicyStateDelta.diagnostic_counters key must be a non-empty string"),
        ({}, {"n": -1}, r"PolicyStateDelta.diagnostic_counters\['n'\] must be .*, got -1"),
    ],
)
def test_a_delta_that_names_no_debt_is_refused_where_it_is_made(
    changes: dict[Any, Any], counters: dict[str, int], problem: str
) -> None:
    """The controller applies a delta after the grant is booked, so there it must not fail."""
    with pytest.raises(InvalidValueError, match=problem):
        PolicyStateDelta(changes, counters)


def test_a_delta_may_say_that_something_happened_no_times() -> None:
    assert PolicyStateDelta({}, {"n": 0}).diagnostic_counters == {"n": 0}


def test_what_a_groups_head_asks_for_says_nothing_of_another_task_of_it() -> None:
    queue, controller = FairTaskQueue(), TaskAdmissionController(TaskAdmissionConfig(10, {"x": 5}))
    capped, gone = group_spec("a", admitted_limit=1), group_spec("gone", admitted_limit=1)
    queue.enqueue([*make_tasks(capped, 2), *make_tasks(gone, 1)])
    assert len(start_all(queue, controller)) == 3
    queue.enqueue([*make_tasks(capped, 1, prefix="more"), make_task("peer", "b", {"x": 1})])
    view = queue.view()
    selection = queue.select_next(controller.is_eligible)
    assert selection is not None
    for item in (make_task("typed", capped, MODEL), make_task("typed", gone, MODEL)):
        for queue_view in (view, view.snapshot()):
            decision = controller.policy.evaluate(item, queue_view, controller.view())
            assert decision.diagnostics["contested_resources"] == ("x",)


@pytest.mark.parametrize("order", [[0, 1, 0], [1, 0, 1]])
def test_two_queues_of_one_controller_have_answers_of_their_own(order: list[int]) -> None:
    """Also where both have changed equally often, and nothing was granted in between."""
    controller, capped = TaskAdmissionController(), group_spec("a", admitted_limit=1)
    alone, contested = FairTaskQueue(), FairTaskQueue()
    alone.enqueue(make_tasks(capped, 2))
    assert start_next(alone, controller) is not None
    contested.enqueue([make_task("b0", capped)])
    contested.enqueue([make_task("peer", "peer")])
    queues, selected = (alone, contested), ("a1", "peer")
    for number in order:
        selection = queues[number].select_next(controller.is_eligible)
        assert selection is not None
        assert (selection.item.task_id, selection.sequence_version) == (selected[number], 2)

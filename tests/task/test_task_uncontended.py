"""A head that competes with nobody: it runs whatever its group holds, borrows what a look at all heads says,
and is uncontended no longer than it is."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from task_values import group_spec, make_task, make_tasks, start_next

from trio_sched._resources.task import SchedulableTask
from trio_sched._task.bounded_borrow import BoundedBorrowTaskAdmissionPolicyConfig
from trio_sched._task.controller import TaskAdmissionConfig, TaskAdmissionController, TaskAdmissionDenied
from trio_sched._task.ledger import TaskAdmissionLease
from trio_sched._task.queue import FairTaskQueue, QueueView

X = {"submission": 1, "x": 1}
TERMS = {
    "strict": None,
    "up": BoundedBorrowTaskAdmissionPolicyConfig(),
    "down": BoundedBorrowTaskAdmissionPolicyConfig(strict_share_rounding="floor"),
    "reserve": BoundedBorrowTaskAdmissionPolicyConfig(dynamic_borrow_reserve_fraction=0.25),
    "ceiling": BoundedBorrowTaskAdmissionPolicyConfig(default_borrow_ceiling=1),
}
REQUESTS = ({"submission": 1}, X, {"submission": 1, "y": 1}, {"x": 1, "y": 1}, {"submission": 1, "x": 2})


def controller_of(terms: str, **limits: int) -> TaskAdmissionController:
    submission = limits.pop("submission", 64)
    return TaskAdmissionController(TaskAdmissionConfig(submission, limits, TERMS[terms]))


def hold(controller: TaskAdmissionController, queue: FairTaskQueue, items: list[SchedulableTask]) -> None:
    for item in items:
        assert isinstance(controller.try_acquire(item, queue.view()), TaskAdmissionLease)


@pytest.mark.parametrize(
    ("terms", "owed"), [("strict", [0, 0, 0, 0, 0]), ("up", [0, 0, 0, 1, 2]), ("down", [0, 0, 1, 2, 3])]
)
def test_an_uncontended_group_uses_everything_and_borrows_what_lies_above_half_of_it(
    terms: str, owed: list[int]
) -> None:
    controller, queue = controller_of(terms, x=5), FairTaskQueue()
    queue.enqueue(make_tasks("g", 6, X))
    for expected in owed:
        assert start_next(queue, controller) is not None
        assert sum(controller.view().policy_debt_by_group_resource.values()) == expected
    assert queue.select_next(controller.is_eligible) is None


@pytest.mark.parametrize(
    ("terms", "limit", "admitted_limit", "owed"),
    [
        ("up", 1, None, [0]),
        ("down", 1, None, [0]),
        ("up", 4, 1, [0, 1, 2, 3]),
        ("up", 4, 3, [0, 0, 1, 2]),
        ("down", 5, 4, [0, 0, 1, 2, 3]),
    ],
)
def test_half_is_at_least_one_unit_and_at_most_the_limit_of_the_group(
    terms: str, limit: int, admitted_limit: int | None, owed: list[int]
) -> None:
    controller, queue = controller_of(terms, x=limit), FairTaskQueue()
    queue.enqueue(make_tasks(group_spec("g", admitted_limit=admitted_limit), limit, X))
    for expected in owed:
        assert start_next(queue, controller) is not None
        assert sum(controller.view().policy_debt_by_group_resource.values()) == expected


@pytest.mark.parametrize("terms", ["strict", "up"])
@pytest.mark.parametrize("looked", [False, True])
def test_a_newcomer_between_selection_and_grant_ends_being_uncontended(terms: str, *, looked: bool) -> None:
    controller, queue = controller_of(terms, x=4), FairTaskQueue()
    queue.enqueue(make_tasks(group_spec("g", admitted_limit=2), 4, X))
    assert start_next(queue, controller) is not None
    assert start_next(queue, controller) is not None
    selection = queue.select_next(controller.is_eligible)
    assert selection is not None
    queue.enqueue([make_task("h", "h", X)])
    if looked:
        assert not controller.is_eligible(selection.item, queue.view())
    denied = controller.try_acquire(selection.item, queue.view())
    assert isinstance(denied, TaskAdmissionDenied)
    assert denied.reason == "group_cap"
    following = queue.select_next(controller.is_eligible)
    assert following is not None
    assert following.item.task_id == "h"


@pytest.mark.parametrize("terms", ["strict", "up", "ceiling"])
def test_what_was_found_of_one_item_says_nothing_of_another(terms: str) -> None:
    controller, queue = controller_of(terms, x=4, y=1), FairTaskQueue()
    hold(controller, queue, [make_task("running", "h", {"y": 1})])
    queue.enqueue(make_tasks("g", 1, X))
    selection = queue.select_next(controller.is_eligible)
    assert selection is not None
    denied = controller.try_acquire(make_task("other", "h", {"y": 1}), queue.view())
    assert isinstance(denied, TaskAdmissionDenied)
    assert denied.reason == "no_capacity"


def test_who_was_uncontended_with_a_debt_waits_for_a_newcomer_until_that_has_its_share() -> None:
    controller, queue = controller_of("up", x=4), FairTaskQueue()
    queue.enqueue(make_tasks("g", 9, X))
    leases = [lease for _ in range(4) if (lease := start_next(queue, controller)) is not None]
    queue.enqueue(make_tasks("h", 3, X))
    started: list[str] = []
    for lease in leases:
        controller.release(lease)
        granted = start_next(queue, controller)
        assert granted is not None
        started.append(granted.item.task_id)
    assert started == ["h0", "h1", "g4", "g5"]


def test_an_uncontended_head_does_not_hold_back_who_competes_for_another_of_its_resources() -> None:
    """`g` is uncontended at x. Both are at their limits, so neither is within its share, and both may run."""
    controller, queue = controller_of("strict", x=4), FairTaskQueue()
    g, h = group_spec("g", admitted_limit=1), group_spec("h", admitted_limit=1)
    hold(controller, queue, [make_task("g running", g, X), make_task("h running", h)])
    queue.enqueue([make_task("h", h), make_task("g", g, X)])
    assert [start_next(queue, controller) is not None for _ in range(2)] == [True, True]
    assert not len(queue)


Step = tuple[str, int, int]
STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(
        st.sampled_from(("enqueue", "enqueue", "start", "start", "start", "release", "enqueue between", "discard")),
        st.integers(0, 3),
        st.integers(0, len(REQUESTS) - 1),
    ),
    max_size=60,
)


class Stage:
    """A queue and its controller; `plain` ones are asked about every head."""

    def __init__(self, terms: str, limit: int, *, plain: bool) -> None:
        self.controller = controller_of(terms, submission=8, x=limit + 1, y=limit)
        self.queue = FairTaskQueue()
        self.held: list[TaskAdmissionLease] = []
        self.plain = plain

    def is_eligible(self, item: SchedulableTask, view: QueueView) -> bool:
        return self.controller.is_eligible(item, view)

    def take(self, step: str, newcomer: SchedulableTask, number: int) -> object:
        """What came of a step, in values that compare."""
        if step == "enqueue":
            return self.queue.enqueue([newcomer])
        if step == "release":
            return bool(self.held) and self.controller.release(self.held.pop(number % len(self.held))).released
        if step == "discard":
            return self.queue.discard(f"t{number}")
        selection = self.queue.select_next(self.is_eligible if self.plain else self.controller.is_eligible)
        if step == "enqueue between":
            self.queue.enqueue([newcomer])
        if selection is None:
            return None
        decision = self.controller.try_acquire(selection.item, self.queue.view())
        if isinstance(decision, TaskAdmissionDenied):
            return decision.item.task_id, decision.reason
        assert self.queue.commit(selection) is selection.item
        self.held.append(decision)
        return decision.item.task_id, dict(decision.borrowed)


@given(st.sampled_from(sorted(TERMS)), STEPS, st.integers(1, 4))
@example(
    "ceiling",
    [
        ("enqueue", 0, 2),
        ("enqueue", 0, 3),
        ("enqueue between", 1, 0),
        ("enqueue", 3, 2),
        ("start", 0, 0),
        ("enqueue between", 3, 2),
        ("start", 0, 0),
        ("release", 2, 0),
        ("start", 0, 0),
    ],
    2,
)
def test_few_groups_get_what_a_look_at_every_head_gives_them(terms: str, steps: list[Step], limit: int) -> None:
    specs = [group_spec("a"), group_spec("b", 2.0), group_spec("c", admitted_limit=1), group_spec("d", 1.0, 2)]
    by_lanes, plain = Stage(terms, limit, plain=False), Stage(terms, limit, plain=True)
    for made, (step, group, request) in enumerate(steps):
        newcomer = make_task(f"t{made}", specs[group], REQUESTS[request])
        number = made - 1 - group if step == "discard" else group
        assert by_lanes.take(step, newcomer, number) == plain.take(step, newcomer, number)
        assert by_lanes.controller.view().snapshot() == plain.controller.view().snapshot()
        assert by_lanes.queue.view().snapshot() == plain.queue.view().snapshot()

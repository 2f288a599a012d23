"""A selection by lanes finds what asking about every head would: after changes, errors and Ctrl-C at any line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest
import trio
from task_values import UNIT, group_key, group_spec, make_task, make_tasks, names, start_all, start_next

import trio_sched
from trio_sched._resources.task import SchedulableTask, SchedulerResourceRequest, TaskGroupSpec
from trio_sched._task.bounded_borrow import BoundedBorrowTaskAdmissionPolicyConfig
from trio_sched._task.controller import TaskAdmissionConfig, TaskAdmissionController, TaskAdmissionDenied
from trio_sched._task.ledger import TaskAdmissionLease, TaskAdmissionView
from trio_sched._task.policies import (
    PolicyStateDelta,
    StrictFairTaskAdmissionPolicy,
    TaskAdmissionPolicy,
    TaskAdmissionPolicyDecision,
)
from trio_sched._task.queue import FairTaskQueue, QueueView

REQUEST = SchedulerResourceRequest(UNIT)
PACKAGE = str(Path(trio_sched.__file__).parent)


class Marked:
    """A policy that refuses tasks with the payload "marked", and fails when it is given an error."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def evaluate(
        self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
    ) -> TaskAdmissionPolicyDecision:
        if self.error is not None:
            raise self.error
        return TaskAdmissionPolicyDecision(allowed=item.payload != "marked")

    def on_acquire(self, lease: TaskAdmissionLease, decision: TaskAdmissionPolicyDecision) -> PolicyStateDelta:
        return PolicyStateDelta({(lease.item.group.key, "submission"): 1})

    def on_release(self, lease: TaskAdmissionLease) -> PolicyStateDelta:
        return PolicyStateDelta({(lease.item.group.key, "submission"): -1})


def is_fuzzing() -> bool:
    return os.environ.get("TRIO_SCHED_FUZZ") == "full"


def choose(queue: FairTaskQueue, controller: TaskAdmissionController) -> str | None:
    """The next task, found by looking at lanes and found by asking about every head."""
    by_lane = queue.select_next(controller.is_eligible)
    by_head = queue.select_next(lambda item, view: controller.is_eligible(item, view))
    assert by_lane == by_head
    return None if by_lane is None else by_lane.item.task_id


def test_what_was_found_for_one_controller_says_nothing_to_another() -> None:
    queue = FairTaskQueue()
    free, full = (TaskAdmissionController(TaskAdmissionConfig(submission_capacity=1)) for _ in range(2))
    assert isinstance(full.try_acquire(make_task("running", "b"), queue.view()), TaskAdmissionLease)
    while free.version < full.version:
        free.set_limit("submission", 1)
    queue.enqueue([item := make_task("t", "a")])
    assert choose(queue, free) == "t"
    assert isinstance(full.try_acquire(item, queue.view()), TaskAdmissionDenied)
    assert queue.select_next(full.is_eligible) is None
    assert isinstance(full.try_acquire(item, queue.view()), TaskAdmissionDenied)
    assert full.view().leased_resources == {"submission": 1}


def test_a_queue_that_changes_its_controller_is_judged_by_the_terms_of_the_present_one() -> None:
    terms = BoundedBorrowTaskAdmissionPolicyConfig()
    wants_x = {"submission": 1, "x": 1}
    controllers = {limit: TaskAdmissionController(TaskAdmissionConfig(64, {"x": limit}, terms)) for limit in (30, 6)}
    nobody = FairTaskQueue().view()
    for controller in controllers.values():
        for item in make_tasks("g", 3, wants_x, prefix="running"):
            assert isinstance(controller.try_acquire(item, nobody), TaskAdmissionLease)
    queue = FairTaskQueue()
    queue.enqueue([*make_tasks("g", 1, wants_x), *make_tasks("h", 1, wants_x)])
    # Of 30 the share is 15, of 6 it is 3.
    for limit, expected in ((30, "g0"), (6, "h0"), (30, "g0"), (6, "h0")):
        assert choose(queue, controllers[limit]) == expected


def test_a_queue_that_changes_to_a_policy_of_others_asks_it() -> None:
    own, others = TaskAdmissionController(), TaskAdmissionController(policy=Marked())
    queue = FairTaskQueue()
    queue.enqueue([SchedulableTask("g", "marked", group_spec("g"), REQUEST), make_task("h", "h")])
    for controller, expected in ((own, "g"), (others, "h"), (own, "g"), (others, "h")):
        assert choose(queue, controller) == expected


def test_lanes_stay_in_fair_order_when_all_tags_are_shifted() -> None:
    # Serving a group of a great weight beside ordinary ones shifts all tags; each group here has a lane of its own.
    limits = dict.fromkeys("bcd", 9)
    controller = TaskAdmissionController(TaskAdmissionConfig(resource_limits=limits))
    queue = FairTaskQueue()
    chosen: list[str] = []

    def serve(count: int) -> None:
        for _ in range(count):
            choose(queue, controller)
            lease = start_next(queue, controller)
            assert lease is not None
            controller.release(lease)
            chosen.append(lease.item.group.key.identity[-1])

    queue.enqueue([*make_tasks("a", 40), *make_tasks("b", 40, {"submission": 1, "b": 1})])
    serve(20)
    queue.enqueue(make_tasks(group_spec("c", 2.0**40), 1, {"submission": 1, "c": 1}))
    serve(1)
    queue.enqueue(make_tasks("d", 9, {"submission": 1, "d": 1}))
    serve(15)
    assert "".join(chosen) == "ab" * 10 + "c" + "dab" * 5


def test_many_lanes_stay_in_fair_order_when_all_tags_are_shifted() -> None:
    limits = {f"r{number}": 9 for number in range(24)}
    controller = TaskAdmissionController(TaskAdmissionConfig(resource_limits=limits))
    queue = FairTaskQueue()
    for number in range(24):
        weight = 1 / (1 + number * 7 % 24)
        queue.enqueue(make_tasks(group_spec(f"g{number}:", weight), 4, {"submission": 1, f"r{number}": 1}))

    def serve(count: int) -> list[str]:
        chosen: list[str] = []
        for _ in range(count):
            assert choose(queue, controller) is not None
            lease = start_next(queue, controller)
            assert lease is not None
            controller.release(lease)
            chosen.append(lease.item.group.key.identity[-1])
        return chosen

    assert len(set(serve(24))) == 24
    queue.enqueue(make_tasks(group_spec("great", 2.0**40), 2))
    serve(40)
    queue.enqueue(make_tasks(group_spec("great", 2.0**40), 2, prefix="again"))
    serve(len(queue))


def test_a_head_is_judged_by_its_own_spec_whatever_the_group_was_before() -> None:
    controller = TaskAdmissionController()
    queue = FairTaskQueue()
    free, capped = group_spec("g"), group_spec("g", admitted_limit=1)

    def task(task_id: str, spec: TaskGroupSpec) -> SchedulableTask:
        return SchedulableTask(task_id, None, spec, REQUEST)

    queue.enqueue([task("g1", free), task("g2", capped), task("g3", free)])
    assert choose(queue, controller) == "g1"
    queue.discard("g1")
    assert choose(queue, controller) == "g2"
    assert isinstance(controller.try_acquire(task("elsewhere", free), queue.view()), TaskAdmissionLease)
    queue.enqueue([make_task("h", "h")])
    assert choose(queue, controller) == "h"
    queue.discard("g2")
    assert choose(queue, controller) == "g3"


def test_tasks_of_one_group_may_be_judged_differently() -> None:
    controller = TaskAdmissionController(policy=Marked())
    queue = FairTaskQueue()
    spec = group_spec("g")
    queue.enqueue(
        SchedulableTask(f"g{number}", payload, spec, REQUEST) for number, payload in enumerate(("", "marked", ""))
    )
    queue.enqueue([SchedulableTask("h", "", group_spec("h"), REQUEST)])
    assert choose(queue, controller) == "g0"
    queue.discard("g0")
    assert choose(queue, controller) == "h"
    queue.discard("g1")
    assert choose(queue, controller) == "g2"


def test_an_error_while_units_are_looked_for_leaves_no_wrong_answer_behind() -> None:
    policy = Marked()
    controller = TaskAdmissionController(TaskAdmissionConfig(2, multi_unit_skip_bound=1), policy)
    queue = FairTaskQueue()
    queue.enqueue([*make_tasks("s", 3), make_task("big", "b", {"submission": 2})])
    leases = start_all(queue, controller)
    assert names(leases) == ["s0", "s1"]
    assert len(controller.view().reservations) == 1
    for lease in leases:
        controller.release(lease)
    policy.error = LookupError("policy")
    with pytest.raises(LookupError, match="policy"):
        queue.select_next(controller.is_eligible)
    policy.error = None
    assert choose(queue, controller) == "big"


@pytest.mark.parametrize("looked", [False, True])
def test_a_newcomer_between_selection_and_grant_is_a_competitor_whether_or_not_somebody_looked(*, looked: bool) -> None:
    controller = TaskAdmissionController()
    queue = FairTaskQueue()
    queue.enqueue(make_tasks(group_spec("g", admitted_limit=1), 2))
    assert start_next(queue, controller) is not None
    selection = queue.select_next(controller.is_eligible)
    assert selection is not None
    queue.enqueue([make_task("h", "h")])
    if looked:
        assert not controller.is_eligible(selection.item, queue.view())
    denied = controller.try_acquire(selection.item, queue.view())
    assert isinstance(denied, TaskAdmissionDenied)
    assert denied.reason == "group_cap"


def test_a_share_is_measured_against_peers_that_ask_for_something_else() -> None:
    borrowing = BoundedBorrowTaskAdmissionPolicyConfig()
    controller = TaskAdmissionController(TaskAdmissionConfig(64, {"x": 8}, borrowing))
    queue = FairTaskQueue()
    wants_one = {"submission": 1, "x": 1}
    for item in make_tasks("g", 3, wants_one, prefix="running"):
        assert isinstance(controller.try_acquire(item, queue.view()), TaskAdmissionLease)
    queue.enqueue([make_task("g", "g", wants_one)])
    assert choose(queue, controller) == "g"
    queue.enqueue([make_task("h", group_spec("h", 7.0), {"submission": 1, "x": 2})])
    assert choose(queue, controller) == "h"


def test_a_group_that_comes_within_its_share_runs_even_if_it_is_not_the_first_of_its_lane() -> None:
    borrowing = BoundedBorrowTaskAdmissionPolicyConfig()
    controller = TaskAdmissionController(TaskAdmissionConfig(64, {"x": 21}, borrowing))
    queue = FairTaskQueue()
    nobody = FairTaskQueue().view()
    wants_x = {"submission": 1, "x": 1}
    running = {
        name: [controller.try_acquire(item, nobody) for item in make_tasks(name, count, wants_x, prefix="running")]
        for name, count in (("g", 7), ("h", 7), ("peer", 1))
    }
    queue.enqueue(make_task(name, name, wants_x) for name in ("g", "h", "peer"))
    # Of 21 each has a share of 7.
    assert choose(queue, controller) == "peer"
    lease = running["h"][0]
    assert isinstance(lease, TaskAdmissionLease)
    controller.release(lease)
    assert choose(queue, controller) == "h"


def test_a_group_that_comes_within_its_share_holds_back_those_before_it() -> None:
    borrowing = BoundedBorrowTaskAdmissionPolicyConfig(strict_share_rounding="floor")
    controller = TaskAdmissionController(TaskAdmissionConfig(64, {"x": 23}, borrowing))
    queue = FairTaskQueue()
    nobody = FairTaskQueue().view()
    running = {
        name: [controller.try_acquire(item, nobody) for item in make_tasks(name, 7, {"x": 1}, prefix="running")]
        for name in ("g", "h", "peer")
    }
    queue.enqueue(
        [make_task("g", "g", {"submission": 1, "x": 1}), *(make_task(name, name, {"x": 1}) for name in ("h", "peer"))]
    )
    # Of 23 each has a share of 7, and all have it.
    assert choose(queue, controller) == "g"
    lease = running["peer"][0]
    assert isinstance(lease, TaskAdmissionLease)
    controller.release(lease)
    assert choose(queue, controller) == "peer"


def test_a_peer_that_is_no_longer_within_its_share_holds_nobody_back() -> None:
    """The grant that made it so was of a task that nobody had queued."""
    controller = TaskAdmissionController()
    queue = FairTaskQueue()
    limited, peer = group_spec("g", admitted_limit=1), group_spec("peer", admitted_limit=1)
    assert isinstance(controller.try_acquire(make_task("running", limited), queue.view()), TaskAdmissionLease)
    queue.enqueue([make_task("g1", limited)])
    assert choose(queue, controller) == "g1"
    queue.enqueue(make_tasks(peer, 1))
    assert not controller.is_eligible(queue.view().first_candidate_tasks_by_group[limited.key], queue.view())
    assert isinstance(controller.try_acquire(make_task("elsewhere", peer), queue.view()), TaskAdmissionLease)
    assert controller.is_eligible(queue.view().first_candidate_tasks_by_group[limited.key], queue.view())
    assert choose(queue, controller) == "g1"


def test_a_peer_that_is_gone_holds_nobody_back() -> None:
    controller = TaskAdmissionController()
    queue = FairTaskQueue()
    specs = [group_spec(name, admitted_limit=1) for name in "gk"]
    queue.enqueue(item for spec in specs for item in make_tasks(spec, 2))
    assert len([start_next(queue, controller), start_next(queue, controller)]) == 2
    queue.enqueue(make_tasks(group_spec("slow", 0.01), 2))
    assert start_next(queue, controller) is not None
    assert choose(queue, controller) == "slow1"
    queue.discard("slow1")
    assert choose(queue, controller) == "g1"


def test_shares_follow_the_weights_of_the_heads_of_now() -> None:
    borrowing = BoundedBorrowTaskAdmissionPolicyConfig()
    controller = TaskAdmissionController(TaskAdmissionConfig(64, {"x": 8}, borrowing))
    queue = FairTaskQueue()
    for item in make_tasks("g", 3, {"x": 1}, prefix="running"):
        assert isinstance(controller.try_acquire(item, queue.view()), TaskAdmissionLease)
    queue.enqueue([make_task("g", "g", {"x": 1})])
    queue.enqueue(
        make_task(f"h{number}", group_spec("h", weight), {"x": 1}) for number, weight in enumerate((1.0, 7.0))
    )
    # Of 8 units the group's share is 4 beside an equal, and to 1 beside one of seven times its weight.
    assert choose(queue, controller) == "g"
    queue.discard("h0")
    assert choose(queue, controller) == "h1"


def test_heads_of_one_group_may_differ_for_who_asks() -> None:
    class Choosy:
        """Leaves tasks alone that have the payload "later"."""

        def fits(self, request: SchedulerResourceRequest) -> bool:
            return controller.fits(request)

        def allows(self, queue_view: QueueView) -> Callable[[SchedulableTask], bool]:
            allows = controller.allows(queue_view)
            return lambda head: head.payload != "later" and allows(head)

        def is_eligible(self, item: SchedulableTask, queue_view: QueueView) -> bool:
            return item.payload != "later" and controller.is_eligible(item, queue_view)

    controller = TaskAdmissionController()
    queue = FairTaskQueue()
    choosy = Choosy()
    spec = group_spec("g")
    queue.enqueue(
        SchedulableTask(f"g{number}", payload, spec, REQUEST) for number, payload in enumerate(("", "later", ""))
    )
    queue.enqueue([SchedulableTask("h0", "", group_spec("h"), REQUEST)])
    for expected in ("g0", "h0", "g2"):
        selection = queue.select_next(choosy.is_eligible)
        assert selection is not None
        assert selection.item.task_id == expected
        queue.discard(expected)
        if expected == "h0":
            queue.discard("g1")


def test_a_controller_that_answers_for_itself_is_asked() -> None:
    class Choosy(TaskAdmissionController):
        def is_eligible(self, item: SchedulableTask, queue_view: QueueView) -> bool:
            return item.payload != "later" and super().is_eligible(item, queue_view)

    controller = Choosy()
    queue = FairTaskQueue()
    queue.enqueue([SchedulableTask("g", "later", group_spec("g"), REQUEST), make_task("h", "h")])
    assert choose(queue, controller) == "h"
    assert names(start_all(queue, controller)) == ["h"]


def test_a_group_that_comes_within_its_share_is_found_behind_those_that_are_refused() -> None:
    controller = TaskAdmissionController()
    queue = FairTaskQueue()
    queue.enqueue(item for name in "gk" for item in make_tasks(group_spec(name, admitted_limit=1), 2))
    leases = [start_next(queue, controller) for _ in range(2)]
    queue.enqueue(make_tasks(group_spec("peer", 0.1), 2))
    assert start_next(queue, controller) is not None
    assert choose(queue, controller) == "peer1"
    assert leases[1] is not None
    controller.release(leases[1])
    assert choose(queue, controller) == "k1"


def test_units_that_come_free_are_news_to_every_queue() -> None:
    controller = TaskAdmissionController(TaskAdmissionConfig(resource_limits={"x": 1}))
    queues = FairTaskQueue(), FairTaskQueue()
    nobody = FairTaskQueue().view()
    for number, queue in enumerate(queues):
        queue.enqueue([make_task(f"t{number}", f"g{number}", {"x": 1})])
    for _ in range(3):
        lease = controller.try_acquire(make_task("holder", "h", {"x": 1}), nobody)
        assert isinstance(lease, TaskAdmissionLease)
        assert [choose(queue, controller) for queue in queues] == [None, None]
        controller.release(lease)
        assert [choose(queue, controller) for queue in queues] == ["t0", "t1"]


def test_peers_may_all_ask_for_something_else_besides() -> None:
    controller = TaskAdmissionController(TaskAdmissionConfig(9, dict.fromkeys("xyz", 1)))
    queue = FairTaskQueue()
    limited = group_spec("g", admitted_limit=1)
    queue.enqueue(make_tasks(limited, 2))
    assert start_next(queue, controller) is not None
    queue.enqueue(make_task(name, name, {"submission": 1, name: 1}) for name in "xyz")
    head = queue.view().first_candidate_tasks_by_group[limited.key]
    for name in "xyz":
        assert not controller.is_eligible(head, queue.view())
        assert choose(queue, controller) == name
        queue.discard(name)
    assert controller.is_eligible(head, queue.view())


def test_a_policy_of_others_sees_what_groups_run() -> None:
    class Narrow(Marked):
        """At most two tasks of a group run."""

        def evaluate(
            self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
        ) -> TaskAdmissionPolicyDecision:
            return TaskAdmissionPolicyDecision(allowed=admission_view.account(item.group.key).running < 2)

    controller = TaskAdmissionController(policy=Narrow())
    queue = FairTaskQueue()
    queue.enqueue([*make_tasks("g", 4), *make_tasks("h", 4)])
    leases = start_all(queue, controller)
    assert names(leases) == ["g0", "h0", "g1", "h1"]
    controller.release(leases[1])
    assert choose(queue, controller) == "h2"


def test_a_peer_whose_next_head_asks_for_something_else_competes_no_more() -> None:
    controller = TaskAdmissionController(TaskAdmissionConfig(9, {"x": 9, "y": 9}))
    queue = FairTaskQueue()
    limited, also = group_spec("g", admitted_limit=1), group_spec("k", admitted_limit=1)
    queue.enqueue([*make_tasks(limited, 2, {"x": 1}), *make_tasks(also, 2, {"x": 1})])
    assert [start_next(queue, controller) is not None for _ in range(2)] == [True, True]
    queue.enqueue([make_task("h0", "h", {"x": 1}), make_task("h1", "h", {"y": 1}), make_task("h2", "h", {"x": 1})])
    head = queue.view().first_candidate_tasks_by_group[limited.key]
    for task_id, is_held_back in (("h0", True), ("h1", False), ("h2", True)):
        assert controller.is_eligible(head, queue.view()) is not is_held_back
        choose(queue, controller)
        queue.discard(task_id)
    assert choose(queue, controller) == "g1"


def test_a_head_may_lack_one_resource_after_the_other() -> None:
    controller = TaskAdmissionController(TaskAdmissionConfig(1, {"x": 1}))
    queue = FairTaskQueue()
    queue.enqueue([make_task("t", "g", {"submission": 1, "x": 1})])
    nobody = FairTaskQueue().view()
    holds_x = controller.try_acquire(make_task("holds x", "h", {"x": 1}), nobody)
    assert isinstance(holds_x, TaskAdmissionLease)
    assert choose(queue, controller) is None
    holds_submission = controller.try_acquire(make_task("holds submission", "h"), nobody)
    assert isinstance(holds_submission, TaskAdmissionLease)
    controller.release(holds_x)
    assert choose(queue, controller) is None
    controller.release(holds_submission)
    assert choose(queue, controller) == "t"


def test_a_policy_that_looks_in_on_acquire_sees_the_state_after_it() -> None:
    queue = FairTaskQueue()
    seen: list[bool] = []

    class Looking(StrictFairTaskAdmissionPolicy):
        def on_acquire(self, lease: TaskAdmissionLease, decision: TaskAdmissionPolicyDecision) -> PolicyStateDelta:
            head = queue.view().first_candidate_tasks_by_group.get(group_key("g"))
            if head is not None:
                seen.append(controller.is_eligible(head, queue.view()))
            return super().on_acquire(lease, decision)

    controller = TaskAdmissionController(TaskAdmissionConfig(resource_limits={"x": 1}), Looking())
    wants_x = {"submission": 1, "x": 1}
    capped = group_spec("g", admitted_limit=1)
    assert isinstance(controller.try_acquire(make_task("running", capped), queue.view()), TaskAdmissionLease)
    queue.enqueue([make_task("g", capped), make_task("h", "h", wants_x)])
    # As long as there is a unit of x for its peer, the group may not go beyond its limit.
    assert choose(queue, controller) == "h"
    assert isinstance(controller.try_acquire(make_task("z", "z", wants_x), queue.view()), TaskAdmissionLease)
    assert seen == [True]


def test_a_policy_that_looks_in_on_release_sees_the_state_after_it() -> None:
    queue = FairTaskQueue()
    seen: list[bool] = []

    class Looking(StrictFairTaskAdmissionPolicy):
        def on_release(self, lease: TaskAdmissionLease) -> PolicyStateDelta:
            head = queue.view().first_candidate_tasks_by_group[group_key("g")]
            seen.append(controller.is_eligible(head, queue.view()))
            return super().on_release(lease)

    controller = TaskAdmissionController(TaskAdmissionConfig(resource_limits={"x": 1}), Looking())
    wants_x = {"submission": 1, "x": 1}
    capped = group_spec("g", admitted_limit=1)
    assert isinstance(controller.try_acquire(make_task("running", capped), queue.view()), TaskAdmissionLease)
    holder = controller.try_acquire(make_task("holder", "z", wants_x), queue.view())
    assert isinstance(holder, TaskAdmissionLease)
    queue.enqueue([make_task("g", capped), make_task("h", "h", wants_x)])
    # As long as there is no unit of x for its peer, the group may go beyond its limit.
    assert choose(queue, controller) == "g"
    assert controller.release(holder).released
    assert seen == [False]


def test_a_queue_whose_tasks_come_and_go_in_front_of_another_finds_the_same() -> None:
    controller = TaskAdmissionController()
    queue = FairTaskQueue()
    queue.enqueue(make_tasks(group_spec("slow", 0.001), 2))
    assert start_next(queue, controller) is not None
    for number in range(100):
        queue.enqueue([make_task(f"quick{number}", "quick")])
        assert choose(queue, controller) == f"quick{number}"
        assert queue.discard(f"quick{number}")
        assert choose(queue, controller) == "slow1"


# Ctrl-C

POLICIES: Final[
    dict[str, tuple[BoundedBorrowTaskAdmissionPolicyConfig | None, Callable[[], TaskAdmissionPolicy] | None]]
] = {
    "strict": (None, None),
    "borrow": (BoundedBorrowTaskAdmissionPolicyConfig(), None),
    "own": (None, Marked),
}


class Interrupter:
    """Raises KeyboardInterrupt once, at the line of that number of those that are not protected from it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.seen = 0

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        name = frame.f_code.co_filename
        if name != __file__ and not name.startswith(PACKAGE):
            return None
        if name == __file__ and frame.f_code.co_name not in Marked.__dict__:
            return None
        if event == "line" and not trio.lowlevel.currently_ki_protected():
            self.seen += 1
            if self.seen == self.number:
                raise KeyboardInterrupt
        return self


def work(
    queue: FairTaskQueue,
    controller: TaskAdmissionController,
    other: TaskAdmissionController,
    leases: list[TaskAdmissionLease],
) -> None:
    """Everything that a dispatcher does, and a change of the controller."""
    queue.enqueue([*make_tasks(group_spec("a", 2.0, 1), 4), *make_tasks("b", 4, {"submission": 1, "x": 1})])
    queue.enqueue([*make_tasks("c", 2, {"submission": 1, "x": 2}), *make_tasks("d", 3)])
    for _ in range(5):
        selection = queue.select_next(controller.is_eligible)
        if selection is not None:
            lease = controller.try_acquire(selection.item, selection.queue_view)
            assert isinstance(lease, TaskAdmissionLease)
            leases.append(lease)
            assert queue.commit(selection) is selection.item
    controller.release(leases[0])
    queue.select_next(other.is_eligible)
    queue.select_next(controller.is_eligible)
    queue.discard_where(lambda item: item.task_id.endswith("3"))
    controller.set_limit("submission", 9)
    controller.explain_blocked(queue.view())
    queue.select_next(controller.is_eligible)


@pytest.mark.parametrize("policy", POLICIES)
def test_ctrl_c_at_any_line_leaves_queue_and_controller_whole(policy: str) -> None:
    async def interrupted(number: int) -> int:
        borrow, own = POLICIES[policy]
        config = TaskAdmissionConfig(5, {"x": 2}, borrow, 2)
        controller = TaskAdmissionController(config, None if own is None else own())
        other = TaskAdmissionController(TaskAdmissionConfig(3, {"x": 1}))
        queue = FairTaskQueue()
        leases: list[TaskAdmissionLease] = []
        interrupter = Interrupter(number)
        before = sys.gettrace()
        sys.settrace(interrupter)
        try:
            work(queue, controller, other, leases)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        view = queue.view()
        assert view.queued_total == len(queue) == sum(view.queued_by_group.values())
        assert sum(view.queued_resource_demand_by_group[key]["submission"] for key in view.queued_by_group) == len(
            queue
        )
        assert controller.view().leased_resources.get("submission", 0) == len(controller.leak_report())
        choose(queue, other)
        for lease in leases:
            controller.release(lease)
        assert controller.leak_report() == ()
        controller.set_limit("submission", 9)
        while len(queue):
            assert choose(queue, controller) is not None
            lease_now = start_next(queue, controller)
            assert lease_now is not None
            if len(queue) % 3 == 0:
                controller.release(lease_now)
            else:
                leases.append(lease_now)
            if choose(queue, controller) is None:
                for lease in leases:
                    controller.release(lease)
        return interrupter.seen

    # The first run fills caches, so it has more lines.
    trio.run(interrupted, sys.maxsize)
    lines = trio.run(interrupted, sys.maxsize)
    assert lines > 100
    # Every line takes minutes, so that is for the fuzz session.
    for number in range(1, lines + 1, 1 if is_fuzzing() else 97):
        # The order within a set decides a few lines, so the last numbers may lie behind the end.
        assert min(number, 0.95 * lines) <= trio.run(interrupted, number) <= number

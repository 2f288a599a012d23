"""Multi-unit heads do not starve behind smaller ones, and cost nobody more than that."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from task_values import ScriptedPolicy, group_key, group_spec, make_task, make_tasks, names, start_all, start_next

from trio_sched._resources.task import SchedulableTask, TaskGroupSpec
from trio_sched._task.bounded_borrow import BoundedBorrowTaskAdmissionPolicyConfig
from trio_sched._task.controller import TaskAdmissionConfig, TaskAdmissionController, TaskAdmissionDenied
from trio_sched._task.ledger import TaskAdmissionLease
from trio_sched._task.policies import PolicyStateDelta, TaskAdmissionPolicyDecision
from trio_sched._task.queue import FairTaskQueue, QueueView

X1: Mapping[str, int] = {"x": 1}
X4: Mapping[str, int] = {"x": 4}


class Stage:
    """A queue and a controller, with `x` limited to 4, and a rolling load of small tasks that end one by one."""

    def __init__(self, bound: int, limits: Mapping[str, int] | None = None, *, borrow: bool = False) -> None:
        terms = BoundedBorrowTaskAdmissionPolicyConfig() if borrow else None
        self.queue = FairTaskQueue()
        self.controller = TaskAdmissionController(TaskAdmissionConfig(100, limits or {"x": 4}, terms, bound))
        self.running: list[TaskAdmissionLease] = []
        self.number = 0

    def enqueue(self, task_id: str, group: str | TaskGroupSpec, amounts: Mapping[str, int]) -> None:
        self.queue.enqueue([make_task(task_id, group, amounts)])

    def start(self) -> list[str]:
        started = start_all(self.queue, self.controller)
        self.running += started
        return names(started)

    def small(self, amounts: Mapping[str, int] = X1, group: str = "small") -> None:
        self.number += 1
        self.enqueue(f"s{self.number}", group, amounts)

    def finish_one(self) -> list[str]:
        """The longest-running task ends, and another small one is there already."""
        self.small()
        self.controller.release(self.running.pop(0))
        return self.start()


def fill(stage: Stage) -> None:
    for _ in range(4):
        stage.small()
    stage.start()


@pytest.mark.parametrize("borrow", [False, True])
@pytest.mark.parametrize("bound", [1, 3, 8])
def test_it_is_skipped_as_often_as_the_bound_says(bound: int, borrow: bool) -> None:
    stage = Stage(bound, borrow=borrow)
    fill(stage)
    stage.enqueue("wide", "wide", X4)
    passed = 0
    while stage.finish_one():
        passed += 1
    assert passed == bound
    assert [each.item.task_id for each in stage.controller.view().reservations] == ["wide"]
    for _ in range(2):
        assert stage.finish_one() == []
    assert stage.finish_one() == ["wide"]
    assert not stage.controller.view().reservations


def test_reserved_units_are_not_free_to_others_and_are_to_their_head() -> None:
    stage = Stage(1)
    fill(stage)
    stage.enqueue("wide", "wide", {"x": 2})
    assert stage.finish_one() == ["s5"]
    view = stage.queue.view()
    wide = view.first_candidate_tasks_by_group[group_key("wide")]
    stage.controller.release(stage.running.pop(0))
    refused = stage.controller.try_acquire(make_task("other", "other", X1), view)
    assert isinstance(refused, TaskAdmissionDenied)
    assert refused.reason == "no_capacity"
    assert refused.diagnostics == {
        "missing_resources": {"x": {"requested": 1, "available": 1, "reserved_for_others": 2, "limit": 4}}
    }
    same = stage.controller.try_acquire(make_task("same", "other", {"x": 2}), view)
    assert isinstance(same, TaskAdmissionDenied)
    stage.controller.release(stage.running.pop(0))
    assert not stage.controller.is_eligible(make_task("other", "other", X1), view)
    assert stage.controller.is_eligible(wide, view)
    stage.controller.release(stage.running.pop(0))
    assert stage.controller.is_eligible(make_task("other", "other", X1), view)


def test_tasks_that_need_nothing_of_it_go_on() -> None:
    stage = Stage(1, {"x": 4, "y": 1})
    fill(stage)
    stage.enqueue("wide", "wide", X4)
    stage.finish_one()
    stage.enqueue("free", "free", {"y": 1})
    assert stage.finish_one() == ["free"]


def test_only_grants_that_take_what_it_lacks_count() -> None:
    stage = Stage(1, {"x": 4, "y": 9})
    fill(stage)
    stage.enqueue("wide", "wide", {"x": 2, "y": 1})
    for number in range(5):
        stage.enqueue(f"y{number}", "other", {"y": 1})
    assert len(stage.start()) == 5
    assert not stage.controller.view().reservations


def test_a_grant_before_it_in_fair_order_does_not_count() -> None:
    """The wide group has had its turn: the newcomer is due before it, and takes the unit."""
    stage = Stage(1)
    stage.queue.enqueue(make_tasks("wide", 2, {"x": 3}))
    stage.small()
    assert stage.start() == ["wide0", "s1"]
    stage.enqueue("new", "new", X1)
    stage.controller.release(stage.running.pop(1))
    assert stage.start() == ["new"]
    assert not stage.controller.view().reservations


def test_of_equal_requests_the_first_in_order_is_counted() -> None:
    stage = Stage(2)
    fill(stage)
    stage.enqueue("first", "first", X4)
    stage.enqueue("second", "second", X4)
    while stage.finish_one():
        pass
    assert [each.item.task_id for each in stage.controller.view().reservations] == ["first"]


@pytest.mark.parametrize("limited", ["w0", "w1"])
def test_of_equal_requests_the_first_in_order_is_counted_however_its_group_stands(limited: str) -> None:
    stage = Stage(1)
    specs = [group_spec(name, admitted_limit=1 if name == limited else None) for name in ("w0", "w1")]
    assert isinstance(
        stage.controller.try_acquire(make_task("running", group_spec(limited, admitted_limit=1)), stage.queue.view()),
        TaskAdmissionLease,
    )
    fill(stage)
    stage.queue.enqueue(make_task(spec.key.identity[-1], spec, X4) for spec in specs)
    assert stage.finish_one() == ["s5"]
    assert [each.item.task_id for each in stage.controller.view().reservations] == ["w0"]


def test_units_of_several_resources_are_reserved_too() -> None:
    """x and y come free in turn and are taken at once, so both are never free together."""
    stage = Stage(3, {"x": 1, "y": 1})
    stage.small({"x": 1}, "x")
    stage.small({"y": 1}, "y")
    stage.start()
    stage.enqueue("both", "both", {"submission": 1, "x": 1, "y": 1})
    started: list[str] = []
    for number in range(12):
        stage.small({"xy"[number % 2]: 1}, "xy"[number % 2])
        stage.controller.release(stage.running.pop(0))
        started += stage.start()
        if "both" in started:
            break
    assert started.index("both") <= 5


def test_the_older_reservation_goes_first() -> None:
    stage = Stage(1, {"x": 4})
    fill(stage)
    stage.enqueue("w4", "w4", X4)
    stage.finish_one()
    stage.enqueue("w3", "w3", {"x": 3})
    # Nothing small is granted any more, so w3 is never skipped: it simply comes after w4.
    order: list[str] = []
    while len(order) < 2:
        stage.controller.release(stage.running.pop(0))
        order += stage.start()
    assert order == ["w4", "w3"]


def test_two_reservations_share_what_is_left_in_the_order_in_which_they_were_made() -> None:
    stage = Stage(1, {"x": 4, "y": 2})
    fill(stage)
    stage.enqueue("a", "a", {"x": 2})
    stage.enqueue("b", "b", {"x": 3})
    stage.small()
    stage.controller.release(stage.running.pop(0))
    assert stage.start() == ["s5"]
    assert [each.item.task_id for each in stage.controller.view().reservations] == ["a", "b"]
    view = stage.queue.view()
    heads = view.first_candidate_tasks_by_group
    a, b = heads[group_key("a")], heads[group_key("b")]
    for free, expected in ((1, (False, False)), (2, (True, False)), (3, (True, False)), (4, (True, False))):
        stage.controller.release(stage.running.pop(0))
        assert stage.controller.view().resources_available["x"] == free
        for seen in (view, view.snapshot()):
            assert (stage.controller.is_eligible(a, seen), stage.controller.is_eligible(b, seen)) == expected
    assert stage.start() == ["a"]
    stage.controller.release(stage.running.pop(0))
    assert stage.start() == ["b"]


@pytest.mark.parametrize("gone", ["discarded", "replaced"])
def test_a_reservation_ends_with_its_head(gone: str) -> None:
    stage = Stage(1)
    fill(stage)
    stage.enqueue("wide", "wide", X4)
    stage.finish_one()
    assert stage.finish_one() == []
    if gone == "replaced":
        stage.enqueue("next", "wide", {"submission": 1})
    stage.queue.discard("wide")
    started = stage.start()
    assert set(started) >= {"s6"}
    assert not stage.controller.view().reservations


def test_the_end_of_a_reservation_is_news_to_heads_that_lacked_units_only_because_of_it() -> None:
    stage = Stage(1)
    fill(stage)
    stage.enqueue("wide", "wide", X4)
    stage.finish_one()
    stage.controller.release(stage.running.pop())
    # A queue that has never seen a unit come free.
    stage.queue = FairTaskQueue()
    stage.enqueue("wide", "wide", X4)
    stage.enqueue("narrow", "narrow", X1)
    assert stage.start() == []
    stage.queue.discard("wide")
    assert stage.start() == ["narrow"]


@pytest.mark.parametrize("is_shown", [True, False])
def test_heads_whose_units_come_free_at_once_need_no_reservation(*, is_shown: bool) -> None:
    """One that lacks x is skipped by tasks that take all of `submission`, beside a multi-unit head."""
    queue = FairTaskQueue()
    controller = TaskAdmissionController(TaskAdmissionConfig(2, {"x": 1}, multi_unit_skip_bound=1))
    assert isinstance(controller.try_acquire(make_task("holder", "h", X1), queue.view()), TaskAdmissionLease)
    queue.enqueue([make_task("typed", "typed", {"submission": 1, "x": 1}), make_task("once", group_spec("wide", 0.01))])
    once = start_next(queue, controller)
    assert once is not None
    controller.release(once)
    queue.enqueue([*make_tasks("small", 2), make_task("wide", "wide", {"submission": 2})])
    queue.select_next(controller.is_eligible if is_shown else TaskAdmissionController().is_eligible)
    for item in make_tasks("small", 2):
        assert isinstance(controller.try_acquire(item, queue.view()), TaskAdmissionLease)
    assert not controller.view().reservations


def test_a_head_that_came_between_selection_and_grant_is_skipped_too() -> None:
    stage = Stage(1)
    fill(stage)
    stage.small()
    assert stage.finish_one() == ["s5"]
    stage.controller.release(stage.running.pop(0))
    selection = stage.queue.select_next(stage.controller.is_eligible)
    assert selection is not None
    stage.enqueue("wide", "wide", X4)
    assert isinstance(stage.controller.try_acquire(selection.item, stage.queue.view()), TaskAdmissionLease)
    assert [each.item.task_id for each in stage.controller.view().reservations] == ["wide"]


def test_a_grant_to_a_group_that_is_not_queued_skips_every_head() -> None:
    stage = Stage(1)
    fill(stage)
    stage.enqueue("wide", "wide", X4)
    stage.controller.release(stage.running.pop(0))
    lease = stage.controller.try_acquire(make_task("elsewhere", "nobody", X1), stage.queue.view())
    assert isinstance(lease, TaskAdmissionLease)
    assert [each.item.task_id for each in stage.controller.view().reservations] == ["wide"]


def test_each_task_of_a_group_is_given_a_reservation_of_its_own() -> None:
    stage = Stage(1)
    fill(stage)
    stage.queue.enqueue(make_tasks("wide", 2, X4))
    assert stage.finish_one() == ["s5"]
    while len(stage.running) > 1:
        stage.controller.release(stage.running.pop())
    stage.controller.release(stage.running.pop())
    assert stage.start() == ["wide0"]
    assert not stage.controller.view().reservations
    stage.controller.release(stage.running.pop())
    view = stage.queue.view()
    for number in range(2):
        item = make_task(f"elsewhere{number}", "nobody", X1)
        assert isinstance(stage.controller.try_acquire(item, view), TaskAdmissionLease)
    assert [each.item.task_id for each in stage.controller.view().reservations] == ["wide1"]


def test_the_next_of_a_group_is_counted_from_the_first_grant_on() -> None:
    """Its predecessor, which asked for the same, was discarded with a reservation."""
    stage = Stage(1)
    fill(stage)
    stage.queue.enqueue(make_tasks("wide", 2, X4))
    assert stage.finish_one() == ["s5"]
    stage.queue.discard("wide0")
    assert stage.finish_one() == ["s6"]
    assert [each.item.task_id for each in stage.controller.view().reservations] == ["wide1"]


def test_nothing_is_kept_for_the_successor_of_a_head_that_is_gone() -> None:
    stage = Stage(1)
    fill(stage)
    stage.enqueue("wide", "wide", X4)
    stage.finish_one()
    assert stage.finish_one() == []
    stage.enqueue("next", "wide", {"x": 3})
    stage.queue.discard("wide")
    assert stage.start() == ["s6"]


def test_a_reservation_of_a_head_that_was_replaced_is_not_shown() -> None:
    stage = Stage(2)
    fill(stage)
    stage.enqueue("wide", "wide", X4)
    assert stage.finish_one() + stage.finish_one() == ["s5", "s6"]
    assert len(stage.controller.view().reservations) == 1
    stage.enqueue("next", "wide", {"x": 3})
    stage.queue.discard("wide")
    assert stage.finish_one() == ["s7"]
    assert not stage.controller.view().reservations


@pytest.mark.parametrize("is_live", [True, False])
def test_a_group_does_not_skip_itself(*, is_live: bool) -> None:
    stage = Stage(1)
    fill(stage)
    stage.enqueue("wide", "wide", X4)
    stage.controller.release(stage.running.pop(0))
    view = stage.queue.view() if is_live else stage.queue.view().snapshot()
    own = stage.controller.try_acquire(make_task("elsewhere", "wide", X1), view)
    assert isinstance(own, TaskAdmissionLease)
    assert not stage.controller.view().reservations


@pytest.mark.parametrize("wanted", [{"x": 4, "y": 1}, {"y": 1, "x": 4}])
def test_one_resource_of_which_units_lack_is_enough_to_be_skipped(wanted: Mapping[str, int]) -> None:
    stage = Stage(1, {"x": 4, "y": 1})
    fill(stage)
    stage.enqueue("wide", "wide", wanted)
    assert stage.finish_one() == ["s5"]
    assert [each.item.task_id for each in stage.controller.view().reservations] == ["wide"]


def test_a_grant_that_leaves_enough_of_what_it_takes_skips_nobody() -> None:
    stage = Stage(1, {"x": 4, "y": 1})
    view = stage.queue.view()
    for task_id, amounts in (("holder", {"y": 1}), ("first", X1)):
        assert isinstance(stage.controller.try_acquire(make_task(task_id, "h", amounts), view), TaskAdmissionLease)
    stage.enqueue("wide", "wide", {"x": 2, "y": 1})
    for made in ([], ["wide"]):
        stage.small()
        assert len(stage.start()) == 1
        assert [each.item.task_id for each in stage.controller.view().reservations] == made


@pytest.mark.parametrize("is_shown", [True, False])
def test_of_equal_requests_the_first_in_fair_order_is_counted_whoever_was_queued_first(*, is_shown: bool) -> None:
    stage = Stage(1)
    stage.queue.enqueue(make_tasks(group_spec("w0", 0.01), 1, X1))
    stage.enqueue("stays", "stays", {"submission": 200})
    stage.start()
    stage.controller.release(stage.running.pop())
    fill(stage)
    stage.enqueue("w0", "w0", X4)
    stage.enqueue("w1", "w1", X4)
    if not is_shown:
        # Another controller has been asked last.
        stage.queue.select_next(TaskAdmissionController().is_eligible)
    stage.controller.release(stage.running.pop())
    lease = stage.controller.try_acquire(make_task("elsewhere", "nobody", X1), stage.queue.view())
    assert isinstance(lease, TaskAdmissionLease)
    assert [each.item.task_id for each in stage.controller.view().reservations] == ["w1"]


def test_a_new_head_is_counted_anew() -> None:
    stage = Stage(3)
    fill(stage)
    stage.enqueue("wide", "wide", X4)
    stage.finish_one()
    stage.finish_one()
    stage.queue.discard("wide")
    stage.enqueue("again", "wide", X4)
    assert stage.finish_one()
    assert stage.finish_one()
    assert stage.finish_one()
    assert stage.finish_one() == []


def test_only_grants_in_a_row_count() -> None:
    stage = Stage(3, {"x": 4, "y": 1})
    fill(stage)
    stage.enqueue("wide", "wide", X4)
    stage.finish_one()
    stage.finish_one()
    stage.queue.discard("wide")
    assert stage.finish_one()
    stage.enqueue("wide", "wide", X4)
    passed = 0
    while stage.finish_one():
        passed += 1
    assert passed == 3


def test_a_peer_whose_units_are_reserved_for_another_does_not_compete() -> None:
    """However it is asked: of the live view, of its snapshot, and of views that show nothing but facts."""
    stage = Stage(1)
    capped = group_spec("capped", admitted_limit=1)
    stage.enqueue("running", capped, {"submission": 1, "x": 1})
    for _ in range(3):
        stage.small()
    stage.start()
    stage.enqueue("wide", group_spec("wide", admitted_limit=1), {"submission": 1, "x": 3})
    assert stage.finish_one() == ["s4"]
    assert [each.item.task_id for each in stage.controller.view().reservations] == ["wide"]
    stage.controller.release(stage.running.pop())
    own = stage.controller.try_acquire(make_task("own", capped), stage.queue.view())
    assert isinstance(own, TaskAdmissionLease)
    stage.queue.enqueue([make_task("more", capped), make_task("peer", "peer", X1)])
    item = make_task("more", group_spec("capped", admitted_limit=1), X1)
    view, admission = stage.queue.view(), stage.controller.view()
    policy = stage.controller.policy
    for queue_view in (view, view.snapshot()):
        for admission_view in (admission, admission.snapshot()):
            assert policy.evaluate(item, queue_view, admission_view).allowed
    # Two more units come free. Now those of the reservation are free to whom they are kept for, and to nobody else.
    stage.controller.release(stage.running.pop())
    stage.controller.release(stage.running.pop())
    for queue_view in (view, view.snapshot()):
        for admission_view in (admission, admission.snapshot()):
            assert not policy.evaluate(item, queue_view, admission_view).allowed


def test_a_reservation_that_helps_nobody_is_suspended() -> None:
    """Its group may not borrow so much, even uncontended: reserving units for it would block the others for ever."""
    terms = BoundedBorrowTaskAdmissionPolicyConfig({(group_key("wide"), "x"): 0})
    queue = FairTaskQueue()
    controller = TaskAdmissionController(TaskAdmissionConfig(100, {"x": 4}, terms, multi_unit_skip_bound=1))
    queue.enqueue(make_tasks("small", 4, X1))
    running = start_all(queue, controller)
    queue.enqueue([make_task("wide", "wide", {"x": 3}), *make_tasks("small", 9, X1, prefix="more")])
    for _ in range(6):
        controller.release(running.pop(0))
        started = start_next(queue, controller)
        assert started is not None
        running.append(started)
    assert len(controller.view().reservations) == 0
    assert repr(controller.view().reservations) == "()"
    controller.set_limit("x", 6)
    assert [each.item.task_id for each in controller.view().reservations] == ["wide"]
    assert controller.view().reservations[0:1] == (controller.view().reservations[0],)


def test_a_view_by_hand_says_nothing_of_order() -> None:
    """There every waiting head counts as being before the granted task, the first shown of each request."""
    controller = TaskAdmissionController(TaskAdmissionConfig(100, {"x": 4}, multi_unit_skip_bound=1))
    wide = [make_task(f"wide{number}", f"wide{number}", X4) for number in range(2)]
    small = make_task("small", "small", X1)
    heads = {item.group.key: item for item in (small, *wide)}
    view = QueueView(
        queued_total=3,
        queued_by_group=dict.fromkeys(heads, 1),
        queued_resource_demand_by_group={},
        first_candidate_resources_by_group={key: item.resource_request.amounts for key, item in heads.items()},
        first_candidate_tasks_by_group=heads,
        first_candidate_group_specs_by_group={key: item.group for key, item in heads.items()},
        queued_peer_demand_by_resource={},
    )
    first = controller.try_acquire(small, view)
    assert isinstance(first, TaskAdmissionLease)
    assert not controller.view().reservations
    second = controller.try_acquire(make_task("again", "small", X1), view)
    assert isinstance(second, TaskAdmissionLease)
    assert [each.item.task_id for each in controller.view().reservations] == ["wide0"]
    assert isinstance(controller.try_acquire(make_task("third", "small", X1), view), TaskAdmissionDenied)


def test_a_queue_that_hides_its_controller_counts_alike() -> None:
    def run(*, hidden: bool) -> list[str]:
        stage = Stage(2)
        fill(stage)
        # A queue that nobody has ever asked about that controller.
        stage.queue = FairTaskQueue()
        stage.enqueue("w0", "w0", X4)
        stage.enqueue("w1", "w1", X4)
        controller = stage.controller

        def plain(item: SchedulableTask, view: QueueView) -> bool:
            return controller.is_eligible(item, view)

        log: list[str] = []
        for _ in range(12):
            stage.small()
            controller.release(stage.running.pop(0))
            while (selection := stage.queue.select_next(plain if hidden else controller.is_eligible)) is not None:
                lease = controller.try_acquire(selection.item, selection.queue_view)
                assert isinstance(lease, TaskAdmissionLease)
                stage.queue.commit(selection)
                stage.running.append(lease)
                log.append(lease.item.task_id)
            log.append(",".join(each.item.task_id for each in controller.view().reservations))
        return log

    assert run(hidden=True) == run(hidden=False)
    assert "w0" in run(hidden=True)


def test_mixed_loads_serve_everybody() -> None:
    """Wide, narrow and two-resource groups, each with endless backlog: each is served again and again."""
    stage = Stage(4, {"x": 4, "y": 2}, borrow=True)
    kinds: dict[str, Mapping[str, int]] = {
        "one": X1,
        "uno": X1,
        "two": {"x": 2},
        "four": X4,
        "both": {"x": 1, "y": 1},
        "why": {"y": 2},
    }
    served = dict.fromkeys(kinds, 0)
    for name, amounts in kinds.items():
        stage.queue.enqueue(make_tasks(group_spec(name), 600, amounts))
    for _ in range(600):
        for task_id in stage.start():
            served[task_id.rstrip("0123456789")] += 1
        stage.controller.release(stage.running.pop(0))
    assert min(served.values()) >= 30


def test_a_group_whose_reserved_head_has_run_is_reserved_for_again() -> None:
    """Its heads all ask for the same under the same spec, so nothing but the end of the reservation moves the group."""
    controller = TaskAdmissionController(TaskAdmissionConfig(10, {"x": 2}, multi_unit_skip_bound=1))
    queue = FairTaskQueue()
    queue.enqueue(make_tasks("large", 4, {"submission": 1, "x": 2}))
    queue.enqueue(make_tasks("small", 40, {"submission": 1, "x": 1}))
    running: list[TaskAdmissionLease] = []
    started: list[str] = []
    while "large" in (group.identity[-1] for group in queue.view().queued_by_group):
        new = start_all(queue, controller)
        running += new
        started += [lease.item.group.key.identity[-1] for lease in new]
        controller.release(running.pop(0))
    assert started.count("small") <= 8, started


def test_a_head_whose_reservation_ended_with_a_grant_before_another_queue_is_skipped_anew() -> None:
    """Of who heads its groups, a grant knows what its view shows; so the reservation ends, though its head is there."""
    stage = Stage(2)
    fill(stage)
    stage.enqueue("wide", "wide", X4)
    assert [len(stage.finish_one()) for _ in range(2)] == [1, 1]
    assert len(stage.controller.view().reservations) == 1
    assert isinstance(
        stage.controller.try_acquire(make_task("other", "other"), FairTaskQueue().view()), TaskAdmissionLease
    )
    assert not stage.controller.view().reservations
    assert [len(stage.finish_one()) for _ in range(3)] == [1, 1, 0]
    assert [each.item.task_id for each in stage.controller.view().reservations] == ["wide"]


def test_a_head_that_asks_for_what_has_no_limit_waits_while_units_are_reserved() -> None:
    """While there are reservations, whoever lacks anything is looked at again with every selection."""
    stage = Stage(1)
    stage.enqueue("nowhere", "nowhere", {"z": 1})
    fill(stage)
    stage.enqueue("wide", "wide", X4)
    assert len(stage.finish_one()) == 1
    assert len(stage.controller.view().reservations) == 1
    assert stage.finish_one() == []
    assert stage.start() == []


def test_a_reserved_head_that_comes_back_between_selection_and_grant_keeps_its_units() -> None:
    stage = Stage(1)
    fill(stage)
    wide = make_task("wide", "wide", X4)
    stage.queue.enqueue([wide])
    stage.finish_one()
    stage.queue.discard("wide")
    stage.small()
    stage.controller.release(stage.running.pop(0))
    selection = stage.queue.select_next(stage.controller.is_eligible)
    assert selection is not None
    stage.queue.enqueue([wide])
    denied = stage.controller.try_acquire(selection.item, stage.queue.view())
    assert isinstance(denied, TaskAdmissionDenied)
    assert denied.reason == "no_capacity"


def test_a_head_that_asks_for_more_than_a_lowered_limit_blocks_nobody_until_it_is_raised() -> None:
    stage = Stage(1)
    fill(stage)
    stage.enqueue("wide", "wide", X4)
    assert stage.finish_one() == ["s5"]
    stage.controller.set_limit("x", 3)
    assert not stage.controller.view().reservations
    for lease in stage.running[:2]:
        stage.controller.release(lease)
    stage.small()
    assert stage.start() == ["s6"]
    stage.controller.set_limit("x", 4)
    stage.small()
    assert stage.start() == []
    assert [each.item.task_id for each in stage.controller.view().reservations] == ["wide"]


def test_a_head_that_asks_for_what_has_no_limit_blocks_nobody() -> None:
    stage = Stage(1, borrow=True)
    fill(stage)
    stage.enqueue("nowhere", "nowhere", {"x": 1, "z": 1})
    assert [len(stage.finish_one()) for _ in range(5)] == [1] * 5
    assert not stage.controller.view().reservations


def test_a_group_that_comes_back_with_the_same_request_is_skipped_too() -> None:
    """It is remembered while another group has backlog, as it was served ahead of its time."""
    stage = Stage(1)
    wide = make_tasks("wide", 2, {"x": 2})
    stage.queue.enqueue([wide[0], *make_tasks("small", 9, X1)])
    assert stage.start() == ["wide0", "small0", "small1"]
    stage.queue.enqueue([wide[1]])
    stage.controller.release(stage.running.pop(1))
    assert stage.start() == ["small2"]
    assert [each.item.task_id for each in stage.controller.view().reservations] == ["wide1"]


def test_multi_unit_heads_skip_each_other() -> None:
    stage = Stage(1)
    stage.queue.enqueue(make_tasks("pair", 4, {"x": 2}))
    assert stage.start() == ["pair0", "pair1"]
    stage.enqueue("wide", "wide", X4)
    stage.controller.release(stage.running.pop(0))
    assert stage.start() == ["pair2"]
    stage.controller.release(stage.running.pop(0))
    assert stage.start() == []


def test_a_head_that_lacked_units_for_a_reservation_is_found_when_that_ends_with_a_grant_before_another_queue() -> None:
    stage = Stage(1, {"x": 4, "y": 1})
    fill(stage)
    stage.enqueue("wide", "wide", {"x": 4, "y": 1})
    assert stage.finish_one() == ["s5"]
    stage.enqueue("narrow", "narrow", {"y": 1})
    assert stage.start() == []
    other = stage.controller.try_acquire(make_task("other", "other"), FairTaskQueue().view())
    assert isinstance(other, TaskAdmissionLease)
    assert stage.start() == ["narrow"]


def test_a_policy_may_look_at_reservations_while_a_grant_is_reported_to_it() -> None:
    """What it sees is what was reserved before the grant, and nobody keeps that."""
    seen: list[list[str]] = []

    def reserved() -> list[str]:
        return [each.item.task_id for each in stage.controller.view().reservations]

    class Looking(ScriptedPolicy):
        def on_acquire(self, lease: TaskAdmissionLease, decision: TaskAdmissionPolicyDecision) -> PolicyStateDelta:
            seen.append(reserved())
            return super().on_acquire(lease, decision)

    stage = Stage(1)
    stage.controller = TaskAdmissionController(TaskAdmissionConfig(100, {"x": 4}, multi_unit_skip_bound=1), Looking())
    fill(stage)
    stage.enqueue("wide", "wide", {"x": 2})
    assert stage.finish_one() == ["s5"]
    assert (seen[-1], reserved()) == ([], ["wide"])
    assert stage.finish_one() == []
    assert stage.finish_one() == ["wide"]
    assert (seen[-1], reserved()) == (["wide"], [])

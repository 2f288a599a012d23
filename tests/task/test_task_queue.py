"""The ready queue: order, idempotence, selection and commit, views, and which heads are asked about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from task_values import group_key, group_spec, make_task, make_tasks, names, start_all, start_next

from trio_sched._errors import InvalidTypeError
from trio_sched._resources.task import SchedulableTask, SchedulerResourceRequest, TaskGroupKey
from trio_sched._task.controller import TaskAdmissionConfig, TaskAdmissionController
from trio_sched._task.ledger import TaskAdmissionLease
from trio_sched._task.queue import FairTaskQueue, QueueView


def anything(item: SchedulableTask, view: QueueView) -> bool:
    return True


def take(queue: FairTaskQueue, count: int) -> list[str]:
    """Commit the next `count` tasks and say which."""
    taken: list[str] = []
    for _ in range(count):
        selection = queue.select_next(anything)
        assert selection is not None
        assert queue.commit(selection) is selection.item
        taken.append(selection.item.task_id)
    return taken


def test_enqueue_is_idempotent_by_id() -> None:
    queue = FairTaskQueue()
    first, second = make_tasks("a", 2)
    assert queue.enqueue([first, first]) == ("a0",)
    assert queue.enqueue([first, second, make_task("a0", "b")]) == ("a1",)
    assert queue.enqueue(()) == ()
    assert len(queue) == 2
    assert repr(queue) == "<FairTaskQueue: 2 tasks in 1 groups>"


def test_an_iterable_that_raises_enqueues_nothing() -> None:
    queue = FairTaskQueue()
    with pytest.raises(ZeroDivisionError):
        queue.enqueue(make_task(str(1 // number), "a") for number in (1, 0))
    assert len(queue) == 0


def test_groups_take_turns_and_keep_their_order_within() -> None:
    queue = FairTaskQueue()
    queue.enqueue([*make_tasks("a", 3), *make_tasks("b", 2), *make_tasks(group_spec("c", weight=2.0), 4)])
    assert take(queue, 9) == ["a0", "b0", "c0", "c1", "a1", "b1", "c2", "c3", "a2"]
    assert queue.select_next(anything) is None
    assert len(queue) == 0


@pytest.mark.parametrize("weight", [0.5, 0.25, 3.0, 0.01])
def test_weights_work_as_written(weight: float) -> None:
    """Over 8 services of the group of weight 1 the other gets what the bound allows around 8 x weight."""
    queue = FairTaskQueue()
    queue.enqueue([*make_tasks("one", 100), *make_tasks(group_spec("other", weight), 100)])
    seen = Counter[str]()
    while seen["one"] < 8:
        seen.update(task_id.rstrip("0123456789") for task_id in take(queue, 1))
    assert abs(8 - seen["other"] / weight) <= 1 + 1 / weight


def test_selecting_changes_nothing() -> None:
    queue = FairTaskQueue()
    queue.enqueue([*make_tasks("a", 2), *make_tasks("b", 2)])
    before = queue.view().snapshot()
    selections = [queue.select_next(anything) for _ in range(3)]
    assert selections[0] == selections[1] == selections[2]
    assert queue.view() == before
    assert queue.select_next(lambda item, view: item.group.key == group_key("b")) != selections[0]
    assert take(queue, 2) == ["a0", "b0"]


def test_an_eligibility_that_raises_changes_nothing() -> None:
    def fails(item: SchedulableTask, view: QueueView) -> bool:
        raise LookupError(item.task_id)

    queue = FairTaskQueue()
    queue.enqueue(make_tasks("a", 1))
    with pytest.raises(LookupError, match=r"^'?a0'?$"):
        queue.select_next(fails)
    assert take(queue, 1) == ["a0"]


def test_a_selection_is_stale_only_when_its_item_is_no_longer_the_head() -> None:
    queue = FairTaskQueue()
    a0, a1 = make_tasks("a", 2)
    queue.enqueue([a0, a1])
    selection = queue.select_next(anything)
    assert selection is not None
    queue.enqueue([*make_tasks("b", 1), make_task("a2", "a")])
    queue.discard("a1")
    assert queue.commit(selection) is a0
    assert queue.commit(selection) is None
    queue.discard("a2")
    assert queue.commit(selection) is None


@pytest.mark.parametrize("queued_again", [True, False])
def test_a_discarded_selection_is_stale(queued_again: bool) -> None:
    queue = FairTaskQueue()
    a0, a1 = make_tasks("a", 2)
    queue.enqueue([a0, a1])
    selection = queue.select_next(anything)
    assert selection is not None
    assert queue.discard("a0")
    if queued_again:
        queue.enqueue([a0])
    assert queue.commit(selection) is None
    assert take(queue, 1) == ["a1"]


def test_whether_a_task_is_queued_can_be_asked() -> None:
    queue = FairTaskQueue()
    queue.enqueue(make_tasks("a", 2))
    assert ["a0" in queue, "a1" in queue, "a2" in queue] == [True, True, False]
    assert take(queue, 1) == ["a0"]
    assert ["a0" in queue, "a1" in queue] == [False, True]
    queue.discard("a1")
    assert "a1" not in queue


def test_what_is_queued_already_is_no_change() -> None:
    queue = FairTaskQueue()
    items = make_tasks("a", 2)
    queue.enqueue(items)
    before = queue.select_next(anything)
    queue.enqueue(items)
    assert queue.select_next(anything) == before


def test_versions_rise_with_every_change() -> None:
    queue = FairTaskQueue()
    versions: list[int] = []
    queue.enqueue(make_tasks("a", 3))
    for _ in range(3):
        selection = queue.select_next(anything)
        assert selection is not None
        versions.append(selection.sequence_version)
        queue.commit(selection)
    assert versions == sorted(set(versions))


def test_discard_takes_out_without_charging() -> None:
    queue = FairTaskQueue()
    queue.enqueue([*make_tasks("a", 3), *make_tasks("b", 3)])
    assert queue.discard("a0")
    assert queue.discard("a2")
    assert not queue.discard("a2")
    assert not queue.discard("unknown")
    assert queue.discard_where(lambda item: item.task_id.endswith("1")) == ("a1", "b1")
    assert take(queue, 2) == ["b0", "b2"]


def test_a_predicate_that_raises_discards_nothing() -> None:
    queue = FairTaskQueue()
    queue.enqueue(make_tasks("a", 2))
    with pytest.raises(ZeroDivisionError):
        queue.discard_where(lambda item: 1 // (1 - int(item.task_id[-1])) > 0)
    assert len(queue) == 2


def test_a_live_view_shows_the_present_and_a_snapshot_the_past() -> None:
    queue = FairTaskQueue()
    view = queue.view()
    assert view is queue.view()
    a0 = make_task("a0", "a", {"submission": 1, "x": 2})
    queue.enqueue([a0, make_task("a1", "a"), *make_tasks("b", 1)])
    frozen = view.snapshot()
    a, b = group_key("a"), group_key("b")
    for seen in (view, frozen):
        assert seen.queued_total == 3
        assert seen.queued_by_group == {a: 2, b: 1}
        assert seen.queued_resource_demand_by_group == {a: {"submission": 2, "x": 2}, b: {"submission": 1}}
        assert seen.first_candidate_resources_by_group == {a: {"submission": 1, "x": 2}, b: {"submission": 1}}
        assert seen.first_candidate_tasks_by_group[a] is a0
        assert seen.first_candidate_group_specs_by_group == {a: group_spec("a"), b: group_spec("b")}
        assert seen.queued_peer_demand_by_resource == {"submission": 3, "x": 2}
    assert view.queued_peer_demand_by_resource["x"] == 2
    assert repr(view.queued_peer_demand_by_resource) == "{'submission': 3, 'x': 2}"
    assert repr(view.queued_by_group) == repr({a: 2, b: 1})
    assert len(view.queued_peer_demand_by_resource) == 2
    with pytest.raises(TypeError):
        view.queued_resource_demand_by_group[a]["x"] = 0  # type: ignore[index]  # it must not work
    take(queue, 3)
    assert (view.queued_total, frozen.queued_total) == (0, 3)
    assert view.queued_by_group == {}
    assert frozen.queued_by_group == {a: 2, b: 1}
    with pytest.raises(KeyError):
        view.queued_by_group[a]
    assert view != frozen


def test_a_view_can_be_made_by_hand_from_the_seven_facts() -> None:
    item = make_task("t", "a")
    key = item.group.key
    amounts = item.resource_request.amounts
    view = QueueView(
        queued_total=1,
        queued_by_group={key: 1},
        queued_resource_demand_by_group={key: amounts},
        first_candidate_resources_by_group={key: amounts},
        first_candidate_tasks_by_group={key: item},
        first_candidate_group_specs_by_group={key: item.group},
        queued_peer_demand_by_resource=amounts,
    )
    queue = FairTaskQueue()
    queue.enqueue([item])
    assert queue.view() == view
    assert TaskAdmissionController().is_eligible(item, view)


def test_the_head_decides_the_weight_and_the_spec() -> None:
    queue = FairTaskQueue()
    heavy, light = group_spec("a", 4.0, 3), group_spec("a", 1.0)
    queue.enqueue([make_task("h", heavy), make_task("l", light), *make_tasks("b", 4)])
    assert queue.view().first_candidate_group_specs_by_group[group_key("a")] is heavy
    assert take(queue, 1) == ["h"]
    assert queue.view().first_candidate_group_specs_by_group[group_key("a")] is light
    assert take(queue, 3) == ["b0", "l", "b1"]


def test_a_group_ineligible_for_a_hundred_rounds_comes_back_as_an_equal() -> None:
    queue = FairTaskQueue()
    queue.enqueue([*make_tasks("away", 10), *make_tasks("a", 200), *make_tasks("b", 200)])
    away = group_key("away")
    for _ in range(200):
        selection = queue.select_next(lambda item, view: item.group.key != away)
        assert selection is not None
        queue.commit(selection)
    groups = [task_id.rstrip("0123456789") for task_id in take(queue, 9)]
    assert groups == ["away", "a", "b"] * 3


class Counting:
    """A controller's eligibility, wrapped as an advisory would, which counts what it is asked."""

    def __init__(self, controller: TaskAdmissionController) -> None:
        self.controller = controller
        self.asked: list[str] = []
        self.avoided: TaskGroupKey | None = None

    def fits(self, request: SchedulerResourceRequest) -> bool:
        return self.controller.fits(request)

    def allows(self, queue_view: QueueView) -> Callable[[SchedulableTask], bool]:
        return lambda head: self.is_eligible(head, queue_view)

    def is_eligible(self, item: SchedulableTask, queue_view: QueueView) -> bool:
        self.asked.append(item.task_id)
        return item.group.key != self.avoided and self.controller.is_eligible(item, queue_view)

    def something_else(self, item: SchedulableTask, queue_view: QueueView) -> bool:
        return self.is_eligible(item, queue_view)


def test_nobody_is_asked_about_after_the_first_that_is_eligible() -> None:
    queue = FairTaskQueue()
    counting = Counting(TaskAdmissionController(TaskAdmissionConfig(submission_capacity=300)))
    counting.avoided = group_key("g0")
    queue.enqueue(make_task(f"t{number}", f"g{number}") for number in range(256))
    selection = queue.select_next(counting.is_eligible)
    assert selection is not None
    assert selection.item.task_id == "t1"
    assert counting.asked == ["t0", "t1"]


def test_a_full_resource_is_not_asked_about_until_units_come_free() -> None:
    limits = {f"endpoint{number}": 1 for number in range(50)}
    controller = TaskAdmissionController(TaskAdmissionConfig(resource_limits=limits))
    counting = Counting(controller)
    queue = FairTaskQueue()
    for number in range(50):
        amounts = {"submission": 1, f"endpoint{number}": 1}
        queue.enqueue(make_tasks(group_spec(f"g{number}"), 3, amounts, prefix=f"g{number}:"))
    leases = start_all(queue, controller)
    assert len(leases) == 50
    for lease in leases:
        controller.release(lease)
        counting.asked.clear()
        selection = queue.select_next(counting.is_eligible)
        assert selection is not None
        assert selection.item.group.key == lease.item.group.key
        assert len(counting.asked) == 1
        assert isinstance(controller.try_acquire(selection.item, selection.queue_view), TaskAdmissionLease)
        queue.commit(selection)
        assert queue.select_next(counting.is_eligible) is None
        assert len(counting.asked) == 1


def test_a_task_that_asks_for_what_has_no_limit_waits_and_holds_up_nobody() -> None:
    controller = TaskAdmissionController()
    queue = FairTaskQueue()
    queue.enqueue([make_task("never", "never", {"nothing": 1}), make_task("t", "g")])
    assert names(start_all(queue, controller)) == ["t"]
    assert controller.explain_blocked(queue.view()).dominant_denial_reasons == {"no_capacity": 1}


def test_requests_that_lack_the_same_are_looked_at_again_together() -> None:
    controller = TaskAdmissionController(TaskAdmissionConfig(resource_limits={"x": 3}))
    queue = FairTaskQueue()
    queue.enqueue(make_tasks("holder", 3, {"x": 1}))
    holders = start_all(queue, controller)
    queue.enqueue([make_task("wide", "wide", {"x": 2}), make_task("narrow", "narrow", {"submission": 1, "x": 1})])
    assert start_all(queue, controller) == []
    for holder, started in zip(holders, (["narrow"], [], ["wide"]), strict=True):
        controller.release(holder)
        assert names(start_all(queue, controller)) == started


@pytest.mark.parametrize("method", ["something_else", "is_eligible"])
def test_only_the_eligibility_itself_is_trusted_with_lanes(method: str) -> None:
    """Another method of the same object, which might answer differently, is asked about every head."""
    queue = FairTaskQueue()
    counting = Counting(TaskAdmissionController())
    queue.enqueue(make_task(f"t{number}", f"g{number}") for number in range(10))
    queue.select_next(counting.is_eligible)
    counting.controller.shutdown()
    counting.asked.clear()
    assert queue.select_next(getattr(counting, method)) is None
    assert len(counting.asked) == (10 if method == "something_else" else 0)


def test_a_lane_that_earlier_and_earlier_heads_join_stays_in_order() -> None:
    """Each joins before all others."""
    queue, controller = FairTaskQueue(), TaskAdmissionController(TaskAdmissionConfig(100, {"x": 100}))
    for number in range(40):
        spec = group_spec(f"g{number:02}")
        queue.enqueue([make_task(f"plain{number}", spec), make_task(f"x{number}", spec, {"submission": 1, "x": 1})])
    for number in range(39, -1, -1):
        assert queue.select_next(controller.is_eligible) == queue.select_next(anything)
        queue.discard(f"plain{number}")
    assert [lease.item.task_id for lease in start_all(queue, controller)] == [f"x{number}" for number in range(40)]


def test_a_queue_can_change_its_controller() -> None:
    queue = FairTaskQueue()
    full = TaskAdmissionController(TaskAdmissionConfig(submission_capacity=1))
    queue.enqueue([*make_tasks("a", 3), *make_tasks("b", 3)])
    assert start_next(queue, full) is not None
    assert queue.select_next(full.is_eligible) is None
    empty = TaskAdmissionController(TaskAdmissionConfig(submission_capacity=2))
    assert len(start_all(queue, empty)) == 2
    assert queue.select_next(full.is_eligible) is None
    full.set_limit("submission", 2)
    assert start_next(queue, full) is not None


def test_a_snapshot_does_not_hold_the_queue() -> None:
    assert FairTaskQueue().view().snapshot().groups is None


@given(st.data())
def test_lanes_and_order_agree_whomever_a_wrapper_avoids(data: st.DataObject) -> None:
    """An advisory that avoids one group at a time: by lanes, and asked about each head."""
    controller = TaskAdmissionController(TaskAdmissionConfig(submission_capacity=12, resource_limits={"x": 2}))
    queue = FairTaskQueue()
    number = 0
    for name in "abcd":
        limit = data.draw(st.sampled_from([None, 1, 2]))
        for _ in range(data.draw(st.integers(0, 3))):
            number += 1
            amounts = data.draw(st.sampled_from(({"submission": 1}, {"submission": 1, "x": 1})))
            queue.enqueue([make_task(f"{name}{number}", group_spec(name, admitted_limit=limit), amounts)])
    for avoided in data.draw(st.lists(st.sampled_from("abcd"), max_size=8)):
        counting = Counting(controller)
        counting.avoided = group_key(avoided)
        by_lane = queue.select_next(counting.is_eligible)
        by_order = queue.select_next(counting.something_else)
        assert by_lane == by_order
        if by_lane is not None:
            controller.try_acquire(by_lane.item, by_lane.queue_view)
            queue.commit(by_lane)


def test_views_are_values() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        FairTaskQueue().view().queued_total = 3  # type: ignore[misc]  # it must not work


def test_what_is_no_task_is_refused_before_anything_is_queued() -> None:
    queue = FairTaskQueue()
    with pytest.raises(InvalidTypeError, match=r"^an item to enqueue must be a SchedulableTask, got 'b'$"):
        queue.enqueue([make_task("a", "a"), "b"])  # type: ignore[list-item]  # on purpose
    assert len(queue) == 0
    assert queue.view().queued_total == 0
    assert queue.enqueue([make_task("a", "a")]) == ("a",)


def test_demand_is_exact_where_tasks_of_a_group_ask_for_different_things() -> None:
    queue, group = FairTaskQueue(), group_key("a")
    wanted = {"small": {"submission": 1}, "large": {"submission": 2, "x": 1}, "again": {"submission": 1}}
    demands = queue.view().queued_resource_demand_by_group
    seen: list[dict[str, int]] = []
    for name, amounts in wanted.items():
        queue.enqueue([make_task(name, "a", amounts)])
        seen.append(dict(demands[group]))
    assert seen == [{"submission": 1}, {"submission": 3, "x": 1}, {"submission": 4, "x": 1}]
    assert queue.discard("large")
    assert demands[group] == {"submission": 2}
    assert queue.discard("small")
    assert demands[group] == {"submission": 1}


def test_a_group_that_comes_back_asks_for_what_its_new_items_ask_for() -> None:
    """It is remembered while another group has backlog, as it was served ahead of its time."""
    queue = FairTaskQueue()
    queue.enqueue([make_task("a0", "a", {"x": 1}), make_task("a1", "a", {"y": 1}), *make_tasks("b", 3)])
    assert take(queue, 1) == ["a0"]
    assert queue.discard("a1")
    assert group_key("a") not in queue.view().queued_resource_demand_by_group
    queue.enqueue([make_task("a2", "a", {"z": 1}), make_task("a3", "a", {"z": 2})])
    assert queue.view().queued_resource_demand_by_group[group_key("a")] == {"z": 3}

"""What the contract says of ready order and task admission, tried through the lower face alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sched.lowlevel import (
    BoundedBorrowTaskAdmissionPolicy,
    BoundedBorrowTaskAdmissionPolicyConfig,
    FairTaskQueue,
    PolicyStateDelta,
    QueueView,
    SchedulableTask,
    SchedulerResourceRequest,
    StrictFairTaskAdmissionPolicy,
    TaskAdmissionConfig,
    TaskAdmissionController,
    TaskAdmissionDenied,
    TaskAdmissionLease,
    TaskGroupKey,
    TaskGroupSpec,
)

R = "endpoint:p/m"
ON_R = SchedulerResourceRequest({"submission": 1, R: 1})


def group(name: str, weight: float = 1.0, admitted_limit: int | None = None) -> TaskGroupSpec:
    return TaskGroupSpec(TaskGroupKey("local", ("local", name)), weight, admitted_limit)


def item(task_id: str, spec: TaskGroupSpec, request: SchedulerResourceRequest = ON_R) -> SchedulableTask:
    return SchedulableTask(task_id, None, spec, request)


def fill(queue: FairTaskQueue, spec: TaskGroupSpec, count: int, request: SchedulerResourceRequest = ON_R) -> None:
    name = spec.key.identity[1]
    queue.enqueue(item(f"{name}{number}", spec, request) for number in range(count))


def controller(limit: int = 4, bounded: bool = False) -> TaskAdmissionController:
    borrow = BoundedBorrowTaskAdmissionPolicyConfig() if bounded else None
    return TaskAdmissionController(TaskAdmissionConfig(100, {R: limit}, borrow), clock=lambda: 0.0)


def grant(queue: FairTaskQueue, admission: TaskAdmissionController) -> TaskAdmissionLease | None:
    selection = queue.select_next(admission.is_eligible)
    if selection is None:
        return None
    lease = admission.try_acquire(selection.item, selection.queue_view)
    assert isinstance(lease, TaskAdmissionLease)
    assert queue.commit(selection) is selection.item
    return lease


def anything(_item: SchedulableTask, _view: QueueView) -> bool:
    return True


def not_in(barred: set[TaskGroupKey]) -> Callable[[SchedulableTask, QueueView], bool]:
    return lambda head, _view: head.group.key not in barred


def name_of(lease: TaskAdmissionLease | None) -> str:
    assert lease is not None
    return lease.item.group.key.identity[1]


def test_enqueue_is_idempotent_and_discard_forgets() -> None:
    queue = FairTaskQueue()
    a = group("a")
    assert queue.enqueue([item("1", a), item("2", a)]) == ("1", "2")
    assert queue.enqueue([item("2", a), item("3", a)]) == ("3",)
    queue.discard("2")
    queue.discard_where(lambda each: each.task_id == "3")
    assert (len(queue), queue.view().queued_total) == (1, 1)
    assert queue.enqueue([item("2", a)]) == ("2",)


def test_a_selection_changes_nothing_and_goes_stale_with_its_head() -> None:
    queue = FairTaskQueue()
    fill(queue, group("a"), 2)
    first = queue.select_next(anything)
    again = queue.select_next(anything)
    assert first is not None
    assert again is not None
    assert first.item is again.item
    fill(queue, group("b"), 1)
    assert queue.commit(first) is first.item
    assert queue.commit(again) is None


def test_a_snapshot_keeps_what_the_view_shows_now() -> None:
    queue = FairTaskQueue()
    fill(queue, group("a"), 2)
    view, frozen = queue.view(), queue.view().snapshot()
    fill(queue, group("b"), 1)
    assert (view.queued_total, frozen.queued_total) == (3, 2)
    assert len(view.first_candidate_tasks_by_group) == 2
    assert len(frozen.first_candidate_tasks_by_group) == 1
    assert frozen.queued_peer_demand_by_resource == {"submission": 2, R: 2}


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=200), st.data())
def test_fairness_bound_over_every_stretch(steps: list[tuple[int, bool]], data: st.DataObject) -> None:
    """|S_a/w_a - S_b/w_b| <= 1/w_a + 1/w_b while both are backlogged and eligible."""
    weights = [data.draw(st.sampled_from([0.1, 0.3, 0.5, 1.0, 2.0, 7.0])) for _ in range(4)]
    groups = [group(str(number), weight) for number, weight in enumerate(weights)]
    queue = FairTaskQueue()
    for spec in groups:
        fill(queue, spec, 250)
    barred: set[TaskGroupKey] = set()
    stretches = {(a, b): [0, 0] for a in range(4) for b in range(a)}
    for number, toggle in steps:
        key = groups[number].key
        if toggle:
            barred ^= {key}
            for pair, served in stretches.items():
                if number in pair:
                    served[:] = [0, 0]
        selection = queue.select_next(not_in(barred))
        if selection is None:
            continue
        assert queue.commit(selection) is not None
        chosen = groups.index(selection.item.group)
        for (a, b), served in stretches.items():
            if barred.isdisjoint({groups[a].key, groups[b].key}):
                served[0] += chosen == a
                served[1] += chosen == b
                w_a, w_b = Fraction(weights[a]), Fraction(weights[b])
                assert abs(served[0] / w_a - served[1] / w_b) <= (1 / w_a + 1 / w_b) * (1 + Fraction(1, 10**9))


def test_a_group_that_was_ineligible_for_long_comes_back_as_an_equal() -> None:
    queue = FairTaskQueue()
    fill(queue, group("a"), 300)
    fill(queue, group("b"), 300)
    for _ in range(100):
        selection = queue.select_next(lambda head, _: head.group.key.identity[1] == "a")
        assert selection is not None
        queue.commit(selection)
    order: list[str] = []
    for _ in range(10):
        selection = queue.select_next(anything)
        assert selection is not None
        queue.commit(selection)
        order.append(selection.item.group.key.identity[1])
    assert abs(order.count("a") - order.count("b")) <= 2


POLICIES: list[Callable[[], TaskAdmissionController]] = [lambda: controller(3), lambda: controller(3, bounded=True)]
MIXED = [ON_R, SchedulerResourceRequest({"submission": 1}), SchedulerResourceRequest({"submission": 1, R: 2})]


@pytest.mark.parametrize("make", POLICIES, ids=["strict", "bounded"])
@given(data=st.data())
def test_both_ways_to_select_choose_alike_and_the_ledger_balances(
    make: Callable[[], TaskAdmissionController], data: st.DataObject
) -> None:
    admission, queue = make(), FairTaskQueue()
    groups = [
        group(str(number), data.draw(st.sampled_from([0.5, 1.0, 3.0])), data.draw(st.sampled_from([None, 1, 2])))
        for number in range(4)
    ]
    held: list[TaskAdmissionLease] = []
    for step in range(data.draw(st.integers(1, 40))):
        match data.draw(st.sampled_from(["enqueue", "enqueue", "grant", "grant", "release", "discard"])):
            case "enqueue":
                spec = data.draw(st.sampled_from(groups))
                queue.enqueue([item(f"t{step}", spec, data.draw(st.sampled_from(MIXED)))])
            case "release" if held:
                held.pop(data.draw(st.integers(0, len(held) - 1))).__exit__(None, None, None)
            case "discard" if len(queue):
                queue.discard(data.draw(st.sampled_from(sorted(_queued(queue)))))
            case _:
                plain = queue.select_next(lambda head, view: admission.is_eligible(head, view))
                bound = queue.select_next(admission.is_eligible)
                assert (None if plain is None else plain.item) is (None if bound is None else bound.item)
                lease = grant(queue, admission)
                if lease is not None:
                    held.append(lease)
        view = admission.view()
        for resource, limit in view.resource_limits.items():
            used = sum(lease.resources.get(resource, 0) for lease in held)
            assert view.leased_resources.get(resource, 0) == used
            assert used + view.resources_available[resource] == limit
        assert sum(view.running_counts_by_group.values()) == len(held)
    for lease in held:
        assert admission.release(lease).released
    assert admission.view().leased_resources == {}
    assert admission.leak_report() == ()


def _queued(queue: FairTaskQueue) -> Sequence[str]:
    return [head.task_id for head in queue.view().first_candidate_tasks_by_group.values()]


@pytest.mark.parametrize("bounded", [False, True], ids=["strict", "bounded"])
def test_a_group_alone_uses_everything_and_a_new_peer_gets_the_next_free_unit(bounded: bool) -> None:
    admission, queue = controller(4, bounded), FairTaskQueue()
    fill(queue, group("a", admitted_limit=2), 20)
    leases = [grant(queue, admission) for _ in range(4)]
    assert None not in leases
    assert grant(queue, admission) is None
    fill(queue, group("b", admitted_limit=2), 20)
    first = leases.pop()
    assert first is not None
    first.__exit__(None, None, None)
    assert name_of(grant(queue, admission)) == "b"


@pytest.mark.parametrize("bounded", [False, True], ids=["strict", "bounded"])
def test_two_groups_at_their_caps_never_block_each_other_while_capacity_is_free(bounded: bool) -> None:
    admission, queue = controller(6, bounded), FairTaskQueue()
    fill(queue, group("a", admitted_limit=1), 10)
    fill(queue, group("b", admitted_limit=1), 10)
    names = [name_of(grant(queue, admission)) for _ in range(6)]
    assert names.count("a") == names.count("b") == 3
    assert grant(queue, admission) is None


def test_an_indebted_group_does_not_starve_for_ever() -> None:
    admission, queue = controller(4, bounded=True), FairTaskQueue()
    fill(queue, group("a"), 50)
    running = [grant(queue, admission) for _ in range(4)]
    fill(queue, group("b"), 50)
    served: list[str] = []
    for _ in range(40):
        lease = running.pop(0)
        assert lease is not None
        lease.__exit__(None, None, None)
        running.append(grant(queue, admission))
        served.append(name_of(running[-1]))
    assert served[:2] == ["b", "b"]
    assert abs(served[4:].count("a") - served[4:].count("b")) <= 4


def test_a_head_that_needs_several_units_does_not_starve_behind_small_ones() -> None:
    admission, queue = controller(4), FairTaskQueue()
    small = group("small")
    fill(queue, small, 200)
    running = [grant(queue, admission) for _ in range(4)]
    queue.enqueue([item("big", group("big"), SchedulerResourceRequest({"submission": 1, R: 4}))])
    for _ in range(100):
        lease = running.pop(0)
        if lease is not None:
            lease.__exit__(None, None, None)
        running.append(grant(queue, admission))
        if running[-1] is not None and name_of(running[-1]) == "big":
            return
    pytest.fail("the big task was never admitted")


def test_every_release_answer() -> None:
    admission, other, queue = controller(), controller(), FairTaskQueue()
    fill(queue, group("a"), 3)
    lease = grant(queue, admission)
    assert lease is not None
    forged = attrs.evolve(lease, item=item("other", group("a")))
    assert admission.release(forged).reason == "stale_lease"
    assert other.release(lease).reason == "wrong_controller_generation"
    assert admission.release(attrs.evolve(lease, lease_id=lease.lease_id + 99)).reason == "unknown_lease"
    assert admission.release(lease).reason == "released"
    assert admission.release(lease).reason == "duplicate"
    assert admission.view().resources_available[R] == 4


def test_shutdown_refuses_and_takes_back() -> None:
    admission, queue = controller(), FairTaskQueue()
    fill(queue, group("a"), 3)
    lease = grant(queue, admission)
    assert lease is not None
    admission.shutdown()
    head = item("x", group("a"))
    denied = admission.try_acquire(head, queue.view())
    assert isinstance(denied, TaskAdmissionDenied)
    assert denied.reason == "shutdown"
    assert not admission.is_eligible(head, queue.view())
    assert admission.release(lease).released


class Failing(StrictFairTaskAdmissionPolicy):
    def on_release(self, lease: TaskAdmissionLease) -> PolicyStateDelta:
        raise RuntimeError("policy is broken")


def test_an_error_in_on_release_is_raised_by_the_next_acquire_and_the_ledger_is_right() -> None:
    admission = TaskAdmissionController(TaskAdmissionConfig(2), Failing(), clock=lambda: 0.0)
    queue = FairTaskQueue()
    fill(queue, group("a"), 3, SchedulerResourceRequest())
    lease = grant(queue, admission)
    assert lease is not None
    assert admission.release(lease).released
    assert admission.view().resources_available == {"submission": 2}
    selection = queue.select_next(admission.is_eligible)
    assert selection is not None
    with pytest.raises(RuntimeError, match="policy is broken"):
        admission.try_acquire(selection.item, selection.queue_view)
    assert isinstance(admission.try_acquire(selection.item, selection.queue_view), TaskAdmissionLease)


@pytest.mark.parametrize(
    "request_", [SchedulerResourceRequest({"gpu": 1}), SchedulerResourceRequest({R: 5})], ids=["unknown", "too much"]
)
def test_what_could_never_be_granted_is_refused_before_enqueue(request_: SchedulerResourceRequest) -> None:
    with pytest.raises(ValueError, match=r"gpu|endpoint:p/m"):
        controller(4).validate(item("x", group("a"), request_))


def test_policies_judge_views_built_by_hand() -> None:
    a, b = group("a", admitted_limit=1), group("b")
    view = QueueView(
        queued_total=2,
        queued_by_group={a.key: 1, b.key: 1},
        queued_resource_demand_by_group={a.key: {R: 1}, b.key: {R: 1}},
        first_candidate_resources_by_group={a.key: ON_R.amounts, b.key: ON_R.amounts},
        first_candidate_tasks_by_group={a.key: item("1", a), b.key: item("2", b)},
        first_candidate_group_specs_by_group={a.key: a, b.key: b},
        queued_peer_demand_by_resource={R: 2},
    )
    admission = controller(4)
    queue = FairTaskQueue()
    fill(queue, a, 1)
    assert grant(queue, admission) is not None
    for policy in (
        StrictFairTaskAdmissionPolicy(),
        BoundedBorrowTaskAdmissionPolicy(BoundedBorrowTaskAdmissionPolicyConfig()),
    ):
        decision = policy.evaluate(item("3", a), view, admission.view())
        assert not decision.allowed
        assert decision.reason == "group_cap"
        assert policy.evaluate(item("4", b), view, admission.view()).allowed

"""Bounded borrowing: shares, debt, bounds, repayment; and that capacity is idle only where the terms say so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from task_values import group_key, group_spec, make_task, make_tasks, names, start_all, start_next

from trio_sched._resources.task import SchedulableTask, SchedulerResourceKey, TaskGroupKey, TaskGroupSpec
from trio_sched._task.bounded_borrow import (
    BoundedBorrowTaskAdmissionPolicy,
    BoundedBorrowTaskAdmissionPolicyConfig,
    StrictShareRounding,
    repays_only_borrowed,
)
from trio_sched._task.controller import TaskAdmissionConfig, TaskAdmissionController, TaskAdmissionDenied
from trio_sched._task.ledger import TaskAdmissionLease, TaskAdmissionView
from trio_sched._task.policies import StrictFairTaskAdmissionPolicy, TaskAdmissionPolicyDecision
from trio_sched._task.queue import FairTaskQueue, QueueView

A, B, C = group_key("a"), group_key("b"), group_key("c")
MODEL = {"submission": 1, "x": 1}
Terms = BoundedBorrowTaskAdmissionPolicyConfig


def borrowing(
    capacity: int, terms: Terms | None = None, limits: Mapping[SchedulerResourceKey, int] | None = None, bound: int = 8
) -> tuple[FairTaskQueue, TaskAdmissionController]:
    config = TaskAdmissionConfig(capacity, limits or {}, terms or Terms(), bound)
    return FairTaskQueue(), TaskAdmissionController(config)


def debts(controller: TaskAdmissionController) -> dict[str, int]:
    """Debt by group, summed over resources."""
    owed = Counter[str]()
    for (group, _), units in controller.view().policy_debt_by_group_resource.items():
        owed[group.identity[-1]] += units
    return dict(owed)


def judge(
    item: SchedulableTask,
    *peers: SchedulableTask,
    limit: int = 10,
    held: int = 0,
    peer_held: int = 0,
    debt: int = 0,
    terms: Terms | None = None,
) -> TaskAdmissionPolicyDecision:
    """The answer on views made by hand, where `item`'s group holds `held` of `x` and has a debt of `debt`."""
    heads = (item, *peers)
    amounts = {head.group.key: head.resource_request.amounts for head in heads}
    queue = QueueView(
        queued_total=len(heads),
        queued_by_group=dict.fromkeys(amounts, 1),
        queued_resource_demand_by_group=amounts,
        first_candidate_resources_by_group=amounts,
        first_candidate_tasks_by_group={head.group.key: head for head in heads},
        first_candidate_group_specs_by_group={head.group.key: head.group for head in heads},
        queued_peer_demand_by_resource={},
    )
    holdings: dict[TaskGroupKey, int] = {head.group.key: peer_held for head in peers} | {item.group.key: held}
    admission = TaskAdmissionView(
        resource_limits={"submission": 100, "x": limit, "y": 100},
        resources_available={"submission": 100, "x": limit - sum(holdings.values()), "y": 100},
        leased_resources={},
        leased_resources_by_group={group: {"x": units} for group, units in holdings.items() if units},
        running_counts_by_group={},
        policy_debt_by_group_resource={(item.group.key, "x"): debt} if debt else {},
    )
    return BoundedBorrowTaskAdmissionPolicy(terms).evaluate(item, queue, admission)


def share(limit: int, weight: float, *peer_weights: float, admitted: int | None = None, **terms: object) -> int:
    """The most that a group may hold without borrowing, found by asking."""
    item = make_task("t", group_spec("a", weight, admitted), {"x": 1})
    peers = [make_task(f"p{n}", group_spec(f"p{n}", each), {"x": 1}) for n, each in enumerate(peer_weights)]
    config = Terms(**terms)  # type: ignore[arg-type]  # only known fields are passed
    held = 0
    while held < limit:
        decision = judge(item, *peers, limit=limit, held=held, terms=config)
        if not decision.allowed or decision.borrowed:
            break
        held += 1
    return held


# Shares


@pytest.mark.parametrize(
    ("limit", "weight", "peers", "ceil", "floor"),
    [
        (10, 1.0, (1.0,), 5, 5),
        (10, 1.0, (1.0, 1.0), 4, 3),
        (10, 3.0, (1.0,), 8, 7),
        (10, 0.5, (4.5,), 1, 1),
        (10, 1.0, (), 5, 5),
        (9, 7.0, (), 5, 4),
        (1, 1.0, (), 1, 1),
        (1, 1.0, (100.0,), 1, 1),
        (6, 0.1, (0.1, 0.1), 2, 2),
        (10, 1.0, (1e-300,), 10, 9),
        (10, 1e-300, (1.0,), 1, 1),
        (3, 0.1, (0.2,), 1, 1),
        (10, 6.1e-309, (6.1e-309,), 5, 5),
    ],
)
def test_the_share_is_limit_by_weight(
    limit: int, weight: float, peers: tuple[float, ...], ceil: int, floor: int
) -> None:
    assert share(limit, weight, *peers) == ceil
    assert share(limit, weight, *peers, strict_share_rounding="floor") == floor


def test_the_share_is_at_most_the_admitted_limit() -> None:
    assert share(10, 1.0, 1.0, admitted=3) == 3
    assert share(10, 1.0, 1.0, admitted=7) == 5
    assert share(10, 1.0, admitted=2) == 2


def test_only_who_finds_its_units_free_competes() -> None:
    item = make_task("t", "a", {"x": 1})
    large = make_task("p", "b", {"x": 6})
    assert judge(item, large, held=3, limit=10).borrowed == {}
    assert judge(item, large, held=5, limit=10).borrowed == {"x": 1}
    assert judge(item, make_task("p", group_spec("b", 9.0), {"y": 1}), held=4).borrowed == {}


def test_who_competes_with_nobody_now_is_measured_against_an_equal_peer() -> None:
    """Another group asks for x too, but finds less free than it needs; its weight does not matter."""
    for weight in (0.001, 1.0, 100.0):
        queue, controller = borrowing(100, limits={"x": 10})
        queue.enqueue(make_tasks("a", 5, {"x": 1}))
        assert len(start_all(queue, controller)) == 5
        queue.enqueue([make_task("more", "a", {"x": 1}), make_task("wide", group_spec("b", weight), {"x": 6})])
        lease = start_next(queue, controller)
        assert lease is not None
        assert (lease.item.task_id, lease.borrowed) == ("more", {"x": 1})


def test_a_task_that_lacks_units_is_judged_as_if_it_competed() -> None:
    queue, controller = borrowing(100, limits={"x": 10})
    nobody = FairTaskQueue().view()
    for item in make_tasks("c", 7, {"x": 1}):
        assert isinstance(controller.try_acquire(item, nobody), TaskAdmissionLease)
    queue.enqueue([make_task("peer", group_spec("b", 3.0), {"x": 1})])
    assert queue.select_next(controller.is_eligible) is not None
    queue.enqueue([make_task("wide", "a", {"x": 4})])
    wide = queue.view().first_candidate_tasks_by_group[A]
    for view in (queue.view(), queue.view().snapshot()):
        decision = controller.policy.evaluate(wide, view, controller.view())
        assert (decision.reason, decision.diagnostics["strict_share"]) == ("group_cap", 3)


@pytest.mark.parametrize(("rounding", "expected"), [("ceil", 4), ("floor", 3)])
def test_the_share_changes_as_competitors_come_and_go(rounding: StrictShareRounding, expected: int) -> None:
    """With all of a third of x in its hands, a group may have more once a competitor is gone."""
    queue, controller = borrowing(100, Terms(strict_share_rounding=rounding), {"x": 10})
    nobody = FairTaskQueue().view()
    for item in make_tasks("a", expected, {"x": 1}, prefix="early"):
        assert isinstance(controller.try_acquire(item, nobody), TaskAdmissionLease)
    queue.enqueue([*make_tasks("a", 9, {"x": 1}), *make_tasks("b", 1, {"x": 1}), *make_tasks("c", 1, {"x": 1})])
    head = queue.view().first_candidate_tasks_by_group[A]
    first = queue.select_next(controller.is_eligible)
    assert first is not None
    assert first.item.task_id == "b0"
    assert not controller.is_eligible(head, queue.view())
    queue.discard("c0")
    first = queue.select_next(controller.is_eligible)
    assert first is not None
    assert first.item.task_id == "a0"
    assert controller.is_eligible(head, queue.view())


# Borrowing


def test_an_uncontended_group_uses_everything_and_borrows_what_is_above_half() -> None:
    queue, controller = borrowing(10)
    queue.enqueue(make_tasks("a", 20))
    leases = start_all(queue, controller)
    assert len(leases) == 10
    assert debts(controller) == {"a": 5}
    assert [dict(lease.borrowed) for lease in leases] == [{}] * 5 + [{"submission": 1}] * 5
    assert controller.diagnostics()["borrowed_units"] == 5
    assert controller.view().resources_available == {"submission": 0}


def test_a_new_peer_gets_the_next_free_units_up_to_its_share() -> None:
    queue, controller = borrowing(10)
    queue.enqueue(make_tasks("a", 20))
    leases = start_all(queue, controller)
    queue.enqueue(make_tasks("b", 20))
    for number, lease in enumerate(leases[:5]):
        controller.release(lease)
        assert names(start_all(queue, controller)) == [f"b{number}"]
        assert debts(controller) == ({"a": 4 - number} if number < 4 else {})
    assert controller.view().running_counts_by_group == {A: 5, B: 5}


def test_an_indebted_group_gets_no_more_while_a_peer_within_its_share_waits() -> None:
    item, peer = make_task("t", "a", MODEL), make_task("p", "b", MODEL)
    refused = judge(item, peer, held=2, debt=1)
    assert (refused.allowed, refused.reason) == (False, "borrow_debt")
    assert refused.diagnostics == {
        "resource": "x",
        "held": 2,
        "requested": 1,
        "strict_share": 5,
        "debt": 1,
        "because": "a peer within its share competes",
    }
    assert judge(item, held=2, debt=1) == TaskAdmissionPolicyDecision(allowed=True)


def test_nobody_goes_above_its_share_while_a_peer_within_its_share_waits() -> None:
    refused = judge(make_task("t", "a", MODEL), make_task("p", "b", MODEL), held=5)
    assert (refused.allowed, refused.reason) == (False, "group_cap")
    assert refused.diagnostics["because"] == "a peer within its share competes"


@pytest.mark.parametrize("rounding", ["ceil", "floor"])
def test_two_groups_beyond_their_right_do_not_block_each_other(rounding: StrictShareRounding) -> None:
    queue, controller = borrowing(11, Terms(strict_share_rounding=rounding))
    both = [group_spec("a", admitted_limit=2), group_spec("b", admitted_limit=2)]
    queue.enqueue(item for spec in both for item in make_tasks(spec, 20))
    assert len(start_all(queue, controller)) == 11
    assert controller.view().running_counts_by_group == {A: 6, B: 5}
    assert debts(controller) == {"a": 4, "b": 3}


def test_debt_from_a_time_of_peers_does_not_hold_a_group_back_that_is_now_uncontended() -> None:
    queue, controller = borrowing(10)
    limited = [group_spec("a", admitted_limit=1), group_spec("b", admitted_limit=1)]
    queue.enqueue([*make_tasks(limited[0], 5), *make_tasks(limited[1], 5)])
    leases = start_all(queue, controller)
    assert debts(controller) == {"a": 4, "b": 4}
    queue.enqueue(make_tasks(group_spec("a"), 10, prefix="more"))
    for lease in leases:
        if lease.item.group.key == B:
            controller.release(lease)
    assert len(start_all(queue, controller)) == 5
    assert controller.view().resources_available == {"submission": 0}


def test_an_indebted_group_is_served_when_its_debt_is_repaid() -> None:
    """A steady stream of peers, and a group that borrowed everything before they came."""
    queue, controller = borrowing(4)
    queue.enqueue(make_tasks("a", 100))
    running = start_all(queue, controller)
    served = Counter[str]()
    for number in range(100):
        queue.enqueue([make_task(f"b{number}", "b"), make_task(f"c{number}", "c")])
        controller.release(running.pop(0))
        started = start_all(queue, controller)
        served.update(name[0] for name in names(started))
        running += started
    assert served["a"] >= 25
    assert abs(served["b"] - served["c"]) <= 2


def test_typed_tasks_owe_nothing_of_submission() -> None:
    queue, controller = borrowing(100, limits={"x": 4})
    queue.enqueue(make_tasks("a", 10, MODEL))
    assert len(start_all(queue, controller)) == 4
    assert controller.view().policy_debt_by_group_resource == {(A, "x"): 2}


def test_each_resource_is_judged_for_itself() -> None:
    """Above its share of x, where nobody competes, and within that of y, where somebody does."""
    queue, controller = borrowing(100, limits={"x": 4, "y": 4})
    queue.enqueue(make_tasks("a", 3, {"x": 1}, prefix="x"))
    start_all(queue, controller)
    assert controller.view().policy_debt_by_group_resource == {(A, "x"): 1}
    queue.enqueue([make_task("both", "a", {"x": 1, "y": 1}), make_task("p", "b", {"y": 1})])
    assert names(start_all(queue, controller)) == ["both", "p"]
    assert controller.view().policy_debt_by_group_resource == {(A, "x"): 2}


def test_only_what_lies_above_the_share_is_borrowed_of_each_resource() -> None:
    """Of x exactly the share, or less; of y one unit more."""
    for held, peers in ((1, []), (0, []), (1, [make_task("p", "b", {"x": 1})])):
        queue, controller = borrowing(100, limits={"x": 4, "y": 4})
        for item in (*make_tasks("a", held, {"x": 1}, prefix="x"), *make_tasks("a", 2, {"y": 1}, prefix="y")):
            assert isinstance(controller.try_acquire(item, queue.view()), TaskAdmissionLease)
        queue.enqueue([make_task("both", "a", {"x": 1, "y": 1}), *peers])
        lease = start_next(queue, controller)
        assert lease is not None
        assert (lease.item.task_id, lease.borrowed) == ("both", {"y": 1})


def test_who_has_a_debt_is_not_within_its_share_even_if_it_holds_nothing() -> None:
    refused = judge(make_task("t", "a", MODEL), make_task("p", "b", MODEL), debt=1)
    assert refused.reason == "borrow_debt"


@pytest.mark.parametrize("resource", ["x", "y"])
def test_one_contested_resource_of_several_is_enough(resource: str) -> None:
    queue, controller = borrowing(100, limits={"x": 6, "y": 6})
    queue.enqueue([*make_tasks("a", 9, {"x": 1, "y": 1}), make_task("early", group_spec("b", 0.1))])
    running = [start_next(queue, controller) for _ in range(5)]
    assert None not in running
    queue.enqueue(make_tasks("b", 1, {resource: 1}))
    assert controller.explain_blocked(queue.view()).dominant_denial_reasons == {"borrow_debt": 1}
    assert names(start_all(queue, controller)) == ["b0", "a4"]


def test_no_share_is_less_than_one_unit() -> None:
    item = make_task("t", group_spec("a", 1e-300), {"x": 2})
    refused = judge(item, make_task("p", "b", MODEL), terms=Terms(strict_share_rounding="floor"))
    assert (refused.reason, refused.diagnostics["strict_share"]) == ("group_cap", 1)


def test_nothing_is_counted_where_nothing_is_borrowed() -> None:
    queue, controller = borrowing(10)
    queue.enqueue(make_tasks("a", 1))
    assert start_next(queue, controller) is not None
    assert controller.diagnostics() == {"granted": 1, "released": 0}


# Who is within its share, and so holds others back


WITHIN_SHARE: dict[str, tuple[TaskGroupSpec, Mapping[str, int], Mapping[str, int], bool]] = {
    "holds nothing": (group_spec("b"), {}, {"x": 1}, True),
    "within its share": (group_spec("b"), {"x": 9}, {"x": 1}, True),
    "at its share": (group_spec("b"), {"x": 10}, {"x": 1}, False),
    "within its share with two": (group_spec("b"), {"x": 8}, {"x": 2}, True),
    "above its share with two": (group_spec("b"), {"x": 9}, {"x": 2}, False),
    "at its limit": (group_spec("b", 1.0, 3), {"x": 3}, {"x": 1}, False),
    "below its limit": (group_spec("b", 1.0, 4), {"x": 3}, {"x": 1}, True),
    "well below its limit": (group_spec("b", 1.0, 9), {"x": 3}, {"x": 1}, True),
    "above its limit with two": (group_spec("b", 1.0, 4), {"x": 3}, {"x": 2}, False),
    "with a great weight": (group_spec("b", 3.0), {"x": 13}, {"x": 1}, True),
    "with a small weight": (group_spec("b", 0.5), {"x": 7}, {"x": 1}, False),
    "within its share of both": (group_spec("b"), {"x": 2, "y": 1}, {"x": 1, "y": 1}, True),
    "above its share of one": (group_spec("b"), {"x": 2, "y": 2}, {"x": 1, "y": 1}, False),
    "above its share of the other": (group_spec("b"), {"x": 10, "y": 1}, {"x": 1, "y": 1}, False),
}


@pytest.mark.parametrize(
    "terms", [Terms(), Terms(dynamic_borrow_reserve_fraction=0.01), Terms(default_borrow_ceiling=99)]
)
@pytest.mark.parametrize("case", WITHIN_SHARE)
def test_only_a_peer_within_its_share_holds_others_back(case: str, terms: Terms) -> None:
    """The group `a` is at its limit; it may borrow unless its peer is within its share. However it is asked."""
    spec, holds, amounts, is_within_share = WITHIN_SHARE[case]
    limited = group_spec("a", admitted_limit=5)
    queue, controller = borrowing(100, terms, {"x": 30, "y": 4})
    nobody = FairTaskQueue().view()
    for item in make_tasks(limited, 5, {"x": 1}):
        assert isinstance(controller.try_acquire(item, nobody), TaskAdmissionLease)
    for resource, units in holds.items():
        for item in make_tasks("b", units, {resource: 1}, prefix=resource):
            assert isinstance(controller.try_acquire(item, nobody), TaskAdmissionLease)
    controller.set_limit("x", 20)
    queue.enqueue([make_task("more", limited, {"x": 1}), make_task("peer", spec, amounts)])
    view, admission = queue.view(), controller.view()
    chosen = queue.select_next(controller.is_eligible)
    assert chosen is not None
    assert (chosen.item.task_id == "peer") is is_within_share
    more = view.first_candidate_tasks_by_group[A]
    for queue_view in (view, view.snapshot()):
        for admission_view in (admission, admission.snapshot()):
            assert controller.policy.evaluate(more, queue_view, admission_view).allowed is not is_within_share


def test_a_peer_with_a_debt_holds_nobody_back() -> None:
    """It borrowed when it had a limit; now it has none, and holds no more than its share."""
    queue, controller = borrowing(100, limits={"x": 20})
    nobody = FairTaskQueue().view()
    for item in (*make_tasks("a", 10, {"x": 1}), *make_tasks(group_spec("b", 1.0, 3), 4, {"x": 1})):
        assert isinstance(controller.try_acquire(item, nobody), TaskAdmissionLease)
    assert debts(controller) == {"b": 1}
    queue.enqueue([make_task("more", "a", {"x": 1}), make_task("peer", "b", {"x": 1})])
    assert names(start_all(queue, controller)) == ["more", "peer"]


# Bounds


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        (Terms(), 10),
        (Terms(default_borrow_ceiling=0), 5),
        (Terms(default_borrow_ceiling=3), 8),
        (Terms({(A, "submission"): 1}, default_borrow_ceiling=3), 6),
        (Terms({(A, "submission"): 9}, default_borrow_ceiling=3), 10),
        (Terms({(B, "submission"): 0}), 10),
        (Terms(dynamic_borrow_reserve_fraction=0.2), 8),
        (Terms(dynamic_borrow_reserve_fraction=0.21), 7),
        (Terms(dynamic_borrow_reserve_fraction=1.0), 5),
        (Terms(dynamic_borrow_reserve_fraction=1.0, dynamic_borrow_max_reserved_slots=3), 7),
        (Terms(default_borrow_ceiling=5, dynamic_borrow_reserve_fraction=1.0), 10),
    ],
)
def test_the_terms_bound_what_an_uncontended_group_uses(terms: Terms, expected: int) -> None:
    queue, controller = borrowing(10, terms)
    queue.enqueue(make_tasks("a", 20))
    assert len(start_all(queue, controller)) == expected
    assert debts(controller).get("a", 0) == expected - 5
    reasons = controller.explain_blocked(queue.view()).dominant_denial_reasons
    assert reasons == ({"borrow_debt": 1} if expected < 10 else {"no_capacity": 1})


def test_a_reserve_that_is_whole_on_paper_is_not_rounded_up() -> None:
    """0.07 of 100 is 7, though 0.07 * 100 is 7.000000000000001."""
    terms = Terms(dynamic_borrow_reserve_fraction=0.07)
    assert judge(make_task("t", "a", MODEL), limit=100, held=92, terms=terms).allowed
    refused = judge(make_task("t", "a", MODEL), limit=100, held=93, terms=terms)
    assert refused.diagnostics["because"] == "borrowing is bounded"


def test_a_ceiling_counts_debt_that_is_already_there() -> None:
    terms = Terms(default_borrow_ceiling=2)
    item = make_task("t", "a", MODEL)
    assert judge(item, held=5, debt=1, terms=terms).borrowed == {"x": 1}
    assert not judge(item, held=5, debt=2, terms=terms).allowed
    assert judge(item, held=4, debt=2, terms=terms).allowed


def test_what_is_borrowed_is_only_what_lies_above_the_share() -> None:
    wide = make_task("t", "a", {"x": 3})
    assert judge(wide, held=2).borrowed == {}
    assert judge(wide, held=4).borrowed == {"x": 2}
    assert judge(wide, held=6).borrowed == {"x": 3}
    assert judge(make_task("t", "a", {"x": 5})).borrowed == {}
    assert judge(make_task("t", "a", {"x": 6})).borrowed == {"x": 1}


def test_a_peer_is_not_held_back_by_a_group_that_may_not_borrow() -> None:
    queue, controller = borrowing(10, Terms({(A, "submission"): 0}))
    queue.enqueue([*make_tasks("a", 20), *make_tasks("b", 20)])
    assert len(start_all(queue, controller)) == 10
    assert controller.view().running_counts_by_group == {A: 5, B: 5}


# Repayment


def test_any_finished_lease_repays() -> None:
    queue, controller = borrowing(10)
    queue.enqueue(make_tasks("a", 10))
    leases = start_all(queue, controller)
    for expected, lease in zip((4, 3, 2, 1, 0, 0), leases, strict=False):
        controller.release(lease)
        assert debts(controller).get("a", 0) == expected


def test_each_lease_repays_its_own_if_the_terms_say_so() -> None:
    queue, controller = borrowing(10, Terms(repay_on_withheld_peer_pressure=False))
    queue.enqueue(make_tasks("a", 10))
    leases = start_all(queue, controller)
    for lease in leases[:5]:
        controller.release(lease)
        assert debts(controller) == {"a": 5}
    for expected, lease in zip((4, 3, 2, 1, 0), leases[5:], strict=True):
        controller.release(lease)
        assert debts(controller).get("a", 0) == expected


def test_by_default_nothing_is_held_back_and_any_lease_repays() -> None:
    assert Terms() == Terms(
        borrow_ceiling_by_group_resource={},
        default_borrow_ceiling=None,
        dynamic_borrow_reserve_fraction=0.0,
        dynamic_borrow_max_reserved_slots=8,
        strict_share_rounding="ceil",
        repay_on_withheld_peer_pressure=True,
    )
    assert TaskAdmissionConfig() == TaskAdmissionConfig(1024, {}, None, 8)


def test_the_terms_are_kept() -> None:
    terms = Terms(default_borrow_ceiling=1)
    assert BoundedBorrowTaskAdmissionPolicy(terms).config is terms
    assert BoundedBorrowTaskAdmissionPolicy().config == Terms()


# Many at once


@given(
    weights=st.lists(st.sampled_from([0.5, 1.0, 1.0, 2.0, 3.0]), min_size=1, max_size=5),
    limit=st.integers(1, 12),
    data=st.data(),
)
def test_everything_free_is_used_and_a_latecomer_is_served_next(
    weights: list[float], limit: int, data: st.DataObject
) -> None:
    """Whatever ran before, in whatever order it ends: a full stage stays full, and a new peer waits for one unit."""
    queue, controller = borrowing(limit)
    for number, weight in enumerate(weights):
        queue.enqueue(make_tasks(group_spec(f"g{number}", weight), 40, prefix=f"g{number}:"))
    running = start_all(queue, controller)
    for _ in range(data.draw(st.integers(0, 20))):
        controller.release(running.pop(data.draw(st.integers(0, len(running) - 1))))
        running += start_all(queue, controller)
        assert len(running) == limit
    queue.enqueue(make_tasks("late", 1))
    started: list[str] = []
    while "late0" not in started:
        controller.release(running.pop(0))
        lease = start_next(queue, controller)
        assert lease is not None
        running.append(lease)
        started.append(lease.item.task_id)
    # Only who was due at the same virtual time goes before it, each once.
    assert len(started) <= len(weights) + 1


def test_a_denial_names_the_terms_it_met() -> None:
    queue, controller = borrowing(4, Terms(default_borrow_ceiling=0))
    queue.enqueue(make_tasks("a", 5))
    start_all(queue, controller)
    head = queue.view().first_candidate_tasks_by_group[A]
    decision = controller.try_acquire(head, queue.view())
    assert isinstance(decision, TaskAdmissionDenied)
    assert decision.reason == "borrow_debt"
    assert decision.diagnostics["strict_share"] == 2
    assert controller.diagnostics()["denied_borrow_debt"] == 1


@pytest.mark.parametrize("any_lease_repays", [True, False])
def test_whether_a_lease_repays_only_what_it_borrowed_can_be_asked(any_lease_repays: bool) -> None:
    config = BoundedBorrowTaskAdmissionPolicyConfig(repay_on_withheld_peer_pressure=any_lease_repays)
    assert repays_only_borrowed(BoundedBorrowTaskAdmissionPolicy(config)) is (not any_lease_repays)
    assert not repays_only_borrowed(StrictFairTaskAdmissionPolicy())

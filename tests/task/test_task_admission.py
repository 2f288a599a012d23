"""The controller: leases, denials, releases in every state, limits, views, and what it tells of itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

import attrs
import pytest
import trio
import trio.testing
from task_values import (
    NOBODY,
    UNIT,
    ScriptedPolicy,
    acquire,
    denied,
    group_key,
    group_spec,
    make_task,
    make_tasks,
    start_all,
    start_next,
)

from trio_sched._errors import InvalidTypeError, InvalidValueError, UnknownNameError
from trio_sched._resources.task import SchedulableTask, SchedulerResourceRequest
from trio_sched._task.bounded_borrow import BoundedBorrowTaskAdmissionPolicy, BoundedBorrowTaskAdmissionPolicyConfig
from trio_sched._task.controller import (
    TaskAdmissionBlockSummary,
    TaskAdmissionConfig,
    TaskAdmissionController,
    TaskAdmissionDenied,
)
from trio_sched._task.ledger import TaskAdmissionLease, TaskAdmissionView
from trio_sched._task.policies import (
    PolicyStateDelta,
    StrictFairTaskAdmissionPolicy,
    TaskAdmissionDenyReason,
    TaskAdmissionPolicyDecision,
)
from trio_sched._task.queue import FairTaskQueue, QueueView

BORROW = "BoundedBorrowTaskAdmissionPolicyConfig"
BORROWING = TaskAdmissionConfig(bounded_borrow=BoundedBorrowTaskAdmissionPolicyConfig())


# Leases


def test_a_lease_says_what_it_is() -> None:
    controller = TaskAdmissionController(clock=lambda: 12.5)
    item = make_task("t", "a", {"submission": 2})
    lease = acquire(controller, item)
    assert (lease.lease_id, lease.item, lease.resources, lease.acquired_at) == (1, item, {"submission": 2}, 12.5)
    assert acquire(controller, make_task("u", "a")).lease_id == 2
    assert lease.borrowed == {}
    assert "issuer" not in repr(lease)


def test_leaving_a_lease_gives_everything_back_whatever_happened() -> None:
    controller = TaskAdmissionController(TaskAdmissionConfig(3, {"x": 2}))
    lease = acquire(controller, make_task("t", "a", {"submission": 3, "x": 2}))
    with lease as entered:
        assert entered is lease
        assert controller.view().resources_available == {"submission": 0, "x": 0}
    assert controller.view().resources_available == {"submission": 3, "x": 2}
    with pytest.raises(ZeroDivisionError), acquire(controller, make_task("u", "a", {"submission": 3})):
        raise ZeroDivisionError
    assert controller.view().resources_available == {"submission": 3, "x": 2}
    assert controller.diagnostics() == {"granted": 2, "released": 2}


def test_each_unit_has_a_borrower_that_names_its_task() -> None:
    controller = TaskAdmissionController(TaskAdmissionConfig(3))
    lease = acquire(controller, make_task("t", "a", {"submission": 3}))
    borrowers = controller.limiter_statistics()["submission"].borrowers
    assert len(borrowers) == len(set(borrowers)) == 3
    assert lease in borrowers
    assert all("'t'" in repr(borrower) for borrower in borrowers)


def test_a_lease_made_by_hand_cannot_be_entered() -> None:
    lease = TaskAdmissionLease(1, make_task("t", "a"), UNIT, 0.0, 1)
    with pytest.raises(RuntimeError, match=r"^a lease that no controller granted cannot be entered$"), lease:
        raise AssertionError("not reached")


def test_outside_a_run_the_clock_is_perf_counter() -> None:
    before = time.perf_counter()
    lease = acquire(TaskAdmissionController(), make_task("t", "a"))
    assert before <= lease.acquired_at <= time.perf_counter()


def test_inside_a_run_the_clock_is_trios() -> None:
    async def main() -> float:
        await trio.sleep(1000)
        return acquire(TaskAdmissionController(), make_task("t", "a")).acquired_at - trio.current_time()

    assert trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0)) == 0


# All or nothing


def test_units_are_taken_all_or_nothing() -> None:
    controller = TaskAdmissionController(TaskAdmissionConfig(10, {"x": 2, "y": 1}))
    acquire(controller, make_task("t", "a", {"submission": 1, "y": 1}))
    refused = denied(controller, make_task("u", "a", {"submission": 1, "x": 2, "y": 1}))
    assert refused.reason == "no_capacity"
    assert refused.snapshot == controller.view()
    assert refused.available_after is None
    assert refused.diagnostics == {
        "missing_resources": {"y": {"requested": 1, "available": 0, "reserved_for_others": 0, "limit": 1}}
    }
    assert controller.view().leased_resources == {"submission": 1, "y": 1}
    assert controller.diagnostics() == {"granted": 1, "released": 0, "denied_no_capacity": 1}


def test_what_has_no_limit_is_never_free() -> None:
    controller = TaskAdmissionController()
    item = make_task("t", "a", {"gpu": 1})
    assert not controller.is_eligible(item, NOBODY)
    assert denied(controller, item).diagnostics == {
        "missing_resources": {"gpu": {"requested": 1, "available": 0, "reserved_for_others": 0, "limit": None}}
    }
    with pytest.raises(
        UnknownNameError, match=r"^task 't' names the stage resource 'gpu', which does not exist; known: 's"
    ):
        controller.validate(item)


def test_validate_refuses_what_could_never_be_granted() -> None:
    controller = TaskAdmissionController(TaskAdmissionConfig(4))
    controller.validate(make_task("t", "a", {"submission": 4}))
    with pytest.raises(
        InvalidValueError,
        match=r"^SchedulerResourceRequest.amounts\['submission'\] of task 't' must be at most 4, the limit of "
        r"'submission', got 5$",
    ):
        controller.validate(make_task("t", "a", {"submission": 5}))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TaskAdmissionConfig(0), "TaskAdmissionConfig.submission_capacity must be a positive int, got 0"),
        (lambda: TaskAdmissionConfig(True), "TaskAdmissionConfig.submission_capacity must be a positive int, got True"),
        (
            lambda: TaskAdmissionConfig(1, {"x": -1}),
            "TaskAdmissionConfig.resource_limits['x'] must be a positive int, got -1",
        ),
        (
            lambda: TaskAdmissionConfig(1, {"": 1}),
            "TaskAdmissionConfig.resource_limits key must be a non-empty string, got ''",
        ),
        (
            lambda: TaskAdmissionConfig(multi_unit_skip_bound=0),
            "TaskAdmissionConfig.multi_unit_skip_bound must be a positive int, got 0",
        ),
        (
            lambda: BoundedBorrowTaskAdmissionPolicyConfig({(group_key("a"), "x"): -1}),
            f"borrow_ceiling_by_group_resource[{(group_key('a'), 'x')!r}] must be an int of at least 0, got -1",
        ),
        (
            lambda: BoundedBorrowTaskAdmissionPolicyConfig(default_borrow_ceiling=-1),
            f"{BORROW}.default_borrow_ceiling must be an int of at least 0, got -1",
        ),
        (
            lambda: BoundedBorrowTaskAdmissionPolicyConfig(dynamic_borrow_reserve_fraction=1.5),
            f"{BORROW}.dynamic_borrow_reserve_fraction must be a number from 0 to 1, got 1.5",
        ),
        (
            lambda: BoundedBorrowTaskAdmissionPolicyConfig(dynamic_borrow_max_reserved_slots=0),
            f"{BORROW}.dynamic_borrow_max_reserved_slots must be a positive int, got 0",
        ),
        (
            lambda: BoundedBorrowTaskAdmissionPolicyConfig(strict_share_rounding="up"),  # type: ignore[arg-type]
            f"{BORROW}.strict_share_rounding must be 'ceil' or 'floor', got 'up'",
        ),
        (
            lambda: BoundedBorrowTaskAdmissionPolicyConfig(repay_on_withheld_peer_pressure=1),  # type: ignore[arg-type]
            f"{BORROW}.repay_on_withheld_peer_pressure must be a bool, got 1",
        ),
        (
            lambda: SchedulerResourceRequest({"x": 0}),
            "SchedulerResourceRequest.amounts['x'] must be a positive int, got 0",
        ),
        (lambda: group_spec("a", float("inf")), "TaskGroupSpec.weight must be a positive finite number, got inf"),
        (lambda: group_spec("a", 0.0), "TaskGroupSpec.weight must be a positive finite number, got 0.0"),
        (lambda: group_spec("a", 1.0, 0), "TaskGroupSpec.admitted_limit must be a positive int, got 0"),
    ],
)
def test_bad_values_are_refused_where_they_are_made(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        make()
    assert str(caught.value) == message


def test_submission_is_limited_by_its_capacity_unless_named() -> None:
    assert TaskAdmissionConfig(7, {"x": 1}).limits == {"submission": 7, "x": 1}
    assert TaskAdmissionConfig(7, {"submission": 3}).limits == {"submission": 3}
    assert TaskAdmissionController().view().resource_limits == {"submission": 1024}


@pytest.mark.parametrize(
    ("config", "policy", "expected"),
    [
        (None, None, StrictFairTaskAdmissionPolicy),
        (BORROWING, None, BoundedBorrowTaskAdmissionPolicy),
        (BORROWING, StrictFairTaskAdmissionPolicy(), StrictFairTaskAdmissionPolicy),
    ],
)
def test_the_policy_follows_the_config(
    config: TaskAdmissionConfig | None, policy: StrictFairTaskAdmissionPolicy | None, expected: type[object]
) -> None:
    assert type(TaskAdmissionController(config, policy).policy) is expected


def test_what_could_be_granted_is_judged_by_the_limit_of_now() -> None:
    controller = TaskAdmissionController(TaskAdmissionConfig(2000, {"x": 2}))
    wide = make_task("wide", "a", {"x": 2})
    for _ in range(2):
        controller.validate(wide)
    controller.set_limit("x", 1)
    with pytest.raises(InvalidValueError, match="at most 1, the limit of 'x'"):
        controller.validate(wide)
    controller.set_limit("x", 2)
    for units in range(1, 2001):
        controller.validate(make_task("many kinds", "a", {"submission": units}))
    controller.validate(wide)
    with pytest.raises(InvalidValueError, match="at most 2000, the limit of 'submission'"):
        controller.validate(make_task("huge", "a", {"submission": 2001}))


# Releases


def test_releases_that_release_nothing_say_why() -> None:
    controller, other = TaskAdmissionController(), TaskAdmissionController()
    lease = acquire(controller, make_task("t", "a"))
    cases = {
        "wrong_controller_generation": (other, lease),
        "stale_lease": (controller, attrs.evolve(lease, item=make_task("u", "a"))),
        "unknown_lease": (controller, attrs.evolve(lease, lease_id=2)),
    }
    for reason, (asked, presented) in cases.items():
        result = asked.release(presented)
        assert (result.released, result.reason) == (False, reason)
        assert result.diagnostics == {"lease_id": presented.lease_id, "task_id": presented.item.task_id}
    more = attrs.evolve(lease, resources={"submission": 5})
    assert controller.release(more).reason == "stale_lease"
    assert controller.view().leased_resources == {"submission": 1}
    result = controller.release(attrs.evolve(lease))
    assert (result.released, result.reason, result.diagnostics) == (True, "released", {})
    assert controller.release(lease).reason == "duplicate"
    assert controller.release(attrs.evolve(lease, lease_id=cast("int", "1"))).reason == "unknown_lease"
    assert controller.view().leased_resources == {}
    assert controller.diagnostics() == {
        "granted": 1,
        "released": 1,
        "stale_lease": 2,
        "unknown_lease": 2,
        "duplicate": 1,
    }
    assert other.diagnostics() == {"granted": 0, "released": 0, "wrong_controller_generation": 1}


def test_a_lease_of_another_controller_is_not_mistaken_for_an_own_one_that_looks_alike() -> None:
    controller, other = TaskAdmissionController(), TaskAdmissionController()
    item = make_task("t", "a")
    own, foreign = acquire(controller, item), acquire(other, item)
    assert (own.lease_id, own.resources) == (foreign.lease_id, foreign.resources)
    assert controller.release(foreign).reason == "wrong_controller_generation"
    assert controller.view().leased_resources == {"submission": 1}


@pytest.mark.parametrize(("lease_id", "reason"), [(0, "unknown_lease"), (1, "duplicate"), (2, "unknown_lease")])
def test_only_ids_that_were_issued_have_come_back(lease_id: int, reason: str) -> None:
    controller = TaskAdmissionController()
    lease = acquire(controller, make_task("t", "a"))
    controller.release(lease)
    assert controller.release(attrs.evolve(lease, lease_id=lease_id)).reason == reason


def test_a_lease_released_long_ago_is_still_a_duplicate() -> None:
    controller = TaskAdmissionController()
    first = acquire(controller, make_task("t", "a"))
    controller.release(first)
    for number in range(10_000):
        controller.release(acquire(controller, make_task(f"t{number}", "a")))
    assert controller.release(first).reason == "duplicate"


def test_after_shutdown_nothing_is_granted_and_everything_comes_back() -> None:
    controller = TaskAdmissionController()
    lease = acquire(controller, make_task("t", "a"))
    version = controller.version
    controller.shutdown()
    controller.shutdown()
    assert controller.version > version
    item = make_task("u", "a")
    assert not controller.is_eligible(item, NOBODY)
    assert denied(controller, item) == TaskAdmissionDenied(item, "shutdown")
    assert controller.release(lease).released
    assert controller.leak_report() == ()


def test_a_leak_names_its_task() -> None:
    controller = TaskAdmissionController(TaskAdmissionConfig(5, {"x": 2}), clock=lambda: 3.0)
    lease = acquire(controller, make_task("0:1:cell:b", "a", {"submission": 1, "x": 2}))
    (leak,) = controller.leak_report()
    assert (leak.lease_id, leak.task_id, leak.group, leak.held_since) == (1, "0:1:cell:b", group_key("a"), 3.0)
    assert str(leak) == "task lease 1 of task '0:1:cell:b' (group local/a) holds 1 of submission, 2 of x"
    assert repr(controller) == "<TaskAdmissionController: 1 lease of {'submission': 1, 'x': 2}>"
    controller.release(lease)
    assert controller.leak_report() == ()


# Limits


def test_a_shrunk_limit_revokes_nothing_and_lends_nothing_until_it_fits() -> None:
    controller = TaskAdmissionController(TaskAdmissionConfig(3))
    leases = [acquire(controller, item) for item in make_tasks("a", 3)]
    controller.set_limit("submission", 1)
    assert controller.view().resources_available == {"submission": -2}
    for lease in leases[:2]:
        controller.release(lease)
        assert not controller.is_eligible(make_task("t", "a"), NOBODY)
    controller.release(leases[2])
    assert controller.is_eligible(make_task("t", "a"), NOBODY)


def test_a_grown_limit_is_found_by_the_next_selection() -> None:
    queue, controller = FairTaskQueue(), TaskAdmissionController(TaskAdmissionConfig(1))
    queue.enqueue(make_tasks("a", 5))
    assert len(start_all(queue, controller)) == 1
    version = controller.version
    controller.set_limit("submission", 3)
    assert controller.version > version
    assert len(start_all(queue, controller)) == 2


def test_limits_are_checked() -> None:
    controller = TaskAdmissionController()
    with pytest.raises(InvalidValueError, match=r"^limit of 'submission' must be a positive int, got 0$"):
        controller.set_limit("submission", 0)
    with pytest.raises(InvalidTypeError, match=r"^limit of 'submission' must be a positive int, got 1.5$"):
        controller.set_limit("submission", 1.5)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match=r"^set_limit names the stage resource 'x', which does not exist; known"):
        controller.set_limit("x", 1)


def test_a_task_larger_than_a_shrunk_limit_is_explained() -> None:
    queue, controller = FairTaskQueue(), TaskAdmissionController(TaskAdmissionConfig(4))
    queue.enqueue([make_task("t", "a", {"submission": 3})])
    controller.set_limit("submission", 2)
    assert start_all(queue, controller) == []
    summary = controller.explain_blocked(queue.view())
    assert summary.dominant_denial_reasons == {"no_capacity": 1}
    controller.set_limit("submission", 3)
    assert start_next(queue, controller) is not None


# Views


def test_a_view_is_live_and_its_snapshot_is_not() -> None:
    controller = TaskAdmissionController(TaskAdmissionConfig(2, {"x": 3}))
    view = controller.view()
    frozen = view.snapshot()
    lease = acquire(controller, make_task("t", "a", {"submission": 1, "x": 2}))
    a = group_key("a")
    assert controller.view() is view
    assert view.leased_resources == {"submission": 1, "x": 2}
    assert view.leased_resources_by_group == {a: {"submission": 1, "x": 2}}
    assert view.running_counts_by_group == {a: 1}
    assert repr(view.resources_available) == "{'submission': 1, 'x': 1}"
    assert (view.leased_resources.get("x"), view.leased_resources.get("y"), view.leased_resources.get("y", 0)) == (
        2,
        None,
        0,
    )
    assert frozen.leased_resources == {}
    assert frozen.running_counts_by_group == {}
    controller.release(lease)
    assert view == frozen == view.snapshot()
    assert frozen.ledger is None
    with pytest.raises(KeyError):
        view.leased_resources["x"]
    assert view.leased_resources.get("x", 0) == 0
    assert view.leased_resources.get("x") is None
    controller.set_limit("x", 2)
    acquire(controller, make_task("u", "a", {"x": 2}))
    assert view.resources_available.get("x", 7) == 0
    with pytest.raises(TypeError):
        view.running_counts_by_group[a] = 1  # type: ignore[index]  # it must not work


# Explaining


def test_what_blocks_is_explained_by_reason() -> None:
    class Later(ScriptedPolicy):
        def evaluate(
            self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
        ) -> TaskAdmissionPolicyDecision:
            after = {"a": 9.0, "b": 5.0}.get(item.group.key.identity[-1])
            return TaskAdmissionPolicyDecision(allowed=item.task_id == "e0", available_after=after)

    controller = TaskAdmissionController(TaskAdmissionConfig(5, {"x": 1}), Later())
    queue = FairTaskQueue()
    for name in "abce":
        queue.enqueue(make_tasks(name, 2))
    queue.enqueue(make_tasks("d", 1, {"x": 2}))
    summary = controller.explain_blocked(queue.view())
    assert summary.queued_count == 9
    assert list(summary.dominant_denial_reasons.items()) == [("policy_denial", 3), ("no_capacity", 1)]
    assert summary.available_after == 5.0
    assert summary.groups_by_reason == {
        "policy_denial": ("local/a", "local/b", "local/c"),
        "no_capacity": ("local/d",),
    }


def test_the_most_frequent_reason_comes_first() -> None:
    reasons: tuple[TaskAdmissionDenyReason, ...] = ("policy_denial", "no_capacity", "group_cap", "no_capacity")
    denials = [TaskAdmissionDenied(make_task("t", f"g{number}"), reason) for number, reason in enumerate(reasons)]
    summary = TaskAdmissionBlockSummary.of(4, denials)
    assert list(summary.dominant_denial_reasons.items()) == [("no_capacity", 2), ("policy_denial", 1), ("group_cap", 1)]


def test_at_most_eight_groups_are_named() -> None:
    controller = TaskAdmissionController()
    controller.shutdown()
    queue = FairTaskQueue()
    queue.enqueue(make_task(f"t{number}", f"g{number}") for number in range(20))
    summary = controller.explain_blocked(queue.view())
    assert summary.dominant_denial_reasons == {"shutdown": 20}
    assert summary.available_after is None
    assert summary.groups_by_reason == {"shutdown": tuple(f"local/g{number}" for number in range(8))}


def test_the_debt_of_a_view_prints_as_a_mapping() -> None:
    controller = TaskAdmissionController(policy=(policy := ScriptedPolicy()))
    debts = {(group_key("a"), "submission"): 2}
    policy.acquired = PolicyStateDelta(debts)
    acquire(controller, make_task("t", "a"))
    assert repr(controller.view().policy_debt_by_group_resource) == repr(debts)


def test_nothing_queued_is_not_blocked() -> None:
    summary = TaskAdmissionController().explain_blocked(NOBODY)
    assert (summary.queued_count, summary.dominant_denial_reasons, summary.available_after) == (0, {}, None)

"""Queue, ledger and policies under random histories, against a small model of what is held and owed.

Every history is run in three worlds. In the first the queues ask their controller, and skip lanes that do not fit. In
the second they ask a wrapper that avoids some tasks. In the third the same eligibility hides behind a plain function,
and every head is asked about in fair order. All must choose alike, at every step. Each world has two queues, whose
groups are the same, before one controller; now and then another controller is asked about the same queues. What a group
weighs and how many of its tasks may run changes from task to task.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Literal

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trio_sched._resources.task import SchedulableTask, SchedulerResourceRequest, TaskGroupKey, TaskGroupSpec
from trio_sched._task.bounded_borrow import BoundedBorrowTaskAdmissionPolicy, BoundedBorrowTaskAdmissionPolicyConfig
from trio_sched._task.controller import TaskAdmissionConfig, TaskAdmissionController, TaskAdmissionDenied
from trio_sched._task.ledger import TaskAdmissionLease, TaskAdmissionView
from trio_sched._task.policies import (
    PolicyStateDelta,
    StrictFairTaskAdmissionPolicy,
    TaskAdmissionPolicy,
    TaskAdmissionPolicyDecision,
)
from trio_sched._task.queue import FairTaskQueue, QueueView

GROUPS = tuple(TaskGroupKey("local", ("local", name)) for name in "abcdef")
REQUESTS = tuple(
    SchedulerResourceRequest(amounts)
    for amounts in (
        {"submission": 1},
        {"submission": 1, "x": 1},
        {"x": 1, "submission": 1},
        {"submission": 1, "x": 2},
        {"submission": 1, "y": 1},
        {"submission": 2, "x": 1, "y": 1},
        {"submission": 1, "x": 4},
    )
)
ALLOWED = TaskAdmissionPolicyDecision(allowed=True)
REFUSED = TaskAdmissionPolicyDecision(allowed=False, reason="policy_denial")


class Plain:
    """A policy of others: three tasks of a group at most."""

    def evaluate(
        self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
    ) -> TaskAdmissionPolicyDecision:
        return REFUSED if admission_view.running_counts_by_group.get(item.group.key, 0) > 2 else ALLOWED

    def on_acquire(self, lease: TaskAdmissionLease, decision: TaskAdmissionPolicyDecision) -> PolicyStateDelta:
        return PolicyStateDelta()

    def on_release(self, lease: TaskAdmissionLease) -> PolicyStateDelta:
        return PolicyStateDelta()


class Passing(Plain):
    """A group's tasks run up a debt of the group after it. That, the payload, and what is leased in all decide."""

    def evaluate(
        self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
    ) -> TaskAdmissionPolicyDecision:
        owes, runs, payload = (
            admission_view.policy_debt_by_group_resource.get((item.group.key, "x"), 0) > 1,
            admission_view.running_counts_by_group.get(item.group.key, 0) > 1,
            item.payload,
        )
        is_busy = admission_view.leased_resources.get("submission", 0) > 3
        return REFUSED if owes and (payload == "p" or runs) and is_busy else ALLOWED

    def on_acquire(self, lease: TaskAdmissionLease, decision: TaskAdmissionPolicyDecision) -> PolicyStateDelta:
        return PolicyStateDelta({(next_group(lease.item.group.key), "x"): 1})

    def on_release(self, lease: TaskAdmissionLease) -> PolicyStateDelta:
        return PolicyStateDelta({(next_group(lease.item.group.key), "x"): -1})


class StricterFair(StrictFairTaskAdmissionPolicy):
    """Refuses more than the policy that it is made of."""

    def evaluate(
        self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
    ) -> TaskAdmissionPolicyDecision:
        if "y" in item.resource_request.amounts and admission_view.leased_resources.get("x", 0) > 1:
            return REFUSED
        return super().evaluate(item, queue_view, admission_view)


class StricterBorrow(BoundedBorrowTaskAdmissionPolicy):
    """Refuses more than the policy that it is made of, and only while others are queued."""

    def evaluate(
        self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
    ) -> TaskAdmissionPolicyDecision:
        if queue_view.queued_total > 3 and admission_view.leased_resources.get("submission", 0) > 3:
            return REFUSED
        return super().evaluate(item, queue_view, admission_view)


CEILING_OF_A = {(GROUPS[0], "x"): 1}
CONFIGS: tuple[BoundedBorrowTaskAdmissionPolicyConfig | None, ...] = (
    None,
    BoundedBorrowTaskAdmissionPolicyConfig(),
    BoundedBorrowTaskAdmissionPolicyConfig(strict_share_rounding="floor"),
    BoundedBorrowTaskAdmissionPolicyConfig(repay_on_withheld_peer_pressure=False),
    BoundedBorrowTaskAdmissionPolicyConfig(CEILING_OF_A, default_borrow_ceiling=2),
    BoundedBorrowTaskAdmissionPolicyConfig(dynamic_borrow_reserve_fraction=0.3, dynamic_borrow_max_reserved_slots=2),
)
FOREIGN: tuple[type[TaskAdmissionPolicy], ...] = (Plain, Passing, StricterFair, StricterBorrow)
WORK_CONSERVING = frozenset({0, 1, 2, 3})
WEIGHTS = (1.0, 1.0, 2.0, 0.1, 1e-300, 2.0**40)
PAYLOADS = ("p", "q")


def next_group(group: TaskGroupKey) -> TaskGroupKey:
    """The group that the policy `Passing` lets pay for `group`."""
    return GROUPS[(GROUPS.index(group) + 1) % len(GROUPS)]


def only(item: SchedulableTask) -> Callable[[SchedulableTask, QueueView], bool]:
    """Nothing else is eligible."""
    return lambda head, view: head is item


def hidden(controller: TaskAdmissionController) -> Callable[[SchedulableTask, QueueView], bool]:
    """The controller's eligibility, which no queue can recognise."""
    return lambda item, view: controller.is_eligible(item, view)


class Wrapper:
    """Eligibility of a controller that leaves some payloads alone for a while."""

    def __init__(self, controller: TaskAdmissionController) -> None:
        self.controller = controller
        self.avoided: frozenset[object] = frozenset()

    def fits(self, request: SchedulerResourceRequest) -> bool:
        return self.controller.fits(request)

    def allows(self, queue_view: QueueView) -> Callable[[SchedulableTask], bool]:
        allows = self.controller.allows(queue_view)
        return lambda head: head.payload not in self.avoided and allows(head)

    def is_eligible(self, item: SchedulableTask, queue_view: QueueView) -> bool:
        return item.payload not in self.avoided and self.controller.is_eligible(item, queue_view)


class World:
    """Two queues, one controller, one way to ask, and another controller."""

    def __init__(
        self,
        config: TaskAdmissionConfig,
        policy: type[TaskAdmissionPolicy] | None,
        way: Literal["known", "wrapped", "asked"],
    ) -> None:
        self.queues = FairTaskQueue(), FairTaskQueue()
        self.controller = TaskAdmissionController(config, None if policy is None else policy(), clock=lambda: 0.0)
        self.other = TaskAdmissionController(TaskAdmissionConfig(3, {"x": 2, "y": 1}), clock=lambda: 0.0)
        self.wrapper = Wrapper(self.controller)
        self.way = way
        self.held: list[TaskAdmissionLease] = []

    def ask(self, avoided: frozenset[object]) -> Callable[[SchedulableTask, QueueView], bool]:
        """Eligibility, with payloads to be left alone."""
        self.wrapper.avoided = avoided
        if self.way == "wrapped":
            return self.wrapper.is_eligible
        if self.way == "known" and not avoided:
            return self.controller.is_eligible
        return lambda item, view: self.wrapper.is_eligible(item, view)


class TaskAdmissionMachine(RuleBasedStateMachine):
    """Enqueue, discard, dispatch, release in every wrong way, change limits, change the controller, shut down."""

    @initialize(
        config=st.integers(0, len(CONFIGS) + len(FOREIGN) - 1),
        submission=st.integers(2, 8),
        x=st.integers(4, 6),
        bound=st.integers(1, 4),
        specs=st.lists(st.tuples(st.sampled_from(WEIGHTS), st.sampled_from((None, 1, 2, 4))), min_size=12, max_size=12),
    )
    def build(self, config: int, submission: int, x: int, bound: int, specs: list[tuple[float, int | None]]) -> None:
        """Three equal worlds. Every group has two specs."""
        self.config = config
        self.borrow = CONFIGS[config] if config < len(CONFIGS) else None
        self.policy = None if config < len(CONFIGS) else FOREIGN[config - len(CONFIGS)]
        if self.policy is StricterBorrow:
            self.borrow = BoundedBorrowTaskAdmissionPolicyConfig()
        self.limits = {"submission": submission, "x": x, "y": 2}
        settings_of_all = TaskAdmissionConfig(submission, {"x": x, "y": 2}, self.borrow, bound)
        self.known = World(settings_of_all, self.policy, "known")
        self.asked = World(settings_of_all, self.policy, "asked")
        self.worlds = (self.known, World(settings_of_all, self.policy, "wrapped"), self.asked)
        self.specs = [TaskGroupSpec(key, *spec) for key, spec in zip(GROUPS * 2, specs, strict=True)]
        self.number = 0
        self.queued: tuple[dict[str, SchedulableTask], ...] = ({}, {})
        self.running: list[SchedulableTask] = []
        self.debt: Counter[tuple[TaskGroupKey, str]] = Counter()
        self.is_shut_down = False

    # Rules

    @rule(
        number=st.integers(0, 1),
        group=st.integers(0, 5),
        request=st.sampled_from(REQUESTS),
        kinds=st.lists(st.tuples(st.booleans(), st.sampled_from(PAYLOADS)), min_size=1, max_size=4),
    )
    def enqueue(
        self, number: int, group: int, request: SchedulerResourceRequest, kinds: list[tuple[bool, str]]
    ) -> None:
        """New tasks, and all queued ones again."""
        items: list[SchedulableTask] = []
        for is_second, payload in kinds:
            self.number += 1
            spec = self.specs[group + 6 * is_second]
            items.append(SchedulableTask(f"t{self.number}", payload, spec, request))
        for world in self.worlds:
            accepted = world.queues[number].enqueue([*items, *self.queued[number].values(), *items])
            assert accepted == tuple(item.task_id for item in items)
        self.queued[number].update((item.task_id, item) for item in items)

    @rule(data=st.data())
    @precondition(lambda self: any(self.queued))
    def discard(self, data: st.DataObject) -> None:
        """One task, or all of a group."""
        number = data.draw(st.sampled_from([number for number in (0, 1) if self.queued[number]]))
        queued = self.queued[number]
        item = queued[data.draw(st.sampled_from(sorted(queued)))]
        if data.draw(st.booleans()):
            for world in self.worlds:
                assert world.queues[number].discard(item.task_id)
                assert not world.queues[number].discard(item.task_id)
            del queued[item.task_id]
            return
        gone = tuple(task_id for task_id, each in queued.items() if each.group.key == item.group.key)
        for world in self.worlds:
            assert world.queues[number].discard_where(lambda each: each.group.key == item.group.key) == gone
        for task_id in gone:
            del queued[task_id]

    @rule(
        number=st.integers(0, 1),
        count=st.integers(1, 8),
        is_stale=st.booleans(),
        avoided=st.sampled_from((frozenset[object](), frozenset({"p"}), frozenset({"q"}))),
    )
    def dispatch(self, number: int, count: int, is_stale: bool, avoided: frozenset[object]) -> None:
        """Select, acquire, commit, in all worlds alike; now and then the commit is stale."""
        for _ in range(count):
            item = self._select(number, avoided)
            if item is None:
                return
            leases = self._acquire(number, item)
            assert None not in leases
            for world, lease in zip(self.worlds, leases, strict=True):
                assert lease is not None
                selection = world.queues[number].select_next(only(item))
                assert selection is not None
                if is_stale:
                    world.queues[number].discard(item.task_id)
                    assert world.queues[number].commit(selection) is None
                    assert world.controller.release(lease).released
                else:
                    world.held.append(lease)
                    assert world.queues[number].commit(selection) is item
                    assert world.queues[number].commit(selection) is None
            del self.queued[number][item.task_id]
            if is_stale:
                self._repay(item, leases[0])
                return
            self.running.append(item)

    @rule(number=st.integers(0, 1), data=st.data())
    def acquire_later(self, number: int, data: st.DataObject) -> None:
        """Between the selection and the grant something changes; the grant is judged by what is then."""
        item = self._select(number, frozenset())
        if item is None:
            return
        for _ in range(data.draw(st.integers(1, 3))):
            change = data.draw(st.sampled_from(("enqueue", "discard", "discard it", "limit", "look", "another")))
            if change == "enqueue":
                request = data.draw(st.sampled_from(REQUESTS))
                self.enqueue(number, data.draw(st.integers(0, 5)), request, [(data.draw(st.booleans()), "p")])
            elif change == "discard" and any(self.queued):
                self.discard(data)
            elif change == "discard it" and item.task_id in self.queued[number]:
                for world in self.worlds:
                    world.queues[number].discard(item.task_id)
                del self.queued[number][item.task_id]
            elif change == "limit":
                self.change_limit(data.draw(st.sampled_from(("submission", "x"))), data.draw(st.integers(1, 8)))
            elif change == "look":
                for world in self.worlds:
                    world.controller.is_eligible(item, world.queues[number].view())
            else:
                self.ask_another(number)
        expected = self.asked.controller.is_eligible(item, self.asked.queues[number].view().snapshot())
        leases = self._acquire(number, item)
        assert {lease is not None for lease in leases} == {expected}
        for world, lease in zip(self.worlds, leases, strict=True):
            if lease is not None:
                assert world.controller.release(lease).released
        self._repay(item, leases[0])

    @rule(number=st.integers(0, 1))
    def ask_another(self, number: int) -> None:
        """Another controller chooses from the same queue, and grants what it would grant to a snapshot."""
        for world in self.worlds:
            queue, other = world.queues[number], world.other
            found = queue.select_next(other.is_eligible)
            again = queue.select_next(hidden(other))
            assert (None if found is None else found.item) is (None if again is None else again.item)
            for head in tuple(queue.view().first_candidate_tasks_by_group.values()):
                expected = other.is_eligible(head, queue.view().snapshot())
                decision = other.try_acquire(head, queue.view())
                assert isinstance(decision, TaskAdmissionLease) == expected
                # Of some groups the other controller keeps a lease.
                if isinstance(decision, TaskAdmissionLease) and head.payload == "p":
                    assert other.release(decision).released

    @rule(data=st.data())
    @precondition(lambda self: self.running)
    def release(self, data: st.DataObject) -> None:
        """One lease goes back, then once more."""
        index = data.draw(st.integers(0, len(self.running) - 1))
        item = self.running.pop(index)
        leases = [world.held.pop(index) for world in self.worlds]
        for world, lease in zip(self.worlds, leases, strict=True):
            with lease:
                pass
            assert world.controller.release(lease).reason == "duplicate"
        self._repay(item, leases[0])

    @rule(data=st.data())
    @precondition(lambda self: self.running)
    def release_wrongly(self, data: st.DataObject) -> None:
        """Leases of another controller, of another task, and of nobody."""
        lease = data.draw(st.sampled_from(self.known.held))
        controller = self.known.controller
        other = SchedulableTask("other", None, self.specs[0], REQUESTS[0])
        assert controller.release(attrs.evolve(lease, item=other)).reason == "stale_lease"
        assert controller.release(attrs.evolve(lease, lease_id=10**9)).reason == "unknown_lease"
        assert self.asked.controller.release(lease).reason == "wrong_controller_generation"

    @rule(resource=st.sampled_from(("submission", "x", "y")), limit=st.integers(1, 8))
    def change_limit(self, resource: str, limit: int) -> None:
        """Shrink, also below what is held, or grow."""
        self.limits[resource] = limit
        for world in self.worlds:
            world.controller.set_limit(resource, limit)

    @rule()
    @precondition(lambda self: len(self.running) > 4)
    def shutdown(self) -> None:
        """Nothing more is granted."""
        self.is_shut_down = True
        for world in self.worlds:
            world.controller.shutdown()

    def _select(self, number: int, avoided: frozenset[object]) -> SchedulableTask | None:
        """What all worlds choose."""
        choices = [world.queues[number].select_next(world.ask(avoided)) for world in self.worlds]
        items = [None if choice is None else choice.item for choice in choices]
        assert all(item is items[0] for item in items)
        return items[0]

    def _acquire(self, number: int, item: SchedulableTask) -> list[TaskAdmissionLease | None]:
        leases: list[TaskAdmissionLease | None] = []
        for world in self.worlds:
            decision = world.controller.try_acquire(item, world.queues[number].view())
            leases.append(decision if isinstance(decision, TaskAdmissionLease) else None)
        lease = leases[0]
        if lease is not None:
            assert all(each is not None and each.borrowed == lease.borrowed for each in leases)
            for resource, units in lease.borrowed.items():
                self.debt[item.group.key, resource] += units
            if self.policy is Passing:
                self.debt[next_group(item.group.key), "x"] += 1
        return leases

    def _repay(self, item: SchedulableTask, lease: TaskAdmissionLease | None) -> None:
        if lease is None:
            return
        repaid = {}
        if self.policy is Passing:
            repaid = {(next_group(item.group.key), "x"): 1}
        elif self.borrow is not None:
            units_of = lease.resources if self.borrow.repay_on_withheld_peer_pressure else lease.borrowed
            repaid = {(item.group.key, resource): units for resource, units in units_of.items()}
        for key, units in repaid.items():
            self.debt[key] -= min(self.debt[key], units)

    # Invariants

    @invariant()
    def ledger_is_what_runs(self) -> None:
        """Held + free = limit, by group and by resource; debts as the model has them, never above what is held."""
        held: Counter[str] = Counter()
        by_group: dict[TaskGroupKey, Counter[str]] = {}
        for item in self.running:
            held.update(item.resource_request.amounts)
            by_group.setdefault(item.group.key, Counter()).update(item.resource_request.amounts)
        debts = {key: units for key, units in self.debt.items() if units}
        if self.policy is not Passing:
            for (group, resource), units in debts.items():
                assert units <= by_group[group][resource]
        for world in self.worlds:
            view = world.controller.view()
            for seen in (view, view.snapshot()):
                assert seen.resource_limits == self.limits
                assert seen.leased_resources == held
                assert seen.resources_available == {name: self.limits[name] - held[name] for name in self.limits}
                assert seen.leased_resources_by_group == by_group
                assert seen.running_counts_by_group == Counter(item.group.key for item in self.running)
                assert seen.policy_debt_by_group_resource == debts
            statistics = world.controller.limiter_statistics()
            assert {name: each.borrowed_tokens for name, each in statistics.items()} == {
                name: held[name] for name in self.limits
            }
            assert all(each.tasks_waiting == 0 for each in statistics.values())
            assert [leak.task_id for leak in world.controller.leak_report()] == [
                lease.item.task_id for lease in sorted(world.held, key=lambda lease: lease.lease_id)
            ]

    @invariant()
    def queue_is_what_waits(self) -> None:
        """Order within groups, counts and demand, and the frozen view is the live one."""
        for number, queued in enumerate(self.queued):
            by_group: dict[TaskGroupKey, list[SchedulableTask]] = {}
            for item in queued.values():
                by_group.setdefault(item.group.key, []).append(item)
            demand = {
                group: dict(sum((Counter(item.resource_request.amounts) for item in items), Counter[str]()))
                for group, items in by_group.items()
            }
            heads = {group: items[0] for group, items in by_group.items()}
            expected = QueueView(
                queued_total=len(queued),
                queued_by_group={group: len(items) for group, items in by_group.items()},
                queued_resource_demand_by_group=demand,
                first_candidate_resources_by_group={
                    group: item.resource_request.amounts for group, item in heads.items()
                },
                first_candidate_tasks_by_group=heads,
                first_candidate_group_specs_by_group={group: item.group for group, item in heads.items()},
                queued_peer_demand_by_resource=dict(sum(map(Counter, demand.values()), Counter[str]())),
            )
            for world in self.worlds:
                view = world.queues[number].view()
                assert len(world.queues[number]) == len(queued)
                assert view == expected
                assert view.snapshot() == expected

    @invariant()
    def every_view_gives_the_same_answer(self) -> None:
        """Live and frozen, in every world: an item's eligibility is a function of the facts."""
        for number in (0, 1):
            live = [(world.controller, world.queues[number].view()) for world in self.worlds]
            views = [*live, *((controller, view.snapshot()) for controller, view in live)]
            for item in tuple(self.known.queues[number].view().first_candidate_tasks_by_group.values()):
                assert len({controller.is_eligible(item, view) for controller, view in views}) == 1

    @invariant()
    def nobody_waits_beside_free_capacity(self) -> None:
        """What selection passes over is blocked; without ceilings and reserves only for want of units."""
        for number in (0, 1):
            queue = self.known.queues[number]
            if self._select(number, frozenset()) is not None or not len(queue):
                continue
            summary = self.known.controller.explain_blocked(queue.view())
            assert summary == self.asked.controller.explain_blocked(self.asked.queues[number].view().snapshot())
            assert sum(summary.dominant_denial_reasons.values()) == len(queue.view().queued_by_group)
            if self.is_shut_down:
                assert set(summary.dominant_denial_reasons) == {"shutdown"}
            elif self.config in WORK_CONSERVING:
                assert set(summary.dominant_denial_reasons) == {"no_capacity"}

    def teardown(self) -> None:
        """Everything goes back, whatever the state."""
        for world in getattr(self, "worlds", ()):
            for lease in world.held:
                assert world.controller.release(lease).released
            view = world.controller.view()
            assert not view.leased_resources
            assert not view.running_counts_by_group
            assert not view.policy_debt_by_group_resource
            assert world.controller.leak_report() == ()
            denied = world.controller.try_acquire(
                SchedulableTask("huge", None, TaskGroupSpec(GROUPS[0]), SchedulerResourceRequest({"x": 100})),
                world.queues[0].view(),
            )
            assert isinstance(denied, TaskAdmissionDenied)
            assert math.isfinite(world.controller.version)


TestTaskAdmissionMachine = TaskAdmissionMachine.TestCase

"""Queue, ledger and policies under random histories, against a small model of what is held and owed.

Every history is run twice: in one world the queue knows its controller and looks at classes of heads, in the other the
same controller's eligibility hides behind a plain function and every head is asked in fair order. Both must choose
alike, at every step.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trio_sched._resources.task import SchedulableTask, SchedulerResourceRequest, TaskGroupKey, TaskGroupSpec
from trio_sched._task.config import BoundedBorrowTaskAdmissionPolicyConfig, TaskAdmissionConfig
from trio_sched._task.controller import TaskAdmissionController
from trio_sched._task.leases import TaskAdmissionDenied, TaskAdmissionLease
from trio_sched._task.queue import FairTaskQueue
from trio_sched._task.queue_view import QueueView

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
CEILING_OF_A = {(GROUPS[0], "x"): 1}
CONFIGS: tuple[BoundedBorrowTaskAdmissionPolicyConfig | None, ...] = (
    None,
    BoundedBorrowTaskAdmissionPolicyConfig(),
    BoundedBorrowTaskAdmissionPolicyConfig(strict_share_rounding="floor"),
    BoundedBorrowTaskAdmissionPolicyConfig(repay_on_withheld_peer_pressure=False),
    BoundedBorrowTaskAdmissionPolicyConfig(CEILING_OF_A, default_borrow_ceiling=2),
    BoundedBorrowTaskAdmissionPolicyConfig(dynamic_borrow_reserve_fraction=0.3, dynamic_borrow_max_reserved_slots=2),
)
WORK_CONSERVING = frozenset({0, 1, 2, 3})
WEIGHTS = (1.0, 1.0, 2.0, 0.1, 1e-300)


class World:
    """One queue, one controller, and one way to ask."""

    def __init__(self, config: TaskAdmissionConfig, *, hidden: bool) -> None:
        self.queue = FairTaskQueue()
        self.controller = TaskAdmissionController(config, clock=lambda: 0.0)
        controller = self.controller
        self.ask: Callable[[SchedulableTask, QueueView], bool] = (
            (lambda item, view: controller.is_eligible(item, view)) if hidden else controller.is_eligible
        )
        self.held: list[TaskAdmissionLease] = []


class TaskAdmissionMachine(RuleBasedStateMachine):
    """Enqueue, discard, dispatch, release in every wrong way, change limits, shut down."""

    @initialize(
        config=st.integers(0, len(CONFIGS) - 1),
        submission=st.integers(2, 8),
        x=st.integers(4, 6),
        bound=st.integers(1, 4),
        specs=st.lists(st.tuples(st.sampled_from(WEIGHTS), st.sampled_from((None, 1, 2, 4))), min_size=6, max_size=6),
    )
    def build(self, config: int, submission: int, x: int, bound: int, specs: list[tuple[float, int | None]]) -> None:
        """Two equal worlds."""
        self.config = config
        self.limits = {"submission": submission, "x": x, "y": 2}
        settings_of_both = TaskAdmissionConfig(submission, {"x": x, "y": 2}, CONFIGS[config], bound)
        self.classed = World(settings_of_both, hidden=False)
        self.asked = World(settings_of_both, hidden=True)
        self.worlds = (self.classed, self.asked)
        self.specs = [TaskGroupSpec(key, *spec) for key, spec in zip(GROUPS, specs, strict=True)]
        self.number = 0
        self.queued: dict[str, SchedulableTask] = {}
        self.running: list[SchedulableTask] = []
        self.debt: Counter[tuple[TaskGroupKey, str]] = Counter()
        self.is_shut_down = False

    # Rules

    @rule(group=st.integers(0, 5), request=st.sampled_from(REQUESTS), count=st.integers(1, 4))
    def enqueue(self, group: int, request: SchedulerResourceRequest, count: int) -> None:
        """New tasks, and all queued ones again."""
        items: list[SchedulableTask] = []
        for _ in range(count):
            self.number += 1
            items.append(SchedulableTask(f"t{self.number}", None, self.specs[group], request))
        for world in self.worlds:
            accepted = world.queue.enqueue([*items, *self.queued.values(), *items])
            assert accepted == tuple(item.task_id for item in items)
        self.queued.update((item.task_id, item) for item in items)

    @rule(data=st.data())
    @precondition(lambda self: self.queued)
    def discard(self, data: st.DataObject) -> None:
        """One task, or all of a group."""
        item = self.queued[data.draw(st.sampled_from(sorted(self.queued)))]
        if data.draw(st.booleans()):
            for world in self.worlds:
                assert world.queue.discard(item.task_id)
                assert not world.queue.discard(item.task_id)
            del self.queued[item.task_id]
            return
        gone = tuple(task_id for task_id, each in self.queued.items() if each.group is item.group)
        for world in self.worlds:
            assert world.queue.discard_where(lambda each: each.group is item.group) == gone
        for task_id in gone:
            del self.queued[task_id]

    @rule(count=st.integers(1, 8), is_stale=st.booleans())
    def dispatch(self, count: int, is_stale: bool) -> None:
        """Select, acquire, commit, in both worlds alike; now and then the commit is stale."""
        for _ in range(count):
            choices = [world.queue.select_next(world.ask) for world in self.worlds]
            first, second = choices
            assert (first is None) == (second is None)
            if first is None or second is None:
                return
            assert first.item is second.item
            item = first.item
            again = self.classed.queue.select_next(lambda item, view: self.classed.controller.is_eligible(item, view))
            assert again is not None
            assert again.item is item
            leases: list[TaskAdmissionLease] = []
            for world, choice in zip(self.worlds, choices, strict=True):
                assert choice is not None
                decision = world.controller.try_acquire(item, choice.queue_view)
                assert isinstance(decision, TaskAdmissionLease)
                leases.append(decision)
                if is_stale:
                    world.queue.discard(item.task_id)
                    assert world.queue.commit(choice) is None
                    assert world.controller.release(decision).released
                else:
                    world.held.append(decision)
                    assert world.queue.commit(choice) is item
                    assert world.queue.commit(choice) is None
            del self.queued[item.task_id]
            assert leases[0].borrowed == leases[1].borrowed
            for resource, units in leases[0].borrowed.items():
                self.debt[item.group.key, resource] += units
            if is_stale:
                self._repay(leases[0])
                return
            self.running.append(item)

    @rule(data=st.data())
    @precondition(lambda self: self.running)
    def release(self, data: st.DataObject) -> None:
        """One lease goes back, then once more."""
        index = data.draw(st.integers(0, len(self.running) - 1))
        self.running.pop(index)
        leases = [world.held.pop(index) for world in self.worlds]
        for world, lease in zip(self.worlds, leases, strict=True):
            with lease:
                pass
            assert world.controller.release(lease).reason == "duplicate"
        self._repay(leases[0])

    @rule(data=st.data())
    @precondition(lambda self: self.running)
    def release_wrongly(self, data: st.DataObject) -> None:
        """Leases of another controller, of another task, and of nobody."""
        lease = data.draw(st.sampled_from(self.classed.held))
        controller = self.classed.controller
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

    def _repay(self, lease: TaskAdmissionLease) -> None:
        config = CONFIGS[self.config]
        if config is None:
            return
        repaid = lease.resources if config.repay_on_withheld_peer_pressure else lease.borrowed
        for resource, units in repaid.items():
            key = (lease.item.group.key, resource)
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
        by_group: dict[TaskGroupKey, list[SchedulableTask]] = {}
        for item in self.queued.values():
            by_group.setdefault(item.group.key, []).append(item)
        demand = {
            group: sum((Counter(item.resource_request.amounts) for item in items), Counter[str]())
            for group, items in by_group.items()
        }
        for world in self.worlds:
            view = world.queue.view()
            assert len(world.queue) == len(self.queued)
            for seen in (view, view.snapshot()):
                assert seen.queued_total == len(self.queued)
                assert seen.queued_by_group == {group: len(items) for group, items in by_group.items()}
                assert seen.first_candidate_tasks_by_group == {group: items[0] for group, items in by_group.items()}
                assert seen.first_candidate_resources_by_group == {
                    group: items[0].resource_request.amounts for group, items in by_group.items()
                }
                assert seen.first_candidate_group_specs_by_group == {
                    group: items[0].group for group, items in by_group.items()
                }
                assert seen.queued_resource_demand_by_group == demand
                assert seen.queued_peer_demand_by_resource == sum(demand.values(), Counter[str]())
            assert view == view.snapshot()

    @invariant()
    def every_view_gives_the_same_answer(self) -> None:
        """Live with classes, live without, frozen: an item's eligibility is a function of the facts."""
        for item in self.classed.queue.view().first_candidate_tasks_by_group.values():
            answers = {
                world.controller.is_eligible(item, view)
                for world in self.worlds
                for view in (world.queue.view(), world.queue.view().snapshot())
            }
            assert len(answers) == 1

    @invariant()
    def nobody_waits_beside_free_capacity(self) -> None:
        """What selection passes over is blocked; without ceilings and reserves only for want of units."""
        controller, queue = self.classed.controller, self.classed.queue
        if queue.select_next(controller.is_eligible) is not None or not len(queue):
            return
        summary = controller.explain_blocked(queue.view())
        assert summary == self.asked.controller.explain_blocked(self.asked.queue.view().snapshot())
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
                world.queue.view(),
            )
            assert isinstance(denied, TaskAdmissionDenied)
            assert math.isfinite(world.controller.version)


TestTaskAdmissionMachine = TaskAdmissionMachine.TestCase

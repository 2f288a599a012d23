"""What the task stage remembers is bounded by who is queued and what runs, whoever came and went before."""

from __future__ import annotations

import gc
import itertools
import tracemalloc
import weakref
from collections.abc import Callable, Iterator

import pytest
from task_values import group_key, group_spec, make_task, make_tasks, start_next

from trio_sched._resources.task import SchedulableTask, SchedulerResourceRequest
from trio_sched._task.controller import TaskAdmissionConfig, TaskAdmissionController
from trio_sched._task.ledger import TaskAdmissionLease, TaskAdmissionView
from trio_sched._task.policies import ALLOWED, PolicyStateDelta, TaskAdmissionPolicyDecision
from trio_sched._task.queue import FairTaskQueue, QueueView

RESOURCES = tuple("stuvwxyz")
ROUNDS = 200
MOST_BYTES = 8_000
"""Less than one entry for each round."""


def start(queue: FairTaskQueue, controller: TaskAdmissionController) -> None:
    lease = start_next(queue, controller)
    assert lease is not None
    controller.release(lease)


def groups_pass_through(queue: FairTaskQueue, controller: TaskAdmissionController) -> Iterator[None]:
    """Some are served, some are discarded, in front of one that stays."""
    for number in itertools.count():
        queue.enqueue([make_task(f"t{number}", f"g{number}"), *make_tasks("steady", 2)])
        for _ in range(1 + number % 2):
            start(queue, controller)
        queue.discard(f"t{number}")
        yield


def newcomers_come_and_go_in_front_of_their_like(
    queue: FairTaskQueue, controller: TaskAdmissionController
) -> Iterator[None]:
    queue.enqueue(make_tasks(group_spec("slow", 0.001), 2))
    start(queue, controller)
    for number in itertools.count():
        queue.enqueue([make_task(f"t{number}", "quick")])
        assert queue.select_next(controller.is_eligible) is not None
        queue.discard(f"t{number}")
        assert queue.select_next(controller.is_eligible) is not None
        yield


def requests_come_and_go_behind_another(queue: FairTaskQueue, controller: TaskAdmissionController) -> Iterator[None]:
    queue.enqueue(make_tasks("first", 1))
    for number in itertools.count():
        queue.enqueue([make_task(f"t{number}", "other", {"submission": 1 + number % 7})])
        selection = queue.select_next(controller.is_eligible)
        assert selection is not None
        assert selection.item.task_id == "first0"
        queue.discard(f"t{number}")
        yield


def requests_that_lack_units_come_and_go(queue: FairTaskQueue, controller: TaskAdmissionController) -> Iterator[None]:
    """One waits for `z` all the time; others of other requests wait there too, and leave."""
    queue.enqueue([make_task("holder", "h", {"z": 8})])
    assert start_next(queue, controller) is not None
    queue.enqueue(make_tasks("waits", 1, {"z": 1}))
    for number in itertools.count():
        queue.enqueue([make_task(f"t{number}", "other", {"z": 2 + number % 6})])
        assert queue.select_next(controller.is_eligible) is None
        queue.discard(f"t{number}")
        assert queue.select_next(controller.is_eligible) is None
        yield


def units_are_reserved_for_heads_that_leave(
    queue: FairTaskQueue, controller: TaskAdmissionController
) -> Iterator[None]:
    queue.enqueue(make_tasks("small", 8, {"x": 1}))
    running = [start_next(queue, controller) for _ in range(8)]
    for number in itertools.count():
        queue.enqueue([make_task(f"wide{number}", f"wide{number}", {"x": 2})])
        for each in range(2):
            queue.enqueue([make_task(f"t{number}-{each}", "small", {"x": 1})])
            lease = running.pop(0)
            assert lease is not None
            controller.release(lease)
            running.append(start_next(queue, controller))
        assert len(controller.view().reservations) == 1
        queue.discard(f"wide{number}")
        yield


def queues_come_and_go(queue: FairTaskQueue, controller: TaskAdmissionController) -> Iterator[None]:
    queue.enqueue(make_tasks("steady", 1))
    while True:
        other = FairTaskQueue()
        other.enqueue(make_tasks("passing", 1))
        for each in (other, queue):
            assert each.select_next(controller.is_eligible) is not None
        yield


PATTERNS: tuple[Callable[[FairTaskQueue, TaskAdmissionController], Iterator[None]], ...] = (
    groups_pass_through,
    newcomers_come_and_go_in_front_of_their_like,
    requests_come_and_go_behind_another,
    requests_that_lack_units_come_and_go,
    units_are_reserved_for_heads_that_leave,
    queues_come_and_go,
)


def growth(rounds: Iterator[None]) -> int:
    """Bytes that the second half of the rounds adds."""

    def run() -> int:
        for _ in range(ROUNDS):
            next(rounds)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = run()
        return run() - before
    finally:
        tracemalloc.stop()


class Charging:
    """Lets groups that run nothing pay, and forgives debts that nobody has."""

    def __init__(self) -> None:
        self.number = 0

    def evaluate(
        self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
    ) -> TaskAdmissionPolicyDecision:
        return ALLOWED

    def on_acquire(self, lease: TaskAdmissionLease, decision: TaskAdmissionPolicyDecision) -> PolicyStateDelta:
        self.number += 1
        return PolicyStateDelta(
            {
                (group_key(f"pays{self.number}"), "x"): 1,
                (group_key(f"free{self.number}"), "x"): -1,
                (group_key(f"none{self.number}"), "x"): 0,
            }
        )

    def on_release(self, lease: TaskAdmissionLease) -> PolicyStateDelta:
        return PolicyStateDelta({(group_key(f"pays{self.number}"), "x"): -1})


@pytest.mark.parametrize("pattern", PATTERNS)
def test_comings_and_goings_leave_nothing_behind(
    pattern: Callable[[FairTaskQueue, TaskAdmissionController], Iterator[None]],
) -> None:
    limits = dict.fromkeys(RESOURCES, 8)
    controller = TaskAdmissionController(TaskAdmissionConfig(16, limits, multi_unit_skip_bound=2))
    rounds = pattern(FairTaskQueue(), controller)
    assert growth(rounds) < MOST_BYTES


def groups_pass_through_one_by_one(queue: FairTaskQueue, controller: TaskAdmissionController) -> Iterator[None]:
    """Nobody stays, so no lane does."""
    for number in itertools.count():
        queue.enqueue([make_task(f"t{number}", f"g{number % 7}", {"submission": 1 + number % 2})])
        start(queue, controller)
        yield


@pytest.mark.parametrize("pattern", [*PATTERNS[:-1], groups_pass_through_one_by_one])
def test_comings_and_goings_need_no_garbage_collector(
    pattern: Callable[[FairTaskQueue, TaskAdmissionController], Iterator[None]],
) -> None:
    controller = TaskAdmissionController(TaskAdmissionConfig(16, dict.fromkeys(RESOURCES, 8), multi_unit_skip_bound=2))
    rounds = pattern(FairTaskQueue(), controller)
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for _ in range(ROUNDS):
            next(rounds)
        assert gc.collect() < ROUNDS // 2
    finally:
        if was_enabled:
            gc.enable()


def test_debts_that_were_repaid_leave_nothing_behind() -> None:
    controller = TaskAdmissionController(TaskAdmissionConfig(16), Charging())

    def grants() -> Iterator[None]:
        view = FairTaskQueue().view()
        for number in itertools.count():
            lease = controller.try_acquire(make_task(f"t{number}", "g"), view)
            assert isinstance(lease, TaskAdmissionLease)
            controller.release(lease)
            yield

    assert growth(grants()) < MOST_BYTES


def test_a_group_that_is_remembered_holds_none_of_its_tasks() -> None:
    class Payload:
        pass

    payload = Payload()
    gone = weakref.ref(payload)
    queue, controller = FairTaskQueue(), TaskAdmissionController()
    item = SchedulableTask("t", payload, group_spec("a"), SchedulerResourceRequest({"submission": 1}))
    queue.enqueue([item, *make_tasks("b", 3)])
    del item, payload
    start(queue, controller)
    start(queue, controller)
    gc.collect()
    assert gone() is None

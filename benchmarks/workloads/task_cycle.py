"""Scenario family 1, for every implementation that has a fair queue and a task admission controller.

The same code drives this project and the peer: a `TaskStage` makes the values of one of them, what is measured is here.
Each iteration has these parts, with a fresh queue and a fresh controller each:

    open     nothing else runs: enqueue all, then cycles of select, acquire, commit, release
    full     every unit of every resource is held: a unit is released, one task takes it, and then a select finds
             nothing, as after every completion of a running system
    capped   every group but one is refused by the policy, not for want of a resource: cycles of the one that is not

The queue is topped up outside of the measured cycle, so the backlog stays what it was said to be.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.workloads.outcome import Json, Outcome, Params, Run, number, word
from benchmarks.workloads.samples import Steps, clock, digest, since
from benchmarks.workloads.task_stage import AdmissionController, Amounts, ReadyQueue, TaskStage

__all__ = ["prepare_cycles"]

HELD_PER_RESOURCE = 64
HELD_PER_OWN_RESOURCE = 2
MIXED_ENDPOINTS = 4
CAPPED_BACKLOG = 4


@dataclass(frozen=True)
class Group:
    """A group of the workload: its implementation's value, what its tasks ask for, and where its ids count."""

    name: str
    spec: object
    amounts: Amounts


def resource_of(index: int, resources: str) -> tuple[tuple[str, ...], str, int]:
    """Identity, stage resource and that resource's limit for the group number `index`."""
    if resources == "local" or (resources == "mixed" and index % 2 == 0):
        return ("local", "default", f"column{index}"), "local", HELD_PER_RESOURCE
    if resources == "bound":
        model, limit = "model", HELD_PER_RESOURCE
    elif resources == "mixed":
        model, limit = f"model{index // 2 % MIXED_ENDPOINTS}", HELD_PER_RESOURCE
    else:
        assert resources == "exclusive", resources
        model, limit = f"model{index}", HELD_PER_OWN_RESOURCE
    return ("model", "bench", model, "chat", f"column{index}"), f"endpoint:bench/{model}", limit


class Cycles:
    """One workload, ready to be run any number of times."""

    def __init__(self, stage: TaskStage, params: Params) -> None:
        self.stage = stage
        self.policy = word(params, "policy")
        self.resources = word(params, "resources")
        self.capacity = number(params, "task_capacity")
        self.cycles = number(params, "cycles")
        seconds = params["seconds"]
        self.seconds = math.inf if seconds is None else float(str(seconds))
        self.count_calls = bool(params["count_calls"])
        self.ids = itertools.count()
        self.limits: dict[str, int] = {}
        self.groups: list[Group] = []
        for index in range(number(params, "groups")):
            identity, resource, limit = resource_of(index, self.resources)
            self.limits[resource] = limit
            amounts = {"submission": 1, resource: 1}
            self.groups.append(Group("/".join(identity), stage.group(identity, limit), amounts))
        self.by_spec = {id(group.spec): group for group in self.groups}
        self.items = [self.item(self.groups[row % len(self.groups)]) for row in range(number(params, "tasks"))]
        self.work = digest(f"{item.task_id} {item.group.key.identity}" for item in self.items)

    def item(self, group: Group) -> Any:
        row = next(self.ids)
        return self.stage.item(f"task{row}", row, group.spec, group.amounts)

    def again(self, item: Any) -> Any:
        """A task like one that was served."""
        return self.item(self.by_spec[id(item.group)])

    def __call__(self, warm_up: bool) -> Outcome:
        cycles = min(self.cycles, 20) if warm_up else self.cycles
        steps, counts = Steps(), Counter[str]()
        start = clock()
        leftovers = [self.run_open(cycles, steps, counts), self.run_full(cycles, steps, counts)]
        if len(self.groups) > 1 and self.resources in ("local", "bound"):
            leftovers.append(self.run_capped(cycles, steps, counts))
        wall = since(start)
        looked_at = {
            f"{part}_eligibility_calls": counts[f"{part}_eligibility_calls"] / counts[f"{part}_cycles"]
            for part in ("open", "full", "capped")
            if self.count_calls and counts[f"{part}_cycles"]
        }
        return Outcome(
            wall_time_seconds=wall,
            metrics={**steps.metrics(), **looked_at},
            counts=dict(counts),
            final_task_snapshot={
                "leased": sum(leased for leased, _ in leftovers),
                "queued_total": sum(queued for _, queued in leftovers),
            },
            output_hashes={"work": self.work},
            capacity_plan=capacity_plan(self.capacity, self.limits),
        )

    # The parts

    def run_open(self, cycles: int, steps: Steps, counts: Counter[str]) -> tuple[int, int]:
        queue, controller = self.stage.open(self.capacity, self.limits, self.policy)
        self.fill_queue(queue, self.items, steps, counts)
        self.serve(queue, controller, cycles, steps, counts, "open")
        return self.leftover(queue, controller)

    def run_full(self, cycles: int, steps: Steps, counts: Counter[str]) -> tuple[int, int]:
        queue, controller = self.stage.open(self.capacity, self.limits, self.policy)
        held = self.hold_everything(queue, controller)
        self.fill_queue(queue, self.items, steps, counts)
        eligible = self.eligible(controller, counts, "full")
        released, select, acquire = steps.of("full_release"), steps.of("full_select"), steps.of("full_acquire")
        commit, nothing = steps.of("full_commit"), steps.of("full_select_nothing")
        cycle, whole, topped_up = steps.of("full_cycle"), steps.of("full_cycle_and_nothing"), steps.of("requeue")
        start, done = clock(), 0
        while done < cycles and since(start) < self.seconds:
            done += 1
            lease = held.popleft()
            t0 = clock()
            controller.release(lease)
            t1 = clock()
            selection = queue.select_next(eligible)
            t2 = clock()
            assert selection is not None, "a unit is free and nobody may have it"
            lease = controller.try_acquire(selection.item, selection.queue_view)
            t3 = clock()
            committed = queue.commit(selection)
            t4 = clock()
            nobody = queue.select_next(eligible)
            t5 = clock()
            assert committed is selection.item, "the selection was stale"
            assert nobody is None, "nothing is free and somebody is to have it"
            assert not self.stage.denied(lease), lease
            again = [self.again(selection.item)]
            t6 = clock()
            queue.enqueue(again)
            t7 = clock()
            held.append(lease)
            released.append(t1 - t0)
            select.append(t2 - t1)
            acquire.append(t3 - t2)
            commit.append(t4 - t3)
            nothing.append(t5 - t4)
            cycle.append(t4 - t0)
            whole.append(t5 - t0)
            topped_up.append(t7 - t6)
        counts["full_cycles"] += done
        for lease in held:
            assert controller.release(lease).released
        return self.leftover(queue, controller)

    def run_capped(self, cycles: int, steps: Steps, counts: Counter[str]) -> tuple[int, int]:
        """All groups but the first hold their cap of one unit; there is room for all."""
        resource = next(iter(self.limits))
        room = 2 * len(self.groups)
        queue, controller = self.stage.open(self.capacity, {resource: room}, self.policy)
        served = self.groups[0]
        capped = []
        for index, group in enumerate(self.groups[1:], 1):
            identity, _, _ = resource_of(index, self.resources)
            capped.append(Group(group.name, self.stage.group(identity, 1), group.amounts))
            self.by_spec[id(capped[-1].spec)] = capped[-1]
        held = [controller.try_acquire(self.item(group), queue.view()) for group in capped]
        backlog = [self.item(group) for group in [*capped, served] for _ in range(CAPPED_BACKLOG)]
        assert len(queue.enqueue(backlog)) == len(backlog)
        names = self.serve(queue, controller, cycles, steps, counts, "capped")
        assert names == {served.name}, f"served instead of the group that is not capped: {names}"
        for lease in held:
            assert controller.release(lease).released
        return self.leftover(queue, controller)

    # Their steps

    def serve(
        self,
        queue: ReadyQueue,
        controller: AdmissionController,
        cycles: int,
        steps: Steps,
        counts: Counter[str],
        part: str,
    ) -> set[str]:
        """Cycles that leave nothing held. The names of the groups that were served."""
        eligible = self.eligible(controller, counts, part)
        select, acquire, commit = steps.of(f"{part}_select"), steps.of(f"{part}_acquire"), steps.of(f"{part}_commit")
        released, cycle = steps.of(f"{part}_release"), steps.of(f"{part}_cycle")
        names: set[str] = set()
        start, done = clock(), 0
        while done < cycles and since(start) < self.seconds:
            done += 1
            t0 = clock()
            selection = queue.select_next(eligible)
            t1 = clock()
            assert selection is not None, "capacity is free and nobody may have it"
            lease = controller.try_acquire(selection.item, selection.queue_view)
            t2 = clock()
            committed = queue.commit(selection)
            t3 = clock()
            result = controller.release(lease)
            t4 = clock()
            assert committed is selection.item, "the selection was stale"
            assert result.released
            select.append(t1 - t0)
            acquire.append(t2 - t1)
            commit.append(t3 - t2)
            released.append(t4 - t3)
            cycle.append(t4 - t0)
            names.add(self.by_spec[id(selection.item.group)].name)
            queue.enqueue([self.again(selection.item)])
        counts[f"{part}_cycles"] += done
        return names

    def fill_queue(self, queue: ReadyQueue, items: list[Any], steps: Steps, counts: Counter[str]) -> None:
        start = clock()
        accepted = queue.enqueue(items)
        steps.of("enqueue").append((clock() - start) // len(items))
        assert len(accepted) == len(items)
        counts["enqueued"] += len(accepted)

    def hold_everything(self, queue: ReadyQueue, controller: AdmissionController) -> deque[Any]:
        """Take every unit of every resource, turn by turn over the groups that use it."""
        users: dict[str, list[Group]] = {}
        for group in self.groups:
            resource = next(name for name in group.amounts if name != "submission")
            users.setdefault(resource, []).append(group)
        held: deque[Any] = deque()
        for resource, limit in self.limits.items():
            for _, group in zip(range(limit), itertools.cycle(users[resource]), strict=False):
                lease = controller.try_acquire(self.item(group), queue.view())
                assert not self.stage.denied(lease), lease
                held.append(lease)
        return held

    def eligible(self, controller: AdmissionController, counts: Counter[str], part: str) -> Callable[[Any, Any], bool]:
        """The controller's own method, or where calls are counted one that counts them."""
        if not self.count_calls:
            return controller.is_eligible
        name = f"{part}_eligibility_calls"
        return self.stage.counted(controller, lambda: counts.update((name,)))

    def leftover(self, queue: ReadyQueue, controller: AdmissionController) -> tuple[int, int]:
        """Units still held, and tasks still queued, when a part is over."""
        return sum(controller.view().leased_resources.values()), queue.view().queued_total


def prepare_cycles(stage: TaskStage, params: Params) -> Run:
    """The workload of `params` for one implementation."""
    return Cycles(stage, params)


def capacity_plan(capacity: int, limits: Mapping[str, int]) -> dict[str, Json]:
    """The part of a capacity plan that exists where only the task stage runs."""
    plain: dict[str, Json] = dict(limits)
    return {
        "configured": {
            "submission_capacity": {"value": capacity, "source": "benchmark_override"},
            "task_resource_limits": {"value": plain, "source": "benchmark_override"},
        }
    }

"""Scenario family 1 at this project."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import trio

from benchmarks.workloads.outcome import Outcome, Params, Run
from benchmarks.workloads.task_cycle import prepare_cycles
from benchmarks.workloads.task_stage import AdmissionController, ReadyQueue
from trio_sched.lowlevel import (
    BoundedBorrowTaskAdmissionPolicyConfig,
    FairTaskQueue,
    QueueView,
    SchedulableTask,
    SchedulerResourceRequest,
    Task,
    TaskAdmissionConfig,
    TaskAdmissionController,
    TaskAdmissionDenied,
    TaskGroupKey,
    TaskGroupSpec,
)

__all__ = ["prepare"]


class ProjectTaskStage:
    """This project's values."""

    def __init__(self) -> None:
        self._requests: dict[int, SchedulerResourceRequest] = {}

    def group(self, identity: tuple[str, ...], admitted_limit: int) -> object:
        kind: Literal["local", "model"] = "local" if identity[0] == "local" else "model"
        return TaskGroupSpec(TaskGroupKey(kind, identity), 1.0, admitted_limit)

    def item(self, task_id: str, row: int, group: Any, amounts: Mapping[str, int]) -> Any:
        request = self._requests.get(id(amounts))
        if request is None:
            request = self._requests[id(amounts)] = SchedulerResourceRequest(amounts)
        return SchedulableTask(task_id, Task(group.key.identity[-1], 0, row, "cell"), group, request)

    def open(self, capacity: int, limits: Mapping[str, int], policy: str) -> tuple[ReadyQueue, AdmissionController]:
        borrow = BoundedBorrowTaskAdmissionPolicyConfig() if policy == "borrow" else None
        config = TaskAdmissionConfig(submission_capacity=capacity, resource_limits=limits, bounded_borrow=borrow)
        return FairTaskQueue(), TaskAdmissionController(config, clock=trio.lowlevel.current_clock().current_time)

    def denied(self, decision: object) -> bool:
        return isinstance(decision, TaskAdmissionDenied)

    def counted(self, controller: TaskAdmissionController, note: Callable[[], None]) -> Callable[[Any, Any], bool]:
        return CountedEligibility(controller, note).is_eligible


class CountedEligibility:
    """A controller's eligibility, which notes every question about a head. Lanes that do not fit are skipped."""

    def __init__(self, controller: TaskAdmissionController, note: Callable[[], None]) -> None:
        self._controller = controller
        self._note = note

    def fits(self, request: SchedulerResourceRequest) -> bool:
        return self._controller.fits(request)

    def allows(self, queue_view: QueueView) -> Callable[[SchedulableTask], bool]:
        allows = self._controller.allows(queue_view)

        def noted(head: SchedulableTask) -> bool:
            self._note()
            return allows(head)

        return noted

    def is_eligible(self, item: SchedulableTask, queue_view: QueueView) -> bool:
        self._note()
        return self._controller.is_eligible(item, queue_view)


def prepare(params: Params) -> Run:
    """The workload at this project, in a Trio run and with its clock, as `trio_sched.run` has it."""
    cycles = prepare_cycles(ProjectTaskStage(), params)

    def run(warm_up: bool) -> Outcome:
        async def main() -> Outcome:
            return cycles(warm_up)

        return trio.run(main)

    return run

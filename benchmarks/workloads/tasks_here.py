"""Scenario family 1 at this project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from benchmarks.workloads.faces import (
    BoundedBorrowTaskAdmissionPolicyConfig,
    FairTaskQueue,
    SchedulableTask,
    SchedulerResourceRequest,
    Task,
    TaskAdmissionConfig,
    TaskAdmissionController,
    TaskAdmissionDenied,
    TaskGroupKey,
    TaskGroupSpec,
)
from benchmarks.workloads.outcome import Params, Run
from benchmarks.workloads.task_cycle import AdmissionController, ReadyQueue, prepare_cycles

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
        return FairTaskQueue(), TaskAdmissionController(config)

    def denied(self, decision: object) -> bool:
        return isinstance(decision, TaskAdmissionDenied)


def prepare(params: Params) -> Run:
    """The workload at this project."""
    return prepare_cycles(ProjectTaskStage(), params)

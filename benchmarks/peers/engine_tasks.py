"""Scenario family 1 at data-designer-engine: its own queue, controller and policies, with their defaults.

It is installed only in the environment that the harness makes for it, hence the imports that a type checker cannot see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from data_designer.engine.dataset_builders.scheduling.queue import FairTaskQueue  # type: ignore[import-not-found]
from data_designer.engine.dataset_builders.scheduling.resources import (  # type: ignore[import-not-found]
    SchedulableTask,
    SchedulerResourceRequest,
    TaskGroupKey,
    TaskGroupSpec,
)
from data_designer.engine.dataset_builders.scheduling.task_admission import (  # type: ignore[import-not-found]
    TaskAdmissionConfig,
    TaskAdmissionController,
    TaskAdmissionDenied,
)
from data_designer.engine.dataset_builders.scheduling.task_model import Task  # type: ignore[import-not-found]
from data_designer.engine.dataset_builders.scheduling.task_policies import (  # type: ignore[import-not-found]
    BoundedBorrowTaskAdmissionPolicyConfig,
)

from benchmarks.workloads.outcome import Params, Run
from benchmarks.workloads.task_cycle import prepare_cycles
from benchmarks.workloads.task_stage import AdmissionController, ReadyQueue

__all__ = ["prepare"]


class EngineTaskStage:
    """The peer's values."""

    def __init__(self) -> None:
        self._requests: dict[int, Any] = {}

    def group(self, identity: tuple[str, ...], admitted_limit: int) -> object:
        return TaskGroupSpec(TaskGroupKey(identity[0], identity), 1.0, admitted_limit)

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

    def counted(self, controller: Any, note: Callable[[], None]) -> Callable[[Any, Any], bool]:
        def is_eligible(item: Any, queue_view: Any) -> bool:
            note()
            eligible: bool = controller.is_eligible(item, queue_view)
            return eligible

        return is_eligible


def prepare(params: Params) -> Run:
    """The workload at the peer."""
    return prepare_cycles(EngineTaskStage(), params)

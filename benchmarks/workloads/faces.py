"""One place for what the harness uses of the lower face."""

from trio_sched._request.config import RequestAdmissionConfig
from trio_sched._request.controller import AdaptiveRequestAdmissionController
from trio_sched._resources.identity import RequestDomain, RequestResourceKey
from trio_sched._resources.request import RequestAdmissionItem, RequestGroupSpec, RequestReleaseOutcome
from trio_sched._resources.task import (
    SchedulableTask,
    SchedulerResourceRequest,
    Task,
    TaskGroupKey,
    TaskGroupSpec,
)
from trio_sched._task.config import BoundedBorrowTaskAdmissionPolicyConfig, TaskAdmissionConfig
from trio_sched._task.controller import TaskAdmissionController
from trio_sched._task.leases import TaskAdmissionDenied
from trio_sched._task.queue import FairTaskQueue

__all__ = [
    "AdaptiveRequestAdmissionController",
    "BoundedBorrowTaskAdmissionPolicyConfig",
    "FairTaskQueue",
    "RequestAdmissionConfig",
    "RequestAdmissionItem",
    "RequestDomain",
    "RequestGroupSpec",
    "RequestReleaseOutcome",
    "RequestResourceKey",
    "SchedulableTask",
    "SchedulerResourceRequest",
    "Task",
    "TaskAdmissionConfig",
    "TaskAdmissionController",
    "TaskAdmissionDenied",
    "TaskGroupKey",
    "TaskGroupSpec",
]

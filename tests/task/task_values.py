"""Short ways to make the values that tests of the task stage are about."""

from __future__ import annotations

from collections.abc import Mapping

from trio_sched._resources.task import SchedulableTask, SchedulerResourceRequest, TaskGroupKey, TaskGroupSpec
from trio_sched._task.controller import TaskAdmissionController
from trio_sched._task.leases import TaskAdmissionLease
from trio_sched._task.queue import FairTaskQueue

UNIT: Mapping[str, int] = {"submission": 1}


def group_key(name: str) -> TaskGroupKey:
    """The key of the group `name`."""
    return TaskGroupKey("local", ("local", name))


def group_spec(name: str, weight: float = 1.0, admitted_limit: int | None = None) -> TaskGroupSpec:
    """The group `name`."""
    return TaskGroupSpec(group_key(name), weight, admitted_limit)


def make_task(task_id: str, group: str | TaskGroupSpec, amounts: Mapping[str, int] = UNIT) -> SchedulableTask:
    """A task of `group`; a name stands for a group of weight 1 without a limit."""
    spec = group_spec(group) if isinstance(group, str) else group
    return SchedulableTask(task_id, None, spec, SchedulerResourceRequest(amounts))


def make_tasks(
    group: str | TaskGroupSpec, count: int, amounts: Mapping[str, int] = UNIT, prefix: str | None = None
) -> list[SchedulableTask]:
    """`count` tasks named after their group."""
    spec = group_spec(group) if isinstance(group, str) else group
    name = spec.key.identity[-1] if prefix is None else prefix
    request = SchedulerResourceRequest(amounts)
    return [SchedulableTask(f"{name}{number}", None, spec, request) for number in range(count)]


def start_next(queue: FairTaskQueue, controller: TaskAdmissionController) -> TaskAdmissionLease | None:
    """Select, acquire and commit, as a dispatcher does; None if nothing is eligible."""
    selection = queue.select_next(controller.is_eligible)
    if selection is None:
        return None
    lease = controller.try_acquire(selection.item, selection.queue_view)
    assert isinstance(lease, TaskAdmissionLease)
    assert queue.commit(selection) is selection.item
    return lease


def start_all(queue: FairTaskQueue, controller: TaskAdmissionController) -> list[TaskAdmissionLease]:
    """Start until nothing is eligible."""
    leases: list[TaskAdmissionLease] = []
    while (lease := start_next(queue, controller)) is not None:
        leases.append(lease)
    return leases


def names(leases: list[TaskAdmissionLease]) -> list[str]:
    """The task ids of `leases`."""
    return [lease.item.task_id for lease in leases]

"""Short ways to make the values that tests of the task stage are about."""

from __future__ import annotations

from collections.abc import Mapping

from trio_sched._resources.task import SchedulableTask, SchedulerResourceRequest, TaskGroupKey, TaskGroupSpec
from trio_sched._task.controller import TaskAdmissionController, TaskAdmissionDenied
from trio_sched._task.ledger import TaskAdmissionLease, TaskAdmissionView
from trio_sched._task.policies import PolicyStateDelta, TaskAdmissionPolicyDecision
from trio_sched._task.queue import FairTaskQueue, QueueView

UNIT: Mapping[str, int] = {"submission": 1}
NOBODY = FairTaskQueue().view()


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


def acquire(controller: TaskAdmissionController, item: SchedulableTask) -> TaskAdmissionLease:
    """Grant `item`, with nobody queued."""
    decision = controller.try_acquire(item, NOBODY)
    assert isinstance(decision, TaskAdmissionLease)
    return decision


def denied(controller: TaskAdmissionController, item: SchedulableTask) -> TaskAdmissionDenied:
    """Have `item` denied, with nobody queued."""
    decision = controller.try_acquire(item, NOBODY)
    assert isinstance(decision, TaskAdmissionDenied)
    return decision


class ScriptedPolicy:
    """Answers what it is told to, and raises what it is told to."""

    def __init__(self) -> None:
        self.decision = TaskAdmissionPolicyDecision(allowed=True)
        self.acquired = PolicyStateDelta()
        self.released = PolicyStateDelta()
        self.error: BaseException | None = None
        self.release_error: BaseException | None = None
        self.seen: list[object] = []

    def evaluate(
        self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
    ) -> TaskAdmissionPolicyDecision:
        return self.decision

    def on_acquire(self, lease: TaskAdmissionLease, decision: TaskAdmissionPolicyDecision) -> PolicyStateDelta:
        self.seen.append(decision)
        if self.error is not None:
            raise self.error
        return self.acquired

    def on_release(self, lease: TaskAdmissionLease) -> PolicyStateDelta:
        if self.release_error is not None:
            raise self.release_error
        return self.released

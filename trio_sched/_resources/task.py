"""What the scheduler schedules: tasks, the groups that fair order serves, and the stage resources they ask for.

A `Task` names a slice of the dataset and how it is made. A `SchedulableTask` is a ready task with everything that
ordering and admission need to know about it: its group and its resource request. `submission` and `local` are stage
resources of the scheduler itself; a model endpoint's stage resource is named by `endpoint_stage_resource`. None of them
is a request domain.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

import attrs

from trio_sched import _validation as check
from trio_sched._resources.identity import ProviderModelKey, RequestResourceKey
from trio_sched.metadata import SchedulingKind

__all__ = [
    "LOCAL",
    "SUBMISSION",
    "FrontierDelta",
    "SchedulableTask",
    "SchedulerResourceKey",
    "SchedulerResourceRequest",
    "SliceRef",
    "Task",
    "TaskGroupKey",
    "TaskGroupSpec",
    "TaskTrace",
    "TaskType",
    "endpoint_stage_resource",
    "local_stage_resource",
    "stable_task_id",
]

SchedulerResourceKey = str
TaskType = Literal["from_scratch", "cell", "batch"]

SUBMISSION: Final[SchedulerResourceKey] = "submission"
LOCAL: Final[SchedulerResourceKey] = "local"


def endpoint_stage_resource(endpoint: ProviderModelKey) -> SchedulerResourceKey:
    """Name of the stage resource shared by all tasks whose generator calls `endpoint`."""
    return f"endpoint:{endpoint}"


def local_stage_resource(name: str) -> SchedulerResourceKey:
    """Name of the stage resource shared by all tasks of local work of this name, such as `threads`."""
    return f"local:{name}"


@attrs.frozen(order=True, cache_hash=True)
class TaskGroupKey:
    """Identity of a stream of like tasks: the metadata's kind and identity, and the flow they belong to."""

    kind: SchedulingKind
    identity: tuple[str, ...]

    def __str__(self) -> str:
        return "/".join(self.identity)


@attrs.frozen
class TaskGroupSpec:
    """A group's place in fair order. weight: any positive finite number. admitted_limit: its cap under contention."""

    key: TaskGroupKey
    weight: float = attrs.field(default=1.0, validator=check.weight)
    admitted_limit: int | None = attrs.field(default=None, validator=check.optional_positive_int)


def _amounts(value: Mapping[SchedulerResourceKey, int]) -> Mapping[SchedulerResourceKey, int]:
    checked: dict[SchedulerResourceKey, int] = {}
    for resource, amount in value.items():
        key = check.check_text("SchedulerResourceRequest.amounts key", resource)
        checked[key] = check.check_int(f"SchedulerResourceRequest.amounts[{key!r}]", amount, minimum=1)
    return MappingProxyType(checked)


@attrs.frozen
class SchedulerResourceRequest:
    """Units of stage resources that a task holds while it runs, taken all or nothing. Amounts are positive ints.

    competed_for: the resources over which fairness between groups is judged, which are those it names beside
    `submission`, or `submission` where it names nothing more specific.
    """

    amounts: Mapping[SchedulerResourceKey, int] = attrs.field(factory=lambda: {SUBMISSION: 1}, converter=_amounts)
    competed_for: tuple[SchedulerResourceKey, ...] = attrs.field(init=False, eq=False, repr=False)
    _hash: int = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        specific = tuple(resource for resource in self.amounts if resource != SUBMISSION)
        object.__setattr__(self, "competed_for", specific or tuple(self.amounts))
        object.__setattr__(self, "_hash", hash(frozenset(self.amounts.items())))

    def __hash__(self) -> int:
        return self._hash


@attrs.frozen
class Task:
    """One unit of work: the cells that one call of a column's generator makes.

    row_index is the row within its row group, or None where the task makes the column for the whole row group. Tasks
    are equal if their ids are.
    """

    column: str = attrs.field(eq=False)
    row_group: int = attrs.field(eq=False)
    row_index: int | None = attrs.field(eq=False)
    task_type: TaskType = attrs.field(eq=False)
    _stable_id: str = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        row = "*" if self.row_index is None else self.row_index
        object.__setattr__(self, "_stable_id", f"{self.row_group}:{row}:{self.task_type}:{self.column}")

    def __hash__(self) -> int:
        return hash(self._stable_id)


@attrs.frozen(order=True)
class SliceRef:
    """A slice of the dataset: one cell, or with row_index None one column of a row group."""

    column: str
    row_group: int
    row_index: int | None = None


@attrs.frozen
class TaskTrace:
    """When one execution of a task passed its stations, on the run's clock in seconds; None where it did not."""

    task: Task
    dispatched_at: float | None = None
    slot_acquired_at: float | None = None
    completed_at: float | None = None
    status: str = ""
    error: str | None = None


@attrs.frozen
class FrontierDelta:
    """Tasks that a tracker mutation added to, or removed from, the ready frontier."""

    added: tuple[Task, ...] = ()
    removed: tuple[Task, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether the mutation changed nothing."""
        return not self.added and not self.removed


@attrs.frozen
class SchedulableTask:
    """A ready task with what ordering and admission need: its group and its resource request.

    task_id identifies it in queue and ledger. payload is the scheduler's own and never read by queue or admission.
    request_resource_key names the request domain it will mostly call, for the pressure advisory only.
    """

    task_id: str
    payload: object
    group: TaskGroupSpec
    resource_request: SchedulerResourceRequest
    request_resource_key: RequestResourceKey | None = None


def stable_task_id(task: Task) -> str:
    """An id of `task` that is the same in every process and differs between any two tasks of a run."""
    return task._stable_id

"""What task admission answers: a lease or a denial, and why nothing moves.

A lease is the right to run one task, and holds all units that the task asks for. It is a context manager whose exit
gives them back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType, TracebackType
from typing import Final, Literal, Protocol, TypeAlias

import attrs
import trio

from trio_sched._resources.release import ReleaseResult
from trio_sched._resources.task import SchedulableTask, SchedulerResourceKey, TaskGroupKey
from trio_sched._task.ledger import TaskAdmissionView

__all__ = [
    "LeakedTaskLease",
    "TaskAdmissionBlockSummary",
    "TaskAdmissionDecision",
    "TaskAdmissionDenied",
    "TaskAdmissionDenyReason",
    "TaskAdmissionLease",
]

TaskAdmissionDenyReason = Literal["no_capacity", "group_cap", "borrow_debt", "shutdown", "policy_denial"]

_MOST_NAMED: Final = 8
_NOTHING: Mapping[SchedulerResourceKey, int] = MappingProxyType({})


class LeaseIssuer(Protocol):
    """Whoever granted a lease and takes it back."""

    def release(self, lease: TaskAdmissionLease) -> ReleaseResult:
        """Take `lease` back; never raises."""
        ...


@attrs.frozen(eq=False)
class TaskAdmissionLease:
    """The right to run `item`, which holds `resources` until it is released. Leaving its `with` block releases it.

    lease_id is unique within a controller, controller_generation among the controllers of a process. borrowed: the part
    of `resources` that lies above the group's share.
    """

    lease_id: int
    item: SchedulableTask
    resources: Mapping[SchedulerResourceKey, int]
    acquired_at: float
    controller_generation: int
    borrowed: Mapping[SchedulerResourceKey, int] = _NOTHING
    issuer: LeaseIssuer | None = attrs.field(default=None, repr=False)

    @trio.lowlevel.enable_ki_protection
    def __enter__(self) -> TaskAdmissionLease:  # noqa: PYI034 - `Self` needs Python 3.11, and nobody subclasses a lease
        if self.issuer is None:
            raise RuntimeError("a lease that no controller granted cannot be entered")
        return self

    @trio.lowlevel.enable_ki_protection
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self.issuer is not None
        self.issuer.release(self)


@attrs.frozen
class TaskAdmissionDenied:
    """Why `item` may not run now. diagnostics: the facts that decided.

    available_after: when waiting alone may change the answer, on the controller's clock; None if only a release or
    another change can, as is always so with the policies of this package. snapshot: what was held and free when
    `try_acquire` refused; it says nothing of the item, so denials are compared without it.
    """

    item: SchedulableTask
    reason: TaskAdmissionDenyReason
    available_after: float | None = None
    snapshot: TaskAdmissionView | None = attrs.field(default=None, eq=False)
    diagnostics: Mapping[str, object] = attrs.field(factory=dict[str, object])


TaskAdmissionDecision: TypeAlias = TaskAdmissionLease | TaskAdmissionDenied


@attrs.frozen
class TaskAdmissionBlockSummary:
    """Why the queued heads cannot run: how many groups' heads are refused for each reason, the most frequent first.

    available_after: the earliest time at which waiting alone may change an answer. groups_by_reason: the groups
    concerned, at most eight for each reason.
    """

    queued_count: int
    dominant_denial_reasons: Mapping[TaskAdmissionDenyReason, int]
    available_after: float | None = None
    diagnostics: Mapping[str, object] = attrs.field(factory=dict[str, object])
    groups_by_reason: Mapping[TaskAdmissionDenyReason, tuple[str, ...]] = attrs.field(
        factory=dict[TaskAdmissionDenyReason, tuple[str, ...]]
    )

    @classmethod
    def of(cls, queued_count: int, denials: Iterable[TaskAdmissionDenied]) -> TaskAdmissionBlockSummary:
        """Sum up the denials of all heads."""
        groups: dict[TaskAdmissionDenyReason, list[str]] = {}
        times: list[float] = []
        for denied in denials:
            groups.setdefault(denied.reason, []).append(str(denied.item.group.key))
            if denied.available_after is not None:
                times.append(denied.available_after)
        by_count = sorted(groups.items(), key=lambda refused: -len(refused[1]))
        return cls(
            queued_count,
            MappingProxyType({reason: len(named) for reason, named in by_count}),
            min(times, default=None),
            groups_by_reason=MappingProxyType({reason: tuple(named[:_MOST_NAMED]) for reason, named in by_count}),
        )


@attrs.frozen
class LeakedTaskLease:
    """A task lease that is still held, and by which task."""

    lease_id: int
    task_id: str
    group: TaskGroupKey
    resources: Mapping[SchedulerResourceKey, int]
    held_since: float

    @classmethod
    def of(cls, lease: TaskAdmissionLease) -> LeakedTaskLease:
        """Describe `lease`."""
        item = lease.item
        return cls(lease.lease_id, item.task_id, item.group.key, lease.resources, lease.acquired_at)

    def __str__(self) -> str:
        held = ", ".join(f"{amount} of {resource}" for resource, amount in self.resources.items())
        return f"task lease {self.lease_id} of task {self.task_id!r} (group {self.group}) holds {held}"

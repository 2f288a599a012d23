"""Task admission policies: may this task run now, given that its units are free?

A policy is pure. It sees the queue and the ledger and answers; what a grant or a release does to a group's debt it
returns as a delta, which the controller applies in the same step as the ledger. The policies of this package are strict
fair sharing (`_task/strict.py`) and bounded borrowing (`_task/borrow.py`); `_task/competition.py` is what they share.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

import attrs

from trio_sched import _validation as check
from trio_sched._errors import InvalidTypeError
from trio_sched._resources.task import SchedulableTask, SchedulerResourceKey, TaskGroupKey
from trio_sched._task.leases import TaskAdmissionDenyReason, TaskAdmissionLease, TaskAdmissionView
from trio_sched._task.queue_view import QueueView

__all__ = [
    "ALLOWED",
    "NO_CHANGE",
    "PolicyStateDelta",
    "TaskAdmissionPolicy",
    "TaskAdmissionPolicyDecision",
]

_NO_UNITS: Mapping[SchedulerResourceKey, int] = MappingProxyType({})
_NO_DIAGNOSTICS: Mapping[str, object] = MappingProxyType({})


@attrs.frozen
class TaskAdmissionPolicyDecision:
    """A policy's answer. `borrowed`: the units that a grant would take above the group's share."""

    allowed: bool
    reason: TaskAdmissionDenyReason | None = None
    available_after: float | None = None
    diagnostics: Mapping[str, object] = _NO_DIAGNOSTICS
    borrowed: Mapping[SchedulerResourceKey, int] = _NO_UNITS


@attrs.frozen
class PolicyStateDelta:
    """What a grant or release does to debt. A negative change is a repayment, and repays min(debt, units)."""

    debt_changes: Mapping[tuple[TaskGroupKey, SchedulerResourceKey], int] = attrs.field(
        factory=dict[tuple[TaskGroupKey, SchedulerResourceKey], int]
    )
    diagnostic_counters: Mapping[str, int] = attrs.field(factory=dict[str, int])

    def __attrs_post_init__(self) -> None:
        for owing, change in self.debt_changes.items():
            _check_change(owing, change)
        for name, count in self.diagnostic_counters.items():
            check.check_text("PolicyStateDelta.diagnostic_counters key", name)
            check.check_int(f"PolicyStateDelta.diagnostic_counters[{name!r}]", count, minimum=0)


def _check_change(owing: object, change: object) -> None:
    match owing:
        case (TaskGroupKey(), str()):
            if not isinstance(change, int) or isinstance(change, bool):
                raise InvalidTypeError(f"PolicyStateDelta.debt_changes[{owing!r}]", change, "an int")
        case _:
            raise InvalidTypeError("a key of PolicyStateDelta.debt_changes", owing, "a group and a resource")


ALLOWED = TaskAdmissionPolicyDecision(allowed=True)
NO_CHANGE = PolicyStateDelta(MappingProxyType({}), MappingProxyType({}))


class TaskAdmissionPolicy(Protocol):
    """Decides whether a task whose units are free may run now.

    A policy may also have `standing(item, admission_view)`: a hashable value such that heads of equal request and equal
    standing always get the same answer at any one instant, and that changes only with what the item's own group holds
    and owes. The queue then examines one head of each kind; without it, one of each group, in fair order.
    """

    def evaluate(
        self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
    ) -> TaskAdmissionPolicyDecision:
        """Answer for `item` as head of its group. Pure; may be called any number of times."""
        ...

    def on_acquire(self, lease: TaskAdmissionLease, decision: TaskAdmissionPolicyDecision) -> PolicyStateDelta:
        """`lease` was granted by `decision`."""
        ...

    def on_release(self, lease: TaskAdmissionLease) -> PolicyStateDelta:
        """`lease` was given back."""
        ...

"""What passes between the scheduler and its neighbours: row groups from the plan to the store, and every report.

A plan hands out one row group at a time, when it is asked, so that a run of a million row groups holds no more of them
than are in flight. Whatever may let the scheduler's loop go on reaches it as a report, over one channel, in the order
in which it happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import attrs
import trio

from trio_sched import _validation as check
from trio_sched._resources.task import Task

__all__ = [
    "AdmissionChanged",
    "FixedRowGroupPlan",
    "NoProgress",
    "PlanExhausted",
    "Report",
    "RowDrop",
    "RowFailure",
    "RowFiltered",
    "RowGroup",
    "RowGroupAbandoned",
    "RowGroupDurable",
    "RowGroupOpened",
    "RowGroupPlan",
    "RowGroupStore",
    "SkippingRowGroupPlan",
    "WorkerDone",
]


@attrs.frozen
class RowGroup:
    """Rows `start` to `start + size` of the dataset."""

    index: int
    start: int
    size: int


class RowGroupPlan(Protocol):
    """Where the next row group comes from."""

    async def next_row_group(self) -> RowGroup | None:
        """The next row group in order, or None when there are no more."""
        ...


class SkippingRowGroupPlan(RowGroupPlan, Protocol):
    """A plan that can skip row groups, which costs less than making them."""

    async def skip(self, row_groups: int) -> int:
        """Skip the next `row_groups` row groups; returns how many rows they had, fewer where the plan ended."""
        ...


class RowGroupStore(Protocol):
    """Where a complete row group goes."""

    def open(self, row_group: RowGroup) -> None:
        """Make room for a row group that is admitted."""
        ...

    async def write(self, row_group: RowGroup, living_rows: Sequence[int]) -> None:
        """Make the row group durable; `living_rows` are the indices of its active rows, those not dropped."""
        ...


@attrs.define(eq=False)
class FixedRowGroupPlan:
    """`records` rows in row groups of `buffer_size`; the last may be smaller. Row `start_offset` comes first."""

    records: int = attrs.field(validator=check.non_negative_int)
    buffer_size: int = attrs.field(validator=check.positive_int)
    start_offset: int = attrs.field(default=0, validator=check.non_negative_int)
    _next: int = attrs.field(default=0, init=False)

    async def next_row_group(self) -> RowGroup | None:
        """The next row group; computed, so nothing is kept for those to come. Does not checkpoint."""
        index = self._next
        done = index * self.buffer_size
        if done >= self.records:
            return None
        self._next += 1
        return RowGroup(index, self.start_offset + done, min(self.buffer_size, self.records - done))

    async def skip(self, row_groups: int) -> int:
        """Pass over row groups, at the same cost for any number. Does not checkpoint."""
        first = min(self.records, self._next * self.buffer_size)
        self._next += row_groups
        return min(self.records, self._next * self.buffer_size) - first


@attrs.frozen
class RowFailure:
    """One row that a task could not make, and why."""

    row_index: int
    error: Exception


@attrs.frozen
class RowFiltered:
    """One row that a task removed on purpose: dropped like any other, but no failure."""

    row_index: int


RowDrop: TypeAlias = RowFailure | RowFiltered
"""One row that a task did not make: a `RowFailure`, or a `RowFiltered` where it was removed on purpose."""


@attrs.define(eq=False)
class WorkerDone:
    """A worker has released its lease.

    row_drops: single rows that the task did not make. error: what failed the whole task. stopped: the worker was
    cancelled because its rows were rejected while it ran.
    """

    task: Task
    row_drops: Sequence[RowDrop]
    error: Exception | None
    stopped: bool = False


@attrs.frozen(eq=False)
class RowGroupOpened:
    """A row group was admitted; `nursery` owns its workers.

    Setting `complete` lets it be written, or where `abandoned` is set before, lets it end without.
    """

    row_group: RowGroup
    nursery: trio.Nursery
    complete: trio.Event
    abandoned: trio.Event


@attrs.frozen
class RowGroupDurable:
    """A row group is on disk and all its workers have ended."""

    row_group: RowGroup


@attrs.frozen
class RowGroupAbandoned:
    """A row group was cancelled before it was complete; all its workers have ended, and nothing of it is written."""

    row_group: RowGroup


@attrs.frozen
class PlanExhausted:
    """No row group will be admitted any more; there were `row_groups`, of which some may not have opened yet."""

    row_groups: int


@attrs.frozen
class AdmissionChanged:
    """Task admission may take what it refused: a limit was raised, or something was released."""


@attrs.frozen
class NoProgress:
    """For as long as a run may go without any progress there has been none."""


Report: TypeAlias = (
    WorkerDone | RowGroupOpened | RowGroupDurable | RowGroupAbandoned | PlanExhausted | AdmissionChanged | NoProgress
)

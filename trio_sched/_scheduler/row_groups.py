"""What a row group is, where row groups come from, and where they go.

A plan hands out one row group at a time, when it is asked, so that a run of a million row groups holds no more of them
than are in flight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import attrs

from trio_sched import _validation as check

__all__ = ["FixedRowGroupPlan", "RowGroup", "RowGroupPlan", "RowGroupStore", "SkippingRowGroupPlan"]


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
    """A plan that can pass over row groups, which costs less than making them."""

    async def skip(self, row_groups: int) -> int:
        """Pass over the next `row_groups` row groups; says how many rows they had, fewer where the plan ended."""
        ...


class RowGroupStore(Protocol):
    """Where a complete row group goes."""

    def open(self, row_group: RowGroup) -> None:
        """Make room for a row group that is admitted."""
        ...

    async def write(self, row_group: RowGroup, living_rows: Sequence[int]) -> None:
        """Make the row group durable; `living_rows` are the row indices that were not dropped."""
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

"""The row groups that are still to do.

What is durable is passed over. Where the input's content is part of the dataset's identity, or there is no input, that
is counting. The rows of an iterable are read again instead and compared with what the parts hold, since nothing else
tells whether they are the same. Where processors may have changed what the parts hold, their number has to do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from trio_sched._errors import TrioSchedError
from trio_sched._pipeline.cells import MalformedOutputError, keep_cell, read_cell
from trio_sched._pipeline.durable_parts import DurableParts, read_missing_rows
from trio_sched._pipeline.folder import RunFolder
from trio_sched._pipeline.parts import PartFormat
from trio_sched._pipeline.sources import Row, RowReader
from trio_sched._scheduler.row_groups import RowGroup, RowGroupPlan, SkippingRowGroupPlan
from trio_sched._util import Blocking

__all__ = ["InputChangedError", "ResumePlan", "resume_plan"]


class InputChangedError(TrioSchedError, ValueError):
    """The input of a resumed run is not what the earlier attempt was given. Attributes: `source`, `problem`."""

    def __init__(self, source: str, problem: str) -> None:
        self.source = source
        self.problem = problem
        super().__init__(source, problem)

    def __str__(self) -> str:
        return (
            f"{self.source} changed since the earlier attempt: {self.problem}; "
            "give the same rows in the same order, or begin in another folder"
        )


class ResumePlan:
    """A plan without the row groups that are durable; indices and starts of the others stay."""

    def __init__(self, plan: SkippingRowGroupPlan, durable: DurableParts, source: str) -> None:
        self._plan = plan
        self._durable = durable
        self._source = source
        self._next = 0

    async def next_row_group(self) -> RowGroup | None:
        """The next row group that is not durable."""
        done = self._durable.row_groups.run_from(self._next)
        if done:
            first, self._next = self._next, self._next + done
            rows = await self._pass_over(first, done)
            expected = self._durable.rows_of(first, done)
            if rows != expected:
                raise InputChangedError(
                    self._source,
                    f"row groups {first} to {first + done - 1} hold {expected} rows, and it has {rows} for them",
                )
        row_group = await self._plan.next_row_group()
        self._next += 1
        return row_group

    async def _pass_over(self, first: int, row_groups: int) -> int:
        return await self._plan.skip(row_groups)


class _ComparingResumePlan(ResumePlan):
    """Reads the rows that are done again and compares them with their parts."""

    def __init__(
        self, reader: RowReader, durable: DurableParts, blocking: Blocking, compare: Callable[[RowGroup], None]
    ) -> None:
        super().__init__(reader, durable, reader.source)
        self._reader = reader
        self._blocking = blocking
        self._compare = compare

    async def _pass_over(self, first: int, row_groups: int) -> int:
        rows = 0
        for _ in range(row_groups):
            row_group = await self._reader.next_row_group()
            if row_group is None:
                break
            rows += row_group.size
            await self._blocking(self._compare, row_group)
            self._reader.forget(row_group.index)
        return rows


def resume_plan(
    plan: SkippingRowGroupPlan,
    durable: DurableParts,
    folder: RunFolder,
    part_format: PartFormat,
    blocking: Blocking,
    *,
    keeps_input: bool,
) -> RowGroupPlan:
    """The plan of what is still to do: `plan` itself where nothing is durable.

    keeps_input: whether the parts hold the input's rows as they came, so that they can be compared.
    """
    if not durable.row_groups:
        return plan
    if not isinstance(plan, RowReader):
        return ResumePlan(plan, durable, "the number of records")
    if plan.file is not None or not keeps_input:
        return ResumePlan(plan, durable, plan.source)
    reader = plan

    def compare(row_group: RowGroup) -> None:
        missing = set(read_missing_rows(folder, row_group.index).all)
        numbered = enumerate(reader.take(row_group.index), row_group.start)
        living = [(number, row) for number, row in numbered if number not in missing]
        kept = part_format.read(folder.part(row_group.index, part_format.name))
        for (number, row), held in zip(living, kept, strict=False):
            for column in reader.columns:
                if not _is_same(column, row, held[column]):
                    raise InputChangedError(reader.source, f"row {number + 1} has another {column!r}")

    return _ComparingResumePlan(reader, durable, blocking, compare)


def _is_same(column: str, row: Row, held: object) -> bool:
    try:
        return cast("object", read_cell(keep_cell(column, row[column]))) == held
    except MalformedOutputError:
        return False

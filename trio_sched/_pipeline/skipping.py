"""Cells that are left out: a rule says so, or a cell that they need was left out.

A skipped cell holds its column's `skip_value`, null unless said otherwise, and its function is never called for it.
Columns that need it are skipped for that row too, unless they were declared with `skip_with_needs=False`: those are
given the value that it holds. Batch columns do not see the rows for which they are skipped.

A rule runs in the run's own thread, once per row, before the call; it should only look. A rule that raises gives up its
row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import attrs

from trio_sched._errors import PipelineError, TrioSchedError
from trio_sched._pipeline.buffers import RowGroupBuffer
from trio_sched._pipeline.cells import Cell, MalformedOutputError
from trio_sched._pipeline.functions import accept_function
from trio_sched._pipeline.outputs import Outputs

__all__ = ["SkipRule", "SkipRuleError", "SkipWhen", "Skipper", "skip_rule"]

SkipWhen: TypeAlias = Callable[..., object]


class SkipRuleError(TrioSchedError):
    """A column's `skip_when` raised; its cause is what it raised. Attribute: `column`."""

    def __init__(self, column: str) -> None:
        self.column = column
        super().__init__(column)

    def __str__(self) -> str:
        return (
            f"skip_when of column {self.column!r} raised {self.__cause__!r}; it must say whether to skip, for any row"
        )


@attrs.frozen(eq=False)
class SkipRule:
    """when: says whether to skip a row. with_needs: whether to where a needed cell was skipped. cells: held instead."""

    when: SkipWhen | None
    with_needs: bool
    cells: tuple[Cell, ...]


def skip_rule(owner: str, outputs: Outputs, when: SkipWhen | None, value: object, with_needs: bool) -> SkipRule:
    """Check a column's rule. value: in the form in which its function returns one; None for null everywhere."""
    if when is not None and accept_function(f"skip_when of {owner}", when, ["row"]):
        raise PipelineError(
            f"skip_when of {owner} must be a sync function, got {when!r}; it should only look at the row"
        )
    if value is None:
        return SkipRule(when, with_needs, (None,) * len(outputs.columns))
    try:
        return SkipRule(when, with_needs, outputs.keep(value))
    except MalformedOutputError as error:
        raise PipelineError(f"skip_value of {owner} is {error.problem}; give {error.expected}") from error


class Skipper:
    """Skips the cells of one column. sources: the nodes it needs a column of, as far as those may be skipped."""

    def __init__(self, column: str, needs: tuple[str, ...], outputs: Outputs, rule: SkipRule, sources: tuple[str, ...]):
        self._column = column
        self._needs = needs
        self._columns = outputs.columns
        self._rule = rule
        self._sources = sources

    def skips(self, buffer: RowGroupBuffer, row_index: int) -> bool:
        """Skip the cell if that is due. Raises `SkipRuleError`."""
        if not buffer.is_skipped(self._sources, row_index) and not self._says_so(buffer, row_index):
            return False
        buffer.put_all(self._columns, row_index, self._rule.cells)
        buffer.mark_skipped(self._column, row_index)
        return True

    def _says_so(self, buffer: RowGroupBuffer, row_index: int) -> bool:
        if self._rule.when is None:
            return False
        try:
            return bool(self._rule.when(buffer.row(row_index, self._needs)))
        except Exception as error:
            raise SkipRuleError(self._column) from error

"""From what a function returned to cells: the one place where the shape of a result is checked.

A function that makes one column returns its value. One that was declared with `outputs` or `side_effect_columns`
returns a mapping from column to value: every output is there, a side-effect column may be absent and is then null, and
there is nothing else. A function over many rows returns a sequence with one such result per row, in the rows' order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import attrs

from trio_sched._pipeline.cells import Cell, keep_cell, malformed

__all__ = ["Outputs", "one_per_row"]


@attrs.frozen
class Outputs:
    """The columns that one function writes. own: always, the first names it. side_effects: where it gives a value.

    as_mapping: whether it returns a mapping rather than the value of its only column.
    """

    own: tuple[str, ...]
    side_effects: tuple[str, ...] = ()
    as_mapping: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """All of them."""
        return self.own + self.side_effects

    def keep(self, value: object) -> tuple[Cell, ...]:
        """What is kept of one row's result, one cell for each of `columns`. Raises `MalformedOutputError`."""
        if not self.as_mapping:
            return (keep_cell(self.own[0], value),)
        if not isinstance(value, Mapping):
            raise malformed(self.own[0], value, "instead of a mapping", self._expected)
        given = dict(cast("Mapping[object, object]", value))
        missing = [column for column in self.own if column not in given]
        unknown = [column for column in given if column not in self.columns]
        if missing or unknown:
            problem = f"in which {missing} is missing" if missing else f"with {unknown}, which is not declared"
            raise malformed(self.own[0], given, problem, self._expected)
        return tuple(keep_cell(column, given.get(column)) for column in self.columns)

    @property
    def _expected(self) -> str:
        may_add = f", and if it likes {', '.join(map(repr, self.side_effects))}" if self.side_effects else ""
        return f"a mapping with {', '.join(map(repr, self.own))}{may_add}"


def one_per_row(column: str, made: object, count: int) -> list[object]:
    """`made` as a list of `count` results. Raises `MalformedOutputError` if it is no such sequence."""
    expected = f"a list with one value for each of the {count} rows"
    if isinstance(made, str | bytes | bytearray) or not isinstance(made, Sequence):
        raise malformed(column, made, "instead of a sequence", expected)
    results = list(cast("Sequence[object]", made))
    if len(results) != count:
        raise malformed(column, results, f"of {len(results)} values for {count} rows", expected)
    return results

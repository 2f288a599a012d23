"""Rows in the making: the cells of the row groups that are open, column by column."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from trio_sched._events.records import JsonValue
from trio_sched._pipeline.cells import Cell, EncodedCell, cell_text, read_cell

__all__ = ["RowGroupBuffer"]


class RowGroupBuffer:
    """The cells of one row group. Who reads a row gets copies. filtered: rows that processors removed."""

    __slots__ = ("_columns", "_skipped", "filtered", "size")

    def __init__(self, columns: Iterable[str], size: int) -> None:
        self.size = size
        self.filtered: set[int] = set()
        self._columns: dict[str, list[Cell]] = {column: [None] * size for column in columns}
        self._skipped: dict[str, set[int]] = {}

    @property
    def columns(self) -> Iterable[str]:
        """The columns in the graph's order."""
        return self._columns.keys()

    def put(self, column: str, row_index: int, cell: Cell) -> None:
        """Keep one cell."""
        self._columns[column][row_index] = cell

    def put_all(self, columns: Sequence[str], row_index: int, cells: Sequence[Cell]) -> None:
        """Keep the cells of some columns of one row."""
        for column, cell in zip(columns, cells, strict=True):
            self._columns[column][row_index] = cell

    def row(self, row_index: int, columns: Iterable[str]) -> dict[str, JsonValue]:
        """The named cells of one row."""
        held = self._columns
        row: dict[str, JsonValue] = {}
        for column in columns:
            cell = held[column][row_index]
            row[column] = read_cell(cell) if isinstance(cell, EncodedCell) else cell
        return row

    def mark_skipped(self, node: str, row_index: int) -> None:
        """Note that the cells of a node of the graph were left out in one row."""
        self._skipped.setdefault(node, set()).add(row_index)

    def is_skipped(self, nodes: Iterable[str], row_index: int) -> bool:
        """Whether the cells of any of these nodes were left out in one row."""
        return any(row_index in self._skipped.get(node, ()) for node in nodes)

    def skipped_counts(self, living_rows: Sequence[int]) -> dict[str, int]:
        """In how many of the living rows the cells of each node were left out."""
        living = set(living_rows)
        counts = {node: len(rows & living) for node, rows in self._skipped.items()}
        return {node: count for node, count in counts.items() if count}

    def lines(self, living_rows: Sequence[int]) -> str:
        """The living rows as JSON lines, columns in the graph's order."""
        keyed = [(json.dumps(column, ensure_ascii=False), cells) for column, cells in self._columns.items()]
        return "".join(
            "{" + ", ".join(f"{key}: {cell_text(cells[row])}" for key, cells in keyed) + "}\n" for row in living_rows
        )

"""The cells of open row groups, column by column, and how a complete row group becomes a part file.

A row group that lacks rows leaves a list of them in `dropped/`, written before its part. So the part's rows and the
list's rows together are the row group's size, and a part by itself proves, with its whole name and its whole count,
that it is complete. If a crash leaves the list without the part, the next attempt removes the list.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from trio_sched._events.records import JsonValue
from trio_sched._pipeline.errors import OutputNotWritableError
from trio_sched._pipeline.folder import RunFolder, make_folder, write_durably
from trio_sched._pipeline.outputs import Cell, EncodedCell, MendedCell, read_cell
from trio_sched._pipeline.parts import PartFormat
from trio_sched._scheduler.messages import RowGroup
from trio_sched._util import Blocking, with_open_files

__all__ = ["PartStore", "RowGroupBuffer"]


class RowGroupBuffer:
    """The cells of one row group; reading a row copies them. filtered: rows that processors removed."""

    __slots__ = ("_columns", "_fallbacks", "_refused", "_skipped", "filtered", "size")

    def __init__(self, columns: Iterable[str], size: int) -> None:
        self.size = size
        self.filtered: set[int] = set()
        self._columns: dict[str, list[Cell]] = {column: [None] * size for column in columns}
        self._skipped: dict[str, set[int]] = {}
        self._fallbacks: dict[str, set[int]] = {}
        self._refused: dict[tuple[str, int | None], int] = {}

    @property
    def columns(self) -> Mapping[str, Sequence[Cell]]:
        """The cells of each column, columns in the graph's order."""
        return self._columns

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
        """Record that the cells of a node of the graph were skipped in one row."""
        self._skipped.setdefault(node, set()).add(row_index)

    def is_skipped(self, nodes: Iterable[str], row_index: int) -> bool:
        """Whether the cells of any of these nodes were skipped in one row."""
        return any(row_index in self._skipped.get(node, ()) for node in nodes)

    def skipped_counts(self, active_rows: Sequence[int]) -> dict[str, int]:
        """In how many of the active rows the cells of each node were skipped."""
        return _counts(self._skipped, active_rows)

    def count_refusal(self, node: str, row_index: int | None) -> int:
        """Note that what a node's function made for a row was not kept; how often that was so.

        None for all its rows together. Kept here, so that a task which runs again has not forgotten it.
        """
        count = self._refused[node, row_index] = self._refused.get((node, row_index), 0) + 1
        return count

    def mark_fallback(self, node: str, row_index: int) -> None:
        """Record that the cells of a node hold its `on_failure` in one row."""
        self._fallbacks.setdefault(node, set()).add(row_index)

    def fallback_counts(self, active_rows: Sequence[int]) -> dict[str, int]:
        """In how many of the active rows the cells of each node hold its `on_failure`."""
        return _counts(self._fallbacks, active_rows)

    def null_counts(self, active_rows: Sequence[int]) -> dict[str, int]:
        """By column, in how many of the active rows its own function left it null."""
        null: dict[str, set[int]] = {}
        for column, cells in self._columns.items():
            if type(None) in map(type, cells):
                held_on_purpose = self._skipped.get(column, set()) | self._fallbacks.get(column, set())
                null[column] = {row for row in active_rows if cells[row] is None} - held_on_purpose
        return _counts(null, active_rows)

    def mended_counts(self, active_rows: Sequence[int]) -> dict[str, int]:
        """By column, in how many of the active rows text was mended."""
        mended = {column for column, cells in self._columns.items() if MendedCell in map(type, cells)}
        rows = {
            column: {row for row in active_rows if type(self._columns[column][row]) is MendedCell} for column in mended
        }
        return _counts(rows, active_rows)


def _counts(marked: Mapping[str, AbstractSet[int]], active_rows: Sequence[int]) -> dict[str, int]:
    if not marked:
        return {}
    active = set(active_rows)
    counts = {name: len(rows & active) for name, rows in marked.items()}
    return {name: count for name, count in counts.items() if count}


class PartStore:
    """Holds the buffers of the open row groups and writes their parts; a `RowGroupStore`.

    forget: called with the index of each row group that is written. By column, in how many of the rows written: the
    cell was skipped (skipped_cells), it holds `on_failure` (fallback_cells), text in it was mended (mended_cells), its
    own function left it null (null_cells).
    """

    def __init__(
        self,
        folder: RunFolder,
        columns: Sequence[str],
        part_format: PartFormat,
        *,
        blocking: Blocking,
        forget: Callable[[int], None] | None = None,
    ) -> None:
        self._folder = folder
        self._columns = columns
        self._format = part_format
        self._blocking = blocking
        self._forget = forget
        self._open: dict[int, tuple[RowGroup, RowGroupBuffer]] = {}
        self.skipped_cells: dict[str, int] = {}
        self.fallback_cells: dict[str, int] = {}
        self.mended_cells: dict[str, int] = {}
        self.null_cells: dict[str, int] = {}

    def open(self, row_group: RowGroup) -> None:
        """Make room for a row group that was admitted."""
        self._open[row_group.index] = (row_group, RowGroupBuffer(self._columns, row_group.size))

    def row_group(self, index: int) -> RowGroup:
        """An open row group."""
        return self._open[index][0]

    def buffer(self, index: int) -> RowGroupBuffer:
        """The cells of an open row group."""
        return self._open[index][1]

    async def write(self, row_group: RowGroup, living_rows: Sequence[int]) -> None:
        """Write the part and forget the row group's cells and input; wait for a file if none can be opened.

        Raises `OutputNotWritableError`.
        """
        _, buffer = self._open.pop(row_group.index)
        part = self._folder.part(row_group.index, self._format.name)
        try:
            await with_open_files(self._blocking, self._write, part, row_group, buffer, living_rows)
        except OSError as error:
            raise OutputNotWritableError(part, error) from error
        _add(self.skipped_cells, buffer.skipped_counts(living_rows))
        _add(self.fallback_cells, buffer.fallback_counts(living_rows))
        _add(self.mended_cells, buffer.mended_counts(living_rows))
        _add(self.null_cells, buffer.null_counts(living_rows))
        if self._forget is not None:
            self._forget(row_group.index)

    def _write(self, part: Path, row_group: RowGroup, buffer: RowGroupBuffer, active_rows: Sequence[int]) -> None:
        content = self._format.encode(buffer.columns, active_rows)
        if len(active_rows) < row_group.size:
            self._write_missing(row_group, buffer, active_rows)
        write_durably(part, content)

    def _write_missing(self, row_group: RowGroup, buffer: RowGroupBuffer, active_rows: Sequence[int]) -> None:
        missing = sorted(set(range(row_group.size)) - set(active_rows))
        rows: dict[str, JsonValue] = {
            "dropped_rows": [row_group.start + index for index in missing if index not in buffer.filtered],
            "filtered_rows": [row_group.start + index for index in missing if index in buffer.filtered],
        }
        make_folder(self._folder.dropped)
        write_durably(self._folder.dropped_file(row_group.index), (json.dumps(rows) + "\n").encode())


def _add(sums: dict[str, int], counts: Mapping[str, int]) -> None:
    for column, count in counts.items():
        sums[column] = sums.get(column, 0) + count

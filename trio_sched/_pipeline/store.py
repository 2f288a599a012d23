"""Where the cells of open row groups are kept, and where complete ones go: a part file, there whole or not at all.

A row group that lacks rows leaves a list of them in `dropped/`, written before its part. So the part's rows and the
list's rows together are the row group's size, and a part proves by itself, whole name and whole count, that it is
complete. What a crash leaves of the list without the part is removed by the next attempt.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from trio_sched._blocking import Blocking
from trio_sched._events.records import JsonValue
from trio_sched._pipeline.buffers import RowGroupBuffer
from trio_sched._pipeline.durable import make_folder, write_durably
from trio_sched._pipeline.folder import RunFolder
from trio_sched._pipeline.output_errors import OutputNotWritableError
from trio_sched._pipeline.parts import PartFormat
from trio_sched._scheduler.row_groups import RowGroup

__all__ = ["PartStore"]


class PartStore:
    """The buffers of the open row groups, and where they go; a `RowGroupStore`.

    skipped_cells: by column, in how many of the rows written a skip rule left the cell out.
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
        """Write the part and forget the row group's cells and input. Raises `OutputNotWritableError`."""
        _, buffer = self._open.pop(row_group.index)
        part = self._folder.part(row_group.index, self._format.name)
        try:
            await self._blocking(lambda: self._write(part, row_group, buffer, living_rows))
        except OSError as error:
            raise OutputNotWritableError(part, error) from error
        for column, count in buffer.skipped_counts(living_rows).items():
            self.skipped_cells[column] = self.skipped_cells.get(column, 0) + count
        if self._forget is not None:
            self._forget(row_group.index)

    def _write(self, part: Path, row_group: RowGroup, buffer: RowGroupBuffer, living_rows: Sequence[int]) -> None:
        content = self._format.encode(buffer, living_rows)
        if len(living_rows) < row_group.size:
            self._write_missing(row_group, buffer, living_rows)
        write_durably(part, content)

    def _write_missing(self, row_group: RowGroup, buffer: RowGroupBuffer, living_rows: Sequence[int]) -> None:
        missing = sorted(set(range(row_group.size)) - set(living_rows))
        rows: dict[str, JsonValue] = {
            "dropped_rows": [row_group.start + index for index in missing if index not in buffer.filtered],
            "filtered_rows": [row_group.start + index for index in missing if index in buffer.filtered],
        }
        make_folder(self._folder.dropped)
        write_durably(self._folder.dropped_file(row_group.index), (json.dumps(rows) + "\n").encode())

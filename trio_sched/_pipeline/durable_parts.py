"""How far a run has come, read from its part files and from nothing else.

A part counts if it is whole: it reads to its end, has the dataset's columns, and its rows together with those that its
list in `dropped/` names are as many as the row group has. A part that is there and not whole is a reason to stop and
ask, never to overwrite.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import attrs

from trio_sched._pipeline.folder import RunFolder
from trio_sched._pipeline.output_errors import OutputDamagedError
from trio_sched._pipeline.parts import PartFormat, count_rows
from trio_sched._row_group_set import RowGroupSet
from trio_sched._util import parse_json

__all__ = ["DurableParts", "EarlierRows", "MissingRows", "read_durable_parts", "read_missing_rows"]


@attrs.frozen
class EarlierRows:
    """What was durable before this attempt. dropped: rows given up; filtered: removed by processors."""

    row_groups: int = 0
    rows: int = 0
    dropped: int = 0
    filtered: int = 0


@attrs.frozen
class MissingRows:
    """The rows of the dataset that a durable row group lacks: given up, and removed by processors."""

    dropped: Sequence[int] = ()
    filtered: Sequence[int] = ()

    @property
    def all(self) -> tuple[int, ...]:
        """All of them."""
        return (*self.dropped, *self.filtered)


@attrs.frozen(eq=False)
class DurableParts:
    """The row groups that are done. last_size: rows of the last of them; all others have `buffer_size`."""

    buffer_size: int
    row_groups: RowGroupSet = attrs.field(factory=RowGroupSet)
    last_row_group: int | None = None
    last_size: int = 0
    earlier: EarlierRows = attrs.field(factory=EarlierRows)

    def rows_of(self, first: int, row_groups: int) -> int:
        """How many rows of the input a run of done row groups stands for."""
        last = self.last_row_group
        if last is not None and first <= last < first + row_groups:
            return (row_groups - 1) * self.buffer_size + self.last_size
        return row_groups * self.buffer_size


def read_durable_parts(
    folder: RunFolder, part_format: PartFormat, columns: Sequence[str], *, buffer_size: int, records: int | None
) -> DurableParts:
    """Read every part. records: rows of the dataset, None where only the input knows.

    Raises `OutputDamagedError` for a part that is not whole, `OSError` for one that cannot be read.
    """
    found = folder.parts()
    row_groups = RowGroupSet()
    rows = dropped = filtered = size = 0
    for position, (row_group, format_name) in enumerate(found):
        part = folder.part(row_group, format_name)
        if format_name != part_format.name:
            raise OutputDamagedError(part, f"it is not {part_format.name}, as the other parts are")
        living, missing = _read_part(folder, row_group, part_format, part, columns)
        size = living + len(missing.all)
        most = buffer_size if records is None else max(0, min(buffer_size, records - row_group * buffer_size))
        may_be_shorter = records is None and position == len(found) - 1
        if size > most or size == 0 or (size < most and not may_be_shorter):
            raise OutputDamagedError(
                part,
                f"it holds {living} rows, and {len(missing.all)} are known to be missing, of {most}",
            )
        row_groups.add(row_group)
        rows += living
        dropped += len(missing.dropped)
        filtered += len(missing.filtered)
    return DurableParts(
        buffer_size=buffer_size,
        row_groups=row_groups,
        last_row_group=found[-1][0] if found else None,
        last_size=size,
        earlier=EarlierRows(len(row_groups), rows, dropped, filtered),
    )


def read_missing_rows(folder: RunFolder, row_group: int) -> MissingRows:
    """The rows that a durable row group lacks. Raises `OutputDamagedError` or `OSError`."""
    path = folder.dropped_file(row_group)
    try:
        document = parse_json(path.read_bytes())
    except FileNotFoundError:
        return MissingRows()
    except ValueError as error:
        raise OutputDamagedError(path, str(error)) from error
    dropped, filtered = _numbers(document, "dropped_rows"), _numbers(document, "filtered_rows")
    if dropped is None or filtered is None:
        raise OutputDamagedError(path, "it does not list the rows that are missing")
    return MissingRows(dropped, filtered)


def _numbers(document: object, key: str) -> list[int] | None:
    held = cast("dict[str, object]", document).get(key) if isinstance(document, dict) else None
    if isinstance(held, list) and all(isinstance(number, int) for number in cast("list[object]", held)):
        return cast("list[int]", held)
    return None


def _read_part(
    folder: RunFolder, row_group: int, part_format: PartFormat, part: Path, columns: Sequence[str]
) -> tuple[int, MissingRows]:
    """How many rows a part has, and which it lacks."""
    try:
        living = count_rows(part_format, part, columns)
    except ValueError as error:
        raise OutputDamagedError(part, str(error)) from error
    except OSError as error:
        if error.errno is not None:
            raise
        # Arrow tells of a torn page in this way.
        raise OutputDamagedError(part, str(error)) from error
    return living, read_missing_rows(folder, row_group)

"""Where a dataset's rows come from: nothing (columns from scratch), an iterable, or a file.

A source is a row-group plan that also knows the columns of its rows. Rows from a file or an iterable are read when a
row group is admitted, in order. The root task of that row group puts them into its cells, as if they were a column.
They are kept until the row group is durable, so that the task can run again. The first row is read before the run,
since it says which columns there are.

A resumed run skips the rows that are durable. Those of a file are counted and not parsed, since the file's content is
part of what identifies the dataset. Those of an iterable are read like any others, so that they can be compared with
what the earlier attempt was given.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Final, TypeAlias, cast

from trio_sched import _validation as check
from trio_sched._errors import PipelineError
from trio_sched._events.records import JsonValue
from trio_sched._pipeline.errors import InputRowError
from trio_sched._scheduler.messages import FixedRowGroupPlan, RowGroup, SkippingRowGroupPlan
from trio_sched._util import Blocking

__all__ = ["Row", "RowReader", "open_input", "open_rows"]

Row: TypeAlias = Mapping[str, object]
_NOTHING: Final = object()
_HASHED_AT_ONCE: Final = 1 << 20
"""Bytes of an input file in memory at once."""


class RowReader:
    """Plans row groups over rows whose number is unknown, and keeps the rows of each until `forget` is called.

    records: the rows as they come. parse: makes a row of one, given its number from 1. file: where they come from.
    """

    columns: tuple[str, ...] = ()

    def __init__(
        self,
        source: str,
        records: Iterable[object],
        parse: Callable[[object, int], object],
        *,
        buffer_size: int,
        blocking: Blocking,
        file: Path | None = None,
    ) -> None:
        self.source = source
        self.file = file
        self._parse = parse
        self._buffer_size = check.check_int("buffer_size", buffer_size, minimum=1)
        self._blocking = blocking
        self._read = 0
        self._index = 0
        self._kept: dict[int, list[Row]] = {}
        unread = iter(records)
        first = next(unread, _NOTHING)
        if first is _NOTHING:
            raise PipelineError(f"{source} has no rows; a dataset needs at least one")
        self.columns = self._first_columns(parse(first, 1))
        self._records = itertools.chain([first], unread)

    def identity(self) -> Mapping[str, JsonValue]:
        """What identifies the input before its rows are read: a file's format and content, an iterable's columns."""
        if self.file is None:
            return {"form": "iterable", "columns": list(self.columns)}
        digest = hashlib.sha256()
        size = 0
        with self.file.open("rb") as content:
            while chunk := content.read(_HASHED_AT_ONCE):
                digest.update(chunk)
                size += len(chunk)
        return {"form": self.file.suffix, "bytes": size, "sha256": digest.hexdigest()}

    async def next_row_group(self) -> RowGroup | None:
        """Read the next `buffer_size` rows; None when there are no more."""
        start = self._index * self._buffer_size
        rows = await self._blocking(self._read_rows)
        if not rows:
            return None
        row_group = RowGroup(self._index, start, len(rows))
        self._kept[row_group.index] = rows
        self._index += 1
        return row_group

    async def skip(self, row_groups: int) -> int:
        """Skip this many row groups; returns how many rows they had."""
        skipped = await self._blocking(self._skip_rows, row_groups * self._buffer_size)
        self._read += skipped
        self._index += row_groups
        return skipped

    def take(self, row_group: int) -> list[Row]:
        """The rows of a planned row group; may be called again until they are forgotten."""
        return self._kept[row_group]

    def forget(self, row_group: int) -> None:
        """Drop the rows of a row group."""
        del self._kept[row_group]

    def _read_rows(self) -> list[Row]:
        rows: list[Row] = []
        for record in itertools.islice(self._records, self._buffer_size):
            self._read += 1
            rows.append(self._checked(self._parse(record, self._read), self._read))
        return rows

    def _skip_rows(self, count: int) -> int:
        return sum(1 for _ in itertools.islice(self._records, count))

    def _first_columns(self, row: object) -> tuple[str, ...]:
        if not isinstance(row, Mapping):
            raise InputRowError(self.source, 1, f"a row must be a mapping, got {type(row).__name__}")
        columns = tuple(cast("Mapping[str, object]", row))
        if not columns or not all(isinstance(cast("object", name), str) for name in columns):
            raise InputRowError(self.source, 1, f"columns must be strings, got {columns!r}")
        return columns

    def _checked(self, row: object, number: int) -> Row:
        if not isinstance(row, Mapping):
            raise InputRowError(self.source, number, f"a row must be a mapping, got {type(row).__name__}")
        known = cast("Row", row)
        if set(known) != set(self.columns):
            missing = [name for name in self.columns if name not in known]
            extra = [name for name in known if name not in self.columns]
            raise InputRowError(
                self.source, number, f"columns differ from the first row's: missing {missing}, unexpected {extra}"
            )
        return dict(known)


def open_input(
    rows: Iterable[Row] | str | PathLike[str] | None, records: int | None, *, buffer_size: int, blocking: Blocking
) -> tuple[RowReader | None, SkippingRowGroupPlan]:
    """The reader of `rows`, or None where `records` rows are made from scratch; and the plan of their row groups."""
    if (rows is None) == (records is None):
        raise PipelineError("a run needs either rows or records: input rows, or how many to make from scratch")
    if rows is not None:
        reader = open_rows(rows, buffer_size=buffer_size, blocking=blocking)
        return reader, reader
    return None, FixedRowGroupPlan(check.check_int("records", records, minimum=0), buffer_size)


def open_rows(rows: Iterable[Row] | str | PathLike[str], *, buffer_size: int, blocking: Blocking) -> RowReader:
    """A reader over an iterable of mappings, or over a `.jsonl` or `.csv` file (UTF-8, with a header row)."""
    if not isinstance(rows, str | PathLike):
        if not isinstance(cast("object", rows), Iterable):
            raise PipelineError(f"rows must be an iterable of mappings or a .jsonl or .csv file, got {rows!r}")
        return RowReader("the rows given", rows, lambda row, _: row, buffer_size=buffer_size, blocking=blocking)
    path = Path(fspath(rows))
    readers = {".jsonl": _json_records, ".csv": _csv_records}
    if path.suffix not in readers:
        raise PipelineError(f"rows must be a .jsonl or .csv file, got {str(path)!r}; or pass an iterable of dicts")
    if not path.is_file():
        raise PipelineError(f"rows names {str(path)!r}, which is not a file; look at the spelling and the folder")
    records, parse = readers[path.suffix](path)
    # The file is opened again to identify it, when the working directory may be another.
    return RowReader(str(path), records, parse, buffer_size=buffer_size, blocking=blocking, file=path.absolute())


def _json_records(path: Path) -> tuple[Iterator[object], Callable[[object, int], object]]:
    def parse(line: object, number: int) -> object:
        try:
            row: object = json.loads(cast("bytes", line).decode("utf-8-sig"), parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise InputRowError(str(path), number, f"not JSON in UTF-8 ({error})") from error
        if not isinstance(row, dict):
            raise InputRowError(str(path), number, f"a row must be a JSON object, got {type(row).__name__}")
        return cast("object", row)

    return _json_lines(path), parse


def _json_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as lines:
        for line in lines:
            if line.strip():
                yield line


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON value")


def _csv_records(path: Path) -> tuple[Iterator[object], Callable[[object, int], object]]:
    lines = _csv_lines(path)
    header = next(lines, list[str]())
    if len(set(header)) != len(header) or not all(header):
        raise InputRowError(str(path), 0, f"the header must name every column once, got {header}")

    def parse(record: object, number: int) -> object:
        cells = cast("list[str]", record)
        if len(cells) != len(header):
            raise InputRowError(str(path), number, f"has {len(cells)} cells, the header {len(header)}")
        return dict(zip(header, cells, strict=True))

    return lines, parse


def _csv_lines(path: Path) -> Iterator[list[str]]:
    """The header and then the rows. An error names the row, counted from 1 after the header."""
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            for cells in csv.reader(lines, strict=True):
                number += 1
                yield cells
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputRowError(str(path), number, f"not CSV in UTF-8 ({error})") from error

"""Where a dataset's rows come from: nothing (columns from scratch), an iterable, or a file.

A source is a row-group plan that also knows the columns of its rows. Rows from a file or an iterable are read when a
row group is admitted, in order, and handed over by the root task of that row group, so the first column takes the same
way as every other. The first row is read before the run, since it says which columns there are.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import cast

from trio_sched import _validation as check
from trio_sched._blocking import Blocking
from trio_sched._errors import PipelineError, TrioSchedError
from trio_sched._scheduler.row_groups import RowGroup

__all__ = ["InputRowError", "RowReader", "open_rows"]

Row = Mapping[str, object]


class InputRowError(TrioSchedError, ValueError):
    """An input row that cannot be used. Attributes: `source`, `number` (from 1), `problem`."""

    def __init__(self, source: str, number: int, problem: str) -> None:
        self.source = source
        self.number = number
        self.problem = problem
        super().__init__(source, number, problem)

    def __str__(self) -> str:
        return f"{self.source}, row {self.number}: {self.problem}"


class RowReader:
    """Plans row groups over an iterator of rows whose length nobody knows, and keeps each group's rows until taken."""

    def __init__(self, source: str, rows: Iterable[Row], *, buffer_size: int, blocking: Blocking) -> None:
        self.source = source
        self._buffer_size = check.check_int("buffer_size", buffer_size, minimum=1)
        self._blocking = blocking
        self._number = 0
        self._index = 0
        self._waiting: dict[int, list[Row]] = {}
        checked = self._checked(iter(rows))
        first = next(checked, None)
        if first is None:
            raise PipelineError(f"{source} has no rows; a dataset needs at least one")
        self._rows = itertools.chain([first], checked)

    columns: tuple[str, ...] = ()

    async def next_row_group(self) -> RowGroup | None:
        """Read the next `buffer_size` rows; None when there are no more."""
        start = self._index * self._buffer_size
        rows = await self._blocking(lambda: list(itertools.islice(self._rows, self._buffer_size)))
        if not rows:
            return None
        row_group = RowGroup(self._index, start, len(rows))
        self._waiting[row_group.index] = rows
        self._index += 1
        return row_group

    def take(self, row_group: int) -> list[Row]:
        """The rows of a planned row group; kept by the caller from now on."""
        return self._waiting.pop(row_group)

    def _checked(self, rows: Iterator[Row]) -> Iterator[Row]:
        for row in rows:
            self._number += 1
            if not isinstance(cast("object", row), Mapping):
                raise InputRowError(self.source, self._number, f"a row must be a mapping, got {type(row).__name__}")
            if not self.columns:
                self.columns = tuple(row)
                if not self.columns or not all(isinstance(cast("object", name), str) for name in self.columns):
                    raise InputRowError(self.source, self._number, f"columns must be strings, got {self.columns!r}")
            elif set(row) != set(self.columns):
                missing = [name for name in self.columns if name not in row]
                extra = [name for name in row if name not in self.columns]
                raise InputRowError(
                    self.source,
                    self._number,
                    f"columns differ from the first row's: missing {missing}, unexpected {extra}",
                )
            yield dict(row)


def open_rows(rows: Iterable[Row] | str | PathLike[str], *, buffer_size: int, blocking: Blocking) -> RowReader:
    """A reader over an iterable of mappings, or over a `.jsonl` or `.csv` file (UTF-8, with a header row)."""
    if not isinstance(rows, str | PathLike):
        if not isinstance(cast("object", rows), Iterable):
            raise PipelineError(f"rows must be an iterable of mappings or a .jsonl or .csv file, got {rows!r}")
        return RowReader("the rows given", rows, buffer_size=buffer_size, blocking=blocking)
    path = Path(fspath(rows))
    readers = {".jsonl": _json_lines, ".csv": _csv_rows}
    if path.suffix not in readers:
        raise PipelineError(f"rows must be a .jsonl or .csv file, got {str(path)!r}; or pass an iterable of dicts")
    if not path.is_file():
        raise PipelineError(f"rows names {str(path)!r}, which is not a file; look at the spelling and the folder")
    return RowReader(str(path), readers[path.suffix](path), buffer_size=buffer_size, blocking=blocking)


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open("rb") as lines:
        number = 0
        for line in lines:
            if not line.strip():
                continue
            number += 1
            try:
                row: object = json.loads(line.decode("utf-8-sig"), parse_constant=_refuse_constant)
            except ValueError as error:
                raise InputRowError(str(path), number, f"not JSON in UTF-8 ({error})") from error
            if not isinstance(row, dict):
                raise InputRowError(str(path), number, f"a row must be a JSON object, got {type(row).__name__}")
            yield cast("dict[str, object]", row)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON value")


def _csv_rows(path: Path) -> Iterator[Row]:
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines, strict=True)
            header: list[str] = next(reader, list[str]())
            if len(set(header)) != len(header) or not all(header):
                raise InputRowError(str(path), 0, f"the header must name every column once, got {header}")
            for cells in reader:
                number += 1
                if len(cells) != len(header):
                    raise InputRowError(str(path), number, f"has {len(cells)} cells, the header {len(header)}")
                yield dict(zip(header, cells, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputRowError(str(path), number + 1, f"not CSV in UTF-8 ({error})") from error

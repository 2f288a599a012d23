"""Part files: one per row group, in one of two formats.

`data/part-00000.jsonl` holds the active rows of row group 0, one JSON object per line, columns in the graph's order.
The canonical text of a row is that line; a dataset's hash is taken over it, whatever the format of its parts.

In a Parquet part (with the extra `parquet`) each column has the Arrow type of its values: string, bool, int64 or
double, each with nulls, and null where there is nothing else. Arrow would refuse a column of mixed types, turn 1 into
1.0 beside a float, and give a struct keys that its row never had. So lists, dicts, mixed columns and ints beyond 64
bits are kept as JSON text instead, in a string column that says so in its field's metadata (`trio_sched.encoding` is
`json`). What is read back equals what was written, value by value and type by type, so a dataset has the same rows and
hash in either format.

A Parquet column's type follows from its part alone. So it does not depend on the order in which parts become durable,
and a column whose kind of values varies may have different types in different parts.
"""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Literal, Protocol, cast

from trio_sched._errors import require
from trio_sched._events.records import JsonValue
from trio_sched._pipeline.outputs import Cell, cell_text, read_cell
from trio_sched._util import parse_json

__all__ = [
    "JsonlParts",
    "ParquetParts",
    "PartFormat",
    "PartFormatName",
    "canonical_line",
    "count_rows",
    "open_part_format",
]

logger = logging.getLogger("trio_sched.run")

PartFormatName = Literal["jsonl", "parquet"]

_ARROW_TYPES: dict[type, str] = {str: "string", bool: "bool_", int: "int64", float: "float64"}
_INT64 = range(-(2**63), 2**63)
_ENCODING = "trio_sched.encoding"


class PartFormat(Protocol):
    """How the rows of a row group become a file, and rows again."""

    @property
    def name(self) -> PartFormatName:
        """The format's name, which is also the suffix of its files."""
        ...

    def encode(self, columns: Mapping[str, Sequence[Cell]], row_indices: Sequence[int]) -> bytes:
        """The content of a file with these rows. columns: every cell of each column, in the graph's order."""
        ...

    def read(self, part: Path) -> Iterator[dict[str, JsonValue]]:
        """The rows of a part file, one at a time. Raises `OSError`, or `ValueError` for a part that is not whole."""
        ...

    def canonical_text(self, part: Path) -> Iterator[bytes]:
        """The canonical lines of a part's rows, in chunks of any size."""
        ...


class JsonlParts:
    """Parts as JSON lines in UTF-8."""

    name: Literal["jsonl"] = "jsonl"

    def encode(self, columns: Mapping[str, Sequence[Cell]], row_indices: Sequence[int]) -> bytes:
        """One line per row."""
        keyed = [(json.dumps(column, ensure_ascii=False), cells) for column, cells in columns.items()]
        return "".join(
            "{" + ", ".join(f"{key}: {cell_text(cells[row])}" for key, cells in keyed) + "}\n" for row in row_indices
        ).encode()

    def read(self, part: Path) -> Iterator[dict[str, JsonValue]]:
        """The rows of a part file, one at a time."""
        with part.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    raise ValueError(f"line {number} is torn off")
                try:
                    row = parse_json(line)
                except ValueError as error:
                    raise ValueError(f"line {number} is not JSON in UTF-8") from error
                if not isinstance(row, dict):
                    raise ValueError(f"line {number} is not a JSON object")
                yield cast("dict[str, JsonValue]", row)

    def canonical_text(self, part: Path) -> Iterator[bytes]:
        """The file's own bytes."""
        yield part.read_bytes()


class ParquetParts:
    """Parts as Parquet files. Raises `MissingExtraError` without pyarrow."""

    name: Literal["parquet"] = "parquet"

    def __init__(self) -> None:
        require("parquet", "pyarrow", "pyarrow.parquet")
        self._arrow: ModuleType = importlib.import_module("pyarrow")
        self._parquet: ModuleType = importlib.import_module("pyarrow.parquet")
        self._warned_of: set[str] = set()

    def encode(self, columns: Mapping[str, Sequence[Cell]], row_indices: Sequence[int]) -> bytes:
        """One Arrow column per column. Pages carry checksums, so that a torn file is noticed."""
        arrow = self._arrow
        fields: list[object] = []
        arrays: list[object] = []
        for column, cells in columns.items():
            values = [read_cell(cells[row]) for row in row_indices]
            arrow_type = self._type(column, values)
            if arrow_type is None:
                texts = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
                fields.append(arrow.field(column, arrow.string(), metadata={_ENCODING: "json"}))
                arrays.append(arrow.array(texts, arrow.string()))
            else:
                fields.append(arrow.field(column, arrow_type))
                arrays.append(arrow.array(values, arrow_type))
        sink = arrow.BufferOutputStream()
        table = arrow.table(arrays, schema=arrow.schema(fields))
        self._parquet.write_table(table, sink, write_page_checksum=True)
        content: bytes = sink.getvalue().to_pybytes()
        return content

    def read(self, part: Path) -> Iterator[dict[str, JsonValue]]:
        """The rows of a part file, one at a time."""
        # Through bytes: Arrow's own way of opening a file does not say in Python's errors what is wrong with it.
        source = self._arrow.BufferReader(part.read_bytes())
        file = self._parquet.ParquetFile(source, page_checksum_verification=True)
        encoded = [field.name for field in file.schema_arrow if _is_json(field.metadata)]
        for batch in file.iter_batches():
            rows: list[dict[str, JsonValue]] = batch.to_pylist()
            for row in rows:
                for column in encoded:
                    text = row[column]
                    row[column] = json.loads(text) if isinstance(text, str) else None
                yield row

    def canonical_text(self, part: Path) -> Iterator[bytes]:
        """The canonical line of each row."""
        return map(canonical_line, self.read(part))

    def _type(self, column: str, values: Sequence[JsonValue]) -> object | None:
        """The Arrow type that gives these values back as they are; None where there is none."""
        kinds = {type(value) for value in values if value is not None}
        if not kinds:
            nothing: object = self._arrow.null()
            return nothing
        kind = next(iter(kinds))
        if len(kinds) > 1 and column not in self._warned_of:
            self._warned_of.add(column)
            names = " and ".join(sorted(each.__name__ for each in kinds))
            logger.warning("column %r holds %s in one part: Parquet keeps that as JSON text", column, names)
        if len(kinds) > 1 or kind not in _ARROW_TYPES:
            return None
        if kind is int and not all(value is None or value in _INT64 for value in values):
            return None
        arrow_type: object = getattr(self._arrow, _ARROW_TYPES[kind])()
        return arrow_type


_FORMATS: Mapping[PartFormatName, Callable[[], PartFormat]] = {"jsonl": JsonlParts, "parquet": ParquetParts}


def open_part_format(name: PartFormatName) -> PartFormat:
    """A reader and writer of parts of this format. Raises `MissingExtraError` where its extra is not installed."""
    return _FORMATS[name]()


def canonical_line(row: Mapping[str, JsonValue]) -> bytes:
    """The canonical text of a row, which is its line in a JSON-lines part."""
    return (json.dumps(row, ensure_ascii=False) + "\n").encode()


def count_rows(part_format: PartFormat, part: Path, columns: Sequence[str]) -> int:
    """Read a part from end to end. Raises `ValueError` if it is not whole, or not of these columns."""
    expected = tuple(columns)
    count = 0
    for row in part_format.read(part):
        count += 1
        if tuple(row) != expected:
            raise ValueError(f"row {count} has the columns {list(row)} instead of {list(expected)}")
    return count


def _is_json(metadata: dict[bytes, bytes] | None) -> bool:
    return metadata is not None and metadata.get(_ENCODING.encode()) == b"json"

"""Parts as Parquet files, with the extra `parquet`.

Each column of a part has the Arrow type of its values: string, bool, int64 or double, each with nulls, and null where
there is nothing else. Arrow would refuse a column of mixed types, turn 1 into 1.0 beside a float, and give a struct
keys that its row never had. So lists, dicts, mixed columns and ints beyond 64 bits are kept as JSON text instead, in a
string column that says so in its field's metadata (`trio_sched.encoding` is `json`). What is read back equals what was
written, value by value and type by type, so a dataset has the same rows and hash in either format.

A column's type follows from its part alone. So it does not depend on the order in which parts become durable, and a
column whose kind of values varies may have different types in different parts.
"""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Literal

from trio_sched._events.records import JsonValue
from trio_sched._extras import require
from trio_sched._pipeline.buffers import RowGroupBuffer
from trio_sched._pipeline.parts import canonical_line

logger = logging.getLogger("trio_sched.run")

__all__ = ["ParquetParts"]

_ARROW_TYPES: dict[type, str] = {str: "string", bool: "bool_", int: "int64", float: "float64"}
_INT64 = range(-(2**63), 2**63)
_ENCODING = "trio_sched.encoding"


class ParquetParts:
    """Parts as Parquet files. Raises `MissingExtraError` without pyarrow."""

    name: Literal["parquet"] = "parquet"

    def __init__(self) -> None:
        require("parquet", "pyarrow", "pyarrow.parquet")
        self._arrow: ModuleType = importlib.import_module("pyarrow")
        self._parquet: ModuleType = importlib.import_module("pyarrow.parquet")
        self._told: set[str] = set()

    def encode(self, buffer: RowGroupBuffer, living_rows: Sequence[int]) -> bytes:
        """The file's content. Pages carry checksums, so that a torn file is noticed."""
        arrow = self._arrow
        fields: list[object] = []
        arrays: list[object] = []
        for column in buffer.columns:
            values = [buffer.row(row, (column,))[column] for row in living_rows]
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
        if len(kinds) > 1 and column not in self._told:
            self._told.add(column)
            names = " and ".join(sorted(each.__name__ for each in kinds))
            logger.warning("column %r holds %s in one part: Parquet keeps that as JSON text", column, names)
        if len(kinds) > 1 or kind not in _ARROW_TYPES:
            return None
        if kind is int and not all(value is None or value in _INT64 for value in values):
            return None
        arrow_type: object = getattr(self._arrow, _ARROW_TYPES[kind])()
        return arrow_type


def _is_json(metadata: dict[bytes, bytes] | None) -> bool:
    return metadata is not None and metadata.get(_ENCODING.encode()) == b"json"

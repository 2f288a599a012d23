"""Part files: one per row group, in one of two formats.

`data/part-00000.jsonl` holds the living rows of row group 0, one JSON object per line, columns in the graph's order.
The canonical text of a row is that line; a dataset's hash is taken over it, whatever the format of its parts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, cast

from trio_sched._events.records import JsonValue
from trio_sched._pipeline.buffers import RowGroupBuffer

__all__ = ["JsonlParts", "PartFormat", "PartFormatName", "canonical_line", "count_rows"]

PartFormatName = Literal["jsonl", "parquet"]


class PartFormat(Protocol):
    """How the rows of a row group become a file, and rows again."""

    @property
    def name(self) -> PartFormatName:
        """The format's name, which is also the suffix of its files."""
        ...

    def encode(self, buffer: RowGroupBuffer, living_rows: Sequence[int]) -> bytes:
        """The file's content."""
        ...

    def read(self, part: Path) -> Iterator[dict[str, JsonValue]]:
        """The rows of a part file, one at a time. Raises `OSError`, or `ValueError` for what is no whole part."""
        ...

    def canonical_text(self, part: Path) -> Iterator[bytes]:
        """The canonical lines of a part's rows, in chunks of any size."""
        ...


class JsonlParts:
    """Parts as JSON lines in UTF-8."""

    name: Literal["jsonl"] = "jsonl"

    def encode(self, buffer: RowGroupBuffer, living_rows: Sequence[int]) -> bytes:
        """The file's content."""
        return buffer.lines(living_rows).encode()

    def read(self, part: Path) -> Iterator[dict[str, JsonValue]]:
        """The rows of a part file, one at a time."""
        with part.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    raise ValueError(f"line {number} is torn off")
                try:
                    row: object = json.loads(line)
                except ValueError as error:
                    raise ValueError(f"line {number} is not JSON in UTF-8") from error
                if not isinstance(row, dict):
                    raise ValueError(f"line {number} is not a JSON object")
                yield cast("dict[str, JsonValue]", row)

    def canonical_text(self, part: Path) -> Iterator[bytes]:
        """The file's own bytes."""
        yield part.read_bytes()


def canonical_line(row: Mapping[str, JsonValue]) -> bytes:
    """The canonical text of a row, as it stands in a JSON-lines part."""
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

"""How a cell is kept: plain values as they are, everything else as JSON text.

A list or dict that one generator returned is handed to others. Keeping its JSON text means that every reader gets a
copy of its own, that nobody can change what another one reads, that a value which cannot be written is found out in the
call that returned it, and that writing a row needs no second encoding.
"""

from __future__ import annotations

import json
from typing import cast

import attrs

from trio_sched._errors import TrioSchedError
from trio_sched._events.json_value import JsonValue

__all__ = ["Cell", "MalformedOutputError", "cell_text", "keep_cell", "read_cell"]

_PLAIN = frozenset({str, int, bool, type(None)})


class MalformedOutputError(TrioSchedError):
    """A generator returned something that cannot be a cell. Attributes: `column`, `problem`."""

    def __init__(self, column: str, problem: str) -> None:
        self.column = column
        self.problem = problem
        super().__init__(column, problem)

    def __str__(self) -> str:
        return f"column {self.column!r} returned {self.problem}; return JSON values (str, int, float, bool, list, dict)"


@attrs.frozen
class _Encoded:
    text: str


Cell = str | int | bool | None | _Encoded


def keep_cell(column: str, value: object) -> Cell:
    """The form in which `value` is kept. Raises `MalformedOutputError` if it cannot be written as JSON."""
    try:
        if type(value) in _PLAIN:
            text = value if isinstance(value, str) else json.dumps(value)
            kept: Cell = cast("str | int | bool | None", value)
        else:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
            kept = _Encoded(text)
        if not text.isascii():
            text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise MalformedOutputError(column, f"a {type(value).__name__} that is not JSON ({error})") from error
    return kept


def read_cell(cell: Cell) -> JsonValue:
    """The cell's value; a list or dict is the reader's own."""
    return cast("JsonValue", json.loads(cell.text)) if isinstance(cell, _Encoded) else cell


def cell_text(cell: Cell) -> str:
    """The cell as JSON text."""
    return cell.text if isinstance(cell, _Encoded) else json.dumps(cell, ensure_ascii=False)

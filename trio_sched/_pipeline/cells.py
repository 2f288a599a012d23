"""How a cell is kept: plain values as they are, everything else as JSON text.

A list or dict that one generator returned is handed to others. Keeping its JSON text means that every reader gets a
copy of its own, that nobody can change what another one reads, that a value which cannot be written is found out in the
call that returned it, and that writing a row needs no second encoding.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping
from typing import cast

import attrs

from trio_sched._errors import TrioSchedError
from trio_sched._events.records import JsonValue

__all__ = ["Cell", "EncodedCell", "MalformedOutputError", "cell_text", "keep_cell", "malformed", "read_cell"]

JSON_VALUES = "JSON values (str, int, float, bool, None, list, and dict with str keys)"


class MalformedOutputError(TrioSchedError):
    """A generator returned something that cannot be kept. Attributes: `column`, `problem`, `expected`."""

    def __init__(self, column: str, problem: str, expected: str = JSON_VALUES) -> None:
        self.column = column
        self.problem = problem
        self.expected = expected
        super().__init__(column, problem, expected)

    def __str__(self) -> str:
        return f"column {self.column!r} returned {self.problem}; return {self.expected}"


@attrs.frozen
class EncodedCell:
    """A value as JSON text, for all that is not plain."""

    text: str


Cell = str | int | float | bool | None | EncodedCell


def keep_cell(column: str, value: object) -> Cell:
    """The form in which `value` is kept. Raises `MalformedOutputError` if it cannot be written as JSON."""
    kind = type(value)
    if kind is str:
        text = cast("str", value)
        if text.isascii():
            return text
    elif value is None or kind is bool:
        return cast("bool | None", value)
    try:
        if kind is int:
            str(value)  # Python refuses to write a number of too many digits.
            return cast("int", value)
        if kind is float and math.isfinite(cast("float", value)):
            return cast("float", value)
        if kind is str:
            cast("str", value).encode()
            return cast("str", value)
        encoded = json.dumps(value, ensure_ascii=False, allow_nan=False)
        if not encoded.isascii():
            encoded.encode()
        if "{" in encoded:
            _check_keys(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise malformed(column, value, f"that is not JSON ({error})") from error
    return EncodedCell(encoded)


def read_cell(cell: Cell) -> JsonValue:
    """The cell's value; a list or dict is the reader's own."""
    return cast("JsonValue", json.loads(cell.text)) if isinstance(cell, EncodedCell) else cell


def cell_text(cell: Cell) -> str:
    """The cell as JSON text."""
    return cell.text if isinstance(cell, EncodedCell) else json.dumps(cell, ensure_ascii=False)


def malformed(column: str, value: object, problem: str, expected: str = JSON_VALUES) -> MalformedOutputError:
    """The error for `value`, which has this problem; an awaitable forgotten by a sync function is told as such."""
    if inspect.iscoroutine(value):
        if inspect.getcoroutinestate(value) == inspect.CORO_CREATED:
            value.close()  # Nobody will await it, and Python need not warn of that a second time.
        return MalformedOutputError(column, "a coroutine", "its result: make the function `async def` and await it")
    kind = type(value).__name__
    article = "an" if kind[0].lower() in "aeiou" else "a"
    return MalformedOutputError(column, f"{article} {kind} {problem}".rstrip(), expected)


def _check_keys(value: object) -> None:
    """JSON would write the text of a key that is not a string, and the reader would get another key back."""
    if isinstance(value, Mapping):
        for key, held in cast("Mapping[object, object]", value).items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} of a dict must be a str")
            _check_keys(held)
    elif isinstance(value, list | tuple):
        for held in cast("list[object]", value):
            _check_keys(held)

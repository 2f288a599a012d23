"""From what a function returned to the cells that are kept; the one place that checks the shape of a result.

A function that makes one column returns its value. One that was declared with `outputs` or `side_effect_columns`
returns a mapping from column to value: every output is there, a side-effect column may be absent and is then null, and
there is nothing else. A function over many rows returns a sequence with one such result per row, in the rows' order.

A cell keeps a plain value as it is, and everything else as JSON text. A list or dict that one function returned is
given to others. Keeping its JSON text means that every reader gets a copy of its own, that nobody can change what
another one reads, that a value which cannot be written fails the call that returned it, and that writing a row needs no
second encoding.

An object with `model_dump`, such as an SDK's response, is kept as its plain form, wherever in the value it stands. Half
a surrogate pair, which a model leaves behind whose answer was cut in the middle of a letter, cannot be written. It
becomes U+FFFD, and the cell counts as mended: an answer that was paid for is not lost for it.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import math
from collections.abc import Mapping, Sequence
from typing import cast

import attrs

from trio_sched._events.records import JsonValue
from trio_sched._pipeline.errors import JSON_VALUES, MalformedOutputError

__all__ = [
    "Cell",
    "EncodedCell",
    "MendedCell",
    "Outputs",
    "cell_text",
    "dumped",
    "keep_cell",
    "malformed",
    "one_per_row",
    "read_cell",
    "whole_text",
]


@attrs.frozen
class EncodedCell:
    """A value that is not plain, as JSON text."""

    text: str


@attrs.frozen
class MendedCell(EncodedCell):
    """A value with halves of surrogate pairs, which became U+FFFD."""


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
            text = cast("str", value)
            return text if _is_whole(text) else MendedCell(json.dumps(whole_text(text), ensure_ascii=False))
        encoded = json.dumps(value, ensure_ascii=False, allow_nan=False, default=dumped)
        if "{" in encoded:
            _check_keys(value)
        if not encoded.isascii() and not _is_whole(encoded):
            # Two keys may have become one.
            return MendedCell(json.dumps(json.loads(whole_text(encoded)), ensure_ascii=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise malformed(column, value, f"that is not JSON ({error})") from error
    return EncodedCell(encoded)


def read_cell(cell: Cell) -> JsonValue:
    """The cell's value; a list or dict is the reader's own."""
    return cast("JsonValue", json.loads(cell.text)) if isinstance(cell, EncodedCell) else cell


def cell_text(cell: Cell) -> str:
    """The cell as JSON text."""
    return cell.text if isinstance(cell, EncodedCell) else json.dumps(cell, ensure_ascii=False)


def whole_text(text: str) -> str:
    """The text as UTF-8 can have it: two halves of a surrogate pair become their letter, a single one U+FFFD."""
    return text if _is_whole(text) else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def dumped(value: object) -> object:
    """The plain form of an object with `model_dump`. Raises `TypeError` for any other, as JSON's encoders want it."""
    dump = cast("object", getattr(value, "model_dump", None))
    if not callable(dump) or isinstance(value, type):
        raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
    try:
        try:
            plain: object = dump(mode="json")
        except TypeError:
            plain = dump()
        _check_keys(plain)
    except Exception as error:
        raise TypeError(f"its model_dump failed: {error!r}") from error
    return plain


def malformed(column: str, value: object, problem: str, expected: str = JSON_VALUES) -> MalformedOutputError:
    """The error for `value`, which has this problem. A coroutine that a sync function returned is named as such."""
    if inspect.iscoroutine(value):
        if inspect.getcoroutinestate(value) == inspect.CORO_CREATED:
            value.close()  # Nobody will await it, and Python need not warn of that a second time.
        return MalformedOutputError(column, "a coroutine", "its result: make the function `async def` and await it")
    kind = type(value).__name__
    article = "an" if kind[0].lower() in "aeiou" else "a"
    return MalformedOutputError(column, f"{article} {kind} {problem}".rstrip(), expected)


def _check_keys(value: object) -> None:
    """Refuse keys that are not strings: JSON would write their text, and the reader would get another key back."""
    if isinstance(value, Mapping):
        for key, held in cast("Mapping[object, object]", value).items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} of a dict must be a str")
            _check_keys(held)
    elif isinstance(value, list | tuple):
        for held in cast("list[object]", value):
            _check_keys(held)


@attrs.frozen
class Outputs:
    """The columns that one function writes.

    own: those it always gives a value; the first of them names it. side_effects: those that may have none. as_mapping:
    whether it returns a mapping rather than the value of its only column.
    """

    own: tuple[str, ...]
    side_effects: tuple[str, ...] = ()
    as_mapping: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """All of them."""
        return self.own + self.side_effects

    def keep(self, value: object) -> tuple[Cell, ...]:
        """The cells of one row's result, one for each of `columns`. Raises `MalformedOutputError`."""
        if not self.as_mapping:
            return (keep_cell(self.own[0], value),)
        if hasattr(value, "model_dump"):
            with contextlib.suppress(TypeError):
                value = dumped(value)
        if not isinstance(value, Mapping):
            raise malformed(self.own[0], value, "instead of a mapping", self._expected)
        given = dict(cast("Mapping[object, object]", value))
        missing = [column for column in self.own if column not in given]
        unknown = [column for column in given if column not in self.columns]
        if missing or unknown:
            problem = f"in which {missing} is missing" if missing else f"with {unknown}, which is not declared"
            raise malformed(self.own[0], given, problem, self._expected)
        return tuple(keep_cell(column, given.get(column)) for column in self.columns)

    @property
    def _expected(self) -> str:
        may_add = f", and if it likes {', '.join(map(repr, self.side_effects))}" if self.side_effects else ""
        return f"a mapping with {', '.join(map(repr, self.own))}{may_add}"


def one_per_row(column: str, made: object, count: int) -> list[object]:
    """`made` as a list of `count` results. Raises `MalformedOutputError` if it is no such sequence."""
    expected = f"a list with one value for each of the {count} rows"
    if isinstance(made, str | bytes | bytearray) or not isinstance(made, Sequence):
        raise malformed(column, made, "instead of a sequence", expected)
    results = list(cast("Sequence[object]", made))
    if len(results) != count:
        raise malformed(column, results, f"of {len(results)} values for {count} rows", expected)
    return results

"""What can be a cell, and that it comes back as it was."""

from __future__ import annotations

import asyncio
import json
import math
from collections import OrderedDict
from collections.abc import Coroutine

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trio_sched as ts
from trio_sched._events.records import JsonValue
from trio_sched._pipeline.outputs import cell_text, keep_cell, read_cell

text = st.text(st.characters(exclude_categories=["Cs"]))
values: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_every_json_value_is_kept_as_it_is(value: JsonValue) -> None:
    cell = keep_cell("c", value)
    read = read_cell(cell)
    assert read == value
    assert type(read) is type(value)
    assert json.loads(cell_text(cell)) == value
    assert cell_text(cell).encode()


@given(
    st.recursive(st.integers(), lambda inner: st.lists(inner, min_size=1) | st.dictionaries(text, inner, min_size=1))
)
def test_a_reader_gets_a_copy_of_its_own(value: object) -> None:
    cell = keep_cell("c", value)
    if isinstance(value, list | dict):
        assert read_cell(cell) is not read_cell(cell)
        value.clear()
        assert read_cell(cell) != value


async def unawaited() -> int:
    return 1


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({1: "a"}, r"a dict that is not JSON \(the key 1 of a dict must be a str\)"),
        ([{"a": {None: 1}}], r"a list that is not JSON \(the key None of a dict must be a str\)"),
        ((OrderedDict([(True, 1)]),), r"a tuple that is not JSON \(the key True of a dict must be a str\)"),
        ({1, 2}, "a set that is not JSON"),
        (b"bytes", "a bytes that is not JSON"),
        (object(), "an object that is not JSON"),
        ((n for n in "ab"), "a generator that is not JSON"),
        (math.nan, r"a float that is not JSON \(Out of range float"),
        ([math.inf], r"a list that is not JSON \(Out of range float"),
        pytest.param(10**5000, "an int that is not JSON", id="too many digits"),
    ],
)
def test_what_cannot_be_written_is_malformed(value: object, problem: str) -> None:
    with pytest.raises(
        ts.MalformedOutputError, match=rf"^column 'c' returned {problem}.*; return JSON values"
    ) as caught:
        keep_cell("c", value)
    assert caught.value.column == "c"
    assert caught.value.__cause__ is not None


def test_a_list_in_itself_is_malformed() -> None:
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(ts.MalformedOutputError, match="Circular reference"):
        keep_cell("c", circle)


def test_a_forgotten_coroutine_is_told_as_such_and_warns_of_nothing() -> None:
    coroutine: Coroutine[object, object, int] = unawaited()
    with pytest.raises(ts.MalformedOutputError, match=r"^column 'c' returned a coroutine; return its result: make the"):
        keep_cell("c", coroutine)
    with pytest.raises(RuntimeError, match="cannot reuse"):
        coroutine.send(None)


def test_a_coroutine_under_way_is_left_alone() -> None:
    coroutine = asyncio.sleep(0)
    coroutine.send(None)
    with pytest.raises(ts.MalformedOutputError, match="a coroutine"):
        keep_cell("c", coroutine)
    with pytest.raises(StopIteration):
        coroutine.send(None)

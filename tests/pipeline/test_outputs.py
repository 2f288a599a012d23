"""The shape of what a function returns: one value, or a mapping of its columns, once or per row."""

from __future__ import annotations

from collections import deque

import pytest

import trio_sched as ts
from trio_sched._pipeline.outputs import Outputs, one_per_row, read_cell

TWO = Outputs(("title", "body"), ("thinking",), as_mapping=True)


def test_one_column_is_the_value_itself() -> None:
    (cell,) = Outputs(("title",)).keep({"title": 1})
    assert read_cell(cell) == {"title": 1}


@pytest.mark.parametrize(
    ("returned", "kept"),
    [
        ({"body": "b", "title": "a", "thinking": "c"}, ["a", "b", "c"]),
        ({"title": "a", "body": None}, ["a", None, None]),
    ],
)
def test_several_columns_are_taken_from_a_mapping(returned: object, kept: list[object]) -> None:
    assert TWO.columns == ("title", "body", "thinking")
    assert [read_cell(cell) for cell in TWO.keep(returned)] == kept


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        (("a", "b"), "a tuple instead of a mapping"),
        ("ab", "a str instead of a mapping"),
        ({"title": "a"}, r"a dict in which \['body'\] is missing"),
        ({"title": "a", "body": "b", "bdy": 1, 2: 3}, r"a dict with \['bdy', 2\], which is not declared"),
    ],
)
def test_another_shape_is_malformed(returned: object, problem: str) -> None:
    expected = (
        rf"^column 'title' returned {problem}; return a mapping with 'title', 'body', and if it likes 'thinking'$"
    )
    with pytest.raises(ts.MalformedOutputError, match=expected):
        TWO.keep(returned)


def test_a_value_that_cannot_be_kept_names_its_own_column() -> None:
    with pytest.raises(ts.MalformedOutputError, match=r"^column 'body' returned a set that is not JSON"):
        TWO.keep({"title": "a", "body": {1}})


@pytest.mark.parametrize("made", [[1, 2], (1, 2), range(1, 3), deque([1, 2])], ids=lambda made: type(made).__name__)
def test_any_sequence_holds_one_result_per_row(made: object) -> None:
    assert one_per_row("c", made, 2) == [1, 2]


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        ("ab", "a str instead of a sequence"),
        (b"ab", "a bytes instead of a sequence"),
        ({0: 1, 1: 2}, "a dict instead of a sequence"),
        ({1, 2}, "a set instead of a sequence"),
        (None, "a NoneType instead of a sequence"),
        (iter([1, 2]), "a list_iterator instead of a sequence"),
        ([1], "a list of 1 values for 2 rows"),
        ((1, 2, 3), "a list of 3 values for 2 rows"),
    ],
)
def test_what_is_no_sequence_of_that_length_is_malformed(made: object, problem: str) -> None:
    expected = f"^column 'c' returned {problem}; return a list with one value for each of the 2 rows$"
    with pytest.raises(ts.MalformedOutputError, match=expected):
        one_per_row("c", made, 2)

"""Cells that are left out: by a rule, or with a cell that they need; what they hold, and who sees them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from pipeline_samples import Row, number, simulate

import trio_sched as ts


def odd(row: dict[str, int]) -> bool:
    return row["number"] % 2 == 1


def always(row: Row) -> bool:
    return True


def not_first(row: Row) -> bool:
    return row["first"] is None


def is_zero(row: Row) -> bool:
    return row["number"] == 0


def recorded(name: str, needs: list[str], calls: list[Row], **options: object) -> ts.Column:
    """A column that returns what it was given, and notes that."""
    decorate: Callable[..., Callable[[Callable[[Row], object]], ts.Column]] = ts.column

    async def note(row: Row) -> Row:
        calls.append(row)
        return row

    return decorate(needs=needs, name=name, **options)(note)


def test_a_skipped_cell_is_null_and_its_function_is_not_called(tmp_path: Path) -> None:
    calls: list[Row] = []
    column = recorded("even", ["number"], calls, skip_when=odd)
    result = simulate([number, column], tmp_path / "out", records=4)
    assert [row["even"] for row in result.rows()] == [{"number": 0}, None, {"number": 2}, None]
    assert {row["number"] for row in calls} == {0, 2}
    assert result.dropped == 0


@pytest.mark.parametrize(
    ("options", "value", "held"),
    [
        ({}, {"a": ["none"]}, {"c": {"a": ["none"]}}),
        ({"outputs": ["c", "d"]}, None, {"c": None, "d": None}),
        ({"outputs": ["c", "d"]}, {"d": 1, "c": 2}, {"c": 2, "d": 1}),
        ({"side_effect_columns": ["d"]}, {"c": 2}, {"c": 2, "d": None}),
    ],
)
def test_a_skipped_cell_holds_the_value_given(tmp_path: Path, options: Row, value: object, held: Row) -> None:
    column = recorded("c", ["number"], [], skip_when=always, skip_value=value, **options)
    result = simulate([number, column], tmp_path / "out", records=2)
    assert list(result.rows()) == [{"number": n, **held} for n in range(2)]


def test_what_needs_a_skipped_cell_is_skipped_too_unless_it_says_otherwise(tmp_path: Path) -> None:
    calls: list[Row] = []
    columns = [
        number,
        recorded("first", ["number"], [], side_effect_columns=["aside"], skip_when=always, skip_value={"first": 0}),
        recorded("second", ["aside"], [], skip_value="left out"),
        recorded("third", ["second", "number"], calls, skip_with_needs=False),
        recorded("fourth", ["third"], []),
    ]
    result = simulate(columns, tmp_path / "out", records=1)
    (row,) = result.rows()
    assert row == {
        "number": 0,
        "first": 0,
        "aside": None,
        "second": "left out",
        "third": {"second": "left out", "number": 0},
        "fourth": {"third": {"second": "left out", "number": 0}},
    }
    assert calls == [{"second": "left out", "number": 0}]


def test_a_rule_of_a_column_that_ignores_skipped_needs_still_counts(tmp_path: Path) -> None:
    calls: list[Row] = []
    columns = [
        number,
        recorded("first", ["number"], [], skip_when=odd),
        recorded("second", ["first"], calls, skip_with_needs=False, skip_when=not_first),
        recorded("third", ["second"], calls),
    ]
    result = simulate(columns, tmp_path / "out", records=2)
    assert [(row["second"], row["third"]) for row in result.rows()][1] == (None, None)
    assert len(calls) == 2


def test_a_batch_column_does_not_see_rows_that_it_skips(tmp_path: Path) -> None:
    seen: list[list[Row]] = []

    @ts.batch_column(needs=["number", "first"], skip_when=is_zero, skip_value=-1)
    def ranked(rows: list[Row]) -> list[int]:
        seen.append(rows)
        return list(range(len(rows)))

    first = recorded("first", ["number"], [], skip_when=odd)
    result = simulate([number, first, ranked], tmp_path / "out", records=6)
    assert [[row["number"] for row in rows] for rows in seen] == [[2, 4]]
    assert [row["ranked"] for row in result.rows()] == [-1, -1, 0, -1, 1, -1]


def test_skips_are_counted_for_the_rows_that_are_written(tmp_path: Path) -> None:
    @ts.column(needs=["number"])
    async def late(row: dict[str, int]) -> int:
        await trio.sleep(1)
        if row["number"] == 1:
            raise LookupError
        return 0

    columns = [
        number,
        recorded("first", ["number"], [], skip_when=odd),
        recorded("second", ["first"], [], skip_when=always),
        late,
    ]
    result = simulate(columns, tmp_path / "out", records=6, buffer_size=2)
    assert dict(result.skipped_cells) == {"first": 2, "second": 5}
    assert "skipped 2 cells of column 'first'\nskipped 5 cells of column 'second'" in result.summary()


def test_a_batch_column_without_rows_is_not_called(tmp_path: Path) -> None:
    @ts.batch_column(needs=["number"], skip_when=always)
    def never(rows: list[Row]) -> list[int]:
        raise AssertionError("must not run")

    result = simulate([number, never], tmp_path / "out", records=3)
    assert [row["never"] for row in result.rows()] == [None, None, None]


def test_a_malformed_batch_spoils_only_the_rows_that_it_was_given(tmp_path: Path) -> None:
    @ts.batch_column(needs=["number"], skip_when=odd)
    def short(rows: list[Row]) -> list[int]:
        return []

    result = simulate([number, short], tmp_path / "out", records=4)
    assert [row["number"] for row in result.rows()] == [1, 3]
    assert "dropped 2 rows: column 'short', MalformedOutputError" in result.summary()


def broken_at_two(row: dict[str, int]) -> bool:
    if row["number"] == 2:
        raise KeyError("topic")
    return row["number"] == 1


class NoTruth:
    def __bool__(self) -> bool:
        raise ValueError("ambiguous")


def unclear(row: Row) -> NoTruth:
    return NoTruth()


@pytest.mark.parametrize("kind", ["cell", "batch"])
def test_a_rule_that_raises_gives_up_its_row_and_says_so(tmp_path: Path, kind: str) -> None:
    @ts.column(needs=["number"], name="made", skip_when=broken_at_two)
    async def cell(row: Row) -> int:
        return 0

    @ts.batch_column(needs=["number"], name="made", skip_when=broken_at_two)
    async def batch(rows: list[Row]) -> list[int]:
        return [0] * len(rows)

    column = cell if kind == "cell" else batch
    result = simulate([number, column], tmp_path / "out", records=4)
    assert [(row["number"], row["made"]) for row in result.rows()] == [(0, 0), (1, None), (3, 0)]
    (cause,) = result.scheduler.drop_causes
    assert isinstance(cause.first_error, ts.SkipRuleError)
    assert isinstance(cause.first_error.__cause__, KeyError)
    assert str(cause.first_error) == (
        "skip_when of column 'made' raised KeyError('topic'); it must say whether to skip, for any row"
    )


def test_a_rule_whose_answer_has_no_truth_raises(tmp_path: Path) -> None:
    column = recorded("c", ["number"], [], skip_when=unclear)
    result = simulate([number, column], tmp_path / "out", records=1)
    assert result.dropped == 1
    assert "ValueError('ambiguous')" in result.summary()


def test_a_rule_cannot_change_the_row(tmp_path: Path) -> None:
    def greedy(row: Row) -> bool:
        row.clear()
        return False

    column = recorded("c", ["number"], [], skip_when=greedy)
    result = simulate([number, column], tmp_path / "out", records=1)
    assert list(result.rows()) == [{"number": 0, "c": {"number": 0}}]


def test_bad_rules_are_refused_where_they_stand() -> None:
    async def awaited(row: Row) -> bool:
        raise AssertionError("must not run")

    def two(row: Row, other: Row) -> bool:
        raise AssertionError("must not run")

    with pytest.raises(ts.PipelineError, match=r"^skip_when of column 'c' must be a sync function, got .* only look"):
        recorded("c", ["number"], [], skip_when=awaited)
    with pytest.raises(ts.PipelineError, match=r"^skip_when of column 'c' calls its function with 1 arguments \(row\)"):
        recorded("c", ["number"], [], skip_when=two)
    with pytest.raises(
        ts.PipelineError, match=r"^skip_value of column 'c' is a set that is not JSON .*; give JSON values"
    ):
        recorded("c", ["number"], [], skip_when=odd, skip_value={1})
    with pytest.raises(
        ts.PipelineError, match=r"^skip_value of column 'c' is an int instead of a mapping; give a mapping"
    ):
        recorded("c", ["number"], [], skip_when=odd, outputs=["c", "d"], skip_value=3)

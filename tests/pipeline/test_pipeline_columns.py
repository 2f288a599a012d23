"""Columns of every kind in whole runs: what they are given, what they may return, what is rejected."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import trio
from pipeline_samples import Row, mocked, number, simulate
from sequential import rows_sequentially

import trio_sched as ts
from trio_sched.lowlevel import inline


class RateLimitError(Exception):
    status_code = 429


class ServerError(Exception):
    status_code = 503


@ts.from_scratch_column(outputs=["first", "second"], side_effect_columns=["odd"])
def pairs(span: ts.RowSpan) -> list[Row]:
    numbers = range(span.start, span.start + span.count)
    return [{"second": [n], "first": n, **({"odd": True} if n % 2 else {})} for n in numbers]


@ts.column(needs=["first", "odd"], outputs=["title", "body"], side_effect_columns=["note"])
def text(row: Row) -> Row:
    made: Row = {"title": f"{row['first']}", "body": [row["odd"]]}
    return {**made, "note": "three"} if row["first"] == 3 else made


@ts.column(needs=["body", "note"])
async def told(row: Row) -> str:
    return f"{row['body']} {row['note']}"


@ts.batch_column(needs=["title", "second"])
def rank(rows: list[Row]) -> list[int]:
    return [len(rows) - index for index, _ in enumerate(rows)]


@ts.batch_column(needs=["rank"], side_effect_columns=["total"])
async def share(rows: list[dict[str, int]]) -> list[Row]:
    await trio.sleep(1)
    total = sum(row["rank"] for row in rows)
    return [{"share": row["rank"] / total, "total": total} for row in rows]


OF_ALL_KINDS = [pairs, text, told, rank, share]


@pytest.mark.parametrize(("buffer_size", "row_groups"), [(1, 1), (7, 3), (100, 4)])
def test_columns_of_all_kinds_make_what_they_make_one_by_one(tmp_path: Path, buffer_size: int, row_groups: int) -> None:
    async def main() -> None:
        config = ts.RunConfig(buffer_size=buffer_size, max_concurrent_row_groups=row_groups)
        result = await ts.run(OF_ALL_KINDS, records=30, output=tmp_path / "out", config=config, blocking=inline)
        assert list(result.rows()) == await rows_sequentially(OF_ALL_KINDS, records=30, buffer_size=buffer_size)
        assert result.records == 30

    mocked(main)


def test_every_output_is_written_once_and_read_by_whoever_needs_it(tmp_path: Path) -> None:
    result = simulate(OF_ALL_KINDS, tmp_path / "out", records=4)
    rows = list(result.rows())
    assert rows[2] | {"share": 0, "rank": 0} == {
        "first": 2,
        "second": [2],
        "odd": None,
        "title": "2",
        "body": [None],
        "note": None,
        "told": "[None] None",
        "rank": 0,
        "share": 0,
        "total": 10,
    }
    assert [row["told"] for row in rows] == ["[None] None", "[True] None", "[None] None", "[True] three"]


async def test_sync_columns_run_in_threads_and_async_ones_do_not(tmp_path: Path) -> None:
    main_thread = threading.get_ident()
    seen: dict[str, bool] = {}

    def note(name: str) -> None:
        seen[name] = threading.get_ident() == main_thread

    @ts.from_scratch_column()
    def root(span: ts.RowSpan) -> list[int]:
        note("root")
        return [0] * span.count

    @ts.column(needs=["root"])
    def cell(row: Row) -> None:
        note("cell")

    @ts.batch_column(needs=["root"])
    def batch(rows: list[Row]) -> list[None]:
        note("batch")
        return [None] * len(rows)

    @ts.column(needs=["root"])
    async def awaited(row: Row) -> None:
        note("awaited")

    result = await ts.run([root, cell, batch, awaited], records=3, output=tmp_path / "out")
    assert result.records == 3
    assert seen == {"root": False, "cell": False, "batch": False, "awaited": True}


async def test_threads_of_columns_run_beside_each_other(tmp_path: Path) -> None:
    together = threading.Barrier(4)

    @ts.column(needs=["number"])
    def met(row: Row) -> int:
        return together.wait()

    result = await ts.run([number, met], records=4, output=tmp_path / "out")
    assert sorted(cast("int", row["met"]) for row in result.rows()) == [0, 1, 2, 3]


def test_a_batch_column_sees_the_living_rows_in_order(tmp_path: Path) -> None:
    seen: list[list[object]] = []

    @ts.column(needs=["number"])
    async def picky(row: dict[str, int]) -> int:
        await trio.sleep(100 - row["number"])
        if row["number"] in {1, 4}:
            raise LookupError
        return row["number"]

    @ts.batch_column(needs=["picky"])
    def after(rows: list[Row]) -> list[object]:
        seen.append([row["picky"] for row in rows])
        assert all(list(row) == ["picky"] for row in rows)
        return [row["picky"] for row in rows]

    result = simulate([number, picky, after], tmp_path / "out", records=8, buffer_size=5)
    assert sorted(seen) == [[0, 2, 3], [5, 6, 7]]
    assert [row["after"] for row in result.rows()] == [0, 2, 3, 5, 6, 7]
    assert result.dropped == 2


def test_a_batch_column_calls_models(tmp_path: Path) -> None:
    model = ts.Model("p", "m")
    calls = itertools.count(1)

    async def provider(values: list[object]) -> list[object]:
        if next(calls) < 3:
            raise ServerError
        return values

    @ts.batch_column(needs=["number"], model=model)
    async def embedded(rows: list[Row], handle: ts.ModelHandle) -> object:
        return await handle.call(provider, [row["number"] for row in rows])

    result = simulate([number, embedded], tmp_path / "out", records=3)
    assert [row["embedded"] for row in result.rows()] == [0, 1, 2]
    assert result.requests[model.resource].attempts == 3


@pytest.mark.parametrize("decorate", [ts.batch_column(needs=["number"]), ts.column(needs=["number"])])
def test_retryable_failures_are_tried_again(
    tmp_path: Path, decorate: Callable[[Callable[..., object]], ts.Column]
) -> None:
    failed: set[str] = set()

    async def flaky(given: object) -> object:
        if str(given) not in failed:
            failed.add(str(given))
            raise ServerError
        return [1, 1] if isinstance(given, list) else 1

    result = simulate([number, decorate(flaky)], tmp_path / "out", records=2)
    assert [row["flaky"] for row in result.rows()] == [1, 1]


def wrong_length(rows: list[Row]) -> list[object]:
    return [0] * (len(rows) - 1)


def no_sequence(rows: list[Row]) -> object:
    return (0 for _ in rows)


def raising(rows: list[Row]) -> object:
    raise LookupError("nothing there")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (wrong_length, "MalformedOutputError: column 'made' returned a list of 3 values for 4 rows; return a list"),
        (no_sequence, "MalformedOutputError: column 'made' returned a generator instead of a sequence; return a list"),
        (raising, "LookupError: nothing there"),
    ],
)
def test_a_batch_that_fails_gives_up_its_row_group_and_says_so(
    tmp_path: Path, function: Callable[..., object], message: str
) -> None:
    @ts.batch_column(needs=["number"], name="made")
    def first_fails(rows: list[dict[str, int]]) -> object:
        return function(rows) if rows[0]["number"] == 0 else [row["number"] for row in rows]

    result = simulate([number, first_fails], tmp_path / "out", records=8, buffer_size=4)
    assert [row["made"] for row in result.rows()] == [4, 5, 6, 7]
    assert result.dropped == 4
    assert f"dropped 4 rows: column 'made', {message}" in result.summary()


@pytest.mark.parametrize("kind", ["batch", "from_scratch"])
def test_an_exception_in_the_place_of_a_value_gives_up_its_row_only(tmp_path: Path, kind: str) -> None:
    def values(count: int) -> list[object]:
        return [LookupError(f"row {n}") if n == 1 else {n} if n == 2 else n for n in range(count)]

    @ts.from_scratch_column(name="made")
    async def root(span: ts.RowSpan) -> list[object]:
        return values(span.count)

    @ts.batch_column(needs=["number"], name="made")
    async def batch(rows: list[Row]) -> list[object]:
        return values(len(rows))

    columns = [number, batch] if kind == "batch" else [root]
    result = simulate(columns, tmp_path / "out", records=5)
    assert [row["made"] for row in result.rows()] == [0, 3, 4]
    causes = {cause.error_type: str(cause.first_error) for cause in result.scheduler.drop_causes}
    assert causes["LookupError"] == "row 1"
    assert causes["MalformedOutputError"].startswith("column 'made' returned a set that is not JSON")


@pytest.mark.parametrize("kind", ["batch", "from_scratch"])
def test_a_rate_limit_in_the_place_of_a_value_has_all_made_again(tmp_path: Path, kind: str) -> None:
    calls = itertools.count(1)

    def values(count: int) -> list[object]:
        late = next(calls) == 4
        return [RateLimitError() if n == 1 and not late else LookupError() if n == 2 else n for n in range(count)]

    @ts.from_scratch_column(name="made")
    async def root(span: ts.RowSpan) -> list[object]:
        return values(span.count)

    @ts.batch_column(needs=["number"], name="made")
    async def batch(rows: list[Row]) -> list[object]:
        return values(len(rows))

    result = simulate([number, batch] if kind == "batch" else [root], tmp_path / "out", records=4)
    assert [row["made"] for row in result.rows()] == [0, 1, 3]
    assert next(calls) == 5


def test_a_cell_that_returns_an_exception_is_malformed(tmp_path: Path) -> None:
    @ts.column(needs=["number"])
    async def odd(row: Row) -> object:
        return ValueError("returned")

    result = simulate([number, odd], tmp_path / "out", records=2)
    assert (result.records, result.dropped) == (0, 2)
    assert "column 'odd' returned a ValueError that is not JSON" in result.summary()


def test_a_missing_output_gives_up_its_row_and_names_it(tmp_path: Path) -> None:
    @ts.column(needs=["number"], outputs=["a", "b"])
    async def two(row: dict[str, int]) -> Row:
        return {"a": 1} if row["number"] else {"a": 1, "b": 2}

    result = simulate([number, two], tmp_path / "out", records=3)
    assert list(result.rows()) == [{"number": 0, "a": 1, "b": 2}]
    assert "column 'a' returned a dict in which ['b'] is missing; return a mapping with 'a', 'b'" in result.summary()


def test_from_scratch_columns_seek_to_the_start_of_their_row_group(tmp_path: Path) -> None:
    spans: set[tuple[int, int, int]] = set()

    @ts.from_scratch_column(outputs=["n", "square"])
    def squares(span: ts.RowSpan) -> list[Row]:
        spans.add((span.start, span.count, span.seed))
        return [{"n": n, "square": n * n} for n in range(span.start, span.start + span.count)]

    result = simulate([squares], tmp_path / "out", records=25, buffer_size=10)
    assert spans == {(0, 10, 0), (10, 10, 0), (20, 5, 0)}
    assert list(result.rows()) == [{"n": n, "square": n * n} for n in range(25)]


def test_from_scratch_columns_stand_beside_input_rows_and_call_models(tmp_path: Path) -> None:
    model = ts.Model("p", "m")

    async def provider(count: int) -> list[int]:
        return list(range(count))

    @ts.from_scratch_column(model="m")
    async def seed(span: ts.RowSpan, handle: ts.ModelHandle) -> object:
        return await handle.call(provider, span.count)

    async def main() -> None:
        rows = [{"topic": "a"}, {"topic": "b"}]
        result = await ts.run([seed], rows=rows, models={"m": model}, output=tmp_path / "out", blocking=inline)
        assert list(result.rows()) == [{"topic": "a", "seed": 0}, {"topic": "b", "seed": 1}]
        assert result.requests[model.resource].attempts == 1

    mocked(main)


def test_an_input_value_that_cannot_be_kept_gives_up_its_row_and_names_it(tmp_path: Path) -> None:
    rows: list[Row] = [{"a": n, "b": {n} if n == 4 else n} for n in range(6)]
    result = simulate([ts.column(needs=["a"])(passed)], tmp_path / "out", rows=rows, buffer_size=2)
    assert [row["b"] for row in result.rows()] == [0, 1, 2, 3, 5]
    assert "InputRowError: the rows given, row 5: its 'b' is a set that is not JSON" in result.summary()


async def passed(row: Row) -> object:
    return row["a"]


@pytest.mark.parametrize("kind", ["cell", "batch"])
def test_readers_of_a_cell_cannot_change_it_for_each_other(tmp_path: Path, kind: str) -> None:
    returned: list[int] = [1]

    @ts.from_scratch_column()
    async def items(span: ts.RowSpan) -> list[list[int]]:
        return [returned] * span.count

    @ts.column(needs=["items"], name="vandal")
    async def vandal_of_cells(row: dict[str, list[int]]) -> int:
        returned.append(2)
        row["items"].append(2)
        row["other"] = []
        return len(row["items"])

    @ts.batch_column(needs=["items"], name="vandal")
    def vandal_of_rows(rows: list[dict[str, list[int]]]) -> list[int]:
        returned.append(2)
        for row in rows:
            row["items"].append(2)
        lengths = [len(row["items"]) for row in rows]
        rows.clear()
        return lengths

    @ts.column(needs=["items", "vandal"])
    async def reader(row: Row) -> object:
        return row["items"]

    vandal = vandal_of_cells if kind == "cell" else vandal_of_rows
    result = simulate([items, vandal, reader], tmp_path / "out", records=2)
    assert list(result.rows()) == [{"items": [1], "vandal": 2, "reader": [1]}] * 2


async def test_a_column_can_be_called_as_its_function() -> None:
    assert await pairs(ts.RowSpan(3, 1, 0)) == [{"first": 3, "second": [3], "odd": True}]
    assert await told({"body": 1, "note": 2}) == "1 2"


def test_bad_declarations_are_refused_where_they_stand() -> None:
    def one(given: object) -> object:
        raise AssertionError("must not run")

    with pytest.raises(ts.PipelineError, match=r"^outputs must be a list of column names, got the string 'a'; write"):
        ts.column(needs=["a"], outputs="a")
    with pytest.raises(ts.PipelineError, match=r"^side_effect_columns must be a list of column names"):
        ts.batch_column(needs=["a"], side_effect_columns="a")
    with pytest.raises(ts.InvalidTypeError, match=r"^each of needs must be a non-empty string, got 3$"):
        ts.column(needs=cast("list[str]", [3]))
    with pytest.raises(ts.PipelineError, match=r"^a function is known by its first output 'b', not by name='c'"):
        ts.column(needs=["a"], outputs=["b"], name="c")
    with pytest.raises(ts.PipelineError, match="needs no other column"):
        ts.batch_column(needs=[])(one)
    for model in (3, ["m", 3]):
        with pytest.raises(
            ts.PipelineError, match=r"^model must be a Model or the name of one, or a list of those, got 3$"
        ):
            ts.column(needs=["a"], model=cast("str", model))
    with pytest.raises(ts.PipelineError, match="calls a model and must be made by an async function"):
        ts.batch_column(needs=["a"], model="m")(one)


def test_an_output_has_one_owner(tmp_path: Path) -> None:
    @ts.column(needs=["number"], side_effect_columns=["told"])
    async def rival(row: Row) -> Row:
        raise AssertionError("must not run")

    @ts.column(needs=["number"], outputs=["a", "a"])
    async def twice(row: Row) -> Row:
        raise AssertionError("must not run")

    async def main() -> None:
        for columns, message in (
            ([number, *OF_ALL_KINDS, rival], r"^column 'told' is made twice, by told and rival"),
            ([number, twice], r"^column 'a' is made twice, by a and a"),
        ):
            with pytest.raises(ts.DuplicateColumnError, match=message):
                await ts.run(columns, records=1, output=tmp_path / "out")

    mocked(main)
    assert not (tmp_path / "out").exists()

"""Processors: what they see, what they may change, remove and add, and how one that fails ends the run."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from pipeline_samples import Row, mocked, number, simulate

import trio_sched as ts
from trio_sched.lowlevel import inline


@ts.column(needs=["number"])
async def double(row: dict[str, int]) -> int:
    await trio.sleep(1 / (1 + row["number"]))
    return row["number"] * 2


@ts.pre_batch_processor()
def even_ones(rows: list[dict[str, int]]) -> list[Row | None]:
    return [{**row} if row["number"] % 2 == 0 else None for row in rows]


def test_a_pre_batch_processor_comes_before_any_column(tmp_path: Path) -> None:
    seen: list[object] = []

    @ts.pre_batch_processor()
    async def shifted(rows: list[dict[str, int]]) -> list[Row]:
        await trio.sleep(1)
        seen.append("processor")
        return [{"number": row["number"] + 10} for row in rows]

    @ts.column(needs=["number"])
    async def copied(row: Row) -> object:
        seen.append(row["number"])
        return row["number"]

    @ts.batch_column(needs=["number"])
    def counted(rows: list[Row]) -> list[int]:
        return [len(rows)] * len(rows)

    result = simulate([copied, counted, number, shifted], tmp_path / "out", records=3)
    assert seen[0] == "processor"
    assert list(result.rows()) == [{"number": n, "copied": n, "counted": 3} for n in (10, 11, 12)]


def test_a_row_that_a_processor_removes_is_filtered_and_no_failure(tmp_path: Path) -> None:
    calls: list[int] = []

    @ts.column(needs=["number"])
    async def called(row: dict[str, int]) -> int:
        calls.append(row["number"])
        return row["number"]

    result = simulate([number, even_ones, called], tmp_path / "out", records=5)
    assert [row["called"] for row in result.rows()] == [0, 2, 4]
    assert sorted(calls) == [0, 2, 4]
    assert (result.records, result.dropped, result.scheduler.filtered_rows) == (3, 0, 2)
    assert "3 written, 0 dropped, 2 filtered" in result.summary()
    assert result.scheduler.drop_causes == ()
    assert result.scheduler.first_non_retryable_error is None


def test_a_post_batch_processor_sees_every_column_and_adds_its_own(tmp_path: Path) -> None:
    @ts.post_batch_processor(outputs=["rank", "of"])
    def ranked(rows: list[dict[str, int]]) -> list[Row | None]:
        assert all(list(row) == ["number", "double"] for row in rows)
        made: list[Row | None] = [
            {"rank": rank, "of": len(rows), "double": -row["double"]} for rank, row in enumerate(rows)
        ]
        return [*made[:-1], None]

    result = simulate([ranked, number, double], tmp_path / "out", records=4)
    assert list(result.rows()) == [{"number": n, "double": -2 * n, "rank": n, "of": 4} for n in range(3)]
    assert result.scheduler.filtered_rows == 1


def test_processors_follow_each_other_in_the_order_of_the_pipeline(tmp_path: Path) -> None:
    order: list[str] = []

    def noting(name: str) -> Callable[[list[Row]], list[Row]]:
        def note(rows: list[Row]) -> list[Row]:
            order.append(name)
            return rows

        return note

    @ts.post_batch_processor(outputs=["added"])
    def adding(rows: list[Row]) -> list[Row]:
        return [{"added": list(row)} for row in rows]

    @ts.post_batch_processor()
    def seeing(rows: list[Row]) -> list[Row]:
        order.append("seeing")
        return [{"added": [row["added"], "seen"]} for row in rows]

    steps = [
        ts.pre_batch_processor(name="first")(noting("first")),
        ts.post_batch_processor(name="third")(noting("third")),
        number,
        adding,
        ts.pre_batch_processor(name="second")(noting("second")),
        seeing,
    ]
    result = simulate(steps, tmp_path / "out", records=1)
    assert order == ["first", "second", "third", "seeing"]
    assert list(result.rows()) == [{"number": 0, "added": [["number"], "seen"]}]


def test_a_processor_sees_only_living_rows(tmp_path: Path) -> None:
    seen: list[list[object]] = []

    @ts.column(needs=["number"])
    async def picky(row: dict[str, int]) -> int:
        if row["number"] == 2:
            raise LookupError
        return row["number"]

    @ts.post_batch_processor()
    def looking(rows: list[Row]) -> list[Row]:
        seen.append([row["number"] for row in rows])
        return rows

    result = simulate([number, even_ones, picky, looking], tmp_path / "out", records=6)
    assert seen == [[0, 4]]
    assert (result.records, result.dropped, result.scheduler.filtered_rows) == (2, 1, 3)


def test_a_row_group_whose_rows_are_all_removed_leaves_nothing(tmp_path: Path) -> None:
    @ts.pre_batch_processor()
    def none_of(rows: list[dict[str, int]]) -> list[Row | None]:
        return [None if row["number"] < 4 else {} for row in rows]

    @ts.post_batch_processor()
    def looking(rows: list[Row]) -> list[Row]:
        assert rows
        return rows

    result = simulate([number, none_of, double, looking], tmp_path / "out", records=8, buffer_size=4)
    assert [row["double"] for row in result.rows()] == [8, 10, 12, 14]
    assert result.scheduler.filtered_rows == 4


async def test_sync_processors_run_in_threads(tmp_path: Path) -> None:
    threads: set[int] = set()

    @ts.post_batch_processor()
    def looking(rows: list[Row]) -> list[Row]:
        threads.add(threading.get_ident())
        return rows

    await ts.run([number, looking], records=3, output=tmp_path / "out")
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_processors_over_input_rows_cannot_change_what_others_were_given(tmp_path: Path) -> None:
    given: list[Row] = [{"topic": ["a"]}, {"topic": ["b"]}]
    kept: list[list[Row]] = []

    @ts.pre_batch_processor()
    def keeping(rows: list[Row]) -> list[Row]:
        kept.append(rows)
        return rows

    @ts.column(needs=["topic"])
    async def late(row: Row) -> object:
        for rows in kept:
            rows[0]["topic"] = "changed too late"
        return row["topic"]

    result = simulate([keeping, late], tmp_path / "out", rows=given)
    assert list(result.rows()) == [{"topic": ["a"], "late": ["a"]}, {"topic": ["b"], "late": ["b"]}]
    assert given == [{"topic": ["a"]}, {"topic": ["b"]}]


def raising(rows: list[Row]) -> object:
    raise LookupError("nothing there")


def rate_limited(rows: list[Row]) -> object:
    error = LookupError("429")
    error.status_code = 429  # type: ignore[attr-defined]  # as errors of SDKs have it
    raise error


def forgetful(rows: list[Row]) -> object:
    rows.pop()
    return None


def shorter(rows: list[Row]) -> object:
    return rows[1:]


def inventive(rows: list[Row]) -> object:
    return [{**row, "nmber": 1} for row in rows]


def lazy(rows: list[Row]) -> object:
    return (row for row in rows)


def wordy(rows: list[Row]) -> object:
    return ["row" for _ in rows]


def unwritable(rows: list[Row]) -> object:
    return [{"number": {1}} for _ in rows]


async def in_a_nursery(rows: list[Row]) -> object:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 1)
        raise LookupError("nothing there")


@pytest.mark.parametrize(
    ("function", "cause", "message"),
    [
        (raising, LookupError, r"it raised LookupError\('nothing there'\)"),
        (rate_limited, LookupError, r"it raised LookupError\('429'\)"),
        (in_a_nursery, LookupError, r"it raised LookupError\('nothing there'\)"),
        (forgetful, ts.MalformedOutputError, "it returned a NoneType instead of a sequence; return a list with one"),
        (shorter, ts.MalformedOutputError, "it returned a list of 1 values for 2 rows; return a list with one"),
        (inventive, ts.MalformedOutputError, r"it returned a dict with \['nmber'\], of which no row has a column"),
        (lazy, ts.MalformedOutputError, "it returned a generator instead of a sequence; return a list with one"),
        (wordy, ts.MalformedOutputError, "it returned a str in the place of a row; return for each row the dict"),
        (unwritable, ts.MalformedOutputError, "it returned a set that is not JSON"),
    ],
)
@pytest.mark.parametrize("decorate", [ts.pre_batch_processor, ts.post_batch_processor])
def test_a_failing_processor_ends_the_run_with_its_cause(
    tmp_path: Path,
    decorate: Callable[..., Callable[[Callable[..., object]], ts.Processor]],
    function: Callable[[list[Row]], object],
    cause: type[Exception],
    message: str,
) -> None:
    calls = itertools.count(1)

    def third_fails(rows: list[Row]) -> object:
        return function(rows) if next(calls) == 3 else rows

    async def third_fails_async(rows: list[Row]) -> object:
        return await in_a_nursery(rows) if next(calls) == 3 else rows

    processor = decorate(name="strict")(third_fails_async if function is in_a_nursery else third_fails)

    async def main() -> None:
        config = ts.RunConfig(buffer_size=2, max_concurrent_row_groups=1)
        with pytest.raises(ts.ProcessorError, match=rf"processor 'strict' failed on row group 2: {message}") as caught:
            await ts.run([number, processor], records=10, output=tmp_path / "out", config=config, blocking=inline)
        assert caught.value.stage == processor.stage
        assert (caught.value.processor, caught.value.row_group) == ("strict", 2)
        assert isinstance(caught.value.__cause__, cause)

    mocked(main)
    document = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (document["status"], document["error"]) == ("failed", "ProcessorError")
    assert sorted(part.name for part in (tmp_path / "out" / "data").iterdir()) == [
        "part-00000.jsonl",
        "part-00001.jsonl",
    ]


def test_a_processor_must_give_what_it_adds(tmp_path: Path) -> None:
    @ts.post_batch_processor(outputs=["rank"])
    def rankless(rows: list[Row]) -> list[Row]:
        return rows

    with pytest.raises(
        ts.ProcessorError, match=r"'rankless' failed on row group 0: it returned a dict without \['rank'\]"
    ):
        simulate([number, rankless], tmp_path / "out", records=2)


def test_a_pre_batch_processor_cannot_reach_later_columns(tmp_path: Path) -> None:
    @ts.pre_batch_processor()
    def early(rows: list[Row]) -> list[Row]:
        return [{"double": 1} for _ in rows]

    with pytest.raises(ts.ProcessorError, match=r"it returned a dict with \['double'\], of which no row has a column"):
        simulate([number, double, early], tmp_path / "out", records=2)


def test_bad_processors_are_refused_before_anything(tmp_path: Path) -> None:
    def unused(rows: list[Row]) -> list[Row]:
        raise AssertionError("must not run")

    def two(rows: list[Row], model: object) -> list[Row]:
        raise AssertionError("must not run")

    @ts.column(needs=["rank"])
    async def after_all(row: Row) -> object:
        raise AssertionError("must not run")

    with pytest.raises(
        ts.PipelineError, match=r"^pre-batch processor 'two' calls its function with 1 arguments \(rows\)"
    ):
        ts.pre_batch_processor()(two)
    with pytest.raises(ts.PipelineError, match=r"^outputs must name every column once, got \('a', 'a'\)$"):
        ts.post_batch_processor(outputs=["a", "a"])
    with pytest.raises(ts.PipelineError, match=r"^outputs must be a list of column names, got the string 'a'"):
        ts.post_batch_processor(outputs="a")

    async def main() -> None:
        refused: list[tuple[list[ts.PipelineStep], str]] = [
            ([ts.pre_batch_processor()(unused)], "^a pipeline needs at least one column$"),
            ([number, ts.post_batch_processor(name="number")(unused)], "^column 'number' is made twice"),
            ([number, ts.post_batch_processor(outputs=["number"])(unused)], "^column 'number' is made twice"),
            ([number, *[ts.pre_batch_processor()(unused)] * 2], "^column 'unused' is made twice"),
            ([number, after_all, ts.post_batch_processor(outputs=["rank"])(unused)], "need each other in a circle"),
        ]
        for steps, message in refused:
            with pytest.raises(ts.PipelineError, match=message):
                await ts.run(steps, records=1, output=tmp_path / "out")

    mocked(main)
    assert not (tmp_path / "out").exists()

"""Whole runs: what goes in, what comes out, and what is refused before anything happens."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing
from sequential import run_sequentially

import trio_sched as ts
from trio_sched.lowlevel import InMemoryAdmissionEventSink, inline


class RateLimitError(Exception):
    status_code = 429


class ServerError(Exception):
    status_code = 503


def mocked(main: Callable[[], Awaitable[None]]) -> None:
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@ts.from_scratch_column()
async def number(span: ts.RowSpan) -> list[int]:
    return [(span.seed + n) * 7919 % 1000 for n in range(span.start, span.start + span.count)]


@ts.column(needs=["number"])
async def double(row: dict[str, int]) -> int:
    return row["number"] * 2


@ts.column(needs=["number", "double"])
async def pair(row: dict[str, int]) -> list[int]:
    await trio.sleep(row["number"] / 1000)
    return [row["number"], row["double"]]


PLAIN = [number, double, pair]


@pytest.mark.parametrize(("buffer_size", "row_groups"), [(1, 1), (7, 3), (50, 2), (1000, 8)])
def test_data_are_those_of_a_sequential_run(tmp_path: Path, buffer_size: int, row_groups: int) -> None:
    async def main() -> None:
        config = ts.RunConfig(buffer_size=buffer_size, max_concurrent_row_groups=row_groups, seed=5)
        result = await ts.run(PLAIN, records=103, output=tmp_path / "out", config=config, blocking=inline)
        assert result.records == 103
        assert result.data_hash() == await run_sequentially(PLAIN, records=103, seed=5)
        assert len(list(result.rows())) == 103
        assert result.leaks == ()
        plan = json.loads((tmp_path / "out" / "capacity_plan.json").read_text())
        assert plan["observed_maxima"]["row_groups_in_flight"] <= row_groups

    mocked(main)


def test_rows_from_an_iterable_and_from_files(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"number": n, "text": f'"{n}" é\n'} for n in range(25)]
    jsonl = tmp_path / "rows.jsonl"
    jsonl.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    async def main() -> None:
        expected = await run_sequentially([double, pair], records=0, rows=rows)
        sources: list[Iterable[dict[str, object]] | Path | str] = [iter(rows), jsonl, str(jsonl)]
        for index, source in enumerate(sources):
            out = tmp_path / str(index)
            result = await ts.run([double, pair], rows=source, output=out, blocking=inline)
            assert result.data_hash() == expected

    mocked(main)


def test_rows_from_csv_are_text(tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("a,b\n1,x\n2,y\n", encoding="utf-8")

    @ts.column(needs=["a"])
    async def both(row: dict[str, str]) -> str:
        return row["a"] * 2

    async def main() -> None:
        result = await ts.run([both], rows=source, output=tmp_path / "out", blocking=inline)
        assert list(result.rows()) == [{"a": "1", "b": "x", "both": "11"}, {"a": "2", "b": "y", "both": "22"}]

    mocked(main)


def test_a_generator_that_raises_drops_its_row_and_the_run_goes_on(tmp_path: Path) -> None:
    @ts.column(needs=["number"])
    async def picky(row: dict[str, int]) -> int:
        if row["number"] % 5 == 0:
            raise LookupError(f"nothing for {row['number']}")
        return row["number"]

    @ts.column(needs=["picky"])
    async def after(row: dict[str, int]) -> int:
        return row["picky"]

    async def main() -> None:
        result = await ts.run([number, picky, after], records=100, output=tmp_path / "out", blocking=inline)
        numbers = await number(ts.RowSpan(0, 100, 0))
        kept = [n for n in cast("list[int]", numbers) if n % 5]
        assert [row["after"] for row in result.rows()] == kept
        assert result.dropped == 100 - len(kept)
        (cause,) = result.scheduler.drop_causes
        assert (cause.column, cause.error_type, cause.rows) == ("picky", "LookupError", result.dropped)
        assert f"dropped {result.dropped} rows: column 'picky', LookupError: nothing for" in result.summary()
        assert result.scheduler.first_non_retryable_error is cause.first_error

    mocked(main)


def test_what_is_not_json_is_malformed_and_says_so(tmp_path: Path) -> None:
    @ts.column(needs=["number"])
    async def odd(row: dict[str, int]) -> object:
        return {1, 2}

    @ts.column(needs=["number"])
    async def endless(row: dict[str, int]) -> object:
        return float("nan")

    async def main() -> None:
        for column, problem in ((odd, "returned a set that is not JSON"), (endless, "Out of range float values")):
            output = tmp_path / column.name
            result = await ts.run([number, column], records=3, output=output, blocking=inline)
            assert (result.records, result.dropped) == (0, 3)
            assert f"dropped 3 rows: column {column.name!r}, MalformedOutputError" in result.summary()
            assert problem in result.summary()

    mocked(main)


def test_a_from_scratch_column_of_the_wrong_length_drops_its_row_group(tmp_path: Path) -> None:
    @ts.from_scratch_column()
    async def short(span: ts.RowSpan) -> list[int]:
        return list(range(span.count - (span.start == 0)))

    async def main() -> None:
        config = ts.RunConfig(buffer_size=10)
        result = await ts.run([short], records=20, output=tmp_path / "out", config=config, blocking=inline)
        assert (result.records, result.dropped) == (10, 10)
        assert "returned a list of 9 values for 10 rows" in result.summary()

    mocked(main)


def test_readers_of_a_cell_cannot_change_it_for_each_other(tmp_path: Path) -> None:
    @ts.from_scratch_column()
    async def items(span: ts.RowSpan) -> list[list[int]]:
        return [[1] for _ in range(span.count)]

    @ts.column(needs=["items"])
    async def vandal(row: dict[str, list[int]]) -> int:
        row["items"].append(2)
        return len(row["items"])

    @ts.column(needs=["items", "vandal"])
    async def reader(row: dict[str, object]) -> object:
        return row["items"]

    async def main() -> None:
        result = await ts.run([items, vandal, reader], records=2, output=tmp_path / "out", blocking=inline)
        assert list(result.rows()) == [{"items": [1], "vandal": 2, "reader": [1]}] * 2

    mocked(main)


def test_no_row_is_lost_to_rate_limits(tmp_path: Path) -> None:
    model = ts.Model("p", "m", max_parallel_requests=16)
    calls = in_flight = 0

    async def provider(value: int) -> int:
        nonlocal calls, in_flight
        calls += 1
        if in_flight >= 3:
            await trio.sleep(0.01)
            raise RateLimitError
        in_flight += 1
        try:
            await trio.sleep(0.1)
            return value + 1
        finally:
            in_flight -= 1

    @ts.column(needs=["number"], model=model)
    async def called(row: dict[str, int], handle: ts.ModelHandle) -> int:
        return await handle.call(provider, row["number"])

    async def main() -> None:
        sink = InMemoryAdmissionEventSink()
        result = await ts.run([number, called], records=300, output=tmp_path / "out", blocking=inline, event_sink=sink)
        assert (result.records, result.dropped, result.leaks) == (300, 0, ())
        statistics = result.requests[model.resource]
        assert statistics.attempts == calls
        assert statistics.outcomes["rate_limited"] == calls - 300
        assert statistics.outcomes["success"] == 300
        kinds = [event.event_kind for event in sink.request_events]
        assert kinds.count("request_lease_acquired") == kinds.count("request_lease_released") == calls
        assert "request_limit_decreased" in kinds
        assert result.data_hash() == await run_after_calming(called)

    async def run_after_calming(column: ts.Column) -> str:
        return await run_sequentially([number, column], records=300)

    mocked(main)


def test_a_provider_that_keeps_failing_stops_the_run_and_settles_nothing(tmp_path: Path) -> None:
    model = ts.Model("p", "m")

    async def provider() -> int:
        raise ServerError

    @ts.column(needs=["number"], model=model)
    async def called(row: dict[str, int], handle: ts.ModelHandle) -> int:
        return await handle.call(provider)

    async def main() -> None:
        result = await ts.run([number, called], records=2, output=tmp_path / "out", blocking=inline)
        assert (result.status, result.stop_reason) == ("stopped", "endpoint_not_answering")
        assert (result.records, result.dropped, result.leaks) == (0, 0, ())

    mocked(main)


async def run_never(row: dict[str, object]) -> int:
    raise AssertionError("must not run")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (lambda: [ts.column(needs=["b"], name="a")(run_never), ts.column(needs=["a"], name="b")(run_never)], "circle"),
        (lambda: [number, ts.column(needs=["nummer"])(run_never)], "did you mean 'number'"),
        (lambda: [number, number], "column 'number' is made twice"),
        (lambda: [number, ts.column(needs=["number"], model="wrter", name="x")(with_model)], "did you mean 'writer'"),
        (list, "at least one column"),
        (lambda: [run_never], "must be made with @column"),
    ],
)
async def test_bad_pipelines_are_refused_before_anything(
    tmp_path: Path, columns: Callable[[], list[ts.Column]], message: str
) -> None:
    with pytest.raises(ts.PipelineError, match=message):
        await ts.run(columns(), records=3, output=tmp_path / "out", models={"writer": ts.Model("p", "m")})
    assert not (tmp_path / "out").exists()


def plain(row: dict[str, object], handle: ts.ModelHandle) -> object:
    raise AssertionError("must not run")


async def with_model(row: dict[str, object], handle: ts.ModelHandle) -> int:
    raise AssertionError("must not run")


def test_bad_declarations_are_refused_where_they_stand() -> None:
    with pytest.raises(ts.PipelineError, match="calls a model and must be made by an async function"):
        ts.column(needs=["a"], model=ts.Model("p", "m"))(plain)
    with pytest.raises(ts.PipelineError, match=r"calls its function with 2 arguments \(row, model p/m/chat\)"):
        ts.column(needs=["a"], model=ts.Model("p", "m"))(run_never)
    with pytest.raises(ts.PipelineError, match=r"write \['a'\]"):
        ts.column(needs="a")
    with pytest.raises(ts.PipelineError, match="needs no other column"):
        ts.column(needs=[])(run_never)
    with pytest.raises(ts.InvalidValueError, match=r"^RunConfig.buffer_size must be a positive int, got -1$"):
        ts.RunConfig(buffer_size=-1)
    with pytest.raises(ts.InvalidValueError, match=r"^Model.max_parallel_requests must be a positive int, got 0$"):
        ts.Model("p", "m", max_parallel_requests=0)


def test_a_model_id_that_looks_like_a_numbered_alias_is_one_of_its_own(tmp_path: Path) -> None:
    models = [ts.Model("p", "m"), ts.Model("p", "m", max_parallel_requests=3), ts.Model("p", "m#2")]

    @ts.column(needs=["number"], model=models)
    async def called(row: dict[str, int], *handles: ts.ModelHandle) -> list[str]:
        return [await handle.call(answer, handle.model_id) for handle in handles]

    async def answer(text: str) -> str:
        await trio.lowlevel.checkpoint()
        return text

    async def main() -> None:
        result = await ts.run([number, called], records=1, output=tmp_path / "out", blocking=inline)
        assert [row["called"] for row in result.rows()] == [["m", "m", "m#2"]]
        assert {str(endpoint): cap for endpoint, cap in result.static_caps.items()} == {"p/m": 3, "p/m#2": 64}

    mocked(main)


async def test_bad_inputs_are_refused_before_anything(tmp_path: Path) -> None:
    out = tmp_path / "out"
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"number": 1\n', encoding="utf-8")
    with pytest.raises(ts.InputRowError, match=r"bad\.jsonl, row 1: not JSON"):
        await ts.run([double], rows=bad, output=out)
    with pytest.raises(ts.PipelineError, match="which is not a file"):
        await ts.run([double], rows=tmp_path / "none.jsonl", output=out)
    with pytest.raises(ts.PipelineError, match=r"\.jsonl or \.csv"):
        await ts.run([double], rows=tmp_path / "none.parquet", output=out)
    with pytest.raises(ts.PipelineError, match="has no rows"):
        await ts.run([double], rows=[], output=out)
    with pytest.raises(ts.InputRowError, match="the rows given, row 1: a row must be a mapping, got NoneType"):
        await ts.run([double], rows=cast("list[dict[str, int]]", [None, {"number": 1}]), output=out)
    with pytest.raises(ts.PipelineError, match="rows or records"):
        await ts.run([number], output=out)
    with pytest.raises(ts.InvalidValueError, match=r"^records must be an int of at least 0, got -3$"):
        await ts.run([number], records=-3, output=out)
    assert not out.exists()


async def test_an_output_that_holds_another_run_is_refused(tmp_path: Path) -> None:
    first = await ts.run([number], records=3, output=tmp_path / "out")
    with pytest.raises(ts.OutputExistsError, match=r"already holds run .* choose another folder") as caught:
        await ts.run([number], records=3, output=tmp_path / "out")
    assert caught.value.run_id == first.run_id
    assert len(list(first.rows())) == 3


@pytest.mark.parametrize("output", ["a\0b", "a/\ud800/b", Path("\0"), 5, None, b"out"])
async def test_an_output_that_no_folder_can_have_is_refused(output: Any) -> None:
    kind = ts.InvalidValueError if isinstance(output, str | Path) else ts.InvalidTypeError
    with pytest.raises(kind, match=r"^output must be a path") as caught:
        await ts.run([number], records=1, output=output)
    assert caught.value.field == "output"


async def test_an_output_with_too_long_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ts.OutputNotWritableError, match=r"File name too long; choose a shorter name$"):
        await ts.run([number], records=1, output=tmp_path / ("a" * 300))


async def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(ts.OutputNotWritableError, match=r"cannot be written: .*choose a folder you may write to"):
        await ts.run([number], records=3, output=tmp_path / "file" / "out")


def test_a_row_that_breaks_the_source_ends_the_run_with_its_cause(tmp_path: Path) -> None:
    async def main() -> None:
        rows = [{"number": n} for n in range(10)] + [{"nmber": 1}]
        config = ts.RunConfig(buffer_size=5)
        with pytest.raises(ts.InputRowError, match=r"row 11: columns differ from the first row's"):
            await ts.run([double], rows=rows, output=tmp_path / "out", config=config, blocking=inline)
        assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "failed"

    mocked(main)


def test_what_a_run_leaves_behind(tmp_path: Path) -> None:
    out = tmp_path / "out"
    model = ts.Model("p", "m", max_parallel_requests=4)

    async def reply(value: int) -> int:
        return value

    @ts.column(needs=["number"], model=model)
    async def called(row: dict[str, int], handle: ts.ModelHandle) -> int:
        return await handle.call(reply, row["number"])

    async def main() -> None:
        config = ts.RunConfig(buffer_size=10, write_events="all")
        await ts.run([number, called], records=25, output=out, config=config, blocking=inline)

    mocked(main)
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()) == [
        "capacity_plan.json",
        "data/part-00000.jsonl",
        "data/part-00001.jsonl",
        "data/part-00002.jsonl",
        "events/batches.log",
        "events/request.jsonl",
        "events/scheduler.jsonl",
        "report.html",
        "run.json",
        "run.lock",
        "trace.json",
    ]
    run = json.loads((out / "run.json").read_text())
    assert (run["status"], run["rows"], run["dropped_rows"]) == ("completed", 25, 0)
    plan = json.loads((out / "capacity_plan.json").read_text())
    assert plan["configured"]["buffer_size"]["value"] == 10
    assert plan["configured"]["buffer_size"]["source"] == "run_config"
    assert plan["configured"]["submission_capacity"]["source"] == "default"
    assert plan["configured"]["provider_model_static_caps"]["p/m"]["value"]["cap"] == 4
    assert plan["observed_maxima"]["request_in_flight_by_resource"] == {"p/m/chat": 4}
    scheduler = [json.loads(line) for line in (out / "events" / "scheduler.jsonl").read_text().splitlines()]
    kinds = [event["event_kind"] for event in scheduler]
    assert kinds.count("task_lease_acquired") == kinds.count("task_lease_released") == 28
    assert kinds.count("row_group_checkpointed") == 3
    assert kinds[0] == "scheduler_job_started"
    assert kinds[-1] == "scheduler_job_completed"
    assert [event["sequence"] for event in scheduler] == list(range(1, len(scheduler) + 1))

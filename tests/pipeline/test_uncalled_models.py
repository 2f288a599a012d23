"""A column that has a model and never calls it is reported once, when the run is over."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

import trio_sched as ts
from trio_sched.lowlevel import inline

MODEL = ts.Model("p", "m", max_parallel_requests=2)
OTHER = ts.Model("p", "n", max_parallel_requests=2)


@ts.from_scratch_column()
async def number(span: ts.RowSpan) -> list[int]:
    return list(range(span.start, span.start + span.count))


async def served() -> str:
    return "good"


async def run(
    columns: list[ts.Column], out: Path, caplog: pytest.LogCaptureFixture, *, resume: bool = False
) -> ts.RunResult:
    with caplog.at_level(logging.WARNING, logger="trio_sched.run"):
        result = await ts.run(
            columns,
            records=20,
            output=out,
            config=ts.RunConfig(buffer_size=5),
            resume="if-possible" if resume else "never",
            blocking=inline,
        )
    told = [record.getMessage() for record in caplog.records if "never called" in record.getMessage()]
    assert [line for line in result.summary().splitlines() if "never called" in line] == told
    assert [line.split("'")[1] for line in told] == list(result.uncalled_models)
    return result


async def test_a_column_that_calls_its_client_directly_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @ts.column(needs=["number"], model=MODEL)
    async def recipe(row: dict[str, int], model: ts.ModelHandle) -> str:
        return await served()

    @ts.column(needs=["number"], model=MODEL)
    async def answer(row: dict[str, int], model: ts.ModelHandle) -> str:
        return await model.call(served)

    result = await run([number, recipe, answer], tmp_path / "out", caplog)
    assert result.uncalled_models == ("recipe",)
    (record,) = caplog.records
    assert record.getMessage() == (
        "column 'recipe' has a model and never called it; "
        "what its function calls other than by the model's call() is neither admitted nor counted"
    )
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "completed"


async def test_one_call_of_one_task_to_one_of_its_models_is_enough(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @ts.column(needs=["number"], model=[MODEL, OTHER])
    async def judged(row: dict[str, int], first: ts.ModelHandle, second: ts.ModelHandle) -> str:
        return await second.call(served) if row["number"] == 7 else "none needed"

    result = await run([number, judged], tmp_path / "out", caplog)
    assert result.uncalled_models == ()


async def test_a_column_that_was_skipped_or_gave_up_all_its_rows_had_nothing_to_call_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def always(row: dict[str, int]) -> bool:
        return True

    @ts.column(needs=["number"], model=MODEL, skip_when=always)
    async def skipped(row: dict[str, int], model: ts.ModelHandle) -> str:
        return await served()

    @ts.column(needs=["number"], model=MODEL)
    async def failing(row: dict[str, int], model: ts.ModelHandle) -> str:
        raise LookupError

    assert (await run([number, skipped], tmp_path / "skipped", caplog)).uncalled_models == ()
    result = await run([number, failing], tmp_path / "failing", caplog)
    assert (result.records, result.uncalled_models) == (0, ())


async def test_a_resumed_run_that_has_nothing_left_to_make_tells_of_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @ts.column(needs=["number"], model=MODEL)
    async def recipe(row: dict[str, int], model: ts.ModelHandle) -> str:
        return "none needed"

    first = await run([number, recipe], tmp_path / "out", caplog)
    assert first.uncalled_models == ("recipe",)
    caplog.clear()
    second = await run([number, recipe], tmp_path / "out", caplog, resume=True)
    assert (second.records, second.uncalled_models) == (20, ())

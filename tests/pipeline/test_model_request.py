"""`Model(timeout=)`, the block `model.request()`, its pieces, and timeouts of a column's own."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import trio_sched as ts
from trio_sched import ModelTimeoutError, OpenStreamError
from trio_sched.testing import simulate

ROWS = [{"n": number} for number in range(20)]
Work = Callable[[Any, Any], Awaitable[object]]


def run(tmp_path: Path, work: Work, *, timeout: float | None = 10.0, copies: int = 1) -> ts.RunResult:
    model = ts.Model("p", "m", max_parallel_requests=4, timeout=timeout)
    rows = [{**row, "copy": copy} for copy in range(copies) for row in ROWS]

    @ts.column(needs=["n", "copy"], model=model)
    async def answer(row: Any, handle: Any) -> object:
        return await work(row, handle)

    return simulate([answer], rows=rows, output=tmp_path / "out")


def outcomes(result: ts.RunResult) -> dict[str, int]:
    return {kind: count for each in result.requests.values() for kind, count in each.outcomes.items()}


class Stream:
    """Pieces with pauses between them; `pauses` in seconds."""

    def __init__(self, *pauses: float) -> None:
        self.pauses = pauses

    async def __aiter__(self) -> AsyncGenerator[str, None]:
        for pause in self.pauses:
            await trio.sleep(pause)
            yield "x"


async def opened(stream: Stream) -> Stream:
    await trio.sleep(1)
    return stream


def test_a_block_holds_its_lease_while_a_stream_is_read(tmp_path: Path) -> None:
    most = now = 0

    async def work(row: Any, model: Any) -> str:
        nonlocal most, now
        async with model.request(timeout=20, idle_timeout=3) as request:
            now += 1
            most = max(most, now)
            text = ""
            async for piece in request.pieces(await request.call(opened, Stream(2, 2, 2))):
                text += piece
            now -= 1
        return text

    result = run(tmp_path, work)
    assert (result.status, result.records, most) == ("completed", 20, 4)
    assert all(row["answer"] == "xxx" for row in result.rows())
    assert outcomes(result) == {"success": 20}


def test_a_piece_that_does_not_come_fails_the_attempt_and_the_cell_is_made_again(tmp_path: Path) -> None:
    tries: dict[int, int] = {}

    async def work(row: Any, model: Any) -> int:
        tries[row["n"]] = tries.get(row["n"], 0) + 1
        pauses = (1, math.inf) if row["n"] == 7 and tries[7] == 1 else (1, 1)
        async with model.request(idle_timeout=3) as request:
            return sum([1 async for _ in request.pieces(await request.call(opened, Stream(*pauses)))])

    result = run(tmp_path, work)
    assert (result.records, tries[7]) == (20, 2)
    assert outcomes(result) == {"success": 20, "provider_timeout": 1}


def test_a_row_whose_stream_always_breaks_is_rejected_alone(tmp_path: Path) -> None:
    tries = 0

    async def work(row: Any, model: Any) -> int:
        nonlocal tries
        is_bad = row["n"] == 7 and row["copy"] == 0
        tries += is_bad
        async with model.request() as request:
            await request.call(trio.sleep, 1)
            if is_bad:
                raise ConnectionResetError
            return 1

    result = run(tmp_path, work, copies=150)
    assert (result.status, result.records, result.dropped) == ("completed", 2999, 1)
    assert tries == 5


def test_the_time_of_a_block_is_bounded_without_the_wait_for_its_lease(tmp_path: Path) -> None:
    raised: list[str] = []

    async def work(row: Any, model: Any) -> int:
        try:
            async with model.request(timeout=2):
                await trio.sleep(1 if row["n"] else 5)
        except ModelTimeoutError as error:
            raised.append(str(error))
        return 1

    result = run(tmp_path, work)
    assert result.records == 20
    assert raised == ["p/m did not answer a call within 2 s; allow more with model.request(timeout=...)"]


def test_a_call_that_is_never_answered_costs_one_row_alone(tmp_path: Path) -> None:
    calls = 0

    async def call(number: int) -> int:
        nonlocal calls
        calls += number == 7
        await trio.sleep(math.inf if number == 7 else 1)
        return number

    async def work(row: Any, model: Any) -> object:
        return await model.call(call, row["n"])

    result = run(tmp_path, work)
    assert (result.status, result.records, result.dropped, calls) == ("completed", 19, 1, 5)
    (cause,) = result.scheduler.drop_causes
    assert (cause.error_type, cause.rows) == ("ModelTimeoutError", 1)


@pytest.mark.parametrize("kind", ["stream", "not awaited"])
def test_an_open_stream_is_refused_with_the_remedy(tmp_path: Path, kind: str) -> None:
    async def work(row: Any, model: Any) -> object:
        return await model.call(opened if kind == "stream" else Stream, *([Stream(1)] if kind == "stream" else [1]))

    result = run(tmp_path, work)
    assert (result.records, result.dropped) == (0, 20)
    (cause,) = result.scheduler.drop_causes
    assert isinstance(cause.first_error, OpenStreamError)
    assert "async with model.request() as request" in str(cause.first_error)


def test_a_timeout_around_a_call_that_waits_settles_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Four calls are out for a hundred seconds, while the others wait for no longer than ten."""

    async def work(row: Any, model: Any) -> object:
        if row["n"] < 4:
            return await model.call(trio.sleep, 100)
        with trio.fail_after(10):
            return await model.call(trio.sleep, 1)

    with caplog.at_level(logging.WARNING, "trio_sched.run"):
        result = run(tmp_path, work, timeout=None)
    assert (result.status, result.records, result.dropped) == ("completed", 20, 0)
    said = [text for text in caplog.messages if "included the wait for admission" in text]
    assert len(said) == 1
    assert said[0].startswith("a timeout around a model call of column 'answer' included the wait for admission")


def test_a_timeout_around_a_call_that_is_out_says_something_about_it(tmp_path: Path) -> None:
    tries = 0

    async def work(row: Any, model: Any) -> object:
        nonlocal tries
        tries += row["n"] == 7
        with trio.fail_after(50):
            return await model.call(trio.sleep, 100 if row["n"] == 7 else 1)

    result = run(tmp_path, work, timeout=None)
    assert (result.status, result.records, result.dropped) == ("completed", 19, 1)
    assert tries == 5


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan, True, "1"])
def test_bad_times_are_refused_with_the_value(tmp_path: Path, seconds: Any) -> None:
    with pytest.raises(ValueError, match=r"^Model.timeout must be None or a positive finite number, got "):
        ts.Model("p", "m", timeout=seconds)
    found: list[str] = []

    async def work(row: Any, model: Any) -> int:
        for name in ("timeout", "idle_timeout"):
            with pytest.raises(ValueError, match="must be None or a positive finite number") as caught:
                model.request(**{name: seconds})
            found.append(str(caught.value))
        await model.call(trio.sleep, 1)
        return 1

    assert run(tmp_path, work).records == 20
    assert found[0].startswith("timeout of model.request must be")
    assert found[1].startswith("idle_timeout of model.request must be")

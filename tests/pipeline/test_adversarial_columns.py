"""Functions that do what they should not: each is contained, and what it does to the run is told here.

A run that is cancelled ends when every function has returned: one that catches the cancellation decides itself how long
that takes. Nothing of it is kept.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest
import trio
import trio.testing
from pipeline_samples import CancelAtStep, Row, mocked, number, run_and_cancel, simulate, status

import trio_sched as ts
from trio_sched.lowlevel import InMemoryAdmissionEventSink, inline

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

MODEL = ts.Model("p", "m")


class RateLimitError(Exception):
    status_code = 429


class ServerError(Exception):
    status_code = 503


class UnusualError(BaseException):
    pass


@pytest.mark.parametrize("times", [1, 5])
def test_one_that_swallows_cancellation_holds_up_the_end_and_keeps_nothing(tmp_path: Path, times: int) -> None:
    started = trio.Event()
    swallowed = 0

    @ts.column(needs=["number"])
    async def stubborn(row: Row) -> str:
        nonlocal swallowed
        for _ in range(times):
            try:
                started.set()
                await trio.sleep_forever()
            except trio.Cancelled:
                swallowed += 1
        return "kept all the same"

    mocked(lambda: run_and_cancel([number, stubborn], tmp_path / "out", started))
    assert swallowed == 4 * times


@pytest.mark.parametrize("raised", [LookupError("too late"), RateLimitError()])
def test_one_that_answers_cancellation_with_an_error_does_not_fail_the_run(tmp_path: Path, raised: Exception) -> None:
    started = trio.Event()

    @ts.column(needs=["number"])
    async def bitter(row: Row) -> str:
        try:
            started.set()
            await trio.sleep_forever()
        finally:
            raise raised

    mocked(lambda: run_and_cancel([number, bitter], tmp_path / "out", started))


def test_errors_beside_a_cancellation_do_not_fail_the_run(tmp_path: Path) -> None:
    started = trio.Event()

    async def fails_late() -> None:
        try:
            started.set()
            await trio.sleep_forever()
        finally:
            raise LookupError("too late")

    @ts.column(needs=["number"])
    async def divided(row: Row) -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails_late)
            nursery.start_soon(trio.sleep_forever)
        raise AssertionError("must not get here")

    mocked(lambda: run_and_cancel([number, divided], tmp_path / "out", started))


@pytest.mark.parametrize("sync", [False, True])
def test_one_that_goes_on_after_its_row_was_given_up_changes_nothing(tmp_path: Path, sync: bool) -> None:
    given_up = trio.Event()

    @ts.column(needs=["number"], outputs=["late", "later"])
    async def stubborn(row: Row) -> Row:
        with trio.CancelScope(shield=True):
            await given_up.wait()
            await trio.sleep(1)
        return {"late": 1, "later": 2}

    @ts.column(needs=["number"], outputs=["late", "later"])
    def in_a_thread(row: Row) -> Row:
        return {"late": 1, "later": 2}

    @ts.column(needs=["number"])
    async def picky(row: dict[str, int]) -> int:
        if row["number"] == 1:
            given_up.set()
            raise LookupError
        return 0

    @ts.batch_column(needs=["later"])
    async def rows_left(rows: list[Row]) -> list[int]:
        return [len(rows)] * len(rows)

    steps = [number, in_a_thread if sync else stubborn, picky, rows_left]
    result = simulate(steps, tmp_path / "out", records=3)
    assert [(row["number"], row["rows_left"]) for row in result.rows()] == [(0, 2), (2, 2)]


def test_steps_of_every_kind_can_be_cancelled_anywhere(tmp_path: Path) -> None:
    @ts.column(needs=["number"], outputs=["a", "b"], ordered=True)
    def sync(row: Row) -> Row:
        return {"a": row["number"], "b": 2}

    @ts.column(needs=["a"], skip_when=is_two, side_effect_columns=["aside"])
    async def waiting(row: Row) -> Row:
        await trio.sleep(1)
        return {"waiting": 1}

    @ts.batch_column(needs=["aside"])
    async def batch(rows: list[Row]) -> list[int]:
        await trio.sleep(1)
        return [1] * len(rows)

    @ts.pre_batch_processor()
    async def before(rows: list[Row]) -> list[Row | None]:
        await trio.sleep(1)
        return [*rows[:-1], None]

    @ts.post_batch_processor(outputs=["place"])
    def after(rows: list[Row]) -> list[Row]:
        return [{"place": place} for place, _ in enumerate(rows)]

    async def main() -> None:
        config = ts.RunConfig(buffer_size=2, max_concurrent_row_groups=2)
        steps = cancelled = 0
        while cancelled == steps:
            steps += 7
            out = tmp_path / str(steps)
            canceller = CancelAtStep(steps)
            sink = InMemoryAdmissionEventSink()
            trio.lowlevel.add_instrument(canceller)
            with canceller.scope:
                columns = [number, sync, waiting, batch, before, after]
                await ts.run(columns, records=4, output=out, event_sink=sink, config=config, blocking=inline)
            trio.lowlevel.remove_instrument(canceller)
            cancelled += 7 * canceller.scope.cancelled_caught
            kinds = Counter(event.event_kind for event in sink.scheduler_events)
            assert kinds["task_lease_acquired"] == kinds["task_lease_released"]
            for part in (out / "data").glob("*"):
                assert [json.loads(line)["place"] for line in part.read_text().splitlines()] == [0]
        assert cancelled > 50

    mocked(main)


def is_two(row: Row) -> bool:
    return row["a"] == 2


@pytest.mark.parametrize("kind", ["cell", "batch", "from_scratch"])
def test_an_error_in_a_nursery_of_its_own_is_told_as_itself(tmp_path: Path, kind: str) -> None:
    async def fails() -> None:
        raise LookupError("nothing there")

    async def divided(given: object) -> object:
        async with trio.open_nursery() as outer, trio.open_nursery() as nursery:
            outer.start_soon(trio.sleep_forever)
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(fails)
        raise AssertionError("must not get here")

    steps = {
        "cell": [number, ts.column(needs=["number"])(divided)],
        "batch": [number, ts.batch_column(needs=["number"])(divided)],
        "from_scratch": [ts.from_scratch_column()(divided)],
    }[kind]
    result = simulate(steps, tmp_path / "out", records=3)
    assert "dropped 3 rows: column 'divided', LookupError: nothing there" in result.summary()


def test_a_rate_limit_in_a_nursery_of_its_own_is_waited_out(tmp_path: Path) -> None:
    calls = Counter[int]()

    async def provider(value: int) -> None:
        calls[value] += 1
        if calls[value] < 8:
            raise RateLimitError

    @ts.column(needs=["number"])
    async def divided(row: dict[str, int]) -> int:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(provider, row["number"])
        return row["number"]

    result = simulate([number, divided], tmp_path / "out", records=2)
    assert [row["divided"] for row in result.rows()] == [0, 1]
    assert calls == {0: 8, 1: 8}


@pytest.mark.parametrize(
    ("errors", "calls"),
    [
        ([RateLimitError(), LookupError()], 1),
        ([RateLimitError(), ServerError()], 5),
        ([ExceptionGroup("inner", [ServerError(), LookupError()]), RateLimitError()], 1),
    ],
)
def test_of_several_errors_the_least_hopeful_decides(tmp_path: Path, errors: list[Exception], calls: int) -> None:
    called = 0

    @ts.column(needs=["number"])
    async def divided(row: Row) -> int:
        nonlocal called
        called += 1
        raise ExceptionGroup("several", errors)

    result = simulate([number, divided], tmp_path / "out", records=1)
    assert (result.dropped, called) == (1, calls)
    assert "dropped 1 row: column 'divided', ExceptionGroup: several" in result.summary()


def test_one_that_never_checkpoints_cannot_keep_a_run_from_being_cancelled(tmp_path: Path) -> None:
    calls = 0
    scope = trio.CancelScope()

    @ts.column(needs=["number"])
    async def busy(row: Row) -> int:
        nonlocal calls
        calls += 1
        if calls == 3:
            scope.cancel()
        return calls

    async def main() -> None:
        with scope:
            config = ts.RunConfig(buffer_size=1, max_concurrent_row_groups=1)
            await ts.run([number, busy], records=1000, output=tmp_path / "out", config=config, blocking=inline)
        assert scope.cancelled_caught

    mocked(main)
    assert calls == 3
    assert status(tmp_path / "out") == "interrupted"


@pytest.mark.parametrize("raised", [UnusualError(), SystemExit(3), GeneratorExit()])
@pytest.mark.parametrize("where", ["async", "sync", "batch", "rule", "processor", "nursery"])
def test_what_is_no_exception_ends_the_run_as_itself(tmp_path: Path, where: str, raised: BaseException) -> None:
    def fails(given: object) -> object:
        raise raised

    async def fails_async(given: object) -> object:
        raise raised

    async def fails_in_a_nursery(given: object) -> object:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise raised

    async def unused(given: object) -> object:
        raise AssertionError("must not run")

    steps: dict[str, ts.PipelineStep] = {
        "async": ts.column(needs=["number"])(fails_async),
        "sync": ts.column(needs=["number"])(fails),
        "batch": ts.batch_column(needs=["number"])(fails),
        "rule": ts.column(needs=["number"], skip_when=fails)(unused),
        "processor": ts.pre_batch_processor()(fails),
        "nursery": ts.column(needs=["number"])(fails_in_a_nursery),
    }

    async def main() -> None:
        with pytest.raises(type(raised)) as caught:
            await ts.run([number, steps[where]], records=1, output=tmp_path / "out", blocking=inline)
        assert caught.value is raised

    mocked(main)
    assert status(tmp_path / "out") == "failed"


def test_a_call_by_a_task_that_outlives_the_run_is_refused(tmp_path: Path) -> None:
    over = trio.Event()
    refused: list[str] = []

    async def reply() -> int:
        raise AssertionError("must not be called")

    @ts.column(needs=["number"], model=MODEL)
    async def leaky(row: Row, handle: ts.ModelHandle) -> int:
        async def later() -> None:
            await over.wait()
            try:
                await handle.call(reply)
            except ts.RequestAdmissionError as error:
                refused.append(error.decision.reason)

        trio.lowlevel.spawn_system_task(later)
        return 0

    async def main() -> None:
        result = await ts.run([number, leaky], records=2, output=tmp_path / "out", blocking=inline)
        assert (result.records, result.leaks) == (2, ())
        over.set()
        await trio.testing.wait_all_tasks_blocked()

    mocked(main)
    assert refused == ["shutdown", "shutdown"]


def test_stop_iteration_drops_its_row(tmp_path: Path) -> None:
    @ts.column(needs=["number"])
    def exhausted(row: Row) -> object:
        return next(iter(()))

    result = simulate([number, exhausted], tmp_path / "out", records=1)
    assert "dropped 1 row: column 'exhausted', RuntimeError: " in result.summary()


def test_an_error_that_cannot_be_read_is_still_told_of(tmp_path: Path) -> None:
    class UnreadableError(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    @ts.column(needs=["number"])
    async def odd(row: Row) -> object:
        raise UnreadableError

    result = simulate([number, odd], tmp_path / "out", records=1)
    assert "column 'odd', UnreadableError: its text cannot be read (ValueError)" in result.summary()


def test_the_summary_tells_causes_that_say_more_than_the_error(tmp_path: Path) -> None:
    @ts.column(needs=["number"])
    async def odd(row: Row) -> object:
        refused = ConnectionError("all attempts to connect to 127.0.0.1:9 failed")
        said_again = OSError("all attempts to connect to 127.0.0.1:9 failed")
        said_again.__cause__ = ConnectionRefusedError("refused")
        refused.__cause__ = said_again
        raise LookupError("Connection error.") from refused

    result = simulate([number, odd], tmp_path / "out", records=1)
    assert result.summary().endswith(
        "LookupError: Connection error; caused by ConnectionError: all attempts to connect to 127.0.0.1:9 failed; "
        "caused by ConnectionRefusedError: refused"
    )


def test_causes_that_say_nothing_new_or_go_round_are_not_told(tmp_path: Path) -> None:
    @ts.column(needs=["number"])
    async def odd(row: Row) -> object:
        error, cause = LookupError("nothing for 7."), KeyError(7)
        error.__cause__, cause.__cause__ = cause, error
        raise error

    result = simulate([number, odd], tmp_path / "out", records=1)
    assert result.summary().endswith("LookupError: nothing for 7.")


def test_values_with_code_of_their_own_drop_their_row_only(tmp_path: Path) -> None:
    class Treacherous(dict[str, int]):
        def items(self) -> object:  # type: ignore[override]  # what json calls
            raise ZeroDivisionError("gotcha")

    @ts.column(needs=["number"])
    async def odd(row: dict[str, int]) -> object:
        return Treacherous(a=1) if row["number"] else 0

    result = simulate([number, odd], tmp_path / "out", records=3)
    assert [row["odd"] for row in result.rows()] == [0]
    assert "ZeroDivisionError: gotcha" in result.summary()

"""Functions that reach into the nursery that their own task runs in: the run fails loudly, with one cause."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest
import trio
from pipeline_samples import Row, mocked, number, status

import trio_sched as ts
from trio_sched._util import leaves_of
from trio_sched.lowlevel import ForeignCancellationError, InMemoryAdmissionEventSink, inline

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

LINES = Path(__file__).read_text(encoding="utf-8").splitlines()


def own_nursery() -> trio.Nursery:
    nursery = trio.lowlevel.current_task().parent_nursery
    assert nursery is not None
    return nursery


def nursery_of_the_run() -> trio.Nursery:
    nursery = own_nursery().parent_task.parent_nursery
    assert nursery is not None
    return nursery


async def run_and_fail(column: ts.Column, output: Path, error: type[Exception], match: str) -> None:
    sink = InMemoryAdmissionEventSink()
    config = ts.RunConfig(buffer_size=2, max_concurrent_row_groups=2)
    with pytest.raises(error, match=match):
        await ts.run([number, column], records=6, output=output, config=config, event_sink=sink, blocking=inline)
    assert status(output) == "failed"
    final = sink.scheduler_events[-1]
    assert final.event_kind == "scheduler_job_completed"
    assert final.snapshot is not None
    assert final.snapshot["leased_resources"] == {}


@pytest.mark.parametrize(
    ("nursery", "told"), [(own_nursery, "row group 1"), (nursery_of_the_run, "the run")], ids=["row-group", "run"]
)
def test_one_that_cancels_it_fails_the_run(tmp_path: Path, nursery: Callable[[], trio.Nursery], told: str) -> None:
    @ts.column(needs=["number"])
    async def cancels(row: Row) -> object:
        if row["number"] == 3:
            nursery().cancel_scope.cancel()
            await trio.lowlevel.checkpoint()
        return row["number"]

    mocked(
        lambda: run_and_fail(
            cancels, tmp_path / "out", ForeignCancellationError, f"the nursery of {told} was cancelled"
        )
    )


left_open: list[AsyncGenerator[int, None]] = []
"""Generators that were not closed; what closes them must not be another task of the run."""


async def yields_in_a_scope(scope: trio.CancelScope) -> AsyncGenerator[int, None]:
    with scope:
        yield 1


async def leaves_a_cancelled_scope_open() -> None:
    scope = trio.CancelScope()
    left_open.append(yields_in_a_scope(scope))
    await anext(left_open[-1])
    scope.cancel()
    await trio.lowlevel.checkpoint()


async def leaves_a_deadline_open() -> None:
    left_open.append(yields_in_a_scope(trio.move_on_after(1)))
    await anext(left_open[-1])
    await trio.sleep(2)


async def keep_a_cancelled() -> trio.Cancelled:
    kept: list[trio.Cancelled] = []
    with trio.move_on_after(0):
        try:
            await trio.sleep(1)
        except trio.Cancelled as cancelled:
            kept.append(cancelled)
            raise
    return kept[0]


async def raises_a_kept_one() -> None:
    raise await keep_a_cancelled()


async def raises_a_kept_one_in_a_group() -> None:
    raise BaseExceptionGroup("a nursery's", [await keep_a_cancelled(), LookupError("beside it")])


async def cancels_its_own_nursery() -> None:
    own_nursery().cancel_scope.cancel()
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    "culprit",
    [
        leaves_a_cancelled_scope_open,
        leaves_a_deadline_open,
        raises_a_kept_one,
        raises_a_kept_one_in_a_group,
        cancels_its_own_nursery,
    ],
)
def test_who_cancelled_it_is_named(tmp_path: Path, culprit: Callable[[], Awaitable[None]]) -> None:
    @ts.column(needs=["number"])
    async def guilty(row: Row) -> object:
        if row["number"] == 3:
            await culprit()
        await trio.sleep(10)  # Another row of the row group is cancelled with it, and is not to blame.
        return row["number"]

    async def main() -> None:
        config = ts.RunConfig(buffer_size=2, max_concurrent_row_groups=2)
        with pytest.raises(ForeignCancellationError) as caught:
            await ts.run([number, guilty], records=6, output=tmp_path / "out", config=config, blocking=inline)
        error = caught.value
        assert (error.row_group, error.column, error.row) == (1, "guilty", 3)
        assert error.line == f"{__file__}:{LINES.index('            await culprit()') + 1}"
        assert f"was cancelled by column 'guilty' in row 3 ({error.line}), and its rows are not finished" in str(error)
        assert isinstance(error.__cause__, trio.Cancelled)
        beside = error.__cause__.__cause__
        assert beside is None or [repr(leaf) for leaf in leaves_of(beside)] == ["LookupError('beside it')"]
        assert (beside is not None) == (culprit is raises_a_kept_one_in_a_group)

    mocked(main)
    assert status(tmp_path / "out") == "failed"


def test_one_that_leaves_a_scope_open_beside_another_column_loses_its_row(tmp_path: Path) -> None:
    """Where a worker has a scope of its own, Trio notices at its end that another is still open within."""

    @ts.column(needs=["number"])
    async def other(row: Row) -> object:
        await trio.sleep(3)
        return row["number"]

    @ts.column(needs=["number"])
    async def guilty(row: Row) -> object:
        if row["number"] == 3:
            await leaves_a_deadline_open()
        return row["number"]

    async def main() -> None:
        result = await ts.run([number, other, guilty], records=6, output=tmp_path / "out", blocking=inline)
        (cause,) = result.scheduler.drop_causes
        assert (result.records, cause.column, cause.rows, cause.error_type) == (5, "guilty", 1, "RuntimeError")
        assert "Cancel scope stack corrupted" in str(cause.first_error)

    mocked(main)


def test_a_cancellation_from_outside_names_nobody(tmp_path: Path) -> None:
    @ts.column(needs=["number"])
    async def sleeps(row: Row) -> object:
        await trio.sleep(10)
        return row["number"]

    async def main() -> None:
        with trio.move_on_after(1) as scope:
            await ts.run([number, sleeps], records=6, output=tmp_path / "out", blocking=inline)
        assert scope.cancelled_caught

    mocked(main)
    assert status(tmp_path / "out") == "interrupted"


def test_one_that_cancels_it_and_returns_loses_no_row_in_silence(tmp_path: Path) -> None:
    """Whether the row group can still be completed depends on who runs first."""

    @ts.column(needs=["number"])
    async def cancels(row: Row) -> object:
        own_nursery().cancel_scope.cancel()
        return row["number"]

    async def main() -> None:
        for attempt in range(8):
            try:
                result = await ts.run([number, cancels], records=3, output=tmp_path / str(attempt), blocking=inline)
            except ForeignCancellationError:
                continue
            assert result.records == 3

    mocked(main)


@pytest.mark.parametrize("nursery", [own_nursery, nursery_of_the_run], ids=["row-group", "run"])
def test_a_task_of_its_own_in_there_that_fails_is_the_single_cause(
    tmp_path: Path, nursery: Callable[[], trio.Nursery]
) -> None:
    async def fails() -> None:
        await trio.sleep(0.5)
        raise LookupError("a task nobody waits for")

    @ts.column(needs=["number"])
    async def spawns(row: Row) -> object:
        if row["number"] == 3:
            nursery().start_soon(fails)
        try:
            await trio.sleep(1)
        finally:
            if row["number"] == 2:
                raise ValueError("while it comes down")
        return row["number"]

    mocked(lambda: run_and_fail(spawns, tmp_path / "out", LookupError, "a task nobody waits for"))


def test_such_tasks_of_many_cells_that_fail_alike_are_the_single_cause(tmp_path: Path) -> None:
    async def fails() -> None:
        raise LookupError("a task nobody waits for")

    @ts.column(needs=["number"])
    async def spawns(row: Row) -> object:
        own_nursery().start_soon(fails)
        await trio.sleep(1)
        return row["number"]

    mocked(lambda: run_and_fail(spawns, tmp_path / "out", LookupError, "a task nobody waits for"))


def test_a_task_of_its_own_in_there_holds_up_its_row_group_until_it_ends(tmp_path: Path) -> None:
    @ts.column(needs=["number"])
    async def spawns(row: Row) -> object:
        own_nursery().start_soon(trio.sleep, 7)
        return row["number"]

    async def main() -> None:
        result = await ts.run([number, spawns], records=3, output=tmp_path / "out", blocking=inline)
        assert (result.records, result.wall_seconds) == (3, 7)

    mocked(main)

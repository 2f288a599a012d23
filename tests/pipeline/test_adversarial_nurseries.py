"""Functions that reach into the nursery that their own task runs in: the run fails loudly, with one cause."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from pipeline_samples import Row, mocked, number, status

import trio_sched as ts
from trio_sched.lowlevel import ForeignCancellationError, InMemoryAdmissionEventSink, inline


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

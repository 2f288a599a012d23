"""Sync functions that do not let go of their threads: a run that is cancelled waits for them, and never blocks."""

from __future__ import annotations

import threading
from pathlib import Path

import trio
import trio.testing
from pipeline_samples import Row, number, run_and_cancel

import trio_sched as ts


async def test_one_in_a_thread_that_looks_for_cancellation_ends_at_once(tmp_path: Path) -> None:
    started = trio.Event()
    endings: list[BaseException] = []

    @ts.column(needs=["number"])
    def patient(row: Row) -> int:
        trio.from_thread.run_sync(started.set)
        try:
            while True:
                trio.from_thread.check_cancelled()
        except BaseException as ending:
            endings.append(ending)
            raise

    await run_and_cancel([number, patient], tmp_path / "out", started, simulated=False)
    assert len(endings) == 4
    assert all(isinstance(ending, trio.Cancelled) for ending in endings)


async def test_one_in_a_thread_that_does_not_look_is_waited_for(tmp_path: Path) -> None:
    started = trio.Event()
    released = threading.Event()
    finished: list[object] = []

    @ts.column(needs=["number"])
    def deaf(row: Row) -> int:
        trio.from_thread.run_sync(started.set)
        released.wait()
        finished.append(row["number"])
        return 0

    async def release() -> None:
        await started.wait()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
        assert finished == []
        released.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(release)
        await run_and_cancel([number, deaf], tmp_path / "out", started, simulated=False)
        assert sorted(map(str, finished)) == ["0", "1", "2", "3"]


async def test_threads_that_were_waiting_for_their_turn_are_never_started(tmp_path: Path) -> None:
    started = trio.Event()
    calls: list[object] = []
    released = threading.Event()

    @ts.column(needs=["number"])
    def deaf(row: Row) -> int:
        calls.append(row["number"])
        if len(calls) == 40:
            trio.from_thread.run_sync(started.set)
        released.wait()
        return 0

    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await ts.run([number, deaf], records=100, output=tmp_path / "out")

        nursery.start_soon(run)
        await started.wait()
        nursery.cancel_scope.cancel()
        released.set()
    assert len(calls) == 40

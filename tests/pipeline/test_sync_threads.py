"""Threads are a resource of the task stage: a task of a sync function runs when a thread is free, and none waits."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest
import trio
import trio.testing

import trio_sched as ts
from trio_sched._pipeline import capacity, run
from trio_sched._pipeline.binding import BoundPipeline, bind_pipeline
from trio_sched._pipeline.capacity import WorkerThreads, plan_run
from trio_sched._util import ThreadPool
from trio_sched.lowlevel import InMemoryAdmissionEventSink, inline

Row = dict[str, object]
ROWS: list[Row] = [{"number": number} for number in range(12)]
THREADS = 2


@ts.column(needs=["number"])
def sync(row: Row) -> object:
    return row["number"]


@ts.column(needs=["number"])
async def awaited(row: Row) -> object:
    return row["number"]


@ts.post_batch_processor()
def processed(rows: list[Row]) -> list[Row]:
    return rows


@pytest.fixture(autouse=True)
def _two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (run, capacity):
        monkeypatch.setattr(module, "ENGINE_THREADS", WorkerThreads(files=8, sync_columns=THREADS))


def held_units(sink: InMemoryAdmissionEventSink) -> Counter[str]:
    """The most tasks of each column that held a lease at once."""
    held: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for event in sink.scheduler_events:
        correlation = event.captured_correlation
        if correlation is None or correlation.task_column is None:
            continue
        if event.event_kind == "task_lease_acquired":
            held[correlation.task_column] += 1
            most |= held
        elif event.event_kind == "task_lease_released":
            held[correlation.task_column] -= 1
    return most


async def test_a_task_of_a_sync_function_holds_a_lease_only_while_a_thread_is_its(tmp_path: Path) -> None:
    sink = InMemoryAdmissionEventSink()
    at_work: set[int] = set()
    together = threading.Barrier(THREADS)

    @ts.column(needs=["number"])
    def met(row: Row) -> object:
        at_work.add(threading.get_ident())
        together.wait()
        return row["number"]

    result = await ts.run([met, sync, awaited, processed], rows=ROWS, output=tmp_path / "out", event_sink=sink)
    assert (result.records, result.leaks) == (12, ())
    maxima, configured = result.capacity_plan.observed_maxima, result.capacity_plan.configured
    assert configured.task_resource_limits.required["local:threads"] == THREADS
    assert maxima.task_leases_by_resource["local:threads"] == THREADS
    assert maxima.hidden_scheduler_resource_waiters == {}
    most = held_units(sink)
    assert (most["met"], most["awaited"]) == (THREADS, 12)
    assert most["sync"] <= THREADS


async def test_sync_functions_that_wait_for_a_thread_within_their_lease_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mutant whose tasks of sync functions do not ask for a thread."""

    def bind_without_threads(*args: object, sync_threads: int | None) -> BoundPipeline:
        return bind_pipeline(*args)  # type: ignore[arg-type]  # what the run passes

    monkeypatch.setattr(run, "bind_pipeline", bind_without_threads)
    result = await ts.run([sync], rows=ROWS, output=tmp_path / "out")
    assert result.records == 12
    maxima = result.capacity_plan.observed_maxima
    assert maxima.task_leases_by_resource == {"submission": 12}
    assert maxima.hidden_scheduler_resource_waiters == {"local:threads": 12 - THREADS}


async def test_where_sync_functions_run_inline_nobody_asks_for_threads(tmp_path: Path) -> None:
    result = await ts.run([sync, processed], rows=ROWS, output=tmp_path / "out", blocking=inline)
    maxima, configured = result.capacity_plan.observed_maxima, result.capacity_plan.configured
    assert configured.task_resource_limits.required == {}
    assert maxima.task_leases_by_resource == {"submission": 12}
    assert maxima.hidden_scheduler_resource_waiters == {}


def test_a_plan_without_a_run_shows_the_threads() -> None:
    assert plan_run([sync], rows=ROWS).configured.task_resource_limits.required == {"local:threads": THREADS}
    assert plan_run([awaited], rows=ROWS).configured.task_resource_limits.required == {}


async def test_a_pool_counts_the_most_that_waited_at_once() -> None:
    pool, go_on = ThreadPool(1), threading.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(pool, go_on.wait)
        await trio.testing.wait_all_tasks_blocked()
        assert pool.most_waiting == 3
        go_on.set()
    await pool(int)
    assert pool.most_waiting == 3

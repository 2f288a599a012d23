"""Whatever a worker causes knows its execution, for as long as that lasts, and nothing else does."""

from __future__ import annotations

import contextvars
import gc
import threading
import weakref
from pathlib import Path

import pytest
import trio
import trio.testing

import trio_sched as ts
from trio_sched._resources.identity import RuntimeCorrelation, RuntimeCorrelationProvider, runtime_correlation
from trio_sched.lowlevel import CorrelatedRuntimeView, InMemoryAdmissionEventSink, inline

ONE, TWO = (RuntimeCorrelation("run", 0, "c", "cell", "local", "h", f"0:{n}:cell:c@1") for n in (1, 2))
MODEL = ts.Model("p", "m", max_parallel_requests=4)


def test_it_is_set_and_reset_in_turn() -> None:
    provider = RuntimeCorrelationProvider()
    assert provider.current() is None
    outer = provider.set(ONE)
    inner = provider.set(TWO)
    assert provider.current() is TWO
    provider.reset(inner)
    assert provider.current() is ONE
    nobody = provider.set(None)
    assert provider.current() is None
    provider.reset(nobody)
    provider.reset(outer)
    assert provider.current() is None


def test_copies_of_the_context_lose_it_when_the_execution_ends() -> None:
    provider = RuntimeCorrelationProvider()
    token = provider.set(ONE)
    copy = contextvars.copy_context()
    assert copy.run(provider.current) is ONE
    provider.reset(token)
    assert copy.run(provider.current) is None


def test_a_token_of_another_context_is_refused_but_ends_its_execution() -> None:
    provider = RuntimeCorrelationProvider()
    context = contextvars.copy_context()
    token = context.run(provider.set, ONE)
    with pytest.raises(ValueError, match="different Context"):
        provider.reset(token)
    assert context.run(provider.current) is None


def test_a_token_is_good_for_one_reset() -> None:
    provider = RuntimeCorrelationProvider()
    token = provider.set(ONE)
    provider.reset(token)
    with pytest.raises(RuntimeError, match="used before"):
        provider.reset(token)


def test_whoever_outlives_an_execution_does_not_keep_its_context() -> None:
    provider = RuntimeCorrelationProvider()
    kept = contextvars.ContextVar[set[str]]("kept")
    outliving: list[contextvars.Context] = []

    def execute() -> weakref.ref[set[str]]:
        token = provider.set(ONE)
        outliving.append(contextvars.copy_context())
        large = {"what the worker kept"}
        kept.set(large)
        provider.reset(token)
        return weakref.ref(large)

    seen = contextvars.copy_context().run(execute)
    gc.collect()
    assert outliving[0].run(provider.current) is None
    assert seen() is None


async def test_child_tasks_and_nested_nurseries_inherit_it() -> None:
    provider = RuntimeCorrelationProvider()
    seen: list[RuntimeCorrelation | None] = []

    async def child(depth: int) -> None:
        seen.append(provider.current())
        if depth:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child, depth - 1)

    async def worker(correlation: RuntimeCorrelation) -> None:
        token = provider.set(correlation)
        await child(3)
        provider.reset(token)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker, ONE)
        nursery.start_soon(worker, TWO)
    assert sorted(map(str, seen)) == sorted(map(str, [ONE, TWO] * 4))
    assert provider.current() is None


async def test_threads_of_trio_inherit_it_and_hand_it_back() -> None:
    provider = RuntimeCorrelationProvider()
    token = provider.set(ONE)

    async def called_back() -> RuntimeCorrelation | None:
        await trio.lowlevel.checkpoint()
        return provider.current()

    assert await trio.to_thread.run_sync(provider.current) is ONE
    assert await trio.to_thread.run_sync(lambda: trio.from_thread.run(called_back)) is ONE
    assert await trio.to_thread.run_sync(lambda: trio.from_thread.run_sync(provider.current)) is ONE
    provider.reset(token)


def test_other_threads_are_given_it_explicitly() -> None:
    provider = RuntimeCorrelationProvider()
    seen: list[RuntimeCorrelation | None] = []

    def look() -> None:
        seen.append(provider.current())

    def in_a_thread(function: object) -> None:
        assert callable(function)
        thread = threading.Thread(target=function)
        thread.start()
        thread.join()

    def both() -> None:
        carried()
        look()

    token = provider.set(ONE)
    carried = provider.carried(look)
    in_a_thread(look)
    in_a_thread(carried)
    in_a_thread(both)
    provider.reset(token)
    in_a_thread(carried)
    assert seen == [None, ONE, ONE, None, None]
    assert carried.__name__ == "look"


async def nothing() -> None:
    await trio.lowlevel.checkpoint()


async def test_a_late_call_of_a_task_that_outlived_its_worker_is_uncorrelated(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    sink = InMemoryAdmissionEventSink()
    own_ends = trio.Event()

    async with trio.open_nursery() as outlives:

        @ts.from_scratch_column()
        async def number(span: ts.RowSpan) -> list[int]:
            return list(range(span.count))

        @ts.column(needs=["number"], model=MODEL)
        async def answer(row: dict[str, int], model: ts.ModelHandle) -> None:
            async def detached() -> None:
                await model.call(nothing)
                await own_ends.wait()
                await model.call(nothing)

            if row["number"] == 0:
                outlives.start_soon(detached)
                await trio.sleep(1)
            else:
                await trio.sleep(2)
                own_ends.set()
                await trio.sleep(1)

        await ts.run([number, answer], records=2, output=tmp_path, event_sink=sink, blocking=inline)
    granted = [event for event in sink.request_events if event.event_kind == "request_lease_acquired"]
    executions = [
        None if event.captured_correlation is None else event.captured_correlation.task_execution_id
        for event in granted
    ]
    assert executions == ["0:0:cell:answer@1", None]
    view = CorrelatedRuntimeView.from_events(sink.scheduler_events, sink.request_events)
    assert view.uncorrelated_requests == 1
    assert {each.task_execution_id: len(each.requests) for each in view.executions} == {
        "0:*:from_scratch:number@1": 0,
        "0:0:cell:answer@1": 1,
        "0:1:cell:answer@1": 0,
    }


async def test_workers_start_without_the_correlation_of_whoever_runs_them(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    seen: list[RuntimeCorrelation | None] = []

    @ts.from_scratch_column()
    async def number(span: ts.RowSpan) -> list[int]:
        seen.append(runtime_correlation.current())
        return list(range(span.count))

    await ts.run([number], records=1, output=tmp_path, blocking=inline)
    assert seen[0] is not None
    assert (seen[0].task_column, seen[0].row_group) == ("number", 0)
    assert runtime_correlation.current() is None


async def test_events_of_the_run_as_a_whole_name_the_run(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    sink = InMemoryAdmissionEventSink()

    @ts.from_scratch_column(model=MODEL)
    async def number(span: ts.RowSpan, model: ts.ModelHandle) -> list[int]:
        await model.call(nothing)
        return list(range(span.count))

    result = await ts.run([number], records=2, output=tmp_path, event_sink=sink, blocking=inline)
    the_run = RuntimeCorrelation(result.run_id)
    of_run = {event.event_kind for event in sink.scheduler_events if event.captured_correlation == the_run}
    assert {"scheduler_job_started", "scheduler_job_completed", "queue_empty"} <= of_run
    of_endpoint = {event.event_kind for event in sink.request_events if event.captured_correlation == the_run}
    assert of_endpoint == {"request_resource_registered"}
    runs = {event.captured_correlation.run_id for event in sink.scheduler_events if event.captured_correlation}
    assert runs == {result.run_id}
    assert all(event.captured_correlation for event in sink.scheduler_events)
    assert all(event.captured_correlation for event in sink.request_events)
    assert runtime_correlation.current() is None

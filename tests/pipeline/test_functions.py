"""Which functions are accepted, and what a call of one does around it."""

from __future__ import annotations

import functools
import operator
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import ParamSpec, TypeVar

import pytest
import trio

import trio_sched as ts
from trio_sched._pipeline.columns import accept_function, function_name
from trio_sched._pipeline.runner import awaited_call
from trio_sched.lowlevel import RuntimeCorrelation, in_threads, inline, runtime_correlation

P = ParamSpec("P")
T = TypeVar("T")

AT_WORK = RuntimeCorrelation("run", 3, "c", "cell", "local", "hash", "c/3/1@1")


async def async_one(row: object) -> object:
    return row


def sync_one(row: object) -> object:
    return row


class AsyncObject:
    async def __call__(self, row: object) -> object:
        return row


class SyncObject:
    def __call__(self, row: object) -> object:
        return row


nameless: list[Callable[..., object]] = [functools.partial(sync_one), SyncObject(), lambda: None]
of_either_kind: list[tuple[Callable[..., object], bool]] = [
    (async_one, True),
    (functools.partial(async_one), True),
    (AsyncObject(), True),
    (AsyncObject().__call__, True),
    (sync_one, False),
    (functools.partial(sync_one), False),
    (SyncObject(), False),
    (operator.itemgetter("a"), False),
    (len, False),
    (str, False),
]


def yields(row: object) -> Iterator[object]:
    yield row


async def yields_async(row: object) -> AsyncIterator[object]:
    yield row


class YieldingObject:
    def __call__(self, row: object) -> Iterator[object]:
        yield row


@pytest.mark.parametrize(("function", "is_async"), of_either_kind)
def test_async_and_sync_functions_are_told_apart(function: Callable[..., object], is_async: bool) -> None:
    assert accept_function("column 'c'", function, ["row"]) is is_async


@pytest.mark.parametrize("function", [yields, yields_async, YieldingObject()])
def test_a_function_that_yields_is_refused(function: Callable[..., object]) -> None:
    with pytest.raises(ts.PipelineError, match=r"^column 'c' must be made by a function that returns, got .* yields$"):
        accept_function("column 'c'", function, ["row"])


def test_what_cannot_be_called_so_is_refused() -> None:
    with pytest.raises(ts.PipelineError, match=r"^column 'c' must be made by a function, got 3$"):
        accept_function("column 'c'", 3, ["row"])  # type: ignore[arg-type]  # a user's mistake
    with pytest.raises(ts.PipelineError, match=r"calls its function with 2 arguments \(row, model m\), which it does"):
        accept_function("column 'c'", async_one, ["row", "model m"])


def test_a_sync_function_gets_no_model_and_is_told_what_to_write() -> None:
    with pytest.raises(ts.PipelineError, match=r"write `async def`, and for a blocking client `await model\.call"):
        accept_function("column 'c'", sync_one, ["row", "model m"], models=1)


def test_names() -> None:
    assert function_name("column", sync_one, None) == "sync_one"
    assert function_name("column", sync_one, "other") == "other"
    for function in nameless:
        with pytest.raises(
            ts.PipelineError, match=r"^a column needs a name, and .* has none to go by; write name='...'$"
        ):
            function_name("column", function, None)
    with pytest.raises(ts.PipelineError, match="needs a name"):
        function_name("column", sync_one, "")


async def test_a_sync_function_runs_in_a_worker_thread_and_knows_the_task_at_work() -> None:
    def where(row: str) -> tuple[str, bool, RuntimeCorrelation | None]:
        return row, threading.current_thread() is threading.main_thread(), runtime_correlation.current()

    token = runtime_correlation.set(AT_WORK)
    call = awaited_call(where, is_async=False, blocking=in_threads(1))
    assert await call("row") == ("row", False, AT_WORK)
    runtime_correlation.reset(token)
    assert await call("row") == ("row", False, None)


async def test_the_task_at_work_is_known_whatever_carries_the_call_to_its_thread() -> None:
    async def bare_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        done = trio.Event()
        made: list[T] = []
        trio_token = trio.lowlevel.current_trio_token()

        def work() -> None:
            made.append(function(*args, **kwargs))
            trio_token.run_sync_soon(done.set)

        threading.Thread(target=work).start()
        await done.wait()
        return made[0]

    token = runtime_correlation.set(AT_WORK)
    assert await awaited_call(runtime_correlation.current, is_async=False, blocking=bare_thread)() == AT_WORK
    runtime_correlation.reset(token)


async def test_a_failing_sync_function_leaves_no_correlation_behind() -> None:
    def fails() -> None:
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        await awaited_call(fails, is_async=False, blocking=inline)()
    assert runtime_correlation.current() is None


async def test_a_blocked_thread_does_not_hold_up_the_loop() -> None:
    released = threading.Event()
    call = awaited_call(released.wait, is_async=False, blocking=in_threads(1))
    steps = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        for _ in range(5):
            await trio.lowlevel.checkpoint()
            steps += 1
        released.set()
    assert steps == 5

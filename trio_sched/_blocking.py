"""The one seam for work that blocks: files, fsync, synchronous columns.

In a run it goes to a worker thread, under a limiter of its own so that it neither starves nor is starved by other uses
of threads in the same program. A simulation on a mock clock gives `inline` instead, because that clock jumps while a
thread works.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ParamSpec, Protocol, TypeVar

import trio

__all__ = ["Blocking", "ThreadPool", "in_threads", "inline"]

P = ParamSpec("P")
T = TypeVar("T")


class Blocking(Protocol):
    """Runs a synchronous function that may block, and waits for it."""

    def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """Run `function` to its end; a cancelled caller waits for it, so that nothing is left half done unseen."""
        ...


class ThreadPool:
    """Blocking work in worker threads, at most `max_threads` at once. most_waiting: calls that waited for one."""

    def __init__(self, max_threads: int) -> None:
        self._limiter = trio.CapacityLimiter(max_threads)
        self.most_waiting = 0

    async def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function` in a thread, once there is one."""
        limiter = self._limiter
        if limiter.available_tokens <= 0:
            self.most_waiting = max(self.most_waiting, limiter.statistics().tasks_waiting + 1)
        return await trio.to_thread.run_sync(lambda: function(*args, **kwargs), limiter=limiter)


def in_threads(max_threads: int) -> Blocking:
    """Blocking work in worker threads, at most `max_threads` at once."""
    return ThreadPool(max_threads)


async def inline(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Blocking work in the caller's own thread: for simulations. There is no worker thread for `trio.from_thread`."""
    await trio.lowlevel.checkpoint()
    return function(*args, **kwargs)

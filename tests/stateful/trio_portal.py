"""A Trio run that synchronous code moves on, one step at a time.

The run is on a mock clock, in a thread of its own. Each step goes in, and then the run goes on until all its tasks are
blocked. Between two steps nothing in it moves, so whoever made the step may look at everything there is. The order in
which Trio runs tasks that are ready at once is a function of the seed and of the steps.
"""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Awaitable, Callable

import trio
import trio.testing

__all__ = ["TrioPortal"]


class TrioPortal:
    """Runs `main` until it ends or `close` cancels it."""

    def __init__(self, main: Callable[[], Awaitable[None]], *, order_seed: int) -> None:
        self._main = main
        self._clock = trio.testing.MockClock()
        self._scope = trio.CancelScope()
        self._seeds = random.Random(order_seed)
        opened: queue.SimpleQueue[tuple[trio.lowlevel.TrioToken, trio.Nursery]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=trio.run, args=(self._run, opened), kwargs={"clock": self._clock})
        self._thread.start()
        self._token, self._nursery = opened.get()
        self.do(lambda: self._nursery.start_soon(self._run_main))

    def do(self, step: Callable[[], object], *, seconds: float = 0.0) -> None:
        """Take `step` within the run, let `seconds` pass, and wait until nothing moves any more. Raises its error."""
        trio.from_thread.run(self._do, step, seconds, trio_token=self._token)

    def close(self) -> None:
        """Cancel `main` if it has not ended, and end the run and its thread."""
        self.do(self._scope.cancel)
        trio.from_thread.run_sync(self._nursery.cancel_scope.cancel, trio_token=self._token)
        self._thread.join()

    async def _run(self, opened: queue.SimpleQueue[tuple[trio.lowlevel.TrioToken, trio.Nursery]]) -> None:
        async with trio.open_nursery() as nursery:
            opened.put((trio.lowlevel.current_trio_token(), nursery))
            await trio.sleep_forever()

    async def _run_main(self) -> None:
        with self._scope:
            await self._main()

    async def _do(self, step: Callable[[], object], seconds: float) -> None:
        # Trio has no public way to fix its order; under Hypothesis this is the source of it.
        trio._core._run._r.seed(self._seeds.random())
        step()
        self._clock.jump(seconds)
        await trio.testing.wait_all_tasks_blocked()

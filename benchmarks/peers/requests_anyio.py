"""Scenario family 6 with `anyio.CapacityLimiter` and a task group of anyio, on asyncio.

It is installed only in the environment that the harness makes for it.
"""

from __future__ import annotations

import anyio
import anyio.lowlevel

from benchmarks.workloads.outcome import Outcome, Params, Run
from benchmarks.workloads.request_turns import Flight, Turns
from benchmarks.workloads.samples import Steps, Stopwatch, clock

__all__ = ["prepare"]


def prepare(params: Params) -> Run:
    """The workload on anyio."""

    def run(warm_up: bool) -> Outcome:
        return anyio.run(iterate, Turns.of(params, warm_up=warm_up))

    return run


async def iterate(turns: Turns) -> Outcome:
    """One iteration."""
    flight, steps = Flight(), Steps()
    limiter = anyio.CapacityLimiter(turns.permits)
    watch = Stopwatch()
    if turns.callers == 1:
        samples = steps.of("acquire_release")
        for caller in range(turns.turns):
            start = clock()
            async with limiter:
                flight.enter()
                flight.leave(caller)
            samples.append(clock() - start)
    else:
        async with anyio.create_task_group() as group:
            for caller in range(turns.callers):
                group.start_soon(one_of_many, limiter, flight, caller)
    watch.stop()
    left = {"leased": int(limiter.borrowed_tokens), "waiters": limiter.statistics().tasks_waiting}
    return flight.outcome(turns, watch, steps, {**left})


async def one_of_many(limiter: anyio.CapacityLimiter, flight: Flight, caller: int) -> None:
    """Wait at the limiter, hold it for one turn of the loop."""
    async with limiter:
        flight.enter()
        await anyio.lowlevel.checkpoint()
        flight.leave(caller)

"""Scenario family 6 with what asyncio itself has: a semaphore, and a task group that starts every caller at once.

There is one number of permits and nothing else: no endpoint, no fairness between groups, no limit that learns.
"""

from __future__ import annotations

import asyncio

from benchmarks.workloads.outcome import Outcome, Params, RefusedError, Run
from benchmarks.workloads.request_turns import Flight, Turns
from benchmarks.workloads.samples import Steps, Stopwatch, clock

__all__ = ["prepare"]


def prepare(params: Params) -> Run:
    """The workload on asyncio."""
    if not hasattr(asyncio, "TaskGroup"):
        raise RefusedError("asyncio has task groups from Python 3.11 on")

    def run(warm_up: bool) -> Outcome:
        return asyncio.run(iterate(Turns.of(params, warm_up=warm_up)))

    return run


async def iterate(turns: Turns) -> Outcome:
    """One iteration."""
    flight, steps = Flight(), Steps()
    semaphore = asyncio.Semaphore(turns.permits)
    watch = Stopwatch()
    if turns.callers == 1:
        samples = steps.of("acquire_release")
        for caller in range(turns.turns):
            start = clock()
            async with semaphore:
                flight.enter()
                flight.leave(caller)
            samples.append(clock() - start)
    else:
        async with asyncio.TaskGroup() as group:
            for caller in range(turns.callers):
                group.create_task(one_of_many(semaphore, flight, caller))
    watch.stop()
    return flight.outcome(turns, watch, steps, {"leased": flight.in_flight, "waiters": 0})


async def one_of_many(semaphore: asyncio.Semaphore, flight: Flight, caller: int) -> None:
    """Wait for a permit, hold it for one turn of the loop."""
    async with semaphore:
        flight.enter()
        await asyncio.sleep(0)
        flight.leave(caller)

"""Scenario family 6 on bare Trio: what the same requests cost with limiters alone.

Alone, a request is what the request stage cannot do without: a checkpoint, the limiters of its domain and of its
endpoint, and a report to a supervisor. One of many is a task in a nursery that waits at one limiter.
"""

from __future__ import annotations

import math

import trio

from benchmarks.workloads.outcome import Outcome, Params, Run
from benchmarks.workloads.request_turns import Flight, Turns
from benchmarks.workloads.samples import Steps, Stopwatch, clock

__all__ = ["prepare"]


def prepare(params: Params) -> Run:
    """The workload on bare Trio."""

    def run(warm_up: bool) -> Outcome:
        return trio.run(iterate, Turns.of(params, warm_up=warm_up))

    return run


async def iterate(turns: Turns) -> Outcome:
    """One iteration."""
    flight, steps = Flight(), Steps()
    limiter = trio.CapacityLimiter(turns.permits)
    watch = Stopwatch()
    if turns.callers == 1:
        await alone(turns, flight, steps)
    else:
        async with trio.open_nursery() as nursery:
            for caller in range(turns.callers):
                nursery.start_soon(one_of_many, limiter, flight, caller)
    watch.stop()
    assert limiter.borrowed_tokens == 0
    return flight.outcome(turns, watch, steps, {"leased": 0, "waiters": limiter.statistics().tasks_waiting})


async def alone(turns: Turns, flight: Flight, steps: Steps) -> None:
    """A checkpoint, two limiter pairs, a report."""
    samples = steps.of("acquire_release")
    domain, endpoint = trio.CapacityLimiter(turns.permits), trio.CapacityLimiter(turns.permits)
    reports, unread = trio.open_memory_channel[int](math.inf)

    async def supervise() -> None:
        async for _ in unread:
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervise)
        for caller in range(turns.turns):
            start = clock()
            await trio.lowlevel.checkpoint()
            lease = object()
            domain.acquire_on_behalf_of_nowait(lease)
            endpoint.acquire_on_behalf_of_nowait(lease)
            flight.enter()
            endpoint.release_on_behalf_of(lease)
            domain.release_on_behalf_of(lease)
            reports.send_nowait(caller)
            flight.leave(caller)
            samples.append(clock() - start)
        reports.close()


async def one_of_many(limiter: trio.CapacityLimiter, flight: Flight, caller: int) -> None:
    """Wait at the limiter, hold it for one turn of the loop."""
    async with limiter:
        flight.enter()
        await trio.lowlevel.checkpoint()
        flight.leave(caller)

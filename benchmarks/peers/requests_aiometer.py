"""Scenario family 6 with aiometer: a list of calls of which so many run at once.

A caller that waits is an element of the list and no task, so waiting costs it nothing: that is its design, and the work
is the same. It has no permit that could be acquired alone. It is installed only in the environment that the harness
makes for it.
"""

from __future__ import annotations

import asyncio

import aiometer  # type: ignore[import-not-found,unused-ignore]

from benchmarks.workloads.outcome import Outcome, Params, Run
from benchmarks.workloads.request_turns import Flight, Turns
from benchmarks.workloads.samples import Steps, Stopwatch

__all__ = ["prepare"]


def prepare(params: Params) -> Run:
    """The workload at aiometer."""

    def run(warm_up: bool) -> Outcome:
        return asyncio.run(iterate(Turns.of(params, warm_up=warm_up)))

    return run


async def iterate(turns: Turns) -> Outcome:
    """One iteration."""
    flight = Flight()

    async def one_of_many(caller: int) -> None:
        flight.enter()
        await asyncio.sleep(0)
        flight.leave(caller)

    watch = Stopwatch()
    await aiometer.run_on_each(one_of_many, list(range(turns.callers)), max_at_once=turns.permits)
    watch.stop()
    return flight.outcome(turns, watch, Steps(), {"leased": flight.in_flight, "waiters": 0})

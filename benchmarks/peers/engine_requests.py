"""Scenario family 6 at data-designer-engine: its own request admission, with its default configuration.

It is installed only in the environment that the harness makes for it, hence the imports that a type checker cannot see.
"""

from __future__ import annotations

import asyncio
from typing import Any

from data_designer.engine.models.request_admission.controller import (  # type: ignore[import-not-found]
    AdaptiveRequestAdmissionController,
)
from data_designer.engine.models.request_admission.outcomes import (  # type: ignore[import-not-found]
    RequestReleaseOutcome,
)
from data_designer.engine.models.request_admission.resources import (  # type: ignore[import-not-found]
    RequestAdmissionItem,
    RequestDomain,
    RequestGroupSpec,
    RequestResourceKey,
)

from benchmarks.workloads.outcome import Json, Outcome, Params, Run
from benchmarks.workloads.request_turns import MODEL, PROVIDER, Flight, Turns
from benchmarks.workloads.samples import Steps, Stopwatch, clock

__all__ = ["prepare"]

RESOURCE = RequestResourceKey(PROVIDER, MODEL, RequestDomain.CHAT)
ITEM = RequestAdmissionItem(RESOURCE, RequestGroupSpec(RESOURCE))
SUCCESS = RequestReleaseOutcome("success")


def prepare(params: Params) -> Run:
    """The workload at the peer."""

    def run(warm_up: bool) -> Outcome:
        return asyncio.run(iterate(Turns.of(params, warm_up=warm_up)))

    return run


async def iterate(turns: Turns) -> Outcome:
    """One iteration."""
    flight, steps = Flight(), Steps()
    controller = AdaptiveRequestAdmissionController()
    controller.register(provider_name=PROVIDER, model_id=MODEL, alias="bench", max_parallel_requests=turns.permits)
    watch = Stopwatch()
    if turns.callers == 1:
        await alone(controller, turns, flight, steps)
    else:
        await asyncio.gather(*(one_of_many(controller, flight, caller) for caller in range(turns.callers)))
    watch.stop()
    return flight.outcome(turns, watch, steps, left_behind(controller))


async def alone(controller: Any, turns: Turns, flight: Flight, steps: Steps) -> None:
    """Acquire and release, again and again."""
    samples = steps.of("acquire_release")
    for caller in range(turns.turns):
        start = clock()
        lease = await controller.acquire_async(ITEM)
        flight.enter()
        controller.release(lease, SUCCESS)
        flight.leave(caller)
        samples.append(clock() - start)


async def one_of_many(controller: Any, flight: Flight, caller: int) -> None:
    """Wait for a lease, hold it for one turn of the loop, release it."""
    lease = await controller.acquire_async(ITEM)
    flight.enter()
    await asyncio.sleep(0)
    flight.leave(caller)
    controller.release(lease, SUCCESS)


def left_behind(controller: Any) -> dict[str, Json]:
    """The final request snapshot."""
    snapshot = controller.pressure.snapshot(RESOURCE)
    return {
        "leased": snapshot.active_lease_count,
        "in_flight": snapshot.in_flight_count,
        "waiters": snapshot.waiters,
        "current_limit": snapshot.current_limit,
    }

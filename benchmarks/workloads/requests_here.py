"""Scenario family 6 at this project."""

from __future__ import annotations

import trio

from benchmarks.workloads.outcome import Json, Outcome, Params, Run
from benchmarks.workloads.request_turns import MODEL, PROVIDER, Flight, Turns
from benchmarks.workloads.samples import Steps, Stopwatch, clock
from trio_sched.lowlevel import (
    AdaptiveRequestAdmissionController,
    RequestAdmissionConfig,
    RequestAdmissionItem,
    RequestDomain,
    RequestGroupSpec,
    RequestReleaseOutcome,
    RequestResourceKey,
)

__all__ = ["prepare"]

RESOURCE = RequestResourceKey(PROVIDER, MODEL, RequestDomain.CHAT)
ITEM = RequestAdmissionItem(RESOURCE, RequestGroupSpec(RESOURCE))
SUCCESS = RequestReleaseOutcome("success")


def prepare(params: Params) -> Run:
    """The workload at this project."""

    def run(warm_up: bool) -> Outcome:
        return trio.run(iterate, Turns.of(params, warm_up=warm_up))

    return run


async def iterate(turns: Turns) -> Outcome:
    """One iteration."""
    flight, steps = Flight(), Steps()
    # All permits from the start: how a limit is learned is what the control family measures.
    controller = AdaptiveRequestAdmissionController(RequestAdmissionConfig(initial_limits={RESOURCE: turns.permits}))
    controller.register(provider_name=PROVIDER, model_id=MODEL, alias="bench", max_parallel_requests=turns.permits)
    async with controller:
        watch = Stopwatch()
        if turns.callers == 1:
            await alone(controller, turns, flight, steps)
        else:
            async with trio.open_nursery() as nursery:
                for caller in range(turns.callers):
                    nursery.start_soon(one_of_many, controller, flight, caller)
        watch.stop()
    return flight.outcome(turns, watch, steps, left_behind(controller))


async def alone(controller: AdaptiveRequestAdmissionController, turns: Turns, flight: Flight, steps: Steps) -> None:
    """Acquire and release, again and again."""
    samples = steps.of("acquire_release")
    for caller in range(turns.turns):
        start = clock()
        lease = await controller.acquire_async(ITEM)
        flight.enter()
        controller.release(lease, SUCCESS)
        flight.leave(caller)
        samples.append(clock() - start)


async def one_of_many(controller: AdaptiveRequestAdmissionController, flight: Flight, caller: int) -> None:
    """Wait for a lease, hold it for one turn of the loop, release it."""
    lease = await controller.acquire_async(ITEM)
    flight.enter()
    await trio.lowlevel.checkpoint()
    flight.leave(caller)
    controller.release(lease, SUCCESS)


def left_behind(controller: AdaptiveRequestAdmissionController) -> dict[str, Json]:
    """The final request snapshot."""
    snapshot = controller.pressure.snapshot(RESOURCE)
    assert snapshot is not None
    return {
        "leased": snapshot.active_lease_count,
        "in_flight": snapshot.in_flight_count,
        "waiters": snapshot.waiters,
        "current_limit": snapshot.current_limit,
        "leaks": len(controller.leak_report()),
    }

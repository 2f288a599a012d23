"""Scenario family 6: what one request lease costs, with nobody waiting and with everybody waiting."""

from __future__ import annotations

from benchmarks.inputs import Inputs
from benchmarks.scenarios.scenario import Chart, Headline, Kind, Point, Scenario, grid
from benchmarks.workloads.outcome import Json

__all__ = ["REQUESTS"]

PERMITS = 64
TURNS_ALONE = 2_000
PEER_FINISHES = 2_000


def params(_inputs: Inputs, point: Point, smoke: bool) -> dict[str, Json]:
    """What a worker is told."""
    return {**point, "permits": PERMITS, "turns": 100 if smoke else TURNS_ALONE}


def skips(kind: Kind, point: Point) -> str | None:
    """The peer's cost of a request grows with the number of those that wait."""
    if kind == "peer" and int(point["callers"]) > PEER_FINISHES:
        return f"not finishable: every release looks at every waiter; measured up to {PEER_FINISHES} callers"
    if kind == "aiometer" and point["callers"] == 1:
        return "it runs lists of calls and has no permit to acquire alone"
    return None


REQUESTS = Scenario(
    scenario_id="requests",
    version="1",
    title="request admission under contention",
    axes={"callers": (1, 100, 500, 1_000, 2_000, 100_000)},
    budget_points=grid({"callers": (1, 100, 500, 1_000, 2_000, 100_000)}),
    smoke_points=grid({"callers": (1, 100, 1_000)}),
    workloads={
        "project": "benchmarks.workloads.requests_here",
        "floor": "benchmarks.workloads.requests_floor",
        "peer": "benchmarks.peers.engine_requests",
        "asyncio": "benchmarks.peers.requests_asyncio",
        "anyio": "benchmarks.peers.requests_anyio",
        "aiometer": "benchmarks.peers.requests_aiometer",
    },
    params=params,
    headlines=(
        Headline("acquire_release_us", "acquire and release, nobody waiting (p50)"),
        Headline("request_us", f"one request through {PERMITS} permits, with its task"),
        Headline("request_cpu_us", f"one request through {PERMITS} permits, with its task, processor time"),
    ),
    skips=skips,
    charts=(
        Chart("request_cpu_us", "callers", f"A request through {PERMITS} permits, by callers at once", "callers", "µs"),
    ),
    beside=("floor", "asyncio", "anyio", "aiometer"),
)

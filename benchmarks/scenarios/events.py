"""Scenario family 8, one event at a time: what its owner pays where nobody wants it, and where somebody does."""

from __future__ import annotations

from benchmarks.inputs import Inputs
from benchmarks.scenarios.scenario import Headline, Point, Scenario, grid
from benchmarks.workloads.outcome import Json

__all__ = ["EVENTS"]

EVENTS_OF_AN_ITERATION = 50_000
SMOKE_EVENTS = 1_000


def params(_inputs: Inputs, point: Point, smoke: bool) -> dict[str, Json]:
    """What a worker is told."""
    return {**point, "events": SMOKE_EVENTS if smoke else EVENTS_OF_AN_ITERATION}


EVENTS = Scenario(
    scenario_id="events",
    version="2",
    title="one event",
    axes={"sink": ("nobody", "unwanted", "memory", "jsonl")},
    budget_points=grid({"sink": ("nobody", "unwanted", "memory", "jsonl")}),
    smoke_points=grid({"sink": ("nobody", "unwanted", "memory", "jsonl")}),
    workloads={"project": "benchmarks.workloads.events_here"},
    params=params,
    headlines=(Headline("one_event_cpu_us", "one event, processor time"),),
)

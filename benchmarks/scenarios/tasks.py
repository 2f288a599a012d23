"""Scenario family 1: what ordering and admitting one task costs, by backlog, groups, resources and policy."""

from __future__ import annotations

from collections.abc import Hashable

from benchmarks.inputs import Inputs
from benchmarks.scenarios.scenario import Chart, Headline, Kind, Point, Scenario, grid
from benchmarks.workloads.outcome import Json

__all__ = ["TASKS"]

CAPACITY = 2048
CYCLES = 500
SECONDS_FOR_EACH_PART = 1.0
SMOKE_CYCLES = 64


def params(inputs: Inputs, point: Point, smoke: bool) -> dict[str, Json]:
    """What a worker is told."""
    return {
        **point,
        "task_capacity": inputs.task_capacity or CAPACITY,
        "cycles": SMOKE_CYCLES if smoke else CYCLES,
        "seconds": None if smoke else SECONDS_FOR_EACH_PART,
        "count_calls": smoke,
    }


def skips(kind: Kind, point: Point) -> str | None:
    """The floor has neither groups nor policies nor a queue."""
    if kind == "floor" and (point["groups"], point["tasks"], point["resources"]) != (1, 1_000, "local"):
        return "bare Trio has no groups, no queue and no policy; its one figure is at 1 group"
    return None


def block(point: Point) -> Hashable:
    """Costs are compared between numbers of groups and of tasks, so these take turns."""
    return point["resources"], point["policy"]


TASKS = Scenario(
    scenario_id="tasks",
    version="3",
    title="queue and task admission",
    axes={
        "tasks": (1_000, 10_000, 100_000),
        "groups": (1, 8, 64, 256),
        "resources": ("local", "bound", "mixed", "exclusive"),
        "policy": ("strict", "borrow"),
    },
    budget_points=(
        *grid({"tasks": (1_000,), "groups": (1, 8, 64, 256), "resources": ("local",), "policy": ("strict", "borrow")}),
        *grid({"tasks": (100_000,), "groups": (1, 256), "resources": ("local",), "policy": ("strict", "borrow")}),
        *grid({"tasks": (10_000,), "groups": (256,), "resources": ("local",), "policy": ("strict", "borrow")}),
        *grid({"tasks": (1_000,), "groups": (64, 256), "resources": ("exclusive",), "policy": ("strict", "borrow")}),
    ),
    smoke_points=grid(
        {
            "tasks": (1_000,),
            "groups": (1, 256),
            "resources": ("local", "bound", "mixed", "exclusive"),
            "policy": ("strict", "borrow"),
        }
    ),
    workloads={
        "project": "benchmarks.workloads.tasks_here",
        "floor": "benchmarks.workloads.tasks_floor",
        "peer": "benchmarks.peers.engine_tasks",
    },
    params=params,
    headlines=(
        Headline("enqueue_us", "enqueue, per task"),
        Headline("open_cycle_us", "cycle: select, acquire, commit, release; nothing else held (p50)"),
        Headline("full_cycle_us", "cycle with everything held: release, select, acquire, commit (p50)"),
        Headline("full_select_nothing_us", "the select after it, which finds nothing (p50)"),
        Headline("full_cycle_and_nothing_us", "both together (p50)"),
        Headline("capped_cycle_us", "cycle with every other group refused by the policy (p50)"),
    ),
    accepts=frozenset({"task_capacity"}),
    skips=skips,
    block=block,
    charts=(
        Chart(
            "full_cycle_and_nothing_us",
            "groups",
            "Cycle and the select that finds nothing, by groups (1,000 tasks)",
            "groups",
            "µs",
            split=("policy",),
            where={"tasks": 1_000, "resources": "local"},
        ),
        Chart(
            "full_cycle_and_nothing_us",
            "tasks",
            "Cycle and the select that finds nothing, by queued tasks (256 groups)",
            "queued tasks",
            "µs",
            split=("policy",),
            where={"groups": 256, "resources": "local"},
        ),
    ),
)

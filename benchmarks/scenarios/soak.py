"""Long runs, for their memory: a million rows, 300,000 tasks that call a model, and a million row groups prepared."""

from __future__ import annotations

from benchmarks.inputs import Inputs
from benchmarks.scenarios.scenario import Headline, Point, Scenario, grid
from benchmarks.workloads.outcome import Json

__all__ = ["LOADS", "SOAK"]

LOADS: dict[str, dict[str, Json]] = {
    "million rows": {"records": 1_000_000, "buffer_size": 10_000, "row_group_concurrency": 3, "cells": 4},
    "300 thousand tasks": {"records": 100_000, "buffer_size": 1_000, "row_group_concurrency": 4, "cells": 3},
    "million row groups": {"records": 10_000_000, "buffer_size": 10, "row_group_concurrency": 4, "cells": 1},
}
"""Row groups are prepared without their rows: that run is stopped when its first row group is admitted."""
SMOKE_PART = 500
"""Smoke runs this part of a load."""


def params(_inputs: Inputs, point: Point, smoke: bool) -> dict[str, Json]:
    """What a worker is told."""
    load = dict(LOADS[str(point["load"])])
    if smoke and point["load"] != "million row groups":
        for name in ("records", "buffer_size"):
            load[name] = max(10, int(str(load[name])) // SMOKE_PART)
    return {**point, **load}


SOAK = Scenario(
    scenario_id="soak",
    version="1",
    title="memory over long runs",
    axes={"load": tuple(LOADS)},
    budget_points=grid({"load": tuple(LOADS)}),
    smoke_points=grid({"load": tuple(LOADS)}),
    workloads={"project": "benchmarks.workloads.soak_here"},
    params=params,
    headlines=(
        Headline("memory_above_start_mb", "most memory above the start", unit="MB"),
        Headline("memory_growth_mb", "growth after warm-up", unit="MB"),
        Headline("preparation_seconds", "until the first row group is admitted", unit="s"),
        Headline("task_cpu_us", "the run, per task, processor time"),
    ),
    iterations=1,
    remark="one iteration is enough: a run takes minutes and is sampled a hundred times; how it varies is not claimed",
)

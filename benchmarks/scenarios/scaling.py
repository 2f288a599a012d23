"""How the cost of a whole run, and the memory that it needs, grow with its rows: the pipeline of `pipeline`, longer."""

from __future__ import annotations

from benchmarks.inputs import Inputs
from benchmarks.scenarios import pipeline
from benchmarks.scenarios.scenario import Chart, Headline, Point, Scenario, grid
from benchmarks.workloads.memory import MEGABYTE
from benchmarks.workloads.outcome import Json

__all__ = ["SCALING"]

AXES = {"records": (1_000, 10_000, 100_000)}


def params(inputs: Inputs, point: Point, smoke: bool) -> dict[str, Json]:
    """What a worker is told."""
    return {**pipeline.params(inputs, {"events": "off"}, smoke), "records": point["records"]}


SCALING = Scenario(
    scenario_id="scaling",
    version="1",
    title="a whole pipeline of columns that do nothing, by rows",
    axes=AXES,
    budget_points=grid(AXES),
    smoke_points=grid({"records": (1_000,)}),
    workloads=pipeline.PIPELINE.workloads,
    params=params,
    headlines=(
        Headline("task_cpu_us", "the run, per task, processor time"),
        Headline("peak_memory_bytes", "most memory above what was resident before", unit="bytes"),
    ),
    charts=(
        Chart("task_cpu_us", "records", "A task of a whole run, by rows", "rows", "µs"),
        Chart("peak_memory_bytes", "records", "Most memory of a whole run, by rows", "rows", "MB", per=MEGABYTE),
    ),
    iterations=3,
    remark="three iterations are enough: a hundred thousand rows take the peer more than a minute",
    accepts=frozenset({"buffer_size", "row_group_concurrency", "task_capacity"}),
    peer_needs=pipeline.PEER_NEEDS,
)

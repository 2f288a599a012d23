"""Scenario families 5 and 8 at their floor: a whole run whose columns do nothing, so all that is measured is ours.

One column from scratch, three columns cell by cell in a chain. A task is one cell of those three. `events` says who
gets both event streams: nobody, a sink that wants none of them, lists in memory, files, or files of which report and
trace are then made, as a run does unless it is told not to. Where it is not nobody, every iteration also runs without,
for the difference.
"""

from __future__ import annotations

from benchmarks.inputs import Inputs
from benchmarks.scenarios.scenario import Headline, Kind, Point, Scenario, grid
from benchmarks.workloads.outcome import Json

__all__ = ["PIPELINE"]

EVENTS = ("off", "unwanted", "memory", "jsonl", "documents")
RECORDS = 5_000
SMOKE_RECORDS = 200
BUFFER_SIZE = 500
ROW_GROUPS_AT_ONCE = 4
CAPACITY = 1_024

PEER_NEEDS = (
    "asciichartpy>=1.5.25,<2",
    "fsspec",
    "huggingface-hub>=1.0.1,<2",
    "jinja2>=3.1.6,<4",
    "mcp>=1.30,<2",
    "pandas>=2.3.3,<4",
    "pydantic>=2.9.2,<3",
    "python-json-logger>=3,<4",
    "pyyaml>=6.0.1,<7",
    "requests>=2.33,<3",
    "rich>=13.7.1,<15",
    "wcwidth>=0.2.13,<1",
)
"""What the peer's scheduler imports, within the bounds that the peer gives."""


def params(inputs: Inputs, point: Point, smoke: bool) -> dict[str, Json]:
    """What a worker is told."""
    return {
        **point,
        "records": inputs.records or (SMOKE_RECORDS if smoke else RECORDS),
        "buffer_size": inputs.buffer_size or BUFFER_SIZE,
        "row_group_concurrency": inputs.row_group_concurrency or ROW_GROUPS_AT_ONCE,
        "task_capacity": inputs.task_capacity or CAPACITY,
    }


def skips(kind: Kind, point: Point) -> str | None:
    """The floor has no events, and of the peer's only those to its file sink are measured."""
    if kind == "floor" and point["events"] != "off":
        return "bare Trio has no events"
    if kind == "peer" and point["events"] not in ("off", "jsonl"):
        return "of the peer's events only those to its file sink are measured"
    return None


PIPELINE = Scenario(
    scenario_id="pipeline",
    version="2",
    title="a whole pipeline of columns that do nothing",
    axes={"events": EVENTS},
    budget_points=grid({"events": EVENTS}),
    smoke_points=grid({"events": EVENTS}),
    workloads={
        "project": "benchmarks.workloads.pipeline_here",
        "floor": "benchmarks.workloads.pipeline_floor",
        "peer": "benchmarks.peers.engine_pipeline",
    },
    params=params,
    headlines=(
        Headline("task_us", "the run, per task"),
        Headline("task_cpu_us", "the run, per task, processor time"),
        Headline("event_cpu_us", "what an event adds, processor time"),
        Headline("with_sink", "the run with a sink, to the run without, processor time", unit="×"),
    ),
    accepts=frozenset({"records", "buffer_size", "row_group_concurrency", "task_capacity"}),
    skips=skips,
    peer_needs=PEER_NEEDS,
)

"""Scenario family 8, by the width of a pipeline: what an event costs the run and its readers, and what it takes up.

As many calls for each width: each column calls a model that answers at once. Every event is written, and read by
report, trace and `why`; then the same is run with a summary.
"""

from __future__ import annotations

from benchmarks.inputs import Inputs
from benchmarks.scenarios.scenario import Headline, Point, Scenario, grid
from benchmarks.workloads.outcome import Json

__all__ = ["COLUMNS"]

WIDTHS = (1, 30, 300)
CALLS = 3_000
SMOKE_CALLS = 300


def params(_inputs: Inputs, point: Point, smoke: bool) -> dict[str, Json]:
    """What a worker is told."""
    return {**point, "calls": SMOKE_CALLS if smoke else CALLS}


COLUMNS = Scenario(
    scenario_id="columns",
    version="1",
    title="events by the number of columns",
    axes={"columns": WIDTHS},
    budget_points=grid({"columns": WIDTHS}),
    smoke_points=grid({"columns": WIDTHS}),
    workloads={"project": "benchmarks.workloads.columns_here"},
    params=params,
    headlines=(
        Headline("event_cpu_us", "what an event adds to the run, processor time"),
        Headline("views_cpu_us", "report and trace, per event, processor time"),
        Headline("why_cpu_us", "why, per event, processor time"),
        Headline("summary_bytes", "a summary, per call", unit="bytes"),
        Headline("all_bytes", "all events, per call", unit="bytes"),
    ),
)

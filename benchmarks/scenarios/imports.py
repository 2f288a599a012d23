"""What importing the package costs, beside importing Trio."""

from __future__ import annotations

from benchmarks.inputs import Inputs
from benchmarks.scenarios.scenario import Headline, Point, Scenario, grid
from benchmarks.workloads.outcome import Json

__all__ = ["IMPORTS"]

INTERPRETERS = 10


def params(_inputs: Inputs, point: Point, smoke: bool) -> dict[str, Json]:
    """What a worker is told."""
    return {**point, "interpreters": 1 if smoke else INTERPRETERS}


IMPORTS = Scenario(
    scenario_id="imports",
    version="1",
    title="import",
    axes={"face": ("trio_sched",)},
    budget_points=grid({"face": ("trio_sched",)}),
    smoke_points=grid({"face": ("trio_sched",)}),
    workloads={"project": "benchmarks.workloads.imports_here", "floor": "benchmarks.workloads.imports_floor"},
    params=params,
    headlines=(Headline("import_us", "import in a new interpreter (p50)"),),
)

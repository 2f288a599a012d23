"""The scenario families: each module declares one, and `ALL` names them."""

from benchmarks.scenarios.columns import COLUMNS
from benchmarks.scenarios.events import EVENTS
from benchmarks.scenarios.imports import IMPORTS
from benchmarks.scenarios.pipeline import PIPELINE
from benchmarks.scenarios.requests import REQUESTS
from benchmarks.scenarios.scaling import SCALING
from benchmarks.scenarios.scenario import Scenario
from benchmarks.scenarios.simulated import END_TO_END, HEAVY_ROOT, HIDDEN_WAITERS, UTILISATION
from benchmarks.scenarios.soak import SOAK
from benchmarks.scenarios.tasks import TASKS

__all__ = ["ALL", "Scenario"]

ALL: dict[str, Scenario] = {
    scenario.scenario_id: scenario
    for scenario in (
        TASKS,
        HEAVY_ROOT,
        HIDDEN_WAITERS,
        UTILISATION,
        END_TO_END,
        REQUESTS,
        EVENTS,
        COLUMNS,
        PIPELINE,
        SCALING,
        SOAK,
        IMPORTS,
    )
}

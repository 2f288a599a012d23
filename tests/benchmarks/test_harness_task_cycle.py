from __future__ import annotations

from typing import Any

import pytest

from benchmarks.workloads.outcome import Outcome, Params
from benchmarks.workloads.tasks_here import prepare

PARAMS: Params = {
    "tasks": 200,
    "groups": 8,
    "resources": "exclusive",
    "policy": "strict",
    "task_capacity": 2_048,
    "cycles": 3,
    "seconds": None,
    "count_calls": True,
}


def outcome(**changes: Any) -> Outcome:
    return prepare({**PARAMS, **changes})(False)


def test_few_heads_are_looked_at_in_a_full_stage() -> None:
    one, three = outcome(cycles=1), outcome(cycles=3)
    assert one.counts["full_eligibility_calls"] <= 4
    assert three.metrics["full_eligibility_calls"] <= 4


@pytest.mark.parametrize("resources", ["local", "bound", "mixed", "exclusive"])
def test_nothing_is_left_behind(resources: str) -> None:
    snapshot = outcome(resources=resources).final_task_snapshot
    assert snapshot is not None
    assert snapshot["leased"] == 0

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


@pytest.mark.parametrize("policy", ["strict", "borrow"])
@pytest.mark.parametrize(
    ("resources", "groups", "unmeasured"),
    [
        # Each group has two units of its own, and they are released one group after the other.
        ("exclusive", 8, 15),
        ("local", 1, 1),
        ("local", 8, 8),
        # More groups than units: most of them hold nothing at the start.
        ("local", 100, 100),
    ],
)
def test_a_full_stage_runs_until_every_group_was_served_before_it_is_measured(
    policy: str, resources: str, groups: int, unmeasured: int
) -> None:
    counts = outcome(policy=policy, resources=resources, groups=groups).counts
    assert counts["full_cycles_unmeasured"] == unmeasured
    assert counts["full_cycles"] == 3


def test_what_is_counted_is_counted_of_the_measured_cycles_alone() -> None:
    one, three = outcome(cycles=1), outcome(cycles=3)
    assert one.counts["full_eligibility_calls"] <= 4
    assert three.metrics["full_eligibility_calls"] <= 4


def test_time_bounds_the_unmeasured_cycles_too() -> None:
    assert outcome(seconds=0).counts["full_cycles_unmeasured"] == 0


@pytest.mark.parametrize("resources", ["local", "bound", "mixed", "exclusive"])
def test_nothing_is_left_behind(resources: str) -> None:
    snapshot = outcome(resources=resources).final_task_snapshot
    assert snapshot is not None
    assert snapshot["leased"] == 0

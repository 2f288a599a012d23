"""An artifact says what bounded the candidate that it judges, by the names and sources of the capacity plan."""

from __future__ import annotations

import dataclasses
from typing import Any

import attrs
import pytest

from benchmarks.inputs import Inputs
from benchmarks.measuring import Measurements
from benchmarks.scenarios import ALL
from benchmarks.workloads import simulated_here
from benchmarks.workloads.outcome import Outcome
from benchmarks.workloads.request_turns import Flight, Turns
from benchmarks.workloads.samples import Steps, Stopwatch
from benchmarks.workloads.task_cycle import capacity_plan
from trio_sched.lowlevel import AsyncCapacityConfigured, AsyncCapacityObservedMaxima, AsyncCapacityRuntimeSnapshot

CONFIGURED = {field.name for field in attrs.fields(AsyncCapacityConfigured)}


def test_a_pipeline_brings_the_plan_of_its_run() -> None:
    params = {**ALL["hidden_waiters"].params(Inputs(), {"pipeline": "success"}, False), "records": 4}
    outcome = simulated_here.prepare(params)(False)
    plan: Any = outcome.capacity_plan
    assert set(plan["configured"]) == CONFIGURED
    assert set(plan["runtime_snapshot"]) == {field.name for field in attrs.fields(AsyncCapacityRuntimeSnapshot)}
    assert set(plan["observed_maxima"]) == {field.name for field in attrs.fields(AsyncCapacityObservedMaxima)}
    # The scenario sets these, to whatever value.
    assert plan["configured"]["buffer_size"]["source"] == "run_config"
    assert plan["configured"]["provider_model_static_caps"]["simulated/model"]["source"] == "model_metadata"
    assert plan["observed_maxima"]["request_in_flight_by_resource"]["simulated/model/chat"] > 0


@pytest.mark.parametrize(
    ("plan", "named"),
    [
        (capacity_plan(8, {"local": 2}), {"submission_capacity": 8, "task_resource_limits": {"local": 2}}),
        (
            Flight().outcome(Turns(1, 64, 1), Stopwatch(), Steps(), None).capacity_plan,
            {"provider_model_static_caps": {"bench/model": {"cap": 64}}},
        ),
    ],
    ids=["tasks", "requests"],
)
def test_a_stage_alone_brings_what_the_benchmark_sets(plan: Any, named: dict[str, Any]) -> None:
    def told(value: Any) -> Any:
        if "source" not in value:
            return {name: told(each) for name, each in value.items()}
        assert value["source"] == "benchmark_override"
        return value["value"]

    assert set(plan["configured"]) <= CONFIGURED
    assert told(plan["configured"]) == named


def test_the_artifact_holds_the_plan_of_the_candidate_under_judgement() -> None:
    def answer(capacity: int) -> dict[str, Any]:
        outcome = Outcome(1.0, {}, {}, capacity_plan=capacity_plan(capacity, {}))
        measured = {"cpu_time_seconds": 1.0, "peak_memory_bytes": 1, "calibration_seconds": 1.0}
        return {"outcome": dataclasses.asdict(outcome), **measured}

    found = Measurements(judged="here")
    found.take("here", {}, 0, answer(3))
    found.take("peer", {}, 0, answer(4))
    plan: Any = found.capacity_plan
    assert plan["configured"]["submission_capacity"]["value"] == 3

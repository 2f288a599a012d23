"""Small artifacts for the tests of the harness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks import HARNESS_VERSION
from benchmarks.artifact import (
    ARTIFACT_SCHEMA_VERSION,
    Artifact,
    Environment,
    Iteration,
    JsonObject,
    Skipped,
)
from benchmarks.deriving import derive
from benchmarks.inputs import Inputs
from benchmarks.machine import noise

POINT: Mapping[str, str | int] = {"callers": 2_000}


def iteration(
    candidate: str,
    index: int,
    order: int,
    microseconds: float,
    *,
    metric: str = "request_cpu_us",
    point: Mapping[str, str | int] = POINT,
    leased: int = 0,
    work: str = "same",
) -> Iteration:
    """One iteration in which `metric` was so many microseconds."""
    return Iteration(
        candidate=candidate,
        point=JsonObject(dict(point)),
        index=index,
        order=order,
        wall_time_seconds=microseconds / 1e6,
        cpu_time_seconds=microseconds / 1e6,
        peak_memory_bytes=1_000_000,
        calibration_seconds=0.01,
        metrics={metric: microseconds},
        counts={"served": 2_000, "peak_in_flight": 64},
        timeline=(),
        final_task_snapshot=None,
        final_request_snapshot=JsonObject({"leased": leased, "waiters": 0}),
        output_hashes={"served": work},
    )


def rounds(**microseconds: Sequence[float]) -> tuple[Iteration, ...]:
    """Interleaved iterations: for every candidate its value in each round."""
    found: list[Iteration] = []
    for index, values in enumerate(zip(*microseconds.values(), strict=True)):
        for name, value in zip(microseconds, values, strict=True):
            found.append(iteration(name, index, len(found), value))
    return tuple(found)


def artifact(iterations: tuple[Iteration, ...], *, profile: str = "budgets", against: str | None = None) -> Artifact:
    """The artifact of a run of the scenario `requests` with these iterations."""
    names = dict.fromkeys(each.candidate for each in iterations)
    inputs = Inputs(baseline="peer" if "peer" in names else "here", against=against).recorded(profile)
    skipped = (Skipped("peer", JsonObject({"callers": 100_000}), "not finishable"),)
    return Artifact(
        scenario_id="requests",
        artifact_schema_version=ARTIFACT_SCHEMA_VERSION,
        scenario_version="1",
        harness_version=HARNESS_VERSION,
        baseline_sha=f"sha of {inputs['baseline']}",
        candidate_sha="sha of here",
        inputs=JsonObject(inputs),
        provider_script=None,
        clock_script=None,
        capacity_plan=JsonObject({"configured": {}}),
        iterations=iterations,
        derived_metrics=derive(
            "requests", iterations, inputs=inputs, skipped=skipped, noise=noise([0.01, 0.0101], 0.5, None)
        ),
        environment=Environment(
            machine=JsonObject({"processor": "one", "processors": 2, "memory": None, "system": "Linux"}),
            runtimes={name: JsonObject({"python": "CPython 3.11"}) for name in names},
            command_line=("python", "-m", "benchmarks"),
        ),
        candidate_shas={name: f"sha of {name}" for name in names},
    )

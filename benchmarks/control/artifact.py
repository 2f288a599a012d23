"""The artifact of family 7: what was measured at the scripted providers, and what follows for the acceptance table.

It is read as strictly as the other artifacts. `schema.py` checks what types cannot say, `report.py` makes the tables. A
figure that is infinite, such as the time until what never happened, is null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, cast

import attrs

from benchmarks import HARNESS_VERSION
from benchmarks.artifact import Environment, JsonObject, converter, six_digits
from benchmarks.control.acceptance import LINES, Summary, Verdict, judge, summed_up
from benchmarks.control.candidates import PEER, WHO
from benchmarks.control.running import Run
from benchmarks.control.scenarios import HEADROOM, SCENARIOS
from benchmarks.control.split import SPLIT, Half
from benchmarks.environments import PEER as PEER_PACKAGES
from benchmarks.environments import ROOT, checkout_sha
from benchmarks.machine import machine
from benchmarks.worker import runtime

__all__ = [
    "CONTROL_ID",
    "SCENARIO_VERSION",
    "SCHEMA_VERSION",
    "ControlArtifact",
    "ControlIteration",
    "LineVerdict",
    "control_artifact",
    "lines_of",
    "read",
    "summaries_of",
]

SCHEMA_VERSION: Final = "3"
SCENARIO_VERSION: Final = "3"
CONTROL_ID: Final = "control"


@attrs.frozen
class ControlIteration:
    """One candidate at one scripted provider: each measure, one value for each seed."""

    candidate: str
    scenario: str
    seeds: tuple[int, ...]
    measures: Mapping[str, tuple[float | None, ...]]


@attrs.frozen
class LineVerdict:
    """A line of the acceptance table: how many of its scenarios have which verdict, and the bounds' worst figures.

    worst_mean: that of the worst scenario, a mean over its seeds. worst: that of the worst seed of any scenario.
    """

    verdicts: Mapping[Verdict, int]
    worst_mean: Mapping[str, float | None]
    worst: Mapping[str, float | None]


@attrs.frozen
class ControlArtifact:
    """derived_metrics: by candidate, its verdict on every line."""

    scenario_id: str
    artifact_schema_version: str
    scenario_version: str
    harness_version: str
    baseline_sha: str | None
    candidate_sha: str
    inputs: JsonObject
    split: Mapping[Half, tuple[str, ...]]
    provider_script: Mapping[str, str]
    clock_script: JsonObject
    capacity_plan: JsonObject
    iterations: tuple[ControlIteration, ...]
    derived_metrics: Mapping[str, Mapping[str, LineVerdict]]
    environment: Environment


def control_artifact(
    runs: Iterable[Run], half: Half, command: Sequence[str], *, kept: ControlArtifact | None = None
) -> ControlArtifact:
    """The artifact of `runs`, and of what `kept` has of other candidates."""
    measured = tuple(map(_iteration, runs))
    again = {each.candidate for each in measured}
    others = [each for each in (() if kept is None else kept.iterations) if each.candidate not in again]
    order = {name: place for place, name in enumerate(WHO)}
    iterations = tuple(sorted((*measured, *others), key=lambda each: order.get(each.candidate, len(order))))
    seeds: dict[str, list[int]] = {}
    for each in iterations:
        seeds.setdefault(each.candidate, list(each.seeds))
    played = {each.scenario for each in iterations}
    return ControlArtifact(
        scenario_id=CONTROL_ID,
        artifact_schema_version=SCHEMA_VERSION,
        scenario_version=SCENARIO_VERSION,
        harness_version=HARNESS_VERSION,
        baseline_sha=PEER_PACKAGES[0] if PEER in seeds else None,
        candidate_sha=checkout_sha(ROOT),
        inputs=JsonObject({"half": half, "seeds": seeds} | ({} if kept is None else {"kept": _kept(kept, others)})),
        split=SPLIT,
        provider_script={name: each.script for name, each in SCENARIOS.items() if name in played},
        clock_script=JsonObject({"clock": "simulated"}),
        capacity_plan=JsonObject(
            {
                "configured": {
                    "provider_model_static_caps": {
                        "value": f"{HEADROOM} times what the provider takes, unless its script says otherwise",
                        "source": "benchmark_override",
                    }
                }
            }
        ),
        iterations=iterations,
        derived_metrics=lines_of(iterations),
        environment=Environment(machine(), {"ours": JsonObject(dict(runtime()))}, tuple(command)),
    )


def summaries_of(iterations: Iterable[ControlIteration]) -> dict[str, dict[str, dict[str, Summary]]]:
    """Mean and worst of every measure, by candidate and scenario."""
    found: dict[str, dict[str, dict[str, Summary]]] = {}
    for each in iterations:
        runs = [
            {name: _infinite(values[place]) for name, values in each.measures.items()}
            for place in range(len(each.seeds))
        ]
        found.setdefault(each.candidate, {})[each.scenario] = summed_up(runs)
    return found


def lines_of(iterations: Iterable[ControlIteration]) -> dict[str, dict[str, LineVerdict]]:
    """By candidate, its verdict on every line that it has scenarios of."""
    return {
        candidate: {
            group: _line(group, {name: each for name, each in scenarios.items() if SCENARIOS[name].group == group})
            for group in LINES
            if any(SCENARIOS[name].group == group for name in scenarios)
        }
        for candidate, scenarios in summaries_of(iterations).items()
    }


def read(path: Path) -> ControlArtifact:
    """Read one back. Raises what cattrs raises where it does not have this schema's form."""
    return converter().structure(json.loads(path.read_text(encoding="utf-8")), ControlArtifact)


def _line(group: str, scenarios: Mapping[str, Mapping[str, Summary]]) -> LineVerdict:
    line = LINES[group]
    verdicts: dict[Verdict, int] = {}
    for each in scenarios.values():
        verdict = judge(line, each)
        verdicts[verdict] = verdicts.get(verdict, 0) + 1
    worst_mean: dict[str, float | None] = {}
    worst: dict[str, float | None] = {}
    for bound in line.bounds:
        summaries = [each[bound.measure] for each in scenarios.values()]
        worst_mean[bound.measure] = _finite(bound.worst_of(each.mean for each in summaries))
        worst[bound.measure] = _finite(bound.worst_of(each.worst for each in summaries))
    return LineVerdict(verdicts, worst_mean, worst)


def _kept(kept: ControlArtifact, iterations: Iterable[ControlIteration]) -> dict[str, str]:
    """By candidate, the commit that it was measured at."""
    before = cast("Mapping[str, str]", kept.inputs.get("kept", {}))
    names = dict.fromkeys(each.candidate for each in iterations)
    return {name: before.get(name, kept.candidate_sha) for name in names}


def _iteration(run: Run) -> ControlIteration:
    names = dict.fromkeys(name for measures in run.measures for name in measures)
    return ControlIteration(
        run.candidate,
        run.scenario,
        run.seeds,
        {name: tuple(_finite(measures.get(name, 0.0)) for measures in run.measures) for name in names},
    )


def _finite(value: float) -> float | None:
    return six_digits(value) if math.isfinite(value) else None


def _infinite(value: float | None) -> float:
    return math.inf if value is None else value

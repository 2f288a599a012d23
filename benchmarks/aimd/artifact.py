"""The artifacts of family 7: what was measured at the scripted providers, and the sweep behind the defaults.

They are read as strictly as the other artifacts. `schema.py` checks what types cannot say, `report.py` makes the
tables. A figure that is infinite, such as the time until what never happened, is null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final, Literal

import attrs

from benchmarks import HARNESS_VERSION
from benchmarks.aimd.ours import Tuning
from benchmarks.aimd.results import ControlLine, Result
from benchmarks.aimd.scenarios import HEADROOM, SCENARIOS, Span
from benchmarks.aimd.sweep import CHOSEN, Part, Point
from benchmarks.artifact import Environment, JsonObject, converter, six_digits
from benchmarks.environments import ROOT, checkout_sha
from benchmarks.machine import machine
from benchmarks.worker import runtime

__all__ = [
    "PROVIDERS_ID",
    "SCENARIO_VERSION",
    "SCHEMA_VERSION",
    "SWEEP_ID",
    "Line",
    "ProviderIteration",
    "ProvidersArtifact",
    "SweepArtifact",
    "SweepIteration",
    "kept_of",
    "lines_of",
    "providers_artifact",
    "read",
    "results_of",
    "sweep_artifact",
]

SCHEMA_VERSION: Final = "2"
SCENARIO_VERSION: Final = "2"
PROVIDERS_ID: Final = "aimd"
SWEEP_ID: Final = "aimd-sweep"


@attrs.frozen
class Line:
    """A control line, and the letters of what it misses."""

    utilisation_16: float | None
    utilisation_128: float | None
    refused_16: float | None
    refused_128: float | None
    settle_16: float | None
    settle_128: float | None
    recover: float | None
    missed: str

    @classmethod
    def of(cls, line: ControlLine) -> Line:
        """As it stands in an artifact."""
        return cls(**{name: _finite(value) for name, value in asdict(line).items()}, missed=line.missed)

    def control_line(self) -> ControlLine:
        """The same line again."""
        return ControlLine(*(_infinite(getattr(self, field.name)) for field in fields(ControlLine)))


@attrs.frozen
class ProviderIteration:
    """One candidate at one scripted provider with one seed."""

    candidate: str
    scenario: str
    seed: int
    measures: Mapping[str, float | None]


@attrs.frozen
class SweepIteration:
    """One combination of parameters."""

    part: Part
    stage: Literal["coarse", "full"]
    tuning: Tuning
    line: Line


@attrs.frozen
class _Head:
    scenario_id: str
    artifact_schema_version: str
    scenario_version: str
    harness_version: str
    baseline_sha: str | None
    candidate_sha: str
    inputs: JsonObject
    provider_script: Mapping[str, str]
    clock_script: JsonObject
    capacity_plan: JsonObject
    environment: Environment


@attrs.frozen
class ProvidersArtifact(_Head):
    """The scripted providers. derived_metrics: the control line of every candidate."""

    iterations: tuple[ProviderIteration, ...]
    derived_metrics: Mapping[str, Line]


@attrs.frozen
class SweepArtifact(_Head):
    """The sweep. derived_metrics: how many points of each part keep the control line."""

    iterations: tuple[SweepIteration, ...]
    derived_metrics: Mapping[str, int]


def providers_artifact(
    results: Mapping[str, Sequence[Result]], span: Span, command: Sequence[str], *, peer: str | None
) -> ProvidersArtifact:
    """The artifact of `results`, by candidate; `peer` is the peer's name and version where it took part."""
    iterations = tuple(
        ProviderIteration(
            candidate, each.scenario, each.seed, {name: _finite(value) for name, value in each.measures.items()}
        )
        for candidate, of_candidate in results.items()
        for each in of_candidate
    )
    return ProvidersArtifact(
        **_head(PROVIDERS_ID, span, command, peer, {name: _seeds(each) for name, each in results.items()}),
        iterations=iterations,
        derived_metrics=lines_of(iterations),
    )


def sweep_artifact(
    parts: Mapping[Part, Iterable[Point]], span: Span, seeds: Mapping[Part, Sequence[int]], command: Sequence[str]
) -> SweepArtifact:
    """The artifact of a sweep; `seeds` are those of the points that were measured in full."""
    iterations = tuple(
        SweepIteration(part, point.stage, point.tuning, Line.of(point.line))
        for part, points in parts.items()
        for point in points
    )
    return SweepArtifact(
        **_head(SWEEP_ID, span, command, None, seeds), iterations=iterations, derived_metrics=kept_of(iterations)
    )


def lines_of(iterations: Sequence[ProviderIteration]) -> dict[str, Line]:
    """The control line of every candidate."""
    return {candidate: Line.of(ControlLine.of(results)) for candidate, results in results_of(iterations).items()}


def kept_of(iterations: Iterable[SweepIteration]) -> dict[str, int]:
    """How many points of each part keep the control line."""
    kept: dict[str, int] = {}
    for each in iterations:
        kept[each.part] = kept.get(each.part, 0) + (not each.line.control_line().missed)
    return kept


def results_of(iterations: Iterable[ProviderIteration]) -> dict[str, list[Result]]:
    """The results of every candidate, in their order."""
    found: dict[str, list[Result]] = {}
    for each in iterations:
        measures = {name: _infinite(value) for name, value in each.measures.items()}
        found.setdefault(each.candidate, []).append(Result(each.scenario, each.seed, measures))
    return found


def read(path: Path) -> ProvidersArtifact | SweepArtifact:
    """Read one back. Raises what cattrs raises where it does not have this schema's form."""
    document = json.loads(path.read_text(encoding="utf-8"))
    if document.get("scenario_id") == SWEEP_ID:
        return converter().structure(document, SweepArtifact)
    return converter().structure(document, ProvidersArtifact)


def _seeds(results: Iterable[Result]) -> list[int]:
    return sorted({each.seed for each in results})


def _head(
    scenario_id: str, span: Span, command: Sequence[str], peer: str | None, seeds: Mapping[Any, Sequence[int]]
) -> dict[str, Any]:
    return {
        "scenario_id": scenario_id,
        "artifact_schema_version": SCHEMA_VERSION,
        "scenario_version": SCENARIO_VERSION,
        "harness_version": HARNESS_VERSION,
        "baseline_sha": peer,
        "candidate_sha": checkout_sha(ROOT),
        "inputs": JsonObject(
            {
                "measured_from": span.start,
                "measured_until": span.end,
                "chosen": CHOSEN.as_dict(),
                "seeds": {name: list(each) for name, each in seeds.items()},
            }
        ),
        "provider_script": {name: each.script for name, each in SCENARIOS.items()},
        "clock_script": JsonObject({"clock": "simulated"}),
        "capacity_plan": JsonObject(
            {
                "configured": {
                    "provider_model_static_caps": {
                        "value": f"{HEADROOM} times what the provider takes, unless its script says otherwise",
                        "source": "benchmark_override",
                    }
                }
            }
        ),
        "environment": Environment(machine(), {"ours": JsonObject(dict(runtime()))}, tuple(command)),
    }


def _finite(value: float) -> float | None:
    return six_digits(value) if math.isfinite(value) else None


def _infinite(value: float | None) -> float:
    return math.inf if value is None else value

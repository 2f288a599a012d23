"""Whether an artifact of family 7 is complete and true to itself: what types cannot say."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cattrs import transform_error

from benchmarks.aimd.artifact import (
    PROVIDERS_ID,
    SCENARIO_VERSION,
    SCHEMA_VERSION,
    SWEEP_ID,
    ProvidersArtifact,
    SweepArtifact,
    kept_of,
    lines_of,
    read,
)
from benchmarks.aimd.results import ControlLine
from benchmarks.aimd.scenarios import SCENARIOS

__all__ = ["IDS", "check_file", "findings"]

IDS: Final = (PROVIDERS_ID, SWEEP_ID)
OURS: Final = "ours"
EVERYWHERE: Final = ("utilisation", "refused")
SHARES: Final = {"refused": 1.0, "jain": 1.0 + 1e-6, "utilisation": 1.05}
"""What a share may be at most. Calls that were in flight when the measured time began may lift utilisation above 1."""


def check_file(path: Path) -> list[str]:
    """The faults of the artifact in a file of JSON."""
    try:
        artifact = read(path)
    except Exception as error:
        return transform_error(error, path="artifact")
    return list(findings(artifact))


def findings(artifact: ProvidersArtifact | SweepArtifact) -> Iterator[str]:
    """The faults of an artifact that has the right form, one sentence each."""
    if artifact.artifact_schema_version != SCHEMA_VERSION:
        yield f"artifact_schema_version is {artifact.artifact_schema_version!r}, not {SCHEMA_VERSION!r}"
    for name in ("harness_version", "candidate_sha", "provider_script", "environment"):
        if not getattr(artifact, name):
            yield f"{name} is empty"
    if not artifact.iterations:
        yield "there are no iterations"
    elif isinstance(artifact, SweepArtifact):
        yield from _sweep(artifact)
    else:
        yield from _providers(artifact)


def _sweep(artifact: SweepArtifact) -> Iterator[str]:
    seen = Counter((each.part, each.tuning) for each in artifact.iterations)
    for (part, tuning), times in seen.items():
        if times > 1:
            yield f"{tuning} is there {times} times in the part {part!r}"
    for each in artifact.iterations:
        if each.line.missed != each.line.control_line().missed:
            yield f"what {each.tuning} misses does not follow from its figures"
    if artifact.derived_metrics != kept_of(artifact.iterations):
        yield "the points that keep the control line do not follow from the iterations"


def _providers(artifact: ProvidersArtifact) -> Iterator[str]:
    if artifact.scenario_version != SCENARIO_VERSION:
        yield f"scenario_version is {artifact.scenario_version!r}, not {SCENARIO_VERSION!r}"
    if artifact.provider_script != {name: each.script for name, each in SCENARIOS.items()}:
        yield "the scripts of the providers are not those of this version"
    ran: dict[str, dict[str, list[int]]] = {}
    measured: dict[str, set[frozenset[str]]] = {}
    for each in artifact.iterations:
        ran.setdefault(each.candidate, {}).setdefault(each.scenario, []).append(each.seed)
        measured.setdefault(each.scenario, set()).add(frozenset(each.measures))
        for name in EVERYWHERE:
            if each.measures.get(name) is None:
                yield f"{each.candidate} has no {name} at {each.scenario} with seed {each.seed}"
        for name, value in each.measures.items():
            if value is not None and not 0 <= value <= SHARES.get(name, math.inf):
                yield f"{name} of {each.candidate} at {each.scenario} with seed {each.seed} is {value}"
    if OURS not in ran:
        yield "the project's own rule is missing"
    if artifact.baseline_sha is not None and not any(name.startswith("peer") for name in ran):
        yield f"the baseline {artifact.baseline_sha!r} was not measured"
    for scenario, names in measured.items():
        if len(names) > 1:
            yield f"not everybody has the same measures at {scenario}"
    seeds = artifact.inputs.get("seeds")
    for candidate, scenarios in ran.items():
        if scenarios.keys() not in (SCENARIOS.keys(), set(ControlLine.SCENARIOS)):
            yield f"{candidate} was neither at every provider nor at those of the control line alone"
        said = seeds.get(candidate) if isinstance(seeds, dict) else None
        if any(sorted(each) != said for each in scenarios.values()):
            yield f"{candidate} was not at every provider once with each of its seeds, {said}"
    if any(set(ControlLine.SCENARIOS) - scenarios.keys() for scenarios in ran.values()):
        return
    if artifact.derived_metrics != lines_of(artifact.iterations):
        yield "the control lines do not follow from the iterations"

"""Whether an artifact of family 7 is complete and true to itself: what types cannot say."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cattrs import transform_error

from benchmarks.control.acceptance import LINES
from benchmarks.control.artifact import (
    CONTROL_ID,
    SCENARIO_VERSION,
    SCHEMA_VERSION,
    ControlArtifact,
    ControlIteration,
    lines_of,
    read,
)
from benchmarks.control.candidates import JUDGED, PEER, scenarios_of
from benchmarks.control.scenarios import SCENARIOS
from benchmarks.control.split import HALVES, SEEDS, SPLIT

__all__ = ["CONTROL_ID", "check_file", "findings"]

EVERYWHERE: Final = ("utilisation", "refused")
SHARES: Final = {"refused": 1.0, "jain": 1.0 + 1e-6, "utilisation": 1.05, "timeouts": 1.0, "lost": 1.0}
"""What a share may be at most. What a bucket or a window had saved up may lift utilisation above 1."""


def check_file(path: Path) -> list[str]:
    """The faults of the artifact in a file of JSON."""
    try:
        artifact = read(path)
    except Exception as error:
        return transform_error(error, path="artifact")
    return list(findings(artifact))


def findings(artifact: ControlArtifact) -> Iterator[str]:
    """The faults of an artifact that has the right form, one sentence each."""
    if artifact.artifact_schema_version != SCHEMA_VERSION:
        yield f"artifact_schema_version is {artifact.artifact_schema_version!r}, not {SCHEMA_VERSION!r}"
    if artifact.scenario_version != SCENARIO_VERSION:
        yield f"scenario_version is {artifact.scenario_version!r}, not {SCENARIO_VERSION!r}"
    for name in ("harness_version", "candidate_sha", "environment"):
        if not getattr(artifact, name):
            yield f"{name} is empty"
    if artifact.split != SPLIT:
        yield "the halves of the scenarios are not those of this version"
    half = artifact.inputs.get("half")
    if half not in HALVES:
        yield f"the half is {half!r}"
        return
    unknown = {each.scenario for each in artifact.iterations} - set(SPLIT[half])
    if unknown:
        yield f"of the half {half!r} are not: {', '.join(sorted(unknown))}"
        return
    played = {each.scenario for each in artifact.iterations}
    if artifact.provider_script != {name: each.script for name, each in SCENARIOS.items() if name in played}:
        yield "the scripts of the providers are not those of this version"
    said = artifact.inputs.get("seeds")
    for candidate, scenarios in _ran(artifact).items():
        if scenarios != dict.fromkeys(scenarios_of(candidate, [name for name in SCENARIOS if name in played]), 1):
            yield f"{candidate} was not once at every provider that it should have been at"
        seeds = {each.seeds for each in artifact.iterations if each.candidate == candidate}
        if (
            not isinstance(said, dict)
            or seeds != {tuple(said.get(candidate, ()))}
            or not set(*seeds) <= set(SEEDS[half])
        ):
            yield f"{candidate} did not have the seeds that are said, of the half {half!r}"
    if JUDGED not in _ran(artifact):
        yield "the rule that is judged is missing"
    if (artifact.baseline_sha is None) == (PEER in _ran(artifact)):
        yield "the baseline is not what was measured"
    faults = [fault for each in artifact.iterations for fault in _figures(each)]
    yield from faults
    if not faults and artifact.derived_metrics != lines_of(artifact.iterations):
        yield "the verdicts do not follow from the iterations"


def _ran(artifact: ControlArtifact) -> dict[str, Counter[str]]:
    ran: dict[str, Counter[str]] = {}
    for each in artifact.iterations:
        ran.setdefault(each.candidate, Counter())[each.scenario] += 1
    return ran


def _figures(each: ControlIteration) -> Iterator[str]:
    where = f"{each.candidate} at {each.scenario}"
    needed = {*EVERYWHERE, *(bound.measure for bound in LINES[SCENARIOS[each.scenario].group].bounds)}
    missing = sorted(needed - each.measures.keys())
    if missing:
        yield f"{where} has no {', '.join(missing)}"
    for name, values in each.measures.items():
        if len(values) != len(each.seeds):
            yield f"{where} has {len(values)} values of {name} and {len(each.seeds)} seeds"
        for value in values:
            if value is None:
                if name in SHARES:
                    yield f"{name} of {where} is null"
            elif not 0 <= value <= SHARES.get(name, math.inf):
                yield f"{name} of {where} is {value}"

"""Whether an artifact is complete and true to itself: what types cannot say.

`findings` gives one sentence for each fault; none means that the artifact may be shown.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from cattrs import transform_error

from benchmarks.artifact import ARTIFACT_SCHEMA_VERSION, Artifact, read_artifact
from benchmarks.control import schema as control_schema
from benchmarks.deriving import derive
from benchmarks.race import schema as race_schema
from benchmarks.race.artifact import RACE_ID
from benchmarks.scenarios import ALL
from benchmarks.series import key_of

__all__ = ["check_file", "findings"]


def check_file(path: Path) -> list[str]:
    """The faults of the artifact in a file, of whichever family."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        return [f"it is no JSON: {error}"]
    scenario_id = cast("dict[str, object]", document).get("scenario_id") if isinstance(document, dict) else None
    if scenario_id == control_schema.CONTROL_ID:
        return control_schema.check_file(path)
    if scenario_id == RACE_ID:
        return race_schema.check_file(path)
    try:
        artifact = read_artifact(path)
    except Exception as error:
        return transform_error(error, path="artifact")
    return list(findings(artifact))


def findings(artifact: Artifact) -> Iterator[str]:
    """The faults of an artifact that has the right form."""
    if artifact.artifact_schema_version != ARTIFACT_SCHEMA_VERSION:
        yield f"artifact_schema_version is {artifact.artifact_schema_version!r}, not {ARTIFACT_SCHEMA_VERSION!r}"
    for name in ("scenario_id", "scenario_version", "harness_version", "baseline_sha", "candidate_sha"):
        if not getattr(artifact, name):
            yield f"{name} is empty"
    if artifact.scenario_id not in ALL:
        yield f"there is no scenario {artifact.scenario_id!r}"
        return
    if not artifact.iterations:
        yield "there are no iterations"
        return
    missing = {"profile", "candidate", "baseline", "against"} - artifact.inputs.keys()
    if missing:
        yield f"inputs lack {', '.join(sorted(missing))}"
        return
    yield from _rounds(artifact)
    yield from _values(artifact)
    yield from _claims(artifact)


def _rounds(artifact: Artifact) -> Iterator[str]:
    """Paired and interleaved: the same rounds for everybody, numbered through, and nobody twice in one."""
    seen = Counter((key_of(each.point), each.candidate, each.index) for each in artifact.iterations)
    for (key, candidate, index), times in seen.items():
        if times > 1:
            yield f"iteration {index} of {candidate} at {dict(key)} is there {times} times"
    rounds: dict[tuple[object, str], set[int]] = {}
    for each in artifact.iterations:
        rounds.setdefault((key_of(each.point), each.candidate), set()).add(each.index)
    for (_, candidate), indices in rounds.items():
        if indices != set(range(len(indices))):
            yield f"the iterations of {candidate} are not numbered from 0 without a gap: {sorted(indices)}"
    if len({len(indices) for indices in rounds.values()}) > 1:
        yield "the candidates do not have equally many iterations"
    least = ALL[artifact.scenario_id].iterations
    if artifact.inputs.get("profile") != "smoke" and min(map(len, rounds.values())) < least:
        yield f"fewer than {least} measured iterations"
    if [each.order for each in artifact.iterations] != list(range(len(artifact.iterations))):
        yield "the order of the iterations is not the order in which they are listed"
    unknown = {each.candidate for each in artifact.iterations} - artifact.candidate_shas.keys()
    if unknown:
        yield f"there is no sha of {', '.join(sorted(unknown))}"
    for name in ("baseline", "candidate"):
        sha = artifact.candidate_shas.get(str(artifact.inputs.get(name)))
        if sha != getattr(artifact, f"{name}_sha"):
            yield f"{name}_sha is not the sha of the {name}, {artifact.inputs.get(name)!r}"


def _values(artifact: Artifact) -> Iterator[str]:
    for each in artifact.iterations:
        numbers = {
            **each.metrics,
            "wall_time_seconds": each.wall_time_seconds,
            "cpu_time_seconds": each.cpu_time_seconds,
            "peak_memory_bytes": each.peak_memory_bytes,
        }
        for name, value in numbers.items():
            if not math.isfinite(value) or value < 0:
                yield f"{name} of {each.candidate} in iteration {each.index} is {value}"


def _claims(artifact: Artifact) -> Iterator[str]:
    """What is claimed follows from the iterations, and no gate is broken."""
    derived = artifact.derived_metrics
    again = derive(
        artifact.scenario_id,
        artifact.iterations,
        inputs=artifact.inputs,
        skipped=derived.skipped,
        noise=derived.noise,
    )
    if [each.metric for each in derived.summaries] != [each.metric for each in again.summaries] or any(
        not math.isclose(said.figures.mean, found.figures.mean, rel_tol=1e-4)
        for said, found in zip(derived.summaries, again.summaries, strict=True)
    ):
        yield "the summaries do not follow from the iterations"
    if [(each.metric, each.against, each.ahead) for each in derived.comparisons] != [
        (each.metric, each.against, each.ahead) for each in again.comparisons
    ]:
        yield "the comparisons do not follow from the iterations"
    if [(each.budget_id, each.verdict) for each in derived.budgets] != [
        (each.budget_id, each.verdict) for each in again.budgets
    ]:
        yield "the verdicts on the budgets do not follow from the iterations"
    for gate in again.gates:
        if gate.passed is False:
            yield f"the gate {gate.gate!r} is broken: {gate.note}"

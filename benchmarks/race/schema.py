"""Whether an artifact of family 9 is complete and true to itself: what types cannot say."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final, cast

from cattrs import transform_error

from benchmarks.race.artifact import SCENARIO_VERSION, SCHEMA_VERSION, RaceArtifact, RaceIteration, read
from benchmarks.race.deriving import derive

__all__ = ["LEAST_ROUNDS", "check_file", "findings"]

LEAST_ROUNDS: Final = 3
MOST_LATE_SECONDS: Final = 0.05
"""Above this the provider answered so late that it is part of what was measured."""


def check_file(path: Path) -> list[str]:
    """The faults of the artifact in a file of JSON."""
    try:
        artifact = read(path)
    except Exception as error:
        return transform_error(error, path="artifact")
    return list(findings(artifact))


def findings(artifact: RaceArtifact) -> Iterator[str]:
    """The faults of an artifact that has the right form, one sentence each."""
    if artifact.artifact_schema_version != SCHEMA_VERSION:
        yield f"artifact_schema_version is {artifact.artifact_schema_version!r}, not {SCHEMA_VERSION!r}"
    if artifact.scenario_version != SCENARIO_VERSION:
        yield f"scenario_version is {artifact.scenario_version!r}, not {SCENARIO_VERSION!r}"
    for name in ("harness_version", "provider_script", "environment", "candidate_shas"):
        if not getattr(artifact, name):
            yield f"{name} is empty"
    missing = {"smoke", "rows", "judged", "ours", "bound"} - artifact.inputs.keys()
    if missing:
        yield f"inputs lack {', '.join(sorted(missing))}"
        return
    if not artifact.iterations:
        yield "there are no iterations"
        return
    uneven = list(_rounds(artifact))
    yield from uneven
    for each in artifact.iterations:
        where = f"{each.candidate}, hint {each.hint_seconds:g} s, cap {each.cap}, round {each.index}"
        yield from (f"{where}: {fault}" for fault in _counts(each, cast("int", artifact.inputs["rows"])))
        if each.provider.late_seconds > MOST_LATE_SECONDS and not artifact.inputs["smoke"]:
            late = each.provider.late_seconds
            yield f"{where}: the provider answered up to {late:.3f} s late, which is part of what was measured"
    if not uneven:
        yield from _claims(artifact)


def _claims(artifact: RaceArtifact) -> Iterator[str]:
    """What is claimed follows from the iterations."""
    again = derive(
        artifact.iterations,
        judged=cast("Collection[str]", artifact.inputs["judged"]),
        ours=cast("Collection[str]", artifact.inputs["ours"]),
        bound=str(artifact.inputs["bound"]),
        noise=artifact.derived_metrics.noise,
    )
    said = artifact.derived_metrics
    if [(each.candidate, each.measure) for each in said.summaries] != [
        (each.candidate, each.measure) for each in again.summaries
    ] or any(
        not math.isclose(one.figures.mean, other.figures.mean, rel_tol=1e-4, abs_tol=1e-6)
        for one, other in zip(said.summaries, again.summaries, strict=True)
    ):
        yield "the summaries do not follow from the iterations"
    if [(each.candidate, each.line, each.verdict) for each in said.verdicts] != [
        (each.candidate, each.line, each.verdict) for each in again.verdicts
    ]:
        yield "the verdicts do not follow from the iterations"


def _rounds(artifact: RaceArtifact) -> Iterator[str]:
    """Interleaved: the same rounds for everybody, numbered through."""
    rounds: dict[tuple[str, float, int], list[int]] = {}
    for each in artifact.iterations:
        rounds.setdefault((each.candidate, *each.point), []).append(each.index)
    if len({tuple(sorted(indices)) for indices in rounds.values()}) > 1:
        yield "not everybody ran the same rounds at every point"
    for (candidate, *_), indices in rounds.items():
        if Counter(indices) != Counter(range(len(indices))):
            yield f"the rounds of {candidate} are not numbered from 0 without a gap: {sorted(indices)}"
            break
    if not artifact.inputs["smoke"] and min(map(len, rounds.values())) < LEAST_ROUNDS:
        yield f"fewer than {LEAST_ROUNDS} rounds"
    if [each.order for each in artifact.iterations] != list(range(len(artifact.iterations))):
        yield "the order of the iterations is not the order in which they are listed"
    unknown = {each.candidate for each in artifact.iterations} - artifact.candidate_shas.keys()
    if unknown:
        yield f"there is no sha of {', '.join(sorted(unknown))}"


def _counts(each: RaceIteration, rows: int) -> Iterator[str]:
    """What the client and the provider say fits together."""
    seen = each.provider
    if seen.attempts != seen.refused + seen.answered + seen.abandoned and each.fault is None:
        yield f"{seen.attempts} attempts, but {seen.refused} + {seen.answered} + {seen.abandoned} ends"
    if each.rows_finished + each.rows_lost != rows:
        yield f"{each.rows_finished} rows finished and {each.rows_lost} lost of {rows}"
    if each.rows_finished > seen.rows_finished:
        yield f"it says that {each.rows_finished} rows are finished, and the provider finished {seen.rows_finished}"
    if not 0 <= seen.utilisation <= 1 + 1e-6:
        yield f"utilisation is {seen.utilisation}"
    if (each.fault is None) != (each.processor_seconds is not None):
        yield "a client that came to its end has processor time, and only such a one"

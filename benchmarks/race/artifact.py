"""The artifact of family 9. It is read as strictly as the others; `schema.py` checks what types cannot say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from benchmarks.artifact import Environment, JsonObject, Noise, converter
from benchmarks.figures import Figures as Statistics
from benchmarks.figures import Verdict
from benchmarks.race.counting import Figures

__all__ = [
    "RACE_ID",
    "SCENARIO_VERSION",
    "SCHEMA_VERSION",
    "DerivedRace",
    "Point",
    "RaceArtifact",
    "RaceIteration",
    "RaceSummary",
    "RaceVerdict",
    "read",
]

SCHEMA_VERSION: Final = "1"
SCENARIO_VERSION: Final = "1"
RACE_ID: Final = "race"
Point = tuple[float, int]
"""Seconds of the hint, and the cap."""


@attrs.frozen
class RaceIteration:
    """One client, once. index: the round. order: the how manieth of all.

    rows_finished: as the client says; where it did not come to its end, as the provider saw. processor_seconds and
    peak_memory_megabytes are None there. load: that of the machine in the minute before.
    """

    candidate: str
    hint_seconds: float
    cap: int
    index: int
    order: int
    fault: str | None
    rows_finished: int
    rows_lost: int
    wall_seconds: float
    processor_seconds: float | None
    peak_memory_megabytes: float | None
    load: float | None
    calibration_seconds: float
    provider: Figures

    @property
    def point(self) -> Point:
        """Where it ran."""
        return self.hint_seconds, self.cap

    @property
    def refused_share(self) -> float:
        """Refusals of all attempts."""
        return self.provider.refused / self.provider.attempts if self.provider.attempts else 0.0

    @property
    def rows_per_second(self) -> float:
        """Rows that were lost are not finished."""
        return self.rows_finished / self.wall_seconds

    def measures(self) -> dict[str, float]:
        """What is summarised, by name."""
        found = {
            "utilisation": self.provider.utilisation,
            "refused_share": self.refused_share,
            "rows_lost": float(self.rows_lost),
            "rows_per_second": self.rows_per_second,
            "wall_seconds": self.wall_seconds,
            "processor_seconds": self.processor_seconds,
            "peak_memory_megabytes": self.peak_memory_megabytes,
            "provider_late_seconds": self.provider.late_seconds,
            "provider_processor_share": self.provider.processor_share,
        }
        return {name: value for name, value in found.items() if value is not None}


@attrs.frozen
class RaceSummary:
    """The figures of one measure of one client at one point, over its rounds."""

    candidate: str
    hint_seconds: float
    cap: int
    measure: str
    figures: Statistics


@attrs.frozen
class RaceVerdict:
    """Whether a client of this project keeps a line. value: the mean over the rounds of what the line is about."""

    candidate: str
    hint_seconds: float
    cap: int
    line: str
    value: float
    verdict: Verdict


@attrs.frozen
class DerivedRace:
    """Everything that follows from the iterations."""

    summaries: tuple[RaceSummary, ...]
    verdicts: tuple[RaceVerdict, ...]
    noise: Noise | None


@attrs.frozen
class RaceArtifact:
    """One race. candidate_shas: in the order of the tables; a commit, or packages with their versions.

    provider_rate: answered requests per second of the provider when it answers at once.
    """

    scenario_id: str
    artifact_schema_version: str
    scenario_version: str
    harness_version: str
    baseline_sha: str | None
    candidate_sha: str | None
    inputs: JsonObject
    provider_script: Mapping[str, JsonObject]
    provider_rate: float
    clock_script: JsonObject
    capacity_plan: JsonObject
    iterations: tuple[RaceIteration, ...]
    derived_metrics: DerivedRace
    environment: Environment
    candidate_shas: Mapping[str, str]

    def of(self, candidate: str, point: Point) -> Sequence[RaceIteration]:
        """The rounds of a client at a point."""
        return [each for each in self.iterations if (each.candidate, each.point) == (candidate, point)]

    def points(self) -> list[Point]:
        """Where it was run, in order."""
        return sorted({each.point for each in self.iterations})


def read(path: Path) -> RaceArtifact:
    """Read one back. Raises what cattrs raises where it does not have this schema's form."""
    return converter().structure(json.loads(path.read_text(encoding="utf-8")), RaceArtifact)

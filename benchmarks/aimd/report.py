"""The tables of family 7, made from its artifacts."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import attrs

from benchmarks.aimd.artifact import Line, ProvidersArtifact, SweepArtifact, SweepIteration, read, results_of
from benchmarks.aimd.results import Result
from benchmarks.aimd.scenarios import SCENARIOS
from benchmarks.aimd.sweep import Part, Point
from benchmarks.aimd.tables import control_line_table, grid_tables, scenario_table, slice_table, table

__all__ = [
    "CHART",
    "control_lines",
    "measured_everywhere",
    "points_of",
    "providers",
    "report",
    "scripts",
    "summary",
    "sweep_report",
]

LEGEND: Final = """\
Each figure is the worst over all seeds. A line that is missed is named by a letter: u, utilisation below 0.95; r, more
than 1 % refused; s, not settled within 15 s; c, not climbed again within 120 s. What is to spare is the smallest
distance to a line, as a share of what that line leaves.
"""
GRID_LEGEND: Final = """\
A cell reads: utilisation at K = 16 / 128 in percent, the larger share of refused calls in percent, the longer time to
settle in seconds, the time to climb again in seconds (– where it was not over when the run ended), letters of the lines
missed. Bold keeps the control line.
"""
PROVIDERS_LEGEND: Final = """\
Mean over the seeds, and the worst seed where it differs. A provider that counts calls has no number of calls at once to
settle at, and only some take less for a while and then more again.
"""
CHART: Final = "providers.svg"
SLICES: Final[tuple[Part, ...]] = ("factor", "successes", "cooldown", "step")


def report(path: Path) -> dict[Path, str]:
    """The text files that belong to the artifact in `path`."""
    artifact = read(path)
    if isinstance(artifact, SweepArtifact):
        return {path.with_suffix(".csv"): _sweep_csv(artifact), path.with_name("sweep.md"): sweep_report(artifact)}
    return {path.with_suffix(".csv"): _providers_csv(artifact), path.with_name("summary.md"): summary(artifact)}


def _providers_csv(artifact: ProvidersArtifact) -> str:
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow(["candidate", "provider", "seed", "measure", "value"])
    for each in artifact.iterations:
        lines.writerows([each.candidate, each.scenario, each.seed, *measure] for measure in each.measures.items())
    return text.getvalue()


def _sweep_csv(artifact: SweepArtifact) -> str:
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow(["part", "stage", *attrs.fields_dict(Line), *artifact.iterations[0].tuning.as_dict()])
    for each in artifact.iterations:
        lines.writerow([each.part, each.stage, *attrs.astuple(each.line), *each.tuning.as_dict().values()])
    return text.getvalue()


def summary(artifact: ProvidersArtifact) -> str:
    """The control line and every scripted provider."""
    chosen: Mapping[str, Any] = cast("Mapping[str, Any]", artifact.inputs["chosen"])
    seeds = cast("Mapping[str, Sequence[int]]", artifact.inputs["seeds"])
    tuning = f"factor {chosen['factor']:g}, {chosen['successes']} successes, step {chosen['step']}"
    lines = [
        f"- candidate: {artifact.candidate_sha}",
        f"- baseline: {artifact.baseline_sha or 'none'}",
        f"- chosen: {tuning}, cooldown {chosen['cooldown']:g} s, no ramp",
        f"- simulated seconds: {artifact.inputs['measured_from']:g} to {artifact.inputs['measured_until']:g}",
        *(f"- seeds of {name}: {', '.join(map(str, each))}" for name, each in seeds.items()),
        f"- command: `{' '.join(artifact.environment.command_line)}`",
    ]
    parts = [
        "# Family 7: adaptive limits against scripted providers\n",
        "\n".join(lines) + "\n",
        "## The control line\n",
        control_lines(artifact),
        LEGEND,
        "## Every scripted provider\n",
        f"![Utilisation and refused share at every scripted provider]({CHART})\n",
        PROVIDERS_LEGEND,
        providers(artifact),
        "## The scripts\n",
        scripts(artifact),
    ]
    return "\n".join(parts)


def control_lines(artifact: ProvidersArtifact) -> str:
    """The control line of every candidate."""
    return control_line_table({name: line.control_line() for name, line in artifact.derived_metrics.items()})


def providers(artifact: ProvidersArtifact) -> str:
    """Every scripted provider, for the candidates that were put through all of them."""
    return scenario_table(measured_everywhere(artifact))


def scripts(artifact: ProvidersArtifact) -> str:
    """What the providers do."""
    return table(["provider", "what it does"], [[name, script] for name, script in artifact.provider_script.items()])


def measured_everywhere(artifact: ProvidersArtifact) -> dict[str, Sequence[Result]]:
    """The results of the candidates that were put through every scripted provider."""
    candidates: Mapping[str, Sequence[Result]] = results_of(artifact.iterations)
    return {
        name: results
        for name, results in candidates.items()
        if {result.scenario for result in results} == set(SCENARIOS)
    }


def sweep_report(artifact: SweepArtifact) -> str:
    """Every point of the sweep."""
    grid = points_of(artifact, "grid")
    full = sum(point.stage == "full" for point in grid)
    intro = (
        f"- candidate: {artifact.candidate_sha}\n"
        f"- command: `{' '.join(artifact.environment.command_line)}`\n\n"
        f"{len(grid)} combinations, {full} of them measured over the whole span, the others coarsely; "
        f"{artifact.derived_metrics.get('grid', 0)} keep the control line.\n"
    )
    parts = ["# The sweep\n", intro, LEGEND, GRID_LEGEND, grid_tables(grid)]
    surroundings = points_of(artifact, "neighbourhood")
    if surroundings:
        parts += ["# The surroundings of the choice\n", grid_tables(surroundings)]
    for parameter in SLICES:
        if points := points_of(artifact, parameter):
            parts += [f"# The choice, with another {parameter}\n", slice_table(parameter, points)]
    return "\n".join(parts)


def points_of(artifact: SweepArtifact, part: Part) -> list[Point]:
    """The points of a part of the sweep."""
    return [_point(each) for each in artifact.iterations if each.part == part]


def _point(each: SweepIteration) -> Point:
    return Point(each.tuning, each.stage, each.line.control_line())

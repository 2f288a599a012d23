"""The artifact of family 7: the whole run as JSON, its tables as Markdown."""

from __future__ import annotations

import json
import math
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.aimd.results import ControlLine, Result
from benchmarks.aimd.scenarios import SCENARIOS, Span
from benchmarks.aimd.sweep import CHOSEN, Point
from benchmarks.aimd.tables import control_line_table, grid_tables, scenario_table, slice_table, table

__all__ = ["Run", "write"]

SCHEMA_VERSION: Final = 1
SCENARIO_VERSION: Final = 1
ROOT: Final = Path(__file__).parent.parent.parent

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


@dataclass
class Run:
    """Everything that was measured. candidates: results of every scenario, by name of who was measured."""

    span: Span
    seeds: Sequence[int]
    candidates: dict[str, list[Result]] = field(default_factory=dict[str, list[Result]])
    peer_version: str | None = None
    neighbourhood: list[Point] = field(default_factory=list[Point])
    points: list[Point] = field(default_factory=list[Point])
    slices: dict[str, list[Point]] = field(default_factory=dict[str, list[Point]])

    def measured_everywhere(self) -> dict[str, list[Result]]:
        """The candidates that were put through every scenario."""
        return {
            name: results
            for name, results in self.candidates.items()
            if {result.scenario for result in results} == set(SCENARIOS)
        }

    def control_lines(self) -> dict[str, ControlLine]:
        """The control line of every candidate."""
        return {name: ControlLine.of(results) for name, results in self.candidates.items()}


def write(run: Run, folder: Path) -> None:
    """Write `aimd.json`, `summary.md` and, where a sweep was made, `sweep.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "aimd.json").write_text(json.dumps(as_json(run), separators=(",", ":")) + "\n", encoding="utf-8")
    (folder / "summary.md").write_text(summary(run), encoding="utf-8")
    if run.points:
        (folder / "sweep.md").write_text(sweep_report(run), encoding="utf-8")


def as_json(run: Run) -> dict[str, object]:
    """The artifact."""
    return {
        "scenario_id": "aimd",
        "artifact_schema_version": SCHEMA_VERSION,
        "scenario_version": SCENARIO_VERSION,
        "candidate_sha": commit(),
        "command": ["python", "-m", "benchmarks.aimd", "--seeds", str(len(run.seeds))],
        "runtime": {"python": platform.python_version(), "platform": platform.platform()},
        "inputs": {"seeds": list(run.seeds), "measured_from": run.span.start, "measured_until": run.span.end},
        "provider_script": {scenario.name: scenario.script for scenario in SCENARIOS.values()},
        "clock_script": "simulated",
        "peer_version": run.peer_version,
        "chosen": CHOSEN.as_dict(),
        "iterations": {name: [result.to_json() for result in results] for name, results in run.candidates.items()},
        "derived_metrics": {
            "control_line": {name: line_json(line) for name, line in run.control_lines().items()},
            "sweep": [point_json(point) for point in run.points],
            "neighbourhood": [point_json(point) for point in run.neighbourhood],
            "slices": {name: [point_json(point) for point in points] for name, points in run.slices.items()},
        },
    }


def point_json(point: Point) -> dict[str, object]:
    """One point of the sweep."""
    return {"tuning": point.tuning.as_dict(), "stage": point.stage, **line_json(point.line)}


def line_json(line: ControlLine) -> dict[str, object]:
    """A control line; an infinite time is null."""
    figures: Mapping[str, float] = asdict(line)
    finite = {name: round(value, 6) if math.isfinite(value) else None for name, value in figures.items()}
    return {**finite, "missed": line.missed}


def summary(run: Run) -> str:
    """The control line and every scripted provider."""
    scripts = table(["provider", "what it does"], [[item.name, item.script] for item in SCENARIOS.values()])
    chosen = (
        f"Chosen: factor {CHOSEN.factor:g}, {CHOSEN.successes} successes, step {CHOSEN.step}, cooldown "
        f"{CHOSEN.cooldown:g} s, no ramp. Simulated seconds {run.span.start:g} to {run.span.end:g}, "
        f"seeds {', '.join(map(str, run.seeds))}.\n"
    )
    parts = [
        "# Family 7: adaptive limits against scripted providers\n",
        chosen,
        "## The control line\n",
        control_line_table(run.control_lines()),
        LEGEND,
        "## Every scripted provider\n",
        "Mean over the seeds, and the worst seed where it differs.\n",
        scenario_table(run.measured_everywhere()),
        "## The scripts\n",
        scripts,
    ]
    for parameter, points in run.slices.items():
        parts += [f"## The choice, with another {parameter}\n", slice_table(parameter, points)]
    return "\n".join(parts)


def sweep_report(run: Run) -> str:
    """Every point of the sweep."""
    full = sum(point.stage == "full" for point in run.points)
    kept = sum(not point.line.missed for point in run.points)
    intro = (
        f"{len(run.points)} combinations, {full} of them measured over the whole span, the others coarsely; "
        f"{kept} keep the control line.\n"
    )
    parts = ["# The sweep\n", intro, LEGEND, GRID_LEGEND, grid_tables(run.points)]
    if run.neighbourhood:
        parts += ["# The surroundings of the choice\n", grid_tables(run.neighbourhood)]
    return "\n".join(parts)


def commit() -> str | None:
    """The commit that was measured, if this is a checkout."""
    answer = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip() or None

"""The tables of family 7, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from benchmarks.aimd.ours import Tuning
from benchmarks.aimd.results import ControlLine, Result, worst
from benchmarks.aimd.scenarios import SCENARIOS
from benchmarks.aimd.sweep import Point

__all__ = ["control_line_table", "grid_tables", "scenario_table", "slice_table", "table"]

TITLES = {
    "utilisation": "utilisation",
    "refused": "refused",
    "settle_seconds": "settles in",
    "recover_seconds": "recovers in",
    "jain": "Jain index",
    "neighbour": "neighbour gets",
    "against_hint": "calls against a hint",
    "lowest_limit": "lowest limit",
    "decreases": "decreases",
}
LINE_TITLES = (
    "",
    "utilisation, K = 16 / 128",
    "refused",
    "from 4 K to within 10 %",
    "from 8 to 90 % of 24",
    "line",
)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def shown(measure: str, value: float) -> str:
    """A measure as people read it."""
    if math.isinf(value):
        return "never"
    if measure.endswith("_seconds"):
        return f"{value:.1f} s"
    if measure in {"refused", "neighbour"}:
        return f"{100 * value:.2f} %" if value < 0.1 else f"{100 * value:.0f} %"
    if measure in {"utilisation", "jain"}:
        return f"{value:.3f}"
    return f"{value:.0f}"


def line_cells(line: ControlLine) -> list[str]:
    """The figures of a control line, and whether it is kept."""
    return [
        f"{line.utilisation_16:.3f} / {line.utilisation_128:.3f}",
        f"{100 * line.refused_16:.2f} % / {100 * line.refused_128:.2f} %",
        f"{shown('_seconds', line.settle_16)} / {shown('_seconds', line.settle_128)}",
        shown("_seconds", line.recover),
        f"missed ({line.missed})" if line.missed else f"kept, {100 * line.margin:.0f} % to spare",
    ]


def control_line_table(lines: Mapping[str, ControlLine]) -> str:
    """The control line of several candidates, worst seed."""
    required = ["required", "≥ 0.950 / ≥ 0.950", "≤ 1 %", "≤ 15 s", "≤ 120 s", ""]
    return table(LINE_TITLES, [required, *([name, *line_cells(line)] for name, line in lines.items())])


def slice_table(parameter: str, points: Sequence[Point]) -> str:
    """The control line while one parameter varies."""
    rows = [[_value(point.tuning, parameter), *line_cells(point.line)] for point in points]
    return table([parameter, *LINE_TITLES[1:]], rows)


def _value(tuning: Tuning, parameter: str) -> str:
    return f"{tuning.as_dict()[parameter]:g}"


def scenario_table(candidates: Mapping[str, Sequence[Result]]) -> str:
    """Every scripted provider: the candidates' measures beside each other, mean over the seeds (worst seed)."""
    rows: list[list[str]] = []
    for scenario in SCENARIOS.values():
        ran = [[result for result in results if result.scenario == scenario.name] for results in candidates.values()]
        for measure in next((list(found[0].measures) for found in ran if found), list[str]()):
            title = TITLES[measure]
            rows.append([scenario.name, title, *(_mean_and_worst(found, scenario.name, measure) for found in ran)])
    return table(["provider", "measure", *candidates], rows)


def _mean_and_worst(results: Sequence[Result], scenario: str, measure: str) -> str:
    if not results:
        return "not run"
    mean = shown(measure, fmean(result.measures[measure] for result in results))
    least = shown(measure, worst(results, scenario, measure))
    return mean if mean == least else f"{mean} ({least})"


def grid_tables(points: Sequence[Point]) -> str:
    """The whole sweep: one table for each step and cooldown, factors down, successes across."""
    parts: list[str] = []
    for step in sorted({point.tuning.step for point in points}):
        for cooldown in sorted({point.tuning.cooldown for point in points}):
            here = {
                (point.tuning.factor, point.tuning.successes): point
                for point in points
                if (point.tuning.step, point.tuning.cooldown) == (step, cooldown)
            }
            successes = sorted({key[1] for key in here})
            rows = [
                [f"{factor:g}", *(_cell(here[factor, count]) for count in successes)]
                for factor in sorted({key[0] for key in here})
            ]
            parts.append(f"Step {step}, cooldown {cooldown:g} s:\n")
            parts.append(table(["factor", *(f"{count} successes" for count in successes)], rows))
    return "\n".join(parts)


def _cell(point: Point) -> str:
    line = point.line
    refused = 100 * max(line.refused_16, line.refused_128)
    settle = f"{max(line.settle_16, line.settle_128):.0f}"
    recover = "–" if math.isinf(line.recover) else f"{line.recover:.0f}"
    figures = f"{100 * line.utilisation_16:.1f}/{100 * line.utilisation_128:.1f} {refused:.2f} {settle} {recover}"
    if not line.missed:
        return f"**{figures}**"
    return f"{figures} {line.missed}"

"""The tables of family 7, made from its artifact."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, cast

from benchmarks.control.acceptance import LINES, Line, Summary, Verdict, judge
from benchmarks.control.artifact import ControlArtifact, LineVerdict, read, summaries_of
from benchmarks.control.candidates import WHO
from benchmarks.control.compact import shown
from benchmarks.control.scenarios import SCENARIOS

__all__ = ["CHART", "acceptance_table", "candidates_table", "report", "scenario_tables", "summary", "table"]

CHART: Final = "lines.svg"
NAMES: Final = {
    "utilisation": "utilisation", "refused": "refused", "recovery": "back after, round trips", "trials": "trials",
    "jain": "Jain", "timeouts": "timeouts", "neighbour": "neighbour gets", "lost": "lost",
}  # fmt: skip
VERDICTS: Final[tuple[Verdict, ...]] = ("missed", "on average", "kept")
LEGEND: Final = """\
Each line is a group of scripted providers. "asked" is what the line requires. A cell has how many of its providers keep
that: with every seed, or, in brackets, only on average over the seeds; then the figures of the worst provider, a mean
over its seeds. Trials are a share of what is allowed, 2 + outage / 5 s. No constant was chosen on these providers or
seeds: they are the half that is kept for the report.
"""
SCENARIOS_LEGEND: Final = """\
Mean over the seeds; the worst seed in brackets where it differs. Bold misses its line. The peer, whose controller takes
some forty times as long for a call, plays those of up to 20,000 calls, and the shortest of each line.
"""


def report(path: Path) -> dict[Path, str]:
    """The text files that belong to the artifact in `path`."""
    artifact = read(path)
    return {path.with_suffix(".csv"): _csv(artifact), path.with_name("summary.md"): summary(artifact)}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)) + "\n"


def summary(artifact: ControlArtifact) -> str:
    """The acceptance table, and every scripted provider."""
    half = artifact.inputs["half"]
    lines = [
        f"- candidate: {artifact.candidate_sha}",
        f"- baseline: {artifact.baseline_sha or 'none'}",
        f"- half: {half}, {len(artifact.provider_script)} of {len(SCENARIOS)} scripted providers",
        f"- command: `{' '.join(artifact.environment.command_line)}`",
        *_kept(artifact),
    ]
    return "\n".join(
        [
            "# Family 7: control\n",
            "\n".join(lines) + "\n",
            "## The acceptance table\n",
            acceptance_table(artifact),
            LEGEND,
            f"![Utilisation and refused share by line]({CHART})\n",
            "## Who\n",
            candidates_table(artifact),
            "## Every scripted provider\n",
            SCENARIOS_LEGEND,
            scenario_tables(artifact),
            "## The scripts\n",
            table(["provider", "what it does"], [list(each) for each in artifact.provider_script.items()]),
        ]
    )


def acceptance_table(artifact: ControlArtifact) -> str:
    """Every line that asks something, a column for each candidate."""
    candidates = artifact.derived_metrics
    asking = [line for line in LINES.values() if line.bounds]
    rows = [[line.group, _asked(line), *(_cell(line, each) for each in candidates.values())] for line in asking]
    return table(["line", "asked", *candidates], rows)


def candidates_table(artifact: ControlArtifact) -> str:
    """Who took part, with which seeds, and how many lines each keeps."""
    seeds = cast("Mapping[str, Sequence[int]]", artifact.inputs["seeds"])
    rows = [
        [name, WHO.get(name, ""), ", ".join(map(str, seeds[name])), str(_lines_kept(lines))]
        for name, lines in artifact.derived_metrics.items()
    ]
    asking = sum(bool(line.bounds) for line in LINES.values())
    return table(["", "what it is", "seeds", f"lines kept, of {asking}"], rows)


def scenario_tables(artifact: ControlArtifact) -> str:
    """A table for each line: its providers and measures, a column for each candidate."""
    found = summaries_of(artifact.iterations)
    parts: list[str] = []
    for line in LINES.values():
        names = [name for name in artifact.provider_script if SCENARIOS[name].group == line.group]
        rows = [row for name in names for row in _rows(line, name, [each.get(name, {}) for each in found.values()])]
        if rows:
            parts.append(f"**{line.group}**{': ' if line.bounds else ''}{_asked(line)}\n")
            parts.append(table(["provider", "", *found], rows))
    return "\n".join(parts)


def _kept(artifact: ControlArtifact) -> list[str]:
    """Which candidates' figures are those of an earlier commit."""
    kept = cast("Mapping[str, str]", artifact.inputs.get("kept", {}))
    return [f"- {name}: as measured at {sha}" for name, sha in kept.items()]


def _rows(line: Line, name: str, summaries: Sequence[Mapping[str, Summary]]) -> list[list[str]]:
    measures = dict.fromkeys(measure for each in summaries for measure in each)
    missed = [bool(each) and judge(line, each) == "missed" for each in summaries]
    bound = {each.measure: each for each in line.bounds}
    rows: list[list[str]] = []
    for measure in measures:
        cells: list[str] = []
        for each, misses in zip(summaries, missed, strict=True):
            found = each.get(measure)
            if found is None:
                cells.append("")
                continue
            mean, worst = shown(measure, found.mean), shown(measure, found.worst)
            text = mean if mean == worst else f"{mean} ({worst})"
            bold = misses and measure in bound and not bound[measure].kept_by(found.mean)
            cells.append(f"**{text}**" if bold else text)
        rows.append([name if not rows else "", NAMES[measure], *cells])
    return rows


def _asked(line: Line) -> str:
    return ", ".join(
        f"{NAMES[bound.measure]} {'≥' if bound.kept_by(math.inf) else '≤'} {_bare(bound.measure, bound.value)}"
        for bound in line.bounds
    )


def _bare(measure: str, value: float) -> str:
    return f"{100 * value:g} %" if measure in {"refused", "timeouts"} else f"{value:g}"


def _cell(line: Line, lines: Mapping[str, LineVerdict]) -> str:
    found = lines.get(line.group)
    if found is None:
        return ""
    kept, average = (found.verdicts.get(verdict, 0) for verdict in ("kept", "on average"))
    count = f"{kept}{f' (+ {average})' if average else ''} of {sum(found.verdicts.values())}"
    figures = (
        shown(bound.measure, math.inf if (worst := found.worst_mean[bound.measure]) is None else worst)
        for bound in line.bounds
    )
    return f"{count}: {', '.join(figures)}"


def _lines_kept(lines: Mapping[str, LineVerdict]) -> int:
    return sum(set(each.verdicts) <= {"kept", "on average"} for each in lines.values())


def _csv(artifact: ControlArtifact) -> str:
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow(["candidate", "line", "provider", "measure", "mean", "worst"])
    for candidate, scenarios in summaries_of(artifact.iterations).items():
        for name, measures in scenarios.items():
            lines.writerows(
                [candidate, SCENARIOS[name].group, name, measure, f"{each.mean:.6g}", f"{each.worst:.6g}"]
                for measure, each in measures.items()
            )
    return text.getvalue()

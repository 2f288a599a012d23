"""A run in words and tables: a short Markdown summary, and every figure as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from benchmarks.artifact import Artifact, BudgetVerdict, JsonObject
from benchmarks.figures import Figures
from benchmarks.scenarios.scenario import Chart, Headline, Scenario
from benchmarks.series import PointKey, key_of

__all__ = ["csv_lines", "markdown", "plain", "table"]


def csv_lines(artifact: Artifact) -> str:
    """The figures of every metric, one line each."""
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow(["candidate", *_axes(artifact), "metric", "mean", "p50", "p95", "min", "max", "sd", "iterations"])
    for each in artifact.derived_metrics.summaries:
        figures = each.figures
        numbers = (figures.mean, figures.p50, figures.p95, figures.minimum, figures.maximum)
        lines.writerow(
            [
                each.candidate,
                *each.point.values(),
                each.metric,
                *(f"{number:.6g}" for number in (*numbers, figures.standard_deviation)),
                figures.iterations,
            ]
        )
    return text.getvalue()


def markdown(artifact: Artifact, scenario: Scenario, charts: Sequence[tuple[Chart, Path]] = ()) -> str:
    """The summary; `charts` lie beside it."""
    smoke = artifact.inputs["profile"] == "smoke"
    parts = [
        f"# Benchmark {artifact.scenario_id}: {scenario.title}",
        _who(artifact),
        *([] if smoke else (_headline(artifact, headline) for headline in scenario.headlines)),
        _charts(charts),
        _budgets(artifact.derived_metrics.budgets),
        _gates(artifact),
        _skipped(artifact),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _who(artifact: Artifact) -> str:
    derived, machine = artifact.derived_metrics, artifact.environment.machine
    runtime = ", ".join(
        f"{name} {version}"
        for name, version in artifact.environment.runtimes[str(artifact.inputs["candidate"])].items()
    )
    lines = [
        f"- candidate: {artifact.inputs['candidate']} ({artifact.candidate_sha})",
        f"- baseline: {artifact.inputs['baseline']} ({artifact.baseline_sha})",
        f"- machine: {machine['processor']}, {machine['processors']} processors; {runtime}",
        f"- measured iterations of each: {artifact.inputs['iterations']}, paired and interleaved",
        f"- iterations to warm up: {artifact.inputs['warm_ups']}",
        f"- command: `{' '.join(artifact.environment.command_line)}`",
    ]
    if "remark" in artifact.inputs:
        lines.append(f"- remark: {artifact.inputs['remark']}")
    if derived.noise is not None:
        lines.append(f"- noise: {derived.noise.note}")
    return "\n".join(lines)


def _headline(artifact: Artifact, headline: Headline) -> str:
    """One row for every candidate at every point: its figures, and how far the candidate is ahead of it."""
    ours = str(artifact.inputs["candidate"])
    ratios = {
        (key_of(each.point), each.against): each
        for each in artifact.derived_metrics.comparisons
        if each.metric == headline.metric
    }
    rows: list[list[str]] = []
    for each in artifact.derived_metrics.summaries:
        if each.metric != headline.metric:
            continue
        ratio = ratios.get((key_of(each.point), each.candidate))
        ahead = "" if ratio is None else f"{plain(ratio.ratio.mean)} ×"
        if ratio is not None and ratio.ahead == "inconclusive":
            ahead += " (inconclusive)"
        rows.append([*map(_count, each.point.values()), each.candidate, *_columns(each.figures), ahead])
    if not rows:
        return ""
    heads = [*_axes(artifact), "who", "mean", "p50", "p95", "min", "max", "sd", f"{ours} is ahead by"]
    order = {name: place for place, name in enumerate(artifact.candidate_shas)}
    points: dict[PointKey, int] = {}
    for each in artifact.derived_metrics.summaries:
        points.setdefault(key_of(each.point), len(points))
    axes = len(_axes(artifact))
    rows.sort(key=lambda row: (_place(row[:axes], points), order[row[axes]]))
    return f"## {headline.title}, in {headline.unit}\n\n" + table(heads, rows, words=axes + 1)


def _place(cells: Sequence[str], points: dict[PointKey, int]) -> int:
    return next(place for key, place in points.items() if [_count(value) for _, value in key] == list(cells))


def _budgets(verdicts: Sequence[BudgetVerdict]) -> str:
    if not verdicts:
        return ""
    rows = [
        [
            each.step,
            each.claim,
            "" if each.value is None else plain(each.value),
            each.note if each.verdict is None else _words(each),
        ]
        for each in verdicts
    ]
    return "## Budgets\n\n" + table(["step", "budget", "measured", "verdict"], rows, words=1)


def _words(verdict: BudgetVerdict) -> str:
    assert verdict.verdict is not None
    text = {"shown": "met", "refuted": "**missed**", "inconclusive": "inconclusive"}[verdict.verdict]
    return text if verdict.binding else f"{text} (orients, does not bind)"


def _gates(artifact: Artifact) -> str:
    rows = [
        [
            gate.gate,
            "does not apply" if gate.passed is None else "passed" if gate.passed else f"**broken**: {gate.note}",
        ]
        for gate in artifact.derived_metrics.gates
    ]
    return "## Gates\n\n" + table(["gate", "verdict"], rows, words=2) if rows else ""


def _charts(charts: Sequence[tuple[Chart, Path]]) -> str:
    lines = [f"![{chart.title}, in {chart.unit}]({path.name})" for chart, path in charts]
    return "\n\n".join(["## Growth", *lines]) if lines else ""


def _skipped(artifact: Artifact) -> str:
    reasons: dict[tuple[str, str], int] = {}
    for each in artifact.derived_metrics.skipped:
        reasons[each.candidate, each.reason] = reasons.get((each.candidate, each.reason), 0) + 1
    if not reasons:
        return ""
    lines = [f"- {name}, {count} points: {reason}" for (name, reason), count in reasons.items()]
    return "## Not run\n\n" + "\n".join(lines)


def _axes(artifact: Artifact) -> list[str]:
    point: JsonObject = artifact.iterations[0].point
    return list(point)


def _columns(figures: Figures) -> list[str]:
    numbers = (figures.mean, figures.p50, figures.p95, figures.minimum, figures.maximum, figures.standard_deviation)
    return [plain(number) for number in numbers]


def plain(number: float) -> str:
    """A figure as people read it: three digits where that is enough."""
    if number >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, words: int) -> str:
    """A Markdown table; the columns from number `words` on hold numbers."""
    rule = ["---" if place < words else "---:" for place in range(len(heads))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, rule, *rows))

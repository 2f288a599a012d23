"""The charts of a summary: how a figure grows with an axis, one line for each candidate, drawn by matplotlib as SVG.

A line stands for a candidate and one value of each axis that the chart splits by; its points are means over the
iterations, its band reaches from the least to the most. Both axes are logarithmic, so a cost that does not grow is a
level line, and one that grows in proportion rises by the same slope everywhere.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from benchmarks.artifact import Artifact, Summary
from benchmarks.errors import UsageError
from benchmarks.scenarios.scenario import Chart, Scenario

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLOURS", "MARKERS", "charts_of", "draw", "require_plotting"]

SIZE: Final = (7.0, 4.0)
COLOURS: Final = ("#0072b2", "#d55e00", "#555555", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Told apart by colour-blind readers too (Okabe and Ito); the candidate under judgement comes first."""
STYLES: Final = ("-", "--", ":", "-.")
FEW_DECADES: Final = 200
"""Below this span of an axis, tens alone would be too few ticks."""
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")


def require_plotting() -> None:
    """Say before a long run that its charts could not be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(
            "charts need matplotlib: run `nox -s bench`, or install the dependency group `bench`, "
            "or leave them out with --without-plots"
        )


def draw(artifact: Artifact, scenario: Scenario, folder: Path, name: str) -> list[tuple[Chart, Path]]:
    """Write every chart that has at least two points on a line; the charts and their files."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    drawn = charts_of(artifact, scenario, folder, name)
    for chart, path in drawn:
        # Text stays text, and two runs on equal figures give equal files.
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 10}):
            figure = Figure(figsize=SIZE, layout="constrained")
            _chart(figure.subplots(), chart, list(_lines(artifact, chart)), artifact)
            figure.savefig(path, metadata={"Date": None, "Creator": None})
    return drawn


def charts_of(artifact: Artifact, scenario: Scenario, folder: Path, name: str) -> list[tuple[Chart, Path]]:
    """The charts that `draw` would write, and their files."""
    return [
        (chart, folder / f"{name}-{number}.svg")
        for number, chart in enumerate(scenario.charts, 1)
        if any(_lines(artifact, chart))
    ]


def _lines(artifact: Artifact, chart: Chart) -> Iterator[tuple[str, tuple[object, ...], list[Summary]]]:
    """Candidate, values of the axes that split, and the points of each line, from left to right."""
    found: dict[tuple[str, tuple[object, ...]], list[Summary]] = {}
    for each in artifact.derived_metrics.summaries:
        if each.metric == chart.metric and _is_in(each.point, chart.where):
            key = (each.candidate, tuple(each.point[axis] for axis in chart.split))
            found.setdefault(key, []).append(each)
    names = list(artifact.candidate_shas)
    for (candidate, split), points in sorted(found.items(), key=lambda line: names.index(line[0][0])):
        if len(points) > 1:
            yield candidate, split, sorted(points, key=lambda each: cast("int", each.point[chart.axis]))


def _is_in(point: Mapping[str, object], where: Mapping[str, object]) -> bool:
    return all(point[axis] == value for axis, value in where.items())


def _chart(
    axes: Axes, chart: Chart, lines: Sequence[tuple[str, tuple[object, ...], list[Summary]]], artifact: Artifact
) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    names = list(artifact.candidate_shas)
    splits = list(dict.fromkeys(split for _, split, _ in lines))
    ticks: set[int] = set()
    for candidate, split, points in lines:
        colour, style = COLOURS[names.index(candidate) % len(COLOURS)], splits.index(split) % len(STYLES)
        places = [cast("int", each.point[chart.axis]) for each in points]
        ticks.update(places)
        label = ", ".join([candidate, *map(str, split)])
        means = [each.figures.mean / chart.per for each in points]
        axes.plot(places, means, STYLES[style], color=colour, label=label, marker=MARKERS[style], markersize=4)
        axes.fill_between(
            places,
            [each.figures.minimum / chart.per for each in points],
            [each.figures.maximum / chart.per for each in points],
            color=colour,
            alpha=0.12,
            linewidth=0,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sorted(ticks), [f"{tick:,}" for tick in sorted(ticks)])
    axes.xaxis.set_minor_locator(NullLocator())
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < FEW_DECADES else (1.0,)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _place: f"{value:,.10g}")
    axes.set_xlabel(chart.axis_title)
    axes.set_ylabel(chart.unit)
    axes.set_title(chart.title, fontsize=11, loc="left")
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))

"""The chart of family 7: utilisation and refused share at every scripted provider, a mark for each candidate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Final

from benchmarks.aimd.artifact import ProvidersArtifact
from benchmarks.aimd.report import CHART, measured_everywhere
from benchmarks.aimd.results import Result
from benchmarks.aimd.scenarios import SCENARIOS
from benchmarks.plots import COLOURS, MARKERS

__all__ = ["draw"]

SIZE: Final = (8.0, 6.0)
PANELS: Final = (("utilisation", "utilisation", 1.0), ("refused", "refused, %", 100.0))
"""Measure, what its axis says, and what it is multiplied by."""


def draw(artifact: ProvidersArtifact, folder: Path) -> Path:
    """Write it as SVG; its file."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "aimd", "font.size": 9}):
        figure = Figure(figsize=SIZE, layout="constrained")
        candidates = measured_everywhere(artifact)
        for axes, (measure, title, scale) in zip(figure.subplots(1, len(PANELS), sharey=True), PANELS, strict=True):
            for place, (name, results) in enumerate(candidates.items()):
                means = [scale * mean(results, scenario, measure) for scenario in SCENARIOS]
                marker, colour = MARKERS[place % len(MARKERS)], COLOURS[place % len(COLOURS)]
                axes.plot(
                    means,
                    range(len(means)),
                    marker,
                    color=colour,
                    label=name,
                    markersize=4,
                    # The first one, which is judged, on top.
                    zorder=10 - place,
                )
            axes.set_yticks(range(len(SCENARIOS)), list(SCENARIOS))
            axes.set_xlabel(title)
            axes.grid(visible=True, color="#dddddd", linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
            if measure == "refused":
                axes.set_xscale("symlog", linthresh=1.0)
                axes.set_xlim(left=-0.1)
                axes.set_xticks([0, 1, 3, 10, 30], ["0", "1", "3", "10", "30"])
            else:
                axes.invert_yaxis()
        figure.legend(
            *axes.get_legend_handles_labels(), loc="outside upper center", ncols=len(candidates), frameon=False
        )
        path = folder / CHART
        figure.savefig(path, metadata={"Date": None, "Creator": None})
    return path


def mean(results: Sequence[Result], scenario: str, measure: str) -> float:
    """The mean over the seeds."""
    return fmean(result.measures[measure] for result in results if result.scenario == scenario)

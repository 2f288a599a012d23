"""The chart of family 7: utilisation and refused share by line of the acceptance table, a mark for each candidate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Final

from benchmarks.control.acceptance import LINES, Summary
from benchmarks.control.artifact import ControlArtifact, summaries_of
from benchmarks.control.report import CHART
from benchmarks.control.scenarios import SCENARIOS
from benchmarks.plots import COLOURS, MARKERS

__all__ = ["draw"]

SIZE: Final = (9.0, 6.0)
PANELS: Final = (("utilisation", "utilisation", 1.0), ("refused", "refused, %", 100.0))
"""Measure, what its axis says, and what it is multiplied by."""


def draw(artifact: ControlArtifact, folder: Path) -> Path:
    """Write it as SVG; its file."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    found = summaries_of(artifact.iterations)
    played = [group for group in LINES if any(SCENARIOS[name].group == group for name in artifact.provider_script)]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "control", "font.size": 9}):
        figure = Figure(figsize=SIZE, layout="constrained")
        for axes, (measure, title, scale) in zip(figure.subplots(1, len(PANELS), sharey=True), PANELS, strict=True):
            for place, (name, scenarios) in enumerate(found.items()):
                axes.plot(
                    [scale * _mean(scenarios, group, measure) for group in played],
                    range(len(played)),
                    MARKERS[place % len(MARKERS)],
                    color=COLOURS[place % len(COLOURS)],
                    label=name,
                    markersize=4,
                    # The first one, which is judged, on top.
                    zorder=10 - place,
                )
            axes.set_yticks(range(len(played)), played)
            axes.set_xlabel(title)
            axes.grid(visible=True, color="#dddddd", linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
            if measure == "refused":
                axes.set_xscale("symlog", linthresh=1.0)
                axes.set_xlim(left=-0.1)
                axes.set_xticks([0, 1, 3, 10, 30, 100], ["0", "1", "3", "10", "30", "100"])
            else:
                axes.invert_yaxis()
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=len(found), frameon=False)
        path = folder / CHART
        figure.savefig(path, metadata={"Date": None, "Creator": None})
    return path


def _mean(scenarios: Mapping[str, Mapping[str, Summary]], group: str, measure: str) -> float:
    """The mean over the scenarios of a line."""
    return fmean(each[measure].mean for name, each in scenarios.items() if SCENARIOS[name].group == group)

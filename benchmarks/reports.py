"""What lies beside an artifact: its figures as CSV, its summary as Markdown, its charts.

All of it is made from the file, not from the run, so it can be made again, and a test compares what is committed.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.artifact import read_artifact
from benchmarks.plots import charts_of, draw
from benchmarks.scenarios import ALL
from benchmarks.summary import csv_lines, markdown

__all__ = ["draw_charts", "report", "write_report"]


def report(path: Path, *, plots: bool) -> dict[Path, str]:
    """The text files that belong to the artifact in `path`; with `plots`, the summary shows its charts."""
    artifact = read_artifact(path)
    scenario = ALL[artifact.scenario_id]
    charts = charts_of(artifact, scenario, path.parent, path.stem) if plots else ()
    return {
        path.with_suffix(".csv"): csv_lines(artifact),
        path.with_suffix(".md"): markdown(artifact, scenario, charts),
    }


def draw_charts(path: Path) -> None:
    """Draw the charts of the artifact in `path`."""
    artifact = read_artifact(path)
    draw(artifact, ALL[artifact.scenario_id], path.parent, path.stem)


def write_report(path: Path, *, plots: bool) -> str:
    """Write them, and the charts; the summary."""
    if plots:
        draw_charts(path)
    texts = report(path, plots=plots)
    for file, text in texts.items():
        file.write_text(text, encoding="utf-8", newline="")
    return texts[path.with_suffix(".md")]

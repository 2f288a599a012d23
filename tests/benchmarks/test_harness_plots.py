from __future__ import annotations

import importlib.util
from pathlib import Path
from xml.etree import ElementTree as ET

import attrs
import pytest
from harness_samples import artifact, iteration

from benchmarks.artifact import Artifact, Iteration
from benchmarks.errors import UsageError
from benchmarks.plots import draw, require_plotting
from benchmarks.scenarios import ALL
from benchmarks.summary import markdown

REQUESTS = ALL["requests"]


def run(*callers: int) -> Artifact:
    found: list[Iteration] = []
    for index in range(2):
        for name in ("here", "peer"):
            for number in callers:
                found.append(iteration(name, index, len(found), float(number + index), point={"callers": number}))
    return artifact(tuple(found))


def texts(path: Path) -> list[str]:
    """Everything that an SVG says, as text."""
    return [text for node in ET.parse(path).iter() for text in [(node.text or "").strip()] if text]


def test_a_chart_says_what_it_shows_and_the_summary_shows_it(tmp_path: Path) -> None:
    charts = draw(run(100, 2_000), REQUESTS, tmp_path, "requests-budgets")
    assert [path.name for _, path in charts] == ["requests-budgets-1.svg"]
    said = texts(charts[0][1])
    assert {"A request through 64 permits, by callers at once", "callers", "µs", "here", "peer"} <= set(said)
    assert {"100", "2,000"} <= set(said)
    text = markdown(run(100, 2_000), REQUESTS, charts)
    assert "![A request through 64 permits, by callers at once, in µs](requests-budgets-1.svg)" in text


def test_equal_figures_give_equal_files(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        draw(run(100, 2_000), REQUESTS, folder, "same")
    assert (first / "same-1.svg").read_bytes() == (second / "same-1.svg").read_bytes()


def test_one_point_is_no_line(tmp_path: Path) -> None:
    assert draw(run(100), REQUESTS, tmp_path, "one") == []
    assert list(tmp_path.iterdir()) == []
    assert "Growth" not in markdown(run(100), REQUESTS)


def test_what_a_chart_does_not_speak_of_is_left_out(tmp_path: Path) -> None:
    chart = attrs.evolve(REQUESTS.charts[0], where={"callers": 100})
    assert draw(run(100, 2_000), attrs.evolve(REQUESTS, charts=(chart,)), tmp_path, "none") == []


def test_without_matplotlib_it_is_said_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_nothing(_name: str) -> None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", find_nothing)
    with pytest.raises(UsageError, match=r"^charts need matplotlib: run `nox -s bench`, or .* --without-plots$"):
        require_plotting()


@pytest.mark.parametrize("name", [name for name, scenario in ALL.items() if scenario.charts])
def test_every_chart_has_its_points_in_the_budget_profile(name: str) -> None:
    scenario = ALL[name]
    for chart in scenario.charts:
        assert {chart.axis, *chart.split, *chart.where} <= scenario.axes.keys()
        there = [
            point[chart.axis]
            for point in scenario.budget_points
            if all(point[axis] == value for axis, value in chart.where.items())
        ]
        assert len(set(there)) > 1, chart.title

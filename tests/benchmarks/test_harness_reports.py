from __future__ import annotations

import csv
from pathlib import Path

import pytest
from harness_samples import artifact, iteration

from benchmarks.artifact import Iteration, write_artifact
from benchmarks.reports import report, write_report


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found: list[Iteration] = []
    for index in range(5):
        for callers in (100, 2_000):
            found.append(iteration("here", index, len(found), 10 / 3, point={"callers": callers}))
    path = tmp_path / "requests-budgets.json"
    write_artifact(artifact(tuple(found)), path)
    return path


def test_summary_figures_and_charts_lie_beside_the_artifact(path: Path) -> None:
    text = write_report(path, plots=True)
    names = {each.name for each in path.parent.iterdir()}
    assert names == {f"requests-budgets{ending}" for ending in (".json", ".csv", ".md", "-1.svg")}
    assert path.with_suffix(".md").read_text(encoding="utf-8") == text
    assert "](requests-budgets-1.svg)" in text
    rows = list(csv.DictReader(path.with_suffix(".csv").read_text(encoding="utf-8").splitlines()))
    assert {row["callers"] for row in rows} == {"100", "2000"}


def test_without_charts_none_is_shown(path: Path) -> None:
    assert "Growth" not in write_report(path, plots=False)
    assert not list(path.parent.glob("*.svg"))


def test_the_same_artifact_gives_the_same_report(path: Path) -> None:
    write_report(path, plots=True)
    for file, text in report(path, plots=True).items():
        assert file.read_bytes() == text.encode()

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from harness_samples import artifact, iteration

from benchmarks.artifact import write_artifact
from benchmarks.budgets import BUDGETS
from benchmarks.deriving import derive
from benchmarks.errors import BenchmarkError
from benchmarks.tables import DOCUMENTS, RESULTS, TABLES, Results, fill, made_from, make_again


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """A run of `requests` with one miss, and a heavy root."""
    callers = [
        iteration(name, index, 3 * index + place, value, point={"callers": 2_000})
        for index in range(5)
        for place, (name, value) in enumerate((("here", 50.0), ("peer", 30_000.0), ("floor", 20.0)))
    ]
    write_artifact(artifact(tuple(callers)), tmp_path / "requests-budgets.json")
    roots = tuple(
        attrs.evolve(
            iteration(name, index, 2 * index + place, 1.0, point={"pipeline": "heavy root"}),
            metrics={"half_of_records_seconds": seconds, "ready_to_lease_gap_p95_us": seconds * 1e5},
        )
        for index in range(5)
        for place, (name, seconds) in enumerate((("here", 16.0), ("peer", 22.25)))
    )
    whole = artifact(roots)
    derived = derive("heavy_root", roots, inputs=whole.inputs, skipped=(), noise=None)
    write_artifact(
        attrs.evolve(whole, scenario_id="heavy_root", derived_metrics=derived), tmp_path / "heavy_root-budgets.json"
    )
    return Results(tmp_path)


def test_a_table_takes_the_place_of_what_was_there(results: Results) -> None:
    text = "before\n<!-- table: steps -->\n| old | figures |\n<!-- end of table -->\nafter\n"
    once = fill(text, results)
    assert once.startswith("before\n<!-- table: steps -->\n\n| step | peer | floor | ours |")
    assert once.endswith(" |\n\n<!-- end of table -->\nafter\n")
    assert "old" not in once
    assert fill(once, results) == once


def test_what_is_made_again_is_said_and_then_stays(results: Results, tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text("<!-- table: simulated pipelines -->\n<!-- end of table -->\n", encoding="utf-8")
    beside = {f"{name}-budgets{ending}" for name in ("heavy_root", "requests") for ending in (".csv", ".md")}
    assert {path.name for path in make_again(results, [document], plots=True)} == {*beside, "page.md"}
    assert "| heavy root | half of the records, s |" in document.read_text(encoding="utf-8")
    assert make_again(results, [document], plots=True) == []


def test_an_unknown_table_is_refused(results: Results) -> None:
    with pytest.raises(BenchmarkError, match=r"^there is no table 'stepps'; there are steps, simulated pipelines, "):
        fill("<!-- table: stepps -->\n<!-- end of table -->", results)


def test_every_budget_that_was_measured_has_its_line(results: Results) -> None:
    lines = TABLES["steps"](results).splitlines()[2:]
    assert len(lines) == len([each for each in BUDGETS if each.measured_by == "requests" and each.binding])
    assert (
        "| request through 64 permits, 2,000 callers, against the peer's, µs "
        "| 30,000 | 20.0 | 50.0 | 600 × | at least 700 × | **missed** |"
    ) in lines
    assert any("request acquire and release" in line and "not in this run" in line for line in lines)


def test_simulated_pipelines_stand_beside_the_peer(results: Results) -> None:
    lines = TABLES["simulated pipelines"](results).splitlines()
    assert "| heavy root | half of the records, s | 22.2 |  | 16.0 | 1.39 × |" in lines
    assert "| heavy root | ready to dispatched (p95), s | 2.2 |  | 1.6 | 1.39 × |" in lines


@pytest.mark.parametrize("name", TABLES)
def test_every_table_can_be_made_of_what_is_committed(name: str) -> None:
    assert TABLES[name](Results(RESULTS)).strip()


def test_what_is_committed_says_what_the_artifacts_say() -> None:
    stale = [
        str(path.relative_to(RESULTS.parents[1]))
        for path, text in made_from(Results(RESULTS), DOCUMENTS, plots=True).items()
        if path.read_bytes() != text.encode()
    ]
    assert not stale, f"not what the artifacts give: {stale}; python -m benchmarks tables"


def test_no_chart_is_missing_and_none_is_left_over() -> None:
    shown = {
        line.partition("](")[2].rstrip(")")
        for path in RESULTS.rglob("*.md")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("![")
    }
    assert shown == {path.name for path in RESULTS.rglob("*.svg")}


def test_the_page_of_the_docs_shows_every_summary() -> None:
    page = DOCUMENTS[0].read_text(encoding="utf-8")
    summaries = [*RESULTS.glob("*.md"), *RESULTS.glob("*/summary.md")]
    assert [path.name for path in summaries if f"benchmarks/results/{path.relative_to(RESULTS)}\n" not in page] == []

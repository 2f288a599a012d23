from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from harness_samples import artifact, rounds

from benchmarks.artifact import write_artifact
from benchmarks.command import main
from benchmarks.scenarios import ALL
from benchmarks.summary import csv_lines, markdown

RECORDS = "--records does not apply to scenario 'requests'; of the optional inputs it takes none of those"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--scenario", "nothing"],
            f"benchmarks: there is no scenario 'nothing'; there are {', '.join(ALL)}\n",
        ),
        (["--scenario", "requests", "--records", "5"], f"benchmarks: {RECORDS}\n"),
        (["--axis", "groups"], "benchmarks: --axis takes NAME=VALUE,VALUE, not 'groups'\n"),
        (["--latency", "mean=slow"], "benchmarks: --latency takes KNOB=SECONDS, not 'mean=slow'\n"),
        (["--iterations", "0"], "benchmarks: --iterations must be at least 1, and --warm-ups at least 0\n"),
        (
            ["--scenario", "requests", "--axis", "callers=3"],
            "benchmarks: no point of scenario 'requests' has those axes in the profile budgets\n",
        ),
        (["smoke", "file"], "benchmarks: smoke takes no files, but file was given\n"),
        (["check"], "benchmarks: check needs at least one file\n"),
        (
            ["smoke", "--candidate", "floor", "--scenario", "soak"],
            "benchmarks: floor has no workload for scenario 'soak'\n",
        ),
        (
            ["--candidate", "floor", "--baseline", "floor", "--scenario", "soak", "--without-plots"],
            "benchmarks: floor has no workload for scenario 'soak'\n",
        ),
        (["tables", "file"], "benchmarks: tables takes no files, but file was given\n"),
    ],
)
def test_what_cannot_be_done_is_said(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--output", str(tmp_path)]) == 2
    assert capsys.readouterr().err == message


def test_smoke_counts_the_same_every_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["smoke", "--scenario", "requests", "--output", str(tmp_path)]) == 0
    document = json.loads((tmp_path / "requests-smoke.json").read_text(encoding="utf-8"))
    assert {(each["point"]["callers"], each["counts"]["served"]) for each in document["iterations"]} == {
        (1, 100),
        (100, 100),
        (1_000, 1_000),
    }
    assert {(each["point"]["callers"], each["counts"]["peak_in_flight"]) for each in document["iterations"]} == {
        (1, 1),
        (100, 64),
        (1_000, 64),
    }
    assert document["environment"]["command_line"][-1] == "FOLDER"
    capsys.readouterr()
    assert main(["check", str(tmp_path / "requests-smoke.json")]) == 0
    assert capsys.readouterr().out == "requests-smoke.json: complete\n"


def test_check_fails_for_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "few.json"
    write_artifact(artifact(rounds(here=[1.0, 1.0])), path)
    assert main(["check", str(path)]) == 1
    assert capsys.readouterr().out == "few.json: 1 faults\n  fewer than 5 measured iterations\n"


def test_a_scenario_that_fails_does_not_keep_the_others_from_being_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trio_sched").mkdir()
    run = ["--candidate", f"path:{tmp_path}", "--baseline", "floor", "--without-plots", "--output", str(tmp_path)]
    assert main([*run, "--scenario", "events", "--scenario", "imports"]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAILED: ")]
    assert [line.split(": ")[1] for line in failed] == ["events", "imports"]


def test_the_summary_shows_figures_ratios_budgets_and_gates() -> None:
    text = markdown(
        artifact(rounds(peer=[70_000.0] * 5, here=[50.0] * 5, floor=[20.0] * 4 + [2_000.0])), ALL["requests"]
    )
    assert "| 2,000 | here | 50.0 | 50.0 | 50.0 | 50.0 | 50.0 | 0.00 |  |" in text
    assert "| 2,000 | peer | 70,000 | 70,000 | 70,000 | 70,000 | 70,000 | 0.00 | 1,400 × |" in text
    assert "| 2,000 | floor | 416 | 20.0 | 1,604 | 20.0 | 2,000 | 885 | 8.32 × (inconclusive) |" in text
    assert "| request through 64 permits, 2,000 callers, against the peer's | at least 700 × | 1,400 | met |" in text
    assert (
        "| request through 64 permits, 2,000 callers | at most 45 µs | 50.0 | **missed** (orients, does not bind) |"
        in text
    )
    assert "| no lease and no waiter left | passed |" in text
    assert "- noise: the machine was steady: a fixed piece of work varied by 0.7%" in text
    assert "- peer, 1 points: not finishable" in text


def test_every_figure_is_in_the_csv() -> None:
    rows = list(csv.DictReader(csv_lines(artifact(rounds(here=[10.0, 30.0]))).splitlines()))
    assert {row["metric"] for row in rows} == {
        "request_cpu_us",
        "wall_time_seconds",
        "cpu_time_seconds",
        "peak_memory_bytes",
    }
    assert rows[0] == {
        "candidate": "here",
        "callers": "2000",
        "metric": "request_cpu_us",
        "mean": "20",
        "p50": "20",
        "p95": "29",
        "min": "10",
        "max": "30",
        "sd": "14.1421",
        "iterations": "2",
    }

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks.aimd.__main__ import main
from benchmarks.aimd.artifact import Run, as_json, sweep_report
from benchmarks.aimd.ours import Tuning
from benchmarks.aimd.results import ControlLine, Result, worst
from benchmarks.aimd.scenarios import SCENARIOS, SMOKE
from benchmarks.aimd.sweep import CHOSEN, Point
from benchmarks.aimd.tables import control_line_table, scenario_table


def result(scenario: str, seed: int, **measures: float) -> Result:
    return Result(scenario, seed, measures)


LINE = ControlLine(0.96, 0.97, 0.005, 0.001, 3.0, 6.0, 60.0)
MISSED = ControlLine(0.96, 0.94, 0.005, 0.001, 3.0, 6.0, math.inf)


def test_a_result_survives_json() -> None:
    original = result("step_up", 3, utilisation=0.5, recover_seconds=math.inf)
    text = json.dumps(original.to_json(), allow_nan=False)
    assert Result.from_json(json.loads(text)) == original


def test_the_worst_seed_counts() -> None:
    results = [
        result("steady_16", 1, utilisation=0.9, refused=0.02),
        result("steady_16", 2, utilisation=0.8, refused=0.01),
    ]
    assert worst(results, "steady_16", "utilisation") == 0.8
    assert worst(results, "steady_16", "refused") == 0.02
    with pytest.raises(AssertionError, match=r"^nobody ran steady_128"):
        worst(results, "steady_128", "refused")


def test_the_control_line_table() -> None:
    assert control_line_table({"a": LINE, "b": MISSED}).splitlines()[3:] == [
        "| a | 0.960 / 0.970 | 0.50 % / 0.10 % | 3.0 s / 6.0 s | 60.0 s | kept, 20 % to spare |",
        "| b | 0.960 / 0.940 | 0.50 % / 0.10 % | 3.0 s / 6.0 s | never | missed (uc) |",
    ]


def test_the_scenario_table_shows_mean_and_worst() -> None:
    ours = [result("flood_429", 1, recover_seconds=100.0), result("flood_429", 2, recover_seconds=200.0)]
    assert scenario_table({"ours": ours, "peer": []}).splitlines() == [
        "| provider | measure | ours | peer |",
        "| --- | --- | --- | --- |",
        "| flood_429 | recovers in | 150.0 s (200.0 s) | not run |",
    ]


def test_the_sweep_report_marks_what_keeps_the_line() -> None:
    other = Tuning(CHOSEN.factor, 100, CHOSEN.cooldown)
    run = Run(SMOKE, [1], points=[Point(CHOSEN, "full", LINE), Point(other, "coarse", MISSED)])
    report = sweep_report(run).splitlines()
    assert (
        "2 combinations, 1 of them measured over the whole span, the others coarsely; 1 keep the control line."
        in report
    )
    assert report[-1] == "| 0.94 | **96.0/97.0 0.50 6 60** | 96.0/94.0 0.50 6 – uc |"


def test_the_artifact_is_plain_json() -> None:
    results = [
        result("steady_16", 1, utilisation=0.96, refused=0.005, settle_seconds=3.0),
        result("steady_128", 1, utilisation=0.97, refused=0.001, settle_seconds=6.0),
        result("step_up", 1, recover_seconds=math.inf),
    ]
    artifact = as_json(Run(SMOKE, [1], {"ours": results}, points=[Point(CHOSEN, "full", LINE)]))
    again = json.loads(json.dumps(artifact, allow_nan=False))
    assert again["scenario_id"] == "aimd"
    assert set(again["provider_script"]) == set(SCENARIOS)
    assert again["derived_metrics"]["control_line"]["ours"]["recover"] is None
    assert again["derived_metrics"]["sweep"][0]["tuning"] == CHOSEN.as_dict()


def test_the_smoke_run_writes_its_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--smoke", "--out", str(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aimd.json", "summary.md"]
    artifact = json.loads((tmp_path / "aimd.json").read_text(encoding="utf-8"))
    assert {entry["scenario"] for entry in artifact["iterations"]["ours"]} == set(SCENARIOS)
    assert "| ours | 0.9" in capsys.readouterr().out

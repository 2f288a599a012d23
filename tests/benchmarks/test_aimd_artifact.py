from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from benchmarks.aimd.__main__ import main
from benchmarks.aimd.artifact import ProvidersArtifact, SweepArtifact, providers_artifact, read, sweep_artifact
from benchmarks.aimd.ours import Tuning
from benchmarks.aimd.report import summary, sweep_report
from benchmarks.aimd.results import ControlLine, Result, worst
from benchmarks.aimd.scenarios import SCENARIOS, SMOKE
from benchmarks.aimd.schema import findings
from benchmarks.aimd.sweep import CHOSEN, Point
from benchmarks.aimd.tables import control_line_table, scenario_table
from benchmarks.artifact import write_artifact
from benchmarks.schema import check_file

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "aimd"
LINE = ControlLine(0.96, 0.97, 0.005, 0.001, 3.0, 6.0, 60.0)
MISSED = ControlLine(0.96, 0.94, 0.005, 0.001, 3.0, 6.0, math.inf)


def result(scenario: str, seed: int, **measures: float) -> Result:
    return Result(scenario, seed, measures)


def everywhere(seed: int) -> list[Result]:
    times = {"settle_seconds": 3.0, "recover_seconds": math.inf}
    return [result(name, seed, utilisation=0.96, refused=0.005, **times) for name in SCENARIOS]


def providers() -> ProvidersArtifact:
    results = {"ours": [*everywhere(1), *everywhere(2)], "peer 0.9.7": everywhere(1)}
    return providers_artifact(results, SMOKE, ["python", "-m", "benchmarks.aimd"], peer="data-designer-engine==0.9.7")


def swept() -> SweepArtifact:
    other = Tuning(CHOSEN.factor, 100, CHOSEN.cooldown)
    points = [Point(CHOSEN, "full", LINE), Point(other, "coarse", MISSED)]
    return sweep_artifact({"grid": points, "successes": points[:1]}, SMOKE, {"grid": [1]}, ["python"])


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
    lines = sweep_report(swept()).splitlines()
    assert (
        "2 combinations, 1 of them measured over the whole span, the others coarsely; 1 keep the control line." in lines
    )
    assert "| 0.94 | **96.0/97.0 0.50 6 60** | 96.0/94.0 0.50 6 – uc |" in lines
    assert lines[-1] == "| 75 | 0.960 / 0.970 | 0.50 % / 0.10 % | 3.0 s / 6.0 s | 60.0 s | kept, 20 % to spare |"


def test_the_summary_shows_every_provider_with_the_peer_beside_it() -> None:
    text = summary(providers())
    assert "| provider | measure | ours | peer 0.9.7 |" in text
    for name, scenario in SCENARIOS.items():
        assert f"| {name} | utilisation | 0.960 | 0.960 |" in text
        assert f"| {name} | {scenario.script} |" in text
    assert "- seeds of ours: 1, 2" in text
    assert "- seeds of peer 0.9.7: 1" in text


@pytest.mark.parametrize("artifact", [providers(), swept()], ids=["providers", "sweep"])
def test_it_reads_back_to_an_equal_artifact(artifact: ProvidersArtifact | SweepArtifact, tmp_path: Path) -> None:
    path = tmp_path / "aimd.json"
    write_artifact(artifact, path)
    assert read(path) == artifact
    assert check_file(path) == []


@pytest.mark.parametrize("kind", [ProvidersArtifact, SweepArtifact])
def test_no_field_may_be_missing(kind: type[attrs.AttrsInstance], tmp_path: Path) -> None:
    path = tmp_path / "aimd.json"
    for field in attrs.fields(kind):
        if field.name == "scenario_id":
            continue
        write_artifact(providers() if kind is ProvidersArtifact else swept(), path)
        document = json.loads(path.read_text(encoding="utf-8"))
        del document[field.name]
        path.write_text(json.dumps(document), encoding="utf-8")
        assert check_file(path) == [f"required field missing @ artifact.{field.name}"]


def another_share(document: Any) -> None:
    document["iterations"][0]["measures"]["utilisation"] = 0.9


def more_than_there_was(document: Any) -> None:
    document["iterations"][5]["measures"]["utilisation"] = 1.5


def no_refused_share(document: Any) -> None:
    del document["iterations"][5]["measures"]["refused"]


def one_missing(document: Any) -> None:
    del document["iterations"][10]


def one_twice(document: Any) -> None:
    document["iterations"].append(document["iterations"][0])


def ours_missing(document: Any) -> None:
    document["iterations"] = [each for each in document["iterations"] if each["candidate"] != "ours"]
    del document["derived_metrics"]["ours"]


def peer_missing(document: Any) -> None:
    document["iterations"] = [each for each in document["iterations"] if each["candidate"] == "ours"]
    del document["derived_metrics"]["peer 0.9.7"]


def another_script(document: Any) -> None:
    document["provider_script"]["steady_16"] = "takes a million"


def another_version(document: Any) -> None:
    document["artifact_schema_version"] = "0"


def another_scenario_version(document: Any) -> None:
    document["scenario_version"] = "0"


def no_sha(document: Any) -> None:
    document["candidate_sha"] = ""


def no_iterations(document: Any) -> None:
    document["iterations"] = []


def a_better_line(document: Any) -> None:
    document["derived_metrics"]["ours"]["recover"] = 1.0


def a_string_for_a_number(document: Any) -> None:
    document["iterations"][0]["measures"]["utilisation"] = "much"


@pytest.mark.parametrize(
    ("breaking", "fault"),
    [
        (another_share, "the control lines do not follow from the iterations"),
        (more_than_there_was, "utilisation of ours at bursty_neighbour with seed 1 is 1.5"),
        (no_refused_share, "ours has no refused at bursty_neighbour with seed 1"),
        (no_refused_share, "not everybody has the same measures at bursty_neighbour"),
        (one_missing, "ours was not at every provider once with each of its seeds, [1, 2]"),
        (one_twice, "ours was not at every provider once with each of its seeds, [1, 2]"),
        (ours_missing, "the project's own rule is missing"),
        (peer_missing, "the baseline 'data-designer-engine==0.9.7' was not measured"),
        (another_script, "the scripts of the providers are not those of this version"),
        (another_version, "artifact_schema_version is '0', not '2'"),
        (another_scenario_version, "scenario_version is '0', not '2'"),
        (no_sha, "candidate_sha is empty"),
        (no_iterations, "there are no iterations"),
        (a_better_line, "the control lines do not follow from the iterations"),
        (a_string_for_a_number, "@ artifact.iterations[0].measures['utilisation']"),
    ],
)
def test_a_broken_artifact_is_refused(tmp_path: Path, breaking: Callable[[Any], None], fault: str) -> None:
    path = tmp_path / "aimd.json"
    write_artifact(providers(), path)
    document = json.loads(path.read_text(encoding="utf-8"))
    breaking(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    assert any(fault in found for found in check_file(path)), check_file(path)


def test_a_broken_sweep_is_refused() -> None:
    good = swept()
    first = good.iterations[0]
    praised = attrs.evolve(good.iterations[1], line=attrs.evolve(good.iterations[1].line, missed=""))
    assert list(findings(attrs.evolve(good, iterations=(first, praised, *good.iterations[2:])))) == [
        f"what {praised.tuning} misses does not follow from its figures"
    ]
    assert f"{first.tuning} is there 2 times in the part 'grid'" in list(
        findings(attrs.evolve(good, iterations=(first, *good.iterations)))
    )
    assert list(findings(attrs.evolve(good, derived_metrics={"grid": 7}))) == [
        "the points that keep the control line do not follow from the iterations"
    ]


def test_the_smoke_run_writes_a_complete_artifact_and_its_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--smoke", "--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aimd.csv", "aimd.json", "providers.svg", "summary.md"]
    rows = list(csv.DictReader((tmp_path / "aimd.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["provider"] for row in rows if row["measure"] == "utilisation"} == set(SCENARIOS)
    assert check_file(tmp_path / "aimd.json") == []
    artifact = read(tmp_path / "aimd.json")
    assert isinstance(artifact, ProvidersArtifact)
    assert {each.scenario for each in artifact.iterations} == set(SCENARIOS)
    assert artifact.environment.command_line == ("python", "-m", "benchmarks.aimd", "--smoke", "--out", "FOLDER")
    assert "| ours | 0.9" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sweep", "--peer"], "--sweep has seeds of its own and no peer: leave --seeds and --peer out"),
        (["--sweep", "--seeds", "2"], "--sweep has seeds of its own and no peer: leave --seeds and --peer out"),
        (["--seeds", "0"], "--seeds must be at least 1, not 0"),
    ],
)
def test_what_cannot_be_asked_is_said(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"benchmarks.aimd: {message}\n"


@pytest.mark.parametrize("name", ["aimd.json", "sweep.json"])
def test_what_is_committed_is_complete(name: str) -> None:
    assert check_file(RESULTS / name) == []

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from benchmarks.artifact import write_artifact
from benchmarks.control.__main__ import main
from benchmarks.control.acceptance import LINES
from benchmarks.control.artifact import ControlArtifact, control_artifact, read
from benchmarks.control.candidates import WHO
from benchmarks.control.compact import compact_line
from benchmarks.control.report import acceptance_table, candidates_table, scenario_tables, summary
from benchmarks.control.running import Run, run_all
from benchmarks.control.scenarios import SCENARIOS
from benchmarks.control.schema import findings
from benchmarks.control.split import SEEDS, SPLIT
from benchmarks.control.worlds import Measures
from benchmarks.schema import check_file

SWING = "24-8-24 cap=64 hint=none"
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "control"
GROWTH = next(name for name in SPLIT["report"] if SCENARIOS[name].group == "growth 8 to 24")


def run(candidate: str, scenario: str, *measures: Measures) -> Run:
    return Run(candidate, scenario, SEEDS["report"][: len(measures)], measures)


def artifact() -> ControlArtifact:
    """Ours keeps one line on average and misses another; another one is back never, with one seed."""
    runs = [
        run("evidence", SWING, {"utilisation": 0.92, "refused": 0.01}, {"utilisation": 0.89, "refused": 0.02}),
        run(
            "evidence",
            GROWTH,
            {"utilisation": 0.8, "refused": 0.0, "recovery": 30.0},
            {"utilisation": 0.8, "refused": 0.0, "recovery": 24.0},
        ),
        run("peer", SWING, {"utilisation": 0.95, "refused": 0.4, "lost": 0.25}),
        run("peer", GROWTH, {"utilisation": 0.8, "refused": 0.0, "recovery": math.inf}),
    ]
    return control_artifact(runs, "report", ["python", "-m", "benchmarks.control"])


def test_the_acceptance_table_says_how_many_keep_a_line_and_the_worst_figures() -> None:
    lines = acceptance_table(artifact()).splitlines()
    assert lines[0] == "| line | asked | evidence | peer |"
    assert (
        "| 24, 8, 24 | utilisation ≥ 0.9, refused ≤ 3 % "
        "| 0 (+ 1) of 1: 0.905, 1.50 % | 0 of 1: 0.950, 40.00 % |" in lines
    )
    assert "| growth 8 to 24 | back after, round trips ≤ 25 | 0 of 1: 27.0 | 0 of 1: never |" in lines
    assert len(lines) == 2 + sum(bool(line.bounds) for line in LINES.values())


def test_the_table_of_candidates_says_how_many_lines_each_keeps() -> None:
    lines = candidates_table(artifact()).splitlines()
    assert f"| evidence | {WHO['evidence']} | 101, 102 | 1 |" in lines
    assert f"| peer | {WHO['peer']} | 101 | 0 |" in lines


def test_the_table_of_providers_has_mean_and_worst_and_marks_what_misses() -> None:
    text = scenario_tables(artifact())
    assert f"| {SWING} | utilisation | 0.905 (0.890) | 0.950 |\n" in text
    assert "|  | refused | 1.50 % (2.00 %) | **40.00 %** |\n" in text
    assert "|  | lost |  | 25.00 % |\n" in text
    assert "|  | back after, round trips | **27.0 (30.0)** | **never** |\n" in text


def test_the_summary_says_which_half_it_is() -> None:
    text = summary(artifact())
    assert f"- half: report, 2 of {len(SCENARIOS)} scripted providers\n" in text
    assert f"| {SWING} | {SCENARIOS[SWING].script} |" in text


def test_a_compact_line() -> None:
    found = compact_line("a name", {}, "missed", 8)
    assert found == "a name   |   MISSED"


def test_it_reads_back_to_an_equal_artifact(tmp_path: Path) -> None:
    path = tmp_path / "control.json"
    write_artifact(artifact(), path)
    assert read(path) == artifact()
    assert check_file(path) == []


def test_no_field_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "control.json"
    for field in attrs.fields(ControlArtifact):
        if field.name == "scenario_id":
            continue
        write_artifact(artifact(), path)
        document = json.loads(path.read_text(encoding="utf-8"))
        del document[field.name]
        path.write_text(json.dumps(document), encoding="utf-8")
        assert check_file(path) == [f"required field missing @ artifact.{field.name}"]


def another_share(document: Any) -> None:
    document["iterations"][0]["measures"]["utilisation"][0] = 0.99


def more_than_there_was(document: Any) -> None:
    document["iterations"][0]["measures"]["utilisation"][0] = 1.5


def a_share_of_nothing(document: Any) -> None:
    document["iterations"][0]["measures"]["refused"][0] = None


def no_refused_share(document: Any) -> None:
    del document["iterations"][0]["measures"]["refused"]


def no_recovery(document: Any) -> None:
    del document["iterations"][1]["measures"]["recovery"]


def one_value_too_few(document: Any) -> None:
    document["iterations"][0]["measures"]["refused"].pop()


def one_missing(document: Any) -> None:
    del document["iterations"][3]


def one_twice(document: Any) -> None:
    document["iterations"].append(document["iterations"][0])


def a_provider_of_the_other_half(document: Any) -> None:
    document["iterations"][0]["scenario"] = SPLIT["tune"][0]


def another_half(document: Any) -> None:
    document["inputs"]["half"] = "all"


def a_seed_to_tune_with(document: Any) -> None:
    document["iterations"][0]["seeds"] = [1, 2]


def seeds_that_were_not_played(document: Any) -> None:
    document["inputs"]["seeds"]["evidence"] = [101, 102, 103]


def another_split(document: Any) -> None:
    document["split"]["report"].append(document["split"]["tune"].pop())


def another_script(document: Any) -> None:
    document["provider_script"][SWING] = "takes whatever comes"


def a_better_verdict(document: Any) -> None:
    document["derived_metrics"]["evidence"]["24, 8, 24"]["verdicts"] = {"kept": 1}


def nobody_judged(document: Any) -> None:
    document["iterations"] = document["iterations"][2:]
    document["derived_metrics"].pop("evidence")


def no_baseline(document: Any) -> None:
    document["baseline_sha"] = None


def an_older_version(document: Any) -> None:
    document["scenario_version"] = "2"


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (another_share, "the verdicts do not follow from the iterations"),
        (more_than_there_was, f"utilisation of evidence at {SWING} is 1.5"),
        (a_share_of_nothing, f"refused of evidence at {SWING} is null"),
        (no_refused_share, f"evidence at {SWING} has no refused"),
        (no_recovery, f"evidence at {GROWTH} has no recovery"),
        (one_value_too_few, f"evidence at {SWING} has 1 values of refused and 2 seeds"),
        (one_missing, "peer was not once at every provider that it should have been at"),
        (one_twice, "evidence was not once at every provider that it should have been at"),
        (a_provider_of_the_other_half, f"of the half 'report' are not: {SPLIT['tune'][0]}"),
        (another_half, "the half is 'all'"),
        (a_seed_to_tune_with, "evidence did not have the seeds that are said, of the half 'report'"),
        (seeds_that_were_not_played, "evidence did not have the seeds that are said, of the half 'report'"),
        (another_split, "the halves of the scenarios are not those of this version"),
        (another_script, "the scripts of the providers are not those of this version"),
        (a_better_verdict, "the verdicts do not follow from the iterations"),
        (nobody_judged, "the rule that is judged is missing"),
        (no_baseline, "the baseline is not what was measured"),
        (an_older_version, "scenario_version is '2', not '3'"),
    ],
)
def test_what_was_edited_is_noticed(edit: Callable[[Any], None], fault: str, tmp_path: Path) -> None:
    path = tmp_path / "control.json"
    write_artifact(artifact(), path)
    document = json.loads(path.read_text(encoding="utf-8"))
    edit(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    assert fault in check_file(path)


def test_two_processes_find_what_one_finds() -> None:
    names = [SWING, "24-8-24 cap=128 hint=5"]
    one, two = (list(run_all(["evidence", "cubic"], names, (101, 102), processes=count)) for count in (1, 2))
    assert one == two
    assert [(each.candidate, each.scenario) for each in one] == [
        (candidate, name) for candidate in ("evidence", "cubic") for name in names
    ]


def test_a_run_writes_its_artifact_and_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--out", str(tmp_path), "--scenarios", "24, 8, 24", "--candidates", "evidence,fixed", "--seeds", "1"]
    assert main(arguments) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "control.csv",
        "control.json",
        "lines.svg",
        "summary.md",
    ]
    found = read(tmp_path / "control.json")
    assert list(findings(found)) == []
    assert {each.candidate for each in found.iterations} == {"evidence", "fixed"}
    rows = list(csv.DictReader((tmp_path / "control.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["line"] for row in rows} == {"24, 8, 24"}
    assert (tmp_path / "summary.md").read_text(encoding="utf-8") in capsys.readouterr().out


def test_others_may_stay_as_they_were(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--out", str(tmp_path), "--scenarios", "growth 8 to 24", "--seeds", "1"]
    assert main([*arguments, "--candidates", "evidence,cubic"]) == 0
    path = tmp_path / "control.json"
    before = read(path)
    write_artifact(attrs.evolve(before, candidate_sha="an earlier one"), path)
    assert main([*arguments, "--candidates", "evidence", "--keep", str(path)]) == 0
    after = read(path)
    assert after.iterations == before.iterations
    assert after.inputs["kept"] == {"cubic": "an earlier one"}
    assert "- cubic: as measured at an earlier one\n" in (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert main([*arguments, "--candidates", "evidence", "--keep", str(path)]) == 0
    assert read(path).inputs["kept"] == {"cubic": "an earlier one"}
    path.write_text("{}", encoding="utf-8")
    assert main([*arguments, "--candidates", "evidence", "--keep", str(path)]) == 2
    assert "control.json cannot be kept from: required field missing" in capsys.readouterr().err


def test_the_compact_form_writes_nothing_and_takes_a_rule_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--half", "tune", "--compact", "--seeds", "1", "--scenarios", "24-8-24*", "--out", str(tmp_path / "x")]
    assert main([*arguments, "--factory", "trio_sched.lowlevel:EvidenceLimit"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["# trio_sched.lowlevel:EvidenceLimit", "## 24, 8, 24: utilisation 0.9, refused 0.03"]
    assert [line.partition(" |")[0].strip() for line in lines[2:8]] == [
        name for name in SPLIT["tune"] if name.startswith("24-8-24")
    ]
    assert lines[-2:] == ["## lines", "24, 8, 24              | 6 kept"]
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--half", "tune"], "what is written down is the half 'report'; use --compact with the other one"),
        (["--scenarios", "nothing"], "no scenario and no line of the half 'report' is called 'nothing'"),
        (["--seeds", "0"], "--seeds must be at least 1, not 0"),
        (["--candidates", "nobody"], "there is no candidate 'nobody'; there are evidence, "),
        (["--compact", "--candidates", "nobody"], "there is no candidate 'nobody'; there are evidence, "),
    ],
)
def test_what_cannot_be_asked_is_refused(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--out", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err.startswith(f"benchmarks.control: {message}")
    assert not (tmp_path / "x").exists()


def test_what_is_committed_is_complete_true_and_of_the_half_that_is_reported() -> None:
    path = RESULTS / "control.json"
    assert check_file(path) == []
    committed = read(path)
    assert committed.inputs["half"] == "report"
    assert set(committed.provider_script) == set(SPLIT["report"])
    assert list(committed.derived_metrics) == list(WHO)
    assert not committed.candidate_sha.endswith("-dirty")

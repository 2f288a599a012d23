from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from benchmarks import HARNESS_VERSION, environments
from benchmarks.artifact import Environment, JsonObject, write_artifact
from benchmarks.errors import BenchmarkError
from benchmarks.race.__main__ import main
from benchmarks.race.artifact import (
    RACE_ID,
    SCENARIO_VERSION,
    SCHEMA_VERSION,
    RaceArtifact,
    RaceIteration,
    RaceVerdict,
    read,
)
from benchmarks.race.counting import Figures
from benchmarks.race.deriving import derive
from benchmarks.race.report import report, results, summary
from benchmarks.schema import check_file

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "race"
ROWS = 100
OURS = ["run", "run at 5d64eb83"]


def iteration(
    candidate: str,
    index: int,
    order: int,
    utilisation: float,
    *,
    lost: int = 0,
    refused: int = 2,
    seconds: float = 10.0,
) -> RaceIteration:
    finished = ROWS - lost
    return RaceIteration(
        candidate=candidate,
        hint_seconds=1.0,
        cap=32,
        index=index,
        order=order,
        fault=None,
        rows_finished=finished,
        rows_lost=lost,
        wall_seconds=seconds,
        processor_seconds=1.5,
        peak_memory_megabytes=60.0,
        load=0.5,
        calibration_seconds=0.002,
        provider=Figures(
            attempts=2 * finished + refused,
            refused=refused,
            answered=2 * finished,
            abandoned=0,
            rows_finished=finished,
            utilisation=utilisation,
            span_seconds=9.0,
            busy_seconds=9.5,
            late_seconds=0.001,
            processor_share=0.02,
        ),
    )


def three_rounds(**clients: Sequence[float]) -> list[RaceIteration]:
    """Rounds of clients by name, each with its utilisation; the bound loses rows."""
    names = {name: name.replace("_", "-") for name in clients}
    lost = {"sdk-retries": 5}
    return [
        iteration(names[name], index, len(clients) * index + turn, used[index], lost=lost.get(names[name], 0))
        for index in range(3)
        for turn, (name, used) in enumerate(clients.items())
    ]


def artifact(iterations: Sequence[RaceIteration]) -> RaceArtifact:
    inputs = {"smoke": False, "rows": ROWS, "rounds": 3, "judged": ["run"], "ours": OURS, "bound": "sdk-retries"}
    script = {"call_seconds": 0.3, "hint_seconds": 1.0, "phases": [[10, 24], [10, 8], [0, 24]]}
    return RaceArtifact(
        scenario_id=RACE_ID,
        artifact_schema_version=SCHEMA_VERSION,
        scenario_version=SCENARIO_VERSION,
        harness_version=HARNESS_VERSION,
        baseline_sha="openai==3.57.0",
        candidate_sha="a" * 40,
        inputs=JsonObject(dict(inputs)),
        provider_script={"hint 1 s": JsonObject(dict(script))},
        provider_rate=10_000.0,
        clock_script=JsonObject({"clock": "real"}),
        capacity_plan=JsonObject({"max_parallel_requests": [32]}),
        iterations=tuple(iterations),
        derived_metrics=derive(iterations, judged=["run"], ours=OURS, bound="sdk-retries", noise=None),
        environment=Environment(
            JsonObject({"processor": "one", "processors": 2}), {"run": JsonObject({"trio": "0.35.0"})}, ("python",)
        ),
        candidate_shas={each.candidate: "a" * 40 for each in iterations},
    )


def raced() -> RaceArtifact:
    return artifact(three_rounds(run=[0.9, 0.9, 0.87], sdk_retries=[0.95] * 3, inspect_ai=[0.7, 0.6, 0.8]))


def verdicts(iterations: Sequence[RaceIteration]) -> list[tuple[str, str]]:
    found: tuple[RaceVerdict, ...] = artifact(iterations).derived_metrics.verdicts
    return [(each.line, each.verdict) for each in found]


def test_our_client_is_held_to_every_line() -> None:
    assert verdicts(raced().iterations) == [
        ("utilisation at least 0.86", "shown"),
        ("refused share at most 0.03", "shown"),
        ("no row lost", "shown"),
        ("utilisation, less that of the best other client that loses no row", "shown"),
        ("rows finished a second, over those of sdk-retries", "shown"),
    ]


def test_a_client_that_loses_rows_does_not_set_the_line_for_utilisation() -> None:
    ahead = {each.line: each.value for each in raced().derived_metrics.verdicts}
    assert round(ahead["utilisation, less that of the best other client that loses no row"], 6) == 0.19
    only_losers = three_rounds(run=[0.9] * 3, sdk_retries=[0.95] * 3)
    assert not any(line.startswith("utilisation, less") for line, _ in verdicts(only_losers))


def test_another_commit_of_ours_is_nobody_to_be_ahead_of() -> None:
    older = [iteration(OURS[1], index, 6 + index, 0.99) for index in range(3)]
    found = dict(verdicts([*three_rounds(run=[0.9] * 3, inspect_ai=[0.7] * 3), *older]))
    assert found["utilisation, less that of the best other client that loses no row"] == "shown"


def test_what_is_lost_counts_as_unfinished() -> None:
    loser = iteration("sdk-retries", 0, 0, 0.95, lost=50)
    assert loser.rows_per_second == 5.0
    losing = [iteration("sdk-retries", index, index, 0.95, lost=50) for index in range(3)]
    slower = [iteration("run", index, 3 + index, 0.9, seconds=16.0) for index in range(3)]
    found = dict(verdicts([*losing, *slower]))
    assert found["rows finished a second, over those of sdk-retries"] == "shown"


def test_one_bad_round_of_three_is_inconclusive() -> None:
    found = dict(verdicts(three_rounds(run=[0.9, 0.9, 0.5], inspect_ai=[0.7] * 3)))
    assert found["utilisation at least 0.86"] == "inconclusive"


def test_a_line_that_is_missed_is_said() -> None:
    found = dict(verdicts([iteration("run", index, index, 0.5, lost=3, refused=50) for index in range(3)]))
    assert found == {
        "utilisation at least 0.86": "refuted",
        "refused share at most 0.03": "refuted",
        "no row lost": "refuted",
    }


def test_long_hints_are_shown_and_not_judged() -> None:
    assert verdicts([attrs.evolve(each, hint_seconds=20.0) for each in raced().iterations]) == []


def test_it_reads_back_to_an_equal_artifact(tmp_path: Path) -> None:
    write_artifact(raced(), tmp_path / "race.json")
    assert read(tmp_path / "race.json").iterations == raced().iterations
    assert check_file(tmp_path / "race.json") == []


def test_no_field_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "race.json"
    for field in attrs.fields(RaceArtifact):
        if field.name == "scenario_id":
            continue
        write_artifact(raced(), path)
        document = json.loads(path.read_text(encoding="utf-8"))
        del document[field.name]
        path.write_text(json.dumps(document), encoding="utf-8")
        assert check_file(path) == [f"required field missing @ artifact.{field.name}"]


def better(document: Any) -> None:
    document["iterations"][0]["provider"]["utilisation"] = 0.99


def praised(document: Any) -> None:
    document["derived_metrics"]["verdicts"][0]["verdict"] = "refuted"


def more_than_all(document: Any) -> None:
    document["iterations"][1]["provider"]["utilisation"] = 1.2


def rows_out_of_nothing(document: Any) -> None:
    document["iterations"][0].update(rows_finished=101, rows_lost=0)


def rows_that_the_provider_never_saw(document: Any) -> None:
    document["iterations"][0]["provider"]["rows_finished"] = 99


def calls_without_an_end(document: Any) -> None:
    document["iterations"][0]["provider"]["answered"] -= 1


def a_slow_provider(document: Any) -> None:
    document["iterations"][0]["provider"]["late_seconds"] = 0.2


def a_round_missing(document: Any) -> None:
    del document["iterations"][-1]


def two_rounds(document: Any) -> None:
    document["iterations"] = document["iterations"][:6]


def another_version(document: Any) -> None:
    document["artifact_schema_version"] = "0"


def another_scenario_version(document: Any) -> None:
    document["scenario_version"] = "0"


def no_rows_said(document: Any) -> None:
    del document["inputs"]["rows"]


def nobody_ran(document: Any) -> None:
    document["iterations"] = []


def an_unknown_client(document: Any) -> None:
    del document["candidate_shas"]["run"]


def out_of_order(document: Any) -> None:
    document["iterations"].reverse()


def a_fault_with_processor_time(document: Any) -> None:
    document["iterations"][0]["fault"] = "ended with exit code 1"


FIRST = "run, hint 1 s, cap 32, round 0: "


@pytest.mark.parametrize(
    ("breaking", "fault"),
    [
        (better, "the summaries do not follow from the iterations"),
        (praised, "the verdicts do not follow from the iterations"),
        (more_than_all, "sdk-retries, hint 1 s, cap 32, round 0: utilisation is 1.2"),
        (rows_out_of_nothing, f"{FIRST}101 rows finished and 0 lost of 100"),
        (
            rows_that_the_provider_never_saw,
            f"{FIRST}it says that 100 rows are finished, and the provider finished 99",
        ),
        (calls_without_an_end, f"{FIRST}202 attempts, but 2 + 199 + 0 ends"),
        (a_slow_provider, f"{FIRST}the provider answered up to 0.200 s late, which is part of what was measured"),
        (a_fault_with_processor_time, f"{FIRST}a client that came to its end has processor time, and only such a one"),
        (a_round_missing, "not everybody ran the same rounds at every point"),
        (two_rounds, "fewer than 3 rounds"),
        (another_version, "artifact_schema_version is '0', not '1'"),
        (another_scenario_version, "scenario_version is '0', not '1'"),
        (no_rows_said, "inputs lack rows"),
        (nobody_ran, "there are no iterations"),
        (an_unknown_client, "there is no sha of run"),
        (out_of_order, "the order of the iterations is not the order in which they are listed"),
    ],
)
def test_a_broken_artifact_is_refused(tmp_path: Path, breaking: Callable[[Any], None], fault: str) -> None:
    path = tmp_path / "race.json"
    write_artifact(raced(), path)
    document = json.loads(path.read_text(encoding="utf-8"))
    breaking(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    assert fault in check_file(path)


def test_the_tables_show_means_rounds_and_what_is_lost() -> None:
    assert results(raced(), depth=3).splitlines() == [
        "### hint 1 s, cap 32",
        "",
        "| client | utilisation | refused | rows lost | rows a second | wall, s | processor, s | memory, MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| run | 0.890 (0.900, 0.900, 0.870) | 1.0% | 0 | 10.0 | 10.0 | 1.50 | 60.0 |",
        "| sdk-retries | 0.950 | 1.0% | 5 | 9.5 | 10.0 | 1.50 | 60.0 |",
        "| inspect-ai | 0.700 (0.700, 0.600, 0.800) | 1.0% | 0 | 10.0 | 10.0 | 1.50 | 60.0 |",
    ]


def test_a_client_that_did_not_come_to_its_end_has_a_mark() -> None:
    stopped = [
        attrs.evolve(each, fault="not over after 240 s", processor_seconds=None, peak_memory_megabytes=None)
        for each in raced().iterations
        if each.candidate == "run"
    ]
    assert results(artifact(stopped), depth=3).splitlines()[-1] == (
        "| run (not over after 240 s) | 0.890 (0.900, 0.900, 0.870) | 1.0% | 0 | 10.0 | 10.0 |  |  |"
    )


def test_the_summary_says_what_was_run(tmp_path: Path) -> None:
    text = summary(raced())
    assert (
        "- provider, hint 1 s: calls of 0.3 s; 24 calls at once for 10 s, then 8 calls at once for 10 s, then 24; "
        "429 above"
    ) in text
    assert "| run | a pipeline of this project | " + "a" * 40 + " | trio 0.35.0 |" in text
    assert "| run | hint 1 s, cap 32 | utilisation at least 0.86 | 0.890 | met |" in text
    write_artifact(raced(), tmp_path / "race.json")
    rows = list(csv.DictReader(report(tmp_path / "race.json")[tmp_path / "race.csv"].splitlines()))
    assert [(row["candidate"], row["round"], row["provider_utilisation"]) for row in rows[:2]] == [
        ("run", "0", "0.9"),
        ("sdk-retries", "0", "0.95"),
    ]


def test_the_smoke_run_races_real_clients_and_writes_a_complete_artifact(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--smoke", "--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["race.csv", "race.json", "summary.md"]
    found = read(tmp_path / "race.json")
    assert {each.candidate for each in found.iterations} == {"run", "admission", "sdk-retries"}
    assert [each.rows_lost for each in found.iterations if each.candidate in ("run", "admission")] == [0, 0]
    assert found.environment.command_line == ("python", "-m", "benchmarks.race", "--smoke", "--out", "FOLDER")
    assert "| run | 0." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs", "0"], "rounds must be above 0, not 0"),
        (["--caps", "32", "0"], "caps must be above 0, not (32, 0)"),
        (["--smoke", "--clients", "nobody"], "there is no client 'nobody'; there are run, admission, "),
    ],
)
def test_what_cannot_be_asked_is_said(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"benchmarks.race: {message}")


def test_an_environment_for_a_python_that_is_not_there_is_refused() -> None:
    with pytest.raises(BenchmarkError, match=r"^no Python 3\.99 or later was found$"):
        environments.python_with("race-nobody", (), least_python=(3, 99))


def test_what_is_committed_is_complete() -> None:
    assert check_file(RESULTS / "race.json") == []

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from harness_samples import artifact, rounds

from benchmarks.artifact import Artifact, DerivedMetrics, Iteration, TimelineEntry, read_artifact, write_artifact
from benchmarks.deriving import derive
from benchmarks.schema import check_file, findings

RUN = rounds(peer=[70_000.0] * 5, here=[50.0] * 5, floor=[20.0] * 5)


def broken(folder: Path, breaking: Callable[[Any], None]) -> list[str]:
    """The faults that are found after `breaking` a good artifact."""
    path = folder / "broken.json"
    write_artifact(artifact(RUN), path)
    document = json.loads(path.read_text(encoding="utf-8"))
    breaking(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    return check_file(path)


def test_it_reads_back_to_an_equal_artifact(tmp_path: Path) -> None:
    path, again = tmp_path / "good.json", tmp_path / "again.json"
    write_artifact(artifact(RUN), path)
    read = read_artifact(path)
    assert read.iterations == RUN
    write_artifact(read, again)
    assert read_artifact(again) == read
    assert check_file(path) == []


def test_numbers_are_written_to_six_digits(tmp_path: Path) -> None:
    path = tmp_path / "rounded.json"
    write_artifact(artifact(rounds(here=[10 / 3] * 5)), path)
    assert read_artifact(path).iterations[0].metrics == {"request_cpu_us": 3.33333}


def test_the_fields_are_those_of_the_specification(tmp_path: Path) -> None:
    path = tmp_path / "good.json"
    write_artifact(artifact(RUN), path)
    document = json.loads(path.read_text(encoding="utf-8"))
    assert list(document)[:12] == [
        "scenario_id",
        "artifact_schema_version",
        "scenario_version",
        "harness_version",
        "baseline_sha",
        "candidate_sha",
        "inputs",
        "provider_script",
        "clock_script",
        "capacity_plan",
        "iterations",
        "derived_metrics",
    ]
    assert {
        "wall_time_seconds",
        "timeline",
        "final_task_snapshot",
        "final_request_snapshot",
        "output_hashes",
    } <= document["iterations"][0].keys()
    assert [field.name for field in attrs.fields(TimelineEntry)] == [
        "event_kind",
        "captured_at_monotonic",
        "stream",
        "sequence",
        "captured_correlation",
        "task_id",
        "task_execution_id",
        "task_lease_id",
        "request_attempt_id",
        "request_lease_id",
        "scheduler_resource_key",
        "request_resource_key",
        "reason_or_outcome",
    ]


@pytest.mark.parametrize("name", [field.name for field in attrs.fields(Artifact)])
def test_no_field_may_be_missing(tmp_path: Path, name: str) -> None:
    def remove(document: Any) -> None:
        del document[name]

    assert broken(tmp_path, remove) == [f"required field missing @ artifact.{name}"]


@pytest.mark.parametrize("name", [field.name for field in attrs.fields(Iteration)])
def test_no_field_of_an_iteration_may_be_missing(tmp_path: Path, name: str) -> None:
    def remove(document: Any) -> None:
        del document["iterations"][2][name]

    assert broken(tmp_path, remove) == [f"required field missing @ artifact.iterations[2].{name}"]


@pytest.mark.parametrize(
    "name", [field.name for field in attrs.fields(TimelineEntry) if field.default is attrs.NOTHING]
)
def test_no_field_of_a_timeline_entry_may_be_missing(tmp_path: Path, name: str) -> None:
    def remove(document: Any) -> None:
        entry = {"event_kind": "selected", "captured_at_monotonic": 0.0, "stream": "scheduler", "sequence": 1}
        document["iterations"][0]["timeline"] = [entry]
        del entry[name]

    assert broken(tmp_path, remove) == [f"required field missing @ artifact.iterations[0].timeline[0].{name}"]


def drop_a_field(document: Any) -> None:
    del document["iterations"][3]["output_hashes"]


def add_a_field(document: Any) -> None:
    document["surprise"] = 1


def a_string_for_a_number(document: Any) -> None:
    document["iterations"][0]["wall_time_seconds"] = "fast"


def a_number_for_an_object(document: Any) -> None:
    document["iterations"][0]["final_request_snapshot"] = 0


def an_unknown_verdict(document: Any) -> None:
    document["derived_metrics"]["comparisons"][0]["ahead"] = "obviously"


def another_version(document: Any) -> None:
    document["artifact_schema_version"] = "0"


def no_sha(document: Any) -> None:
    document["candidate_sha"] = ""


def no_iterations(document: Any) -> None:
    document["iterations"] = []


def too_few_iterations(document: Any) -> None:
    document["iterations"] = document["iterations"][:6]


def one_missing(document: Any) -> None:
    del document["iterations"][-1]


def one_twice(document: Any) -> None:
    document["iterations"][3]["index"] = 0


def a_leak(document: Any) -> None:
    document["iterations"][1]["final_request_snapshot"]["leased"] = 1


def another_hash(document: Any) -> None:
    document["iterations"][1]["output_hashes"]["served"] = "other"


def a_better_figure(document: Any) -> None:
    document["iterations"][1]["metrics"]["request_cpu_us"] = 5.0


def a_better_verdict(document: Any) -> None:
    next(each for each in document["derived_metrics"]["budgets"] if each["budget_id"] == "request-2000-time")[
        "verdict"
    ] = "shown"


def a_negative_time(document: Any) -> None:
    document["iterations"][0]["cpu_time_seconds"] = -1.0


def a_lease_without_an_attempt(document: Any) -> None:
    document["iterations"][1]["counts"] |= {"outbound_attempts": 5, "request_leases": 6}


def a_lease_that_was_kept(document: Any) -> None:
    document["iterations"][1]["counts"] |= {"task_leases": 6, "task_leases_released": 5}


def a_request_out_of_order(document: Any) -> None:
    entry = {"event_kind": "selected", "captured_at_monotonic": 0.0, "stream": "scheduler", "sequence": 1}
    document["iterations"][1] |= {"timeline": [entry]}
    document["iterations"][1]["counts"] |= {"requests_out_of_order": 1}


def an_idle_gap(document: Any) -> None:
    document["iterations"][1]["metrics"] |= {"simulated_seconds": 1.0, "ready_idle_gap_seconds": 0.5}


def a_hidden_waiter(document: Any) -> None:
    document["iterations"][1]["metrics"] |= {"hidden_scheduler_resource_waiters": 1.0}


def a_root_in_debt(document: Any) -> None:
    document["iterations"][1]["metrics"] |= {"root_over_admission_while_others_wait": 1.0}


def an_unknown_scenario(document: Any) -> None:
    document["scenario_id"] = "surprise"


def somebody_unknown(document: Any) -> None:
    del document["candidate_shas"]["floor"]


@pytest.mark.parametrize(
    ("breaking", "fault"),
    [
        (drop_a_field, "required field missing @ artifact.iterations[3].output_hashes"),
        (add_a_field, "extra fields found (surprise) @ artifact"),
        (a_string_for_a_number, "invalid value for type, expected float @ artifact.iterations[0].wall_time_seconds"),
        (
            a_number_for_an_object,
            "invalid value for type, expected Optional @ artifact.iterations[0].final_request_snapshot",
        ),
        (an_unknown_verdict, "@ artifact.derived_metrics.comparisons[0].ahead"),
        (another_version, "artifact_schema_version is '0', not '1'"),
        (no_sha, "candidate_sha is empty"),
        (an_unknown_scenario, "there is no scenario 'surprise'"),
        (no_iterations, "there are no iterations"),
        (too_few_iterations, "fewer than 5 measured iterations"),
        (one_missing, "the candidates do not have equally many iterations"),
        (one_twice, "iteration 0 of peer at {'callers': 2000} is there 2 times"),
        (a_leak, "the gate 'no lease and no waiter left' is broken: here leased 1"),
        (another_hash, "the gate 'equal hashes' is broken: served at {'callers': 2000}"),
        (a_better_figure, "the summaries do not follow from the iterations"),
        (a_better_verdict, "the verdicts on the budgets do not follow from the iterations"),
        (a_negative_time, "cpu_time_seconds of peer in iteration 0 is -1.0"),
        (somebody_unknown, "there is no sha of floor"),
        (a_lease_without_an_attempt, "the gate 'request leases equal outbound attempts' is broken: here at"),
        (a_lease_that_was_kept, "the gate 'every lease is given back' is broken: here at"),
        (a_request_out_of_order, "the gate 'monotonic timelines' is broken: requests_out_of_order 1 at"),
        (an_idle_gap, "the gate 'no ready-idle gap in simulated time' is broken: here at"),
        (a_hidden_waiter, "the gate 'no hidden waiter' is broken: here at"),
        (a_root_in_debt, "the gate 'root debt within the bound' is broken: here at"),
    ],
)
def test_a_broken_artifact_is_refused(tmp_path: Path, breaking: Callable[[Any], None], fault: str) -> None:
    assert any(fault in found for found in broken(tmp_path, breaking)), broken(tmp_path, breaking)


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.json"
    path.write_text("no", encoding="utf-8")
    assert check_file(path)[0].startswith("it is no JSON: ")


def test_a_scenario_says_how_few_iterations_are_enough() -> None:
    one = rounds(here=[50.0])
    assert "fewer than 5 measured iterations" in list(findings(artifact(one)))
    assert list(findings(attrs.evolve(artifact(one), scenario_id="soak", derived_metrics=derived_of(one)))) == []


def derived_of(iterations: tuple[Iteration, ...]) -> DerivedMetrics:
    inputs = artifact(iterations).inputs
    return derive("soak", iterations, inputs=inputs, skipped=(), noise=None)


def test_smoke_needs_no_five_iterations_but_equal_counts() -> None:
    two = rounds(here=[50.0, 60.0])
    assert list(findings(artifact(two, profile="smoke"))) == []
    odd = (*two[:1], attrs.evolve(two[1], counts={"served": 1_999, "peak_in_flight": 64}))
    assert list(findings(artifact(odd, profile="smoke"))) == [
        "the gate 'counts repeat' is broken: served at {'callers': 2000}: [1999, 2000]"
    ]


RESULTS = sorted((Path(__file__).parents[2] / "benchmarks" / "results").glob("*.json"))


def test_there_are_results() -> None:
    assert {path.name for path in RESULTS} >= {"requests-budgets.json", "tasks-budgets.json"}


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_the_committed_results_are_complete(path: Path) -> None:
    assert check_file(path) == []
    text = path.read_text(encoding="utf-8")
    assert not [place for place in ("/home/", "/tmp/", "/Users/") if place in text]

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from benchmarks.errors import UsageError
from benchmarks.inputs import Inputs
from benchmarks.scenarios import ALL
from benchmarks.workloads import simulated_floor, simulated_here
from benchmarks.workloads.outcome import Json, Outcome, RefusedError
from benchmarks.workloads.simulated_pipelines import PIPELINES, PipelineSpec
from benchmarks.workloads.simulated_time import in_simulated_time
from benchmarks.workloads.simulated_world import RefusedCallError, World

SIMULATED = [ALL[name] for name in ("heavy_root", "hidden_waiters", "utilisation", "end_to_end")]


def told(pipeline: str, inputs: Inputs | None = None, records: int | None = 40) -> dict[str, Json]:
    scenario = next(each for each in SIMULATED if pipeline in each.axes["pipeline"])
    params = scenario.params(inputs or Inputs(), {"pipeline": pipeline}, False)
    return {**params, "records": records}


def here(pipeline: str) -> Outcome:
    return simulated_here.prepare(told(pipeline))(False)


def test_every_pipeline_belongs_to_one_scenario() -> None:
    assert sorted(name for each in SIMULATED for name in each.axes["pipeline"]) == sorted(PIPELINES)


@pytest.mark.parametrize("pipeline", ["success", "failure", "cancellation", "salvage"])
def test_nobody_runs_without_a_lease_however_it_ends(pipeline: str) -> None:
    outcome = here(pipeline)
    assert outcome.metrics["hidden_scheduler_resource_waiters"] == 0
    assert outcome.counts["task_leases"] == outcome.counts["task_leases_released"] > 0
    assert outcome.counts["request_leases"] == outcome.counts["outbound_attempts"] > 0
    assert outcome.counts["requests_out_of_order"] == outcome.counts["streams_out_of_order"] == 0
    left = outcome.final_request_snapshot
    assert left is not None
    assert (left["leased"], left["waiters"]) == (0, 0)
    assert left["resources"]["simulated/model/chat"]["in_flight_count"] == 0  # type: ignore[index,call-overload]  # JSON


def test_each_ending_is_what_its_name_says() -> None:
    assert here("success").counts["rows"] == 40
    failed = here("failure").counts
    assert (failed["rows"], failed["rows_lost"]) == (34, 0)
    cancelled = here("cancellation")
    assert cancelled.counts["rows"] == 0
    assert cancelled.metrics["simulated_seconds"] == 3.0
    salvaged = here("salvage").counts
    assert (salvaged["rows"], salvaged["rows_lost"]) == (40, 0)
    assert salvaged["refused_attempts"] > 0
    assert salvaged["request_leases"] > 40, "nothing was asked a second time"


@pytest.mark.parametrize("pipeline", ["heavy root", "generate to judge", "zero to four calls"])
def test_bare_trio_computes_the_same(pipeline: str) -> None:
    ours, floor = here(pipeline), simulated_floor.prepare(told(pipeline))(False)
    assert ours.output_hashes == floor.output_hashes != {}
    assert ours.counts["outbound_attempts"] == floor.counts["outbound_attempts"]


def test_the_heavy_root_reports_what_is_asked_of_it() -> None:
    metrics = here("heavy root").metrics
    assert metrics["first_downstream_ready_seconds"] == 5.0
    assert metrics["first_record_seconds"] == pytest.approx(5.2)
    assert metrics["half_of_records_seconds"] <= metrics["row_completion_p95_seconds"] <= metrics["simulated_seconds"]
    assert metrics["ready_idle_gap_seconds[root, submission]"] == 0
    assert metrics["root_over_admission_while_others_wait"] == 0


def test_a_timeline_is_cut_after_it_was_looked_at() -> None:
    outcome = here("success")
    assert len(outcome.timeline) == 60 < outcome.counts["timeline_entries"]


def test_bare_trio_has_nothing_to_cancel() -> None:
    with pytest.raises(RefusedError, match=r"^bare Trio has no leases to give back$"):
        simulated_floor.prepare(told("cancellation"))


def world_of(spec: PipelineSpec) -> World:
    return World(spec, trio.current_time, trio.sleep)


def test_a_provider_refuses_while_its_script_says_so() -> None:
    async def main() -> list[str]:
        world = world_of(PIPELINES["salvage"])
        told: list[str] = []
        for pause in (0.0, 2.0, 4.0):
            await trio.sleep(pause)
            try:
                told.append(await world.attempt("model", "prompt", 1))
            except RefusedCallError as refusal:
                told.append(refusal.headers["retry-after"])
        return told

    assert in_simulated_time(main, 0) == ["model answers prompt", "1", "model answers prompt"]


def test_latencies_and_scripts_reach_the_workers(tmp_path: Path) -> None:
    params = told("success", Inputs(latency={"model": 7.0}))
    assert params["provider_script"]["model"]["seconds"] == 7.0  # type: ignore[index,call-overload]  # JSON
    script = {"success": {"model": {"cap": 1, "seconds": 2.0, "refusals": None, "broken_attempts": 0}}}
    provider, clock = tmp_path / "provider.json", tmp_path / "clock.json"
    provider.write_text(json.dumps(script), encoding="utf-8")
    clock.write_text('{"order_seed": 9}', encoding="utf-8")
    params = told("success", Inputs(provider_script=provider, clock_script=clock))
    assert params["provider_script"] == script["success"]
    assert params["order_seed"] == 9
    slow = simulated_here.prepare(params)(False)
    assert slow.metrics["simulated_seconds"] > 100


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", r"^script.json says nothing of 'success'$"),
        ('{"success": 5}', r"^script.json holds 5 where an object is wanted$"),
        ('{"success": {"other": {}}}', r"^--provider-script must name the providers model of 'success'$"),
    ],
)
def test_a_script_that_does_not_fit_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "script.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        told("success", Inputs(provider_script=path))


def test_the_latency_of_nobody_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^--latency takes NAME=SECONDS of a provider, and 'nobody' is the name of"):
        told("success", Inputs(latency={"nobody": 1.0}))

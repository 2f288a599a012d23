from __future__ import annotations

import pytest

from benchmarks.inputs import Inputs
from benchmarks.scenarios import ALL
from benchmarks.scenarios.soak import LOADS
from benchmarks.workloads import events_here, soak_here
from benchmarks.workloads.memory import growth, resident
from benchmarks.workloads.outcome import Json, Outcome


def test_growth_is_that_of_the_last_fifth_above_the_second() -> None:
    assert growth([0, 0, 100, 100, 100, 100, 100, 100, 100, 100]) == 0
    assert growth([0, 0, 100, 100, 100, 100, 100, 100, 130, 130]) == 30
    assert growth([0, 0, 100, 100, 100, 100, 100, 100, 60, 60]) == 0
    assert growth([7]) == growth([]) == 0


def test_this_process_has_memory() -> None:
    assert 1_000_000 < resident() <= resident("VmHWM")


def told(load: str, **changes: Json) -> dict[str, Json]:
    return {**ALL["soak"].params(Inputs(), {"load": load}, True), **changes}


def run(load: str, **changes: Json) -> Outcome:
    return soak_here.prepare(told(load, **changes))(False)


@pytest.mark.parametrize(
    ("load", "rows", "row_groups"), [("million rows", 2_000, 100), ("300 thousand tasks", 200, 20)]
)
def test_a_long_run_is_sampled_once_for_each_row_group(load: str, rows: int, row_groups: int) -> None:
    outcome = run(load)
    assert outcome.counts == {"rows": rows, "samples": row_groups}
    assert {"memory_above_start_mb", "memory_growth_mb", "task_us", "task_cpu_us"} == outcome.metrics.keys()
    assert outcome.final_task_snapshot == {"leased": 0}


def test_preparing_stops_before_the_rows() -> None:
    outcome = run("million row groups")
    assert outcome.counts["rows"] == 0
    assert outcome.metrics.keys() == {"memory_above_start_mb", "preparation_seconds"}
    assert told("million row groups")["records"] == LOADS["million row groups"]["records"]


@pytest.mark.parametrize(("sink", "delivered"), [("nobody", 0), ("unwanted", 0), ("memory", 12_000), ("jsonl", 12_000)])
def test_events_reach_whoever_wants_them(sink: str, delivered: int) -> None:
    outcome = events_here.prepare({"sink": sink, "events": 12_000})(False)
    assert outcome.counts == {"emitted": 12_000, "delivered": delivered}

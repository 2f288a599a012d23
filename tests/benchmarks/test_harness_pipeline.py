from __future__ import annotations

import pytest

from benchmarks.workloads import pipeline_floor
from benchmarks.workloads.outcome import Outcome, Params
from benchmarks.workloads.pipeline_here import prepare
from benchmarks.workloads.samples import rows_hash

SIZES: Params = {"records": 40, "buffer_size": 10, "row_group_concurrency": 2, "task_capacity": 64}


def outcome(events: str) -> Outcome:
    return prepare({**SIZES, "events": events})(False)


def test_without_a_sink_a_task_is_all_that_is_measured() -> None:
    found = outcome("off")
    assert found.counts == {"rows": 40}
    assert found.metrics.keys() == {"task_us", "task_cpu_us"}


@pytest.mark.parametrize("events", ["memory", "jsonl", "documents"])
def test_every_event_of_a_run_is_counted_whoever_gets_it(events: str) -> None:
    found = outcome(events)
    # A cell is queued, selected, leased, run, completed and released; the root and the run add some.
    assert found.counts["events"] > 6 * 3 * 40
    assert {"with_sink", "event_us", "event_cpu_us"} <= found.metrics.keys()


def test_who_wants_no_event_gets_none() -> None:
    found = outcome("unwanted")
    assert found.counts["events"] == 0
    assert "event_us" not in found.metrics


def test_all_compute_the_same() -> None:
    hashes = {outcome(events).output_hashes["rows"] for events in ("off", "unwanted", "jsonl", "documents")}
    assert hashes == {pipeline_floor.prepare(SIZES)(False).output_hashes["rows"]}


def test_the_hash_of_rows_looks_at_nothing_but_the_rows() -> None:
    rows = [{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 1, "b": 3}]
    assert rows_hash(rows) == rows_hash([{"b": 3, "a": 1}, {"b": 2, "a": 1}, {"b": 3, "a": 1}])
    others = (rows[:0], rows[:2], [*rows, rows[0]], [{"a": 2, "b": 2}, *rows[1:]])
    assert len({rows_hash(rows), *map(rows_hash, others)}) == 5

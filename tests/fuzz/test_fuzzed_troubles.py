"""Datasets drawn from a seed, with troubles of their endpoints drawn from it: only a row's own failures cost it.

`TRIO_SCHED_FUZZ` and `TRIO_SCHED_FUZZ_SEEDS=first:end` choose the seeds, as for the pipelines beside.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from pathlib import Path

import pytest
import trio
from fuzzed_troubles import MOST_ATTEMPTS, Dataset, draw_dataset
from sequential import rows_sequentially

import trio_sched as ts
from trio_sched._events.records import JsonValue

PROFILE = os.environ.get("TRIO_SCHED_FUZZ", "normal")
SEEDS = {"quick": range(10), "normal": range(40), "bounded": range(40, 200), "full": range(2000)}
STOPS = ("endpoint_not_answering", "endpoint_closed")


def seeds() -> range:
    first, _, end = os.environ.get("TRIO_SCHED_FUZZ_SEEDS", "").partition(":")
    if first:
        return range(int(first), int(end) if end else int(first) + 1)
    return SEEDS[PROFILE]


@pytest.mark.parametrize("seed", seeds())
def test_only_a_rows_own_failures_cost_it(seed: int) -> None:
    dataset = draw_dataset(seed)
    expected = trio.run(expected_rows, dataset)
    with tempfile.TemporaryDirectory() as folder:
        result, made = run_to_its_end(dataset, expected, Path(folder) / "out")
    assert made == expected
    if result.status == "completed":
        assert result.dropped == len(dataset.rows) - len(expected)
    else:
        # Nothing but rows that are never answered is left, and so nothing that shows that the endpoint answers.
        assert result.stop_reason == "endpoint_not_answering"
        left = len(dataset.rows) - len(expected) - result.dropped
        assert left <= sum(map(len, dataset.unanswered))


def run_to_its_end(
    dataset: Dataset, expected: list[dict[str, object]], output: Path
) -> tuple[ts.RunResult, list[dict[str, JsonValue]]]:
    """Run and resume until nothing is left, or as often as is allowed; the last result, and the rows."""
    for attempt in itertools.count(1):
        result = dataset.run(output, attempt - 1)
        made = list(result.rows())
        assert result.leaks == ()
        assert all(row in expected for row in made)
        assert result.records == len(made)
        assert result.dropped <= len(dataset.rows) - len(expected)
        if result.status == "completed" or attempt == MOST_ATTEMPTS:
            return result, made
        assert result.status == "stopped"
        assert result.stop_reason in STOPS
    raise AssertionError("unreachable")


async def expected_rows(dataset: Dataset) -> list[dict[str, object]]:
    """The rows of a sequential run whose endpoints fail for no other reason than the row."""
    steps = dataset.steps(dataset.endpoints(None))
    return await rows_sequentially(
        steps, records=len(dataset.rows), rows=dataset.rows, buffer_size=dataset.config.buffer_size
    )

"""Datasets drawn from a seed, with troubles of their endpoints drawn from it: only a row's own failures cost it.

`TRIO_SCHED_FUZZ` and `TRIO_SCHED_FUZZ_SEEDS=first:end` choose the seeds, as for the pipelines beside.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
import trio
from fuzzed_troubles import MOST_ATTEMPTS, Dataset, draw_dataset
from sequential import rows_sequentially

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
        output = Path(folder) / "out"
        for attempt in range(MOST_ATTEMPTS):
            result = dataset.run(output, attempt)
            told = (result.status, result.stop_reason)
            assert result.leaks == ()
            made = list(result.rows())
            assert all(row in expected for row in made)
            assert result.records == len(made)
            assert result.dropped <= len(dataset.rows) - len(expected)
            if told == ("completed", None):
                break
            assert told[0] == "stopped"
            assert told[1] in STOPS
        assert made == expected
        if told[0] == "completed":
            assert result.dropped == len(dataset.rows) - len(expected)
        else:
            # Nothing but rows that are never answered is left, and so nothing that shows that the endpoint answers.
            assert told[1] == "endpoint_not_answering"
            left = len(dataset.rows) - len(expected) - result.dropped
            assert left <= sum(map(len, dataset.unanswered))


async def expected_rows(dataset: Dataset) -> list[dict[str, object]]:
    """The rows of a sequential run whose endpoints fail for no other reason than the row."""
    steps = dataset.steps(dataset.endpoints(None))
    return await rows_sequentially(
        steps, records=len(dataset.rows), rows=dataset.rows, buffer_size=dataset.config.buffer_size
    )

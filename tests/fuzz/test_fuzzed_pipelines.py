"""Whole pipelines drawn from a seed, with faults drawn from it: nothing leaks, and the data are those of a plain run.

`TRIO_SCHED_FUZZ` says how many seeds, `TRIO_SCHED_FUZZ_SEEDS=first:end` says which. The seeds of a profile are always
the same, so that what fails once fails everywhere; other ranges are what finds more.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from fuzzed_invariants import check_attempt, check_data
from fuzzed_run import FuzzedRun, in_seeded_order, simulated

PROFILE = os.environ.get("TRIO_SCHED_FUZZ", "normal")
SEEDS = {"quick": range(10), "normal": range(60), "bounded": range(60, 300), "full": range(2000)}
"""Of each profile; `bounded` tries what `normal` has not tried."""


def seeds() -> range:
    first, _, end = os.environ.get("TRIO_SCHED_FUZZ_SEEDS", "").partition(":")
    if first:
        return range(int(first), int(end) if end else int(first) + 1)
    return SEEDS[PROFILE]


async def run_and_check(seed: int, output: Path) -> None:
    run = FuzzedRun.of(seed)
    attempts = await run.attempts(output)
    for attempt in attempts:
        check_attempt(attempt)
    check_data(run, output, attempts, await run.expected())


@pytest.mark.parametrize("seed", seeds())
def test_any_pipeline_with_any_faults_gives_the_rows_of_a_plain_run(seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder, in_seeded_order(seed):
        try:
            simulated(run_and_check, seed, Path(folder) / "out")
        except BaseException as error:
            print(f"seed {seed} failed with {error!r}; replay it with\n  {replay_command(seed)}")
            raise


def replay_command(seed: int) -> str:
    return f"TRIO_SCHED_FUZZ_SEEDS={seed} python -m pytest tests/fuzz/test_fuzzed_pipelines.py"


@pytest.mark.parametrize("seed", [3, 11])
def test_a_seed_gives_the_same_run_again(seed: int) -> None:
    assert told_by(seed) == told_by(seed)


def told_by(seed: int) -> list[object]:
    told: list[object] = []

    async def main(output: Path) -> None:
        for attempt in await FuzzedRun.of(seed).attempts(output):
            told.extend((event.event_kind, event.task_id) for event in attempt.sink.scheduler_events)
            told.extend((event.event_kind, event.captured_at_monotonic) for event in attempt.sink.request_events)

    with tempfile.TemporaryDirectory() as folder, in_seeded_order(seed):
        simulated(main, Path(folder) / "out")
    assert told
    return told

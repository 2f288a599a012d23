"""A small run with everything in it, on simulated time: two endpoints, rate limits, an outage, a dropped row."""

from __future__ import annotations

import math
from pathlib import Path

import trio

import trio_sched as ts
from trio_sched.lowlevel import InMemoryAdmissionEventSink
from trio_sched.testing import simulate

__all__ = ["SECRET", "SampleRun", "sample_run"]

SECRET = "never-in-a-file"
WRITER = ts.Model("alpha", "writer", max_parallel_requests=6)
ACCEPTED = 3
"""Calls that the writer accepts at once."""
OUTAGE = (4.0, 6.0)
"""Seconds between which it refuses everything."""
JUDGE = ts.Model("beta", "judge", max_parallel_requests=2)


class RateLimitError(Exception):
    status_code = 429


class SampleRun:
    """What a sample run left: its folder, its result, and its events as they were emitted."""

    def __init__(self, folder: Path, result: ts.RunResult, events: InMemoryAdmissionEventSink) -> None:
        self.folder = folder
        self.result = result
        self.events = events


def sample_run(folder: Path, *, records: int = 12, seed: int = 0) -> SampleRun:
    """Run it into `folder`. The writer accepts half of its cap, and for a while nothing; one row fails for good."""
    writing = 0

    @ts.from_scratch_column()
    async def number(span: ts.RowSpan) -> list[int]:
        return list(range(span.start, span.start + span.count))

    async def reply(n: int) -> str:
        await trio.sleep(1 + math.sin(n + seed) / 2)
        if n == 7:
            raise ValueError(SECRET)
        return f"{SECRET} {n}"

    async def write(n: int) -> str:
        nonlocal writing
        if writing >= ACCEPTED or OUTAGE[0] <= trio.current_time() < OUTAGE[1]:
            await trio.sleep(0.05)
            raise RateLimitError(SECRET)
        writing += 1
        try:
            return await reply(n)
        finally:
            writing -= 1

    @ts.column(needs=["number"], model=WRITER)
    async def draft(row: dict[str, int], model: ts.ModelHandle) -> str:
        return await model.call(write, row["number"])

    @ts.column(needs=["number", "draft"], model=JUDGE)
    async def verdict(row: dict[str, int], model: ts.ModelHandle) -> str:
        return await model.call(reply, row["number"])

    events = InMemoryAdmissionEventSink()
    config = ts.RunConfig(buffer_size=4, max_concurrent_row_groups=2, write_events="all")
    steps = [number, draft, verdict]
    return SampleRun(folder, simulate(steps, records=records, output=folder, config=config, event_sink=events), events)

"""A small run with everything in it, on simulated time: two endpoints, rate limits, a dropped row, several groups."""

from __future__ import annotations

import math
from pathlib import Path

import trio
import trio.testing

import trio_sched as ts
from trio_sched.lowlevel import InMemoryAdmissionEventSink, inline

__all__ = ["SECRET", "SampleRun", "sample_run"]

SECRET = "never-in-a-file"
WRITER = ts.Model("alpha", "writer", max_parallel_requests=3)
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
    """Run it into `folder`. The writer refuses its first calls; one row fails for good."""
    refusals = iter([False, True, True] + [False] * 4 + [True])

    @ts.from_scratch_column()
    async def number(span: ts.RowSpan) -> list[int]:
        return list(range(span.start, span.start + span.count))

    async def reply(n: int) -> str:
        await trio.sleep(1 + math.sin(n + seed) / 2)
        if next(refusals, False):
            raise RateLimitError(SECRET)
        if n == 7:
            raise ValueError(SECRET)
        return f"{SECRET} {n}"

    @ts.column(needs=["number"], model=WRITER)
    async def draft(row: dict[str, int], model: ts.ModelHandle) -> str:
        return await model.call(reply, row["number"])

    @ts.column(needs=["number", "draft"], model=JUDGE)
    async def verdict(row: dict[str, int], model: ts.ModelHandle) -> str:
        return await model.call(reply, row["number"])

    async def main() -> SampleRun:
        events = InMemoryAdmissionEventSink()
        config = ts.RunConfig(buffer_size=4, max_concurrent_row_groups=2)
        result = await ts.run(
            [number, draft, verdict], records=records, output=folder, config=config, event_sink=events, blocking=inline
        )
        return SampleRun(folder, result, events)

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

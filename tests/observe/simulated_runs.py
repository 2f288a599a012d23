"""Small pipelines on the mock clock, with faults drawn from a seed: what the readers of events are tried on."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

import attrs
import trio
import trio.testing

import trio_sched as ts
from trio_sched.lowlevel import InMemoryAdmissionEventSink, inline


class RateLimitError(Exception):
    status_code = 429


class ServerError(Exception):
    status_code = 500


def mocked(main: Callable[[], Awaitable[None]]) -> None:
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@attrs.frozen
class FaultyRun:
    """A pipeline of a slow root, two columns that call models, and a local one. Everything follows from the seed."""

    seed: int
    records: int = 12
    buffer_size: int = 4
    cap: int = 2
    cancel_after: float | None = None
    write_events: Literal["all", "summary", "none"] = "all"

    async def run(self, out: Path) -> InMemoryAdmissionEventSink:
        """Run it into `out`, and give both its streams."""
        rng = random.Random(self.seed)
        first = ts.Model("here", "first", max_parallel_requests=self.cap)
        second = ts.Model("there", "second", max_parallel_requests=self.cap + 1)

        @ts.from_scratch_column()
        async def number(span: ts.RowSpan) -> list[int]:
            await trio.sleep(rng.choice((0, 0.5, 3)))
            return list(range(span.start, span.start + span.count))

        async def answer(value: int) -> int:
            await trio.sleep(rng.choice((0, 0.1, 1, 2.5)))
            fault = rng.random()
            if fault < 0.15:
                raise RateLimitError
            if fault < 0.2:
                raise ServerError
            if fault < 0.25:
                raise LookupError
            return value

        @ts.column(needs=["number"], model=first)
        async def called(row: dict[str, int], model: ts.ModelHandle) -> int:
            return await model.call(answer, row["number"])

        @ts.column(needs=["called"], model=[first, second])
        async def judged(row: dict[str, int], one: ts.ModelHandle, other: ts.ModelHandle) -> int:
            values: list[int] = []

            async def ask(model: ts.ModelHandle) -> None:
                values.append(await model.call(answer, row["called"]))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, one)
                nursery.start_soon(ask, other)
            return sum(values)

        @ts.column(needs=["called"])
        async def counted(row: dict[str, int]) -> int:
            await trio.sleep(rng.choice((0, 0.2)))
            return row["called"]

        sink = InMemoryAdmissionEventSink()
        with trio.move_on_after(float("inf") if self.cancel_after is None else self.cancel_after):
            await ts.run(
                [number, called, judged, counted],
                records=self.records,
                output=out,
                config=ts.RunConfig(buffer_size=self.buffer_size, write_events=self.write_events),
                event_sink=sink,
                blocking=inline,
            )
        return sink

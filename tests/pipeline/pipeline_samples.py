"""What the tests of columns share: small columns, and a run of them in simulated time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path

import trio
import trio.testing

import trio_sched as ts
from trio_sched.lowlevel import inline

Row = dict[str, object]


@ts.from_scratch_column()
async def number(span: ts.RowSpan) -> list[int]:
    return list(range(span.start, span.start + span.count))


def mocked(main: Callable[[], Awaitable[None]]) -> None:
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def simulate(
    columns: Sequence[ts.PipelineStep],
    output: Path,
    *,
    records: int | None = None,
    rows: Iterable[Mapping[str, object]] | None = None,
    buffer_size: int = 100,
    max_concurrent_row_groups: int = 4,
) -> ts.RunResult:
    """Run to the end on a mock clock; nothing may leak."""
    results: list[ts.RunResult] = []
    config = ts.RunConfig(buffer_size=buffer_size, max_concurrent_row_groups=max_concurrent_row_groups)

    async def main() -> None:
        results.append(await ts.run(columns, records=records, rows=rows, output=output, config=config, blocking=inline))

    mocked(main)
    (result,) = results
    assert result.leaks == ()
    return result

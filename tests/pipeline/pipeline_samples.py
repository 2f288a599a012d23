"""What the tests of columns share: small columns, and a run of them in simulated time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path

import trio
import trio.testing

import trio_sched as ts
from trio_sched.lowlevel import InMemoryAdmissionEventSink, inline

Row = dict[str, object]


@ts.from_scratch_column()
async def number(span: ts.RowSpan) -> list[int]:
    return list(range(span.start, span.start + span.count))


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope before the given step of any task."""

    def __init__(self, step: int) -> None:
        self.scope = trio.CancelScope()
        self._left = step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._left -= 1
        if self._left == 0:
            self.scope.cancel()


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


def status(output: Path) -> object:
    """How the run's document says that it ended."""
    return json.loads((output / "run.json").read_text())["status"]


async def run_and_cancel(
    steps: list[ts.PipelineStep], output: Path, cancel: trio.Event, simulated: bool = True
) -> None:
    """Run until `cancel` is set, then cancel; no lease may be left and no part written."""
    sink = InMemoryAdmissionEventSink()
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            blocking = inline if simulated else None
            await ts.run(steps, records=4, output=output, event_sink=sink, blocking=blocking)
            raise AssertionError("must not end by itself")

        nursery.start_soon(run)
        await cancel.wait()
        nursery.cancel_scope.cancel()
    kinds = Counter(event.event_kind for event in sink.scheduler_events)
    assert kinds["task_lease_acquired"] == kinds["task_lease_released"]
    assert status(output) == "interrupted"
    assert list((output / "data").iterdir()) == []

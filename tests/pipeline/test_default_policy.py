"""Without a word about it a run shares by bounded borrowing: a column alone goes above its share, and has borrowed."""

from __future__ import annotations

from pathlib import Path

import trio
import trio.testing

import trio_sched as ts
from trio_sched.lowlevel import (
    AsyncTaskScheduler,
    ColumnGenerator,
    ExecutionGraph,
    Failure,
    FixedRowGroupPlan,
    GraphNode,
    InMemoryAdmissionEventSink,
    RowDrop,
    RowGroup,
    Task,
    TaskSchedulingResolver,
    inline,
    scheduler_event_stream,
)
from trio_sched.metadata import SchedulingMetadata


def borrowed_units(sink: InMemoryAdmissionEventSink) -> list[object]:
    granted = [event for event in sink.scheduler_events if event.event_kind == "task_lease_acquired"]
    return [event.diagnostics["borrowed"] for event in granted if "borrowed" in event.diagnostics]


async def test_of_a_pipeline(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    sink = InMemoryAdmissionEventSink()

    @ts.column(needs=["number"], model=ts.Model("openai", "gpt", max_parallel_requests=4))
    async def answer(row: dict[str, int], model: ts.ModelHandle) -> int:
        await trio.sleep(1)
        return await model.call(double, row["number"])

    async def double(number: int) -> int:
        return 2 * number

    rows = [{"number": number} for number in range(8)]
    await ts.run([answer], rows=rows, output=tmp_path / "out", event_sink=sink, blocking=inline)
    # Eight places for tasks of the endpoint; the share of one among two is four.
    assert borrowed_units(sink) == [{"endpoint:openai/gpt": 1}] * 4


class Model(ColumnGenerator):
    def get_scheduling_metadata(self) -> SchedulingMetadata:
        return SchedulingMetadata.model("openai", "gpt", "chat", weight=2)


class Runner:
    async def run(self, task: Task) -> tuple[RowDrop, ...]:
        await trio.sleep(1)
        return ()


class Store:
    def open(self, row_group: RowGroup) -> None:
        pass

    async def write(self, row_group: RowGroup, living_rows: object) -> None:
        await trio.lowlevel.checkpoint()


async def test_of_a_scheduler(autojump_clock: trio.testing.MockClock) -> None:
    sink = InMemoryAdmissionEventSink()
    nodes = (GraphNode("a", "from_scratch"), GraphNode("b", "cell", ("a",)))
    scheduler = AsyncTaskScheduler(
        ExecutionGraph(nodes),
        TaskSchedulingResolver({"a": ColumnGenerator(), "b": Model()}),
        Runner(),
        FixedRowGroupPlan(4, 4),
        Store(),
        classify=lambda _: Failure("fatal", "unexpected_exception"),
        events=scheduler_event_stream(sink),
    )
    await scheduler.run()
    assert borrowed_units(sink) == [{"endpoint:openai/gpt": 1}] * 2

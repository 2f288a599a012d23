"""The pipeline of columns that do nothing, on bare Trio: a task for every cell, one limiter, no file."""

from __future__ import annotations

import trio

from benchmarks.workloads.outcome import Outcome, Params, Run, number
from benchmarks.workloads.samples import Stopwatch, rows_hash

__all__ = ["prepare"]

COLUMNS = ("first", "second", "third")


def prepare(params: Params) -> Run:
    """The workload on bare Trio."""
    records = number(params, "records")

    def run(warm_up: bool) -> Outcome:
        rows = min(records, 500) if warm_up else records
        watch = Stopwatch()
        made = trio.run(make_rows, rows, number(params, "buffer_size"), number(params, "task_capacity"))
        watch.stop()
        return Outcome(
            wall_time_seconds=watch.wall,
            metrics=watch.each("task", rows * len(COLUMNS)),
            counts={"rows": len(made)},
            final_task_snapshot={"leased": 0, "queued_total": 0},
            output_hashes={"rows": rows_hash(made)},
        )

    return run


async def make_rows(records: int, buffer_size: int, capacity: int) -> list[dict[str, object]]:
    """Rows whose cells each are a task's work; the end of one starts the next of its row."""
    limiter = trio.CapacityLimiter(capacity)
    rows: list[dict[str, object]] = [{"root": row % buffer_size} for row in range(records)]

    async def make_cell(row: dict[str, object], column: int, source: str) -> None:
        async with limiter:
            row[COLUMNS[column]] = await same(row[source])
        if column + 1 < len(COLUMNS):
            nursery.start_soon(make_cell, row, column + 1, COLUMNS[column])

    async with trio.open_nursery() as nursery:
        for row in rows:
            nursery.start_soon(make_cell, row, 0, "root")
    assert limiter.borrowed_tokens == 0
    return rows


async def same(value: object) -> object:
    """What a column that does nothing does."""
    return value

"""The pipeline of columns that do nothing, at this project."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import trio

import trio_sched
from benchmarks.workloads.outcome import Outcome, Params, Run, number, word
from benchmarks.workloads.samples import clock, since

__all__ = ["prepare"]

CELL_COLUMNS = 3


@trio_sched.from_scratch_column()
async def root(span: trio_sched.RowSpan) -> list[object]:
    """A number for every row."""
    return list(range(span.start, span.start + span.count))


@trio_sched.column(needs=["root"])
async def first(row: dict[str, object]) -> object:
    """The same again."""
    return row["root"]


@trio_sched.column(needs=["first"])
async def second(row: dict[str, object]) -> object:
    """The same again."""
    return row["first"]


@trio_sched.column(needs=["second"])
async def third(row: dict[str, object]) -> object:
    """The same again."""
    return row["second"]


def prepare(params: Params) -> Run:
    """The workload at this project."""
    records, with_events = number(params, "records"), word(params, "events") == "jsonl"

    def run(warm_up: bool) -> Outcome:
        rows = min(records, 500) if warm_up else records
        with tempfile.TemporaryDirectory() as scratch:
            start = clock()
            result = run_once(params, rows, Path(scratch) / "plain", write_events=False)
            wall = since(start)
            metrics, counts = {"task_us": wall * 1e6 / (rows * CELL_COLUMNS)}, {"rows": result.records}
            if with_events:
                start = clock()
                result = run_once(params, rows, Path(scratch) / "events", write_events=True)
                with_them = since(start)
                counts["events"] = count_lines(result.path / "events")
                metrics["task_us"] = with_them * 1e6 / (rows * CELL_COLUMNS)
                metrics["event_us"] = max(0.0, with_them - wall) * 1e6 / counts["events"]
                wall += with_them
            return Outcome(
                wall_time_seconds=wall,
                metrics=metrics,
                counts=counts,
                final_task_snapshot={"leased": len(result.leaks), "queued_total": 0},
                output_hashes={"rows": result.data_hash()},
                capacity_plan=read_json(result.path / "capacity_plan.json"),
            )

    return run


def run_once(params: Params, records: int, output: Path, *, write_events: bool) -> trio_sched.RunResult:
    """One run into a new folder."""
    config = trio_sched.RunConfig(
        buffer_size=number(params, "buffer_size"),
        max_concurrent_row_groups=number(params, "row_group_concurrency"),
        submission_capacity=number(params, "task_capacity"),
        write_events=write_events,
    )

    async def main() -> trio_sched.RunResult:
        return await trio_sched.run([root, first, second, third], records=records, output=output, config=config)

    result = trio.run(main)
    assert result.records == records, result.summary()
    return result


def count_lines(folder: Path) -> int:
    """Lines of all files in a folder."""
    return sum(len(path.read_bytes().splitlines()) for path in folder.iterdir())


def read_json(path: Path) -> dict[str, Any]:
    """A JSON document."""
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document

"""The pipeline of columns that do nothing, at this project."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import trio

import trio_sched
from benchmarks.workloads.outcome import Json, Outcome, Params, Run, number, word
from benchmarks.workloads.samples import Stopwatch, rows_hash
from benchmarks.workloads.timeline_metrics import derived
from benchmarks.workloads.timelines import EXCERPT, counted, entries
from trio_sched.lowlevel import InMemoryAdmissionEventSink, in_threads, open_jsonl_sink

__all__ = ["prepare"]

CELL_COLUMNS = 3
WRITERS = 1


@trio_sched.from_scratch_column()
async def root(span: trio_sched.RowSpan) -> list[object]:
    """The number of every row within its row group, which is what each implementation tells a column."""
    return list(range(span.count))


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


class Unwanted(InMemoryAdmissionEventSink):
    """A sink that wants nothing."""

    def accepts_scheduler_event(self, _kind: str) -> bool:
        return False

    def accepts_request_event(self, _kind: str) -> bool:
        return False


def prepare(params: Params) -> Run:
    """The workload at this project."""
    records, events = number(params, "records"), word(params, "events")

    def run(warm_up: bool) -> Outcome:
        rows = min(records, 500) if warm_up else records
        with tempfile.TemporaryDirectory() as scratch:
            watch = without = Stopwatch()
            result = run_once(params, rows, Path(scratch) / "without", "off")
            watch.stop()
            counts, metrics = {"rows": result.records}, dict[str, float]()
            timeline: list[dict[str, Json]] = []
            if events != "off":
                sink = {"unwanted": Unwanted(), "memory": InMemoryAdmissionEventSink()}.get(events)
                watch = Stopwatch()
                result = run_once(params, rows, Path(scratch) / "with", events, sink)
                watch.stop()
                metrics["with_sink"] = watch.cpu / without.cpu
                counts["events"] = count_events(sink, Path(scratch) / "events", result.path / "events")
                if events == "memory" and sink is not None:
                    timeline = entries(sink.scheduler_events, sink.request_events)
                    metrics.update(derived(timeline, {"submission": number(params, "task_capacity")}))
                    counts.update(counted(timeline))
                if counts["events"]:
                    metrics["event_us"] = max(0.0, watch.wall - without.wall) * 1e6 / counts["events"]
                    metrics["event_cpu_us"] = max(0.0, watch.cpu - without.cpu) * 1e6 / counts["events"]
            metrics.update(watch.each("task", rows * CELL_COLUMNS))
            return Outcome(
                wall_time_seconds=watch.wall,
                metrics=metrics,
                counts=counts,
                timeline=tuple(timeline[:EXCERPT]),
                final_task_snapshot={"leased": len(result.leaks), "queued_total": 0},
                output_hashes={"rows": rows_hash(result.rows())},
                capacity_plan=read_json(result.path / "capacity_plan.json"),
            )

    return run


def run_once(
    params: Params, records: int, output: Path, events: str, sink: InMemoryAdmissionEventSink | None = None
) -> trio_sched.RunResult:
    """One run into a new folder."""
    config = trio_sched.RunConfig(
        buffer_size=number(params, "buffer_size"),
        max_concurrent_row_groups=number(params, "row_group_concurrency"),
        submission_capacity=number(params, "task_capacity"),
        write_events=events == "documents",
    )
    columns = [root, first, second, third]

    async def main() -> trio_sched.RunResult:
        if events != "jsonl":
            return await trio_sched.run(columns, records=records, output=output, config=config, event_sink=sink)
        folder = output.with_name("events")
        folder.mkdir()
        async with open_jsonl_sink(folder, blocking=in_threads(WRITERS)) as files:
            return await trio_sched.run(columns, records=records, output=output, config=config, event_sink=files)

    result = trio.run(main)
    assert result.records == records, result.summary()
    return result


def count_events(sink: InMemoryAdmissionEventSink | None, *folders: Path) -> int:
    """How many events the sink got, or the files in those of the folders that are there."""
    if sink is not None:
        return len(sink.scheduler_events) + len(sink.request_events)
    files = [path for folder in folders if folder.exists() for path in folder.glob("*.jsonl")]
    return sum(len(path.read_bytes().splitlines()) for path in files)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON document."""
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document

"""The pipeline of columns that do nothing, at data-designer-engine: its own scheduler, tracker, graph and buffers.

Finished row groups are written as JSON lines, as this project writes them; the peer's own parquet is more work. It is
installed only in the environment that the harness makes for it, hence the imports that a type checker cannot see.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped,import-not-found,unused-ignore]
from data_designer.config.base import ConfigBase  # type: ignore[import-not-found]
from data_designer.config.column_configs import GenerationStrategy  # type: ignore[import-not-found]
from data_designer.engine.column_generators.generators.base import (  # type: ignore[import-not-found]
    ColumnGeneratorCellByCell,
    FromScratchColumnGenerator,
)
from data_designer.engine.dataset_builders.async_scheduler import AsyncTaskScheduler  # type: ignore[import-not-found]
from data_designer.engine.dataset_builders.row_group_plan import CompactRowGroupPlan  # type: ignore[import-not-found]
from data_designer.engine.dataset_builders.scheduling.completion import (  # type: ignore[import-not-found]
    CompletionTracker,
)
from data_designer.engine.dataset_builders.utils.execution_graph import (  # type: ignore[import-not-found]
    ExecutionGraph,
)
from data_designer.engine.dataset_builders.utils.row_group_buffer import (  # type: ignore[import-not-found]
    RowGroupBufferManager,
)
from data_designer.engine.observability import JsonlSchedulerEventSink  # type: ignore[import-not-found]

from benchmarks.workloads.outcome import Outcome, Params, RefusedError, Run, number, word
from benchmarks.workloads.samples import Stopwatch, rows_hash

__all__ = ["prepare"]

CHAIN = ("root", "first", "second", "third")


class NameConfig(ConfigBase):  # type: ignore[misc]
    """What a generator here is told: its column, and the column that it copies."""

    name: str
    source: str


class Root(FromScratchColumnGenerator[NameConfig]):  # type: ignore[misc]
    """The number of every row within its row group."""

    @staticmethod
    def get_generation_strategy() -> Any:
        return GenerationStrategy.FULL_COLUMN

    def generate_from_scratch(self, num_records: int) -> Any:
        return pd.DataFrame({self.config.name: range(num_records)})

    async def agenerate_from_scratch(self, num_records: int) -> Any:
        return self.generate_from_scratch(num_records)


class Copy(ColumnGeneratorCellByCell[NameConfig]):  # type: ignore[misc]
    """The same again."""

    def generate(self, data: dict[str, Any]) -> dict[str, Any]:
        data[self.config.name] = data[self.config.source]
        return data

    async def agenerate(self, data: dict[str, Any]) -> dict[str, Any]:
        return self.generate(data)


def prepare(params: Params) -> Run:
    """The workload at the peer. Its events go to its own file sink, or to nobody."""
    events = word(params, "events")
    if events not in ("off", "jsonl"):
        raise RefusedError("of the peer's events only those to a file are measured")
    logging.disable(logging.INFO)
    records = number(params, "records")

    def run(warm_up: bool) -> Outcome:
        rows = min(records, 500) if warm_up else records
        with tempfile.TemporaryDirectory() as scratch:
            folder, told = Path(scratch) / "rows", Path(scratch) / "events.jsonl"
            watch = without = timed(params, rows, folder, None)
            metrics, counts = dict[str, float](), {"rows": rows}
            if events == "jsonl":
                with JsonlSchedulerEventSink(told) as sink:
                    watch = timed(params, rows, folder, sink)
                counts["events"] = count_lines(told)
                metrics["with_sink"] = watch.cpu / without.cpu
                metrics["event_us"] = max(0.0, watch.wall - without.wall) * 1e6 / counts["events"]
                metrics["event_cpu_us"] = max(0.0, watch.cpu - without.cpu) * 1e6 / counts["events"]
            seen = rows_hash(read_rows(folder))
            lines = sum(map(count_lines, folder.iterdir()))
        assert lines == rows, f"{lines} rows instead of {rows}"
        return Outcome(
            wall_time_seconds=watch.wall,
            metrics={**metrics, **watch.each("task", rows * (len(CHAIN) - 1))},
            counts=counts,
            output_hashes={"rows": seen},
        )

    return run


def timed(params: Params, rows: int, folder: Path, sink: Any) -> Stopwatch:
    """One run into an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    watch = Stopwatch()
    asyncio.run(run_once(params, rows, folder, sink))
    watch.stop()
    return watch


def read_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows that a run has written."""
    for path in folder.iterdir():
        with path.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def count_lines(path: Path) -> int:
    """How many lines a file has."""
    return path.read_bytes().count(b"\n")


async def run_once(params: Params, records: int, folder: Path, sink: Any) -> None:
    """One run that writes a file for every row group."""
    graph = ExecutionGraph()
    generators: dict[str, Any] = {}
    for source, name in zip(("", *CHAIN), CHAIN, strict=False):
        config = NameConfig(name=name, source=source)
        generators[name] = Copy(config, None) if source else Root(config, None)
        graph.add_column(name, generators[name].get_generation_strategy())
        if source:
            graph.add_edge(upstream=source, downstream=name)
            graph.set_required_columns(name, [source])
    plan = CompactRowGroupPlan.fresh(num_records=records, buffer_size=number(params, "buffer_size"))
    buffers = RowGroupBufferManager(None)

    def write(row_group: int) -> None:
        rows = [buffers.get_row(row_group, row) for row in range(plan.row_group_size(row_group))]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{row_group:06}.jsonl").write_text(text, encoding="utf-8")
        buffers.free_row_group(row_group)

    scheduler = AsyncTaskScheduler(
        generators,
        graph,
        CompletionTracker.with_graph(graph, plan),
        plan,
        buffers,
        max_concurrent_row_groups=number(params, "row_group_concurrency"),
        max_in_flight_tasks=number(params, "task_capacity"),
        on_finalize_row_group=write,
        num_records=records,
        buffer_size=number(params, "buffer_size"),
        scheduler_event_sink=sink,
    )
    await scheduler.run()

"""The pipeline of columns that do nothing, at data-designer-engine: its own scheduler, tracker, graph and buffers.

Finished row groups are written as JSON lines, as this project writes them; the peer's own parquet is more work. It is
installed only in the environment that the harness makes for it, hence the imports that a type checker cannot see.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import tempfile
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

from benchmarks.workloads.outcome import Outcome, Params, RefusedError, Run, number, word
from benchmarks.workloads.samples import Stopwatch

__all__ = ["prepare"]

CHAIN = ("root", "first", "second", "third")


class NameConfig(ConfigBase):  # type: ignore[misc]
    """What a generator here is told: its column, and the column that it copies."""

    name: str
    source: str


class Root(FromScratchColumnGenerator[NameConfig]):  # type: ignore[misc]
    """A number for every row."""

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
    """The workload at the peer."""
    if word(params, "events") != "off":
        raise RefusedError("the peer's event sinks are not measured")
    logging.disable(logging.INFO)
    records = number(params, "records")

    def run(warm_up: bool) -> Outcome:
        rows = min(records, 500) if warm_up else records
        with tempfile.TemporaryDirectory() as scratch:
            watch = Stopwatch()
            asyncio.run(run_once(params, rows, Path(scratch)))
            watch.stop()
            lines, seen = 0, hashlib.sha256()
            for path in sorted(Path(scratch).iterdir()):
                data = path.read_bytes()
                lines += data.count(b"\n")
                seen.update(data)
        assert lines == rows, f"{lines} rows instead of {rows}"
        return Outcome(
            wall_time_seconds=watch.wall,
            metrics=watch.each("task", rows * (len(CHAIN) - 1)),
            counts={"rows": lines},
            output_hashes={"rows of the peer": seen.hexdigest()},
        )

    return run


async def run_once(params: Params, records: int, folder: Path) -> None:
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
    )
    await scheduler.run()

"""The simulated pipelines at this project: the public `run`, on Trio's mock clock."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import trio

import trio_sched
from benchmarks.workloads.outcome import Outcome, Params, Run, number
from benchmarks.workloads.samples import Stopwatch
from benchmarks.workloads.simulated_outcome import outcome_of, pipeline_of
from benchmarks.workloads.simulated_pipelines import ColumnSpec, PipelineSpec
from benchmarks.workloads.simulated_time import in_simulated_time
from benchmarks.workloads.simulated_world import World
from trio_sched.lowlevel import InMemoryAdmissionEventSink, inline

__all__ = ["prepare"]


def prepare(params: Params) -> Run:
    """The workload at this project."""
    spec = pipeline_of(params)

    def run(_warm_up: bool) -> Outcome:
        sink = InMemoryAdmissionEventSink()
        with tempfile.TemporaryDirectory() as scratch:
            output = Path(scratch) / "run"
            watch = Stopwatch()
            world, rows = in_simulated_time(lambda: run_once(spec, output, sink), number(params, "order_seed"))
            watch.stop()
            plan = json.loads((output / "capacity_plan.json").read_text(encoding="utf-8"))
        return outcome_of(
            world,
            watch,
            rows,
            scheduler_events=sink.scheduler_events,
            request_events=sink.request_events,
            capacity_plan=plan,
        )

    return run


async def run_once(
    spec: PipelineSpec, output: Path, sink: InMemoryAdmissionEventSink
) -> tuple[World, list[dict[str, Any]]]:
    """One run; its world, and its rows unless it was cancelled."""
    world = World(spec, trio.current_time, trio.sleep)
    models = {
        name: trio_sched.Model("simulated", name, max_parallel_requests=each.cap)
        for name, each in spec.providers.items()
    }
    config = trio_sched.RunConfig(
        buffer_size=spec.buffer_size,
        max_concurrent_row_groups=spec.row_groups_at_once,
        submission_capacity=spec.task_capacity,
        write_events=False,
    )
    rows: list[dict[str, Any]] = []
    with trio.CancelScope() as scope:
        if spec.cancel_after is not None:
            scope.deadline = trio.current_time() + spec.cancel_after
        result = await trio_sched.run(
            [make_column(world, column) for column in spec.columns],
            records=spec.records,
            output=output,
            models=models,
            config=config,
            event_sink=sink,
            blocking=inline,
        )
        rows.extend(result.rows())
    world.end()
    return world, rows


def make_column(world: World, spec: ColumnSpec) -> trio_sched.Column:
    """A column of this project."""
    if not spec.needs:

        @trio_sched.from_scratch_column(name=spec.name)
        async def root(span: trio_sched.RowSpan) -> list[object]:
            return await world.make_root(spec, span.start, span.count)

        return root
    source = spec.needs[0]

    @trio_sched.column(needs=spec.needs, model=spec.model or (), name=spec.name)
    async def cell(row: dict[str, object], *models: trio_sched.ModelHandle) -> str:
        return await world.make_cell(spec, row[source], models[0].call if models else None)

    return cell

"""Long runs at this project, whose memory is sampled whenever a row group is durable.

`300 thousand tasks` runs on a simulated clock, with calls of a model that take a simulated second each; the others call
nothing.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Final

import trio

import trio_sched
from benchmarks.workloads.memory import MEGABYTE, growth, resident
from benchmarks.workloads.outcome import Outcome, Params, Run, number, word
from benchmarks.workloads.samples import Stopwatch
from benchmarks.workloads.simulated_time import in_simulated_time
from trio_sched.lowlevel import SchedulerAdmissionEvent, in_threads, inline

__all__ = ["prepare"]

WARM_UP_RECORDS: Final = 2_000
PARALLEL_REQUESTS: Final = 256
CALL_SECONDS: Final = 1.0
WRITERS: Final = 4


class Samples:
    """A sink that wants two kinds: memory is sampled at one, and at the other the run may be stopped."""

    def __init__(self, stop: trio.CancelScope | None) -> None:
        self.stop = stop
        self.start = resident()
        self.resident: list[int] = []
        self.watch = Stopwatch()

    def accepts_scheduler_event(self, kind: str) -> bool:
        return kind == ("row_group_checkpointed" if self.stop is None else "row_group_admitted")

    def emit_scheduler_event(self, _event: SchedulerAdmissionEvent) -> None:
        self.resident.append(resident())
        if self.stop is not None and not self.stop.cancel_called:
            self.watch.stop()
            self.stop.cancel()


def prepare(params: Params) -> Run:
    """The workload at this project."""
    load = word(params, "load")
    simulated, prepared_only = load == "300 thousand tasks", load == "million row groups"
    records, cells = number(params, "records"), number(params, "cells")
    model = trio_sched.Model("simulated", "model", max_parallel_requests=PARALLEL_REQUESTS)
    columns = make_columns(cells, model if simulated else None)
    config = trio_sched.RunConfig(
        buffer_size=number(params, "buffer_size"),
        max_concurrent_row_groups=number(params, "row_group_concurrency"),
        write_events=False,
    )

    async def main(rows: int, output: Path) -> tuple[Samples, trio_sched.RunResult | None]:
        with trio.CancelScope() as scope:
            samples = Samples(scope if prepared_only else None)
            result = await trio_sched.run(
                columns,
                records=rows,
                output=output,
                config=config,
                event_sink=samples,
                blocking=inline if simulated else in_threads(WRITERS),
            )
            return samples, result
        return samples, None

    def run(warm_up: bool) -> Outcome:
        rows = min(records, WARM_UP_RECORDS) if warm_up else records
        with tempfile.TemporaryDirectory() as scratch:
            output, watch = Path(scratch) / "run", Stopwatch()
            if simulated:
                samples, result = in_simulated_time(lambda: main(rows, output), 0)
            else:
                samples, result = trio.run(main, rows, output)
            watch.stop()
            assert prepared_only or (result is not None and result.records == rows), result and result.summary()
            plan: dict[str, Any] = json.loads((output / "capacity_plan.json").read_text(encoding="utf-8"))
            peak = resident("VmHWM") if not prepared_only else samples.resident[0]
        metrics = {"memory_above_start_mb": max(0, peak - samples.start) / MEGABYTE}
        if prepared_only:
            metrics["preparation_seconds"] = samples.watch.wall
        else:
            metrics["memory_growth_mb"] = growth(samples.resident) / MEGABYTE
            metrics |= watch.each("task", rows * cells)
        return Outcome(
            wall_time_seconds=watch.wall,
            metrics=metrics,
            counts={"rows": 0 if result is None else result.records, "samples": len(samples.resident)},
            final_task_snapshot={"leased": 0 if result is None else len(result.leaks)},
            capacity_plan=plan,
        )

    return run


def make_columns(cells: int, model: trio_sched.Model | None) -> list[trio_sched.Column]:
    """A root, and a chain of cells that copy it, each with a call if there is a model."""

    @trio_sched.from_scratch_column(name="root")
    async def root(span: trio_sched.RowSpan) -> list[object]:
        return list(range(span.start, span.start + span.count))

    made: list[trio_sched.Column] = [root]
    for _ in range(cells):
        made.append(copy_of(f"cell{len(made)}", made[-1].name, model))
    return made


def copy_of(name: str, source: str, model: trio_sched.Model | None) -> trio_sched.Column:
    """A column that copies another."""

    @trio_sched.column(needs=[source], model=model or (), name=name)
    async def cell(row: dict[str, object], *models: trio_sched.ModelHandle) -> object:
        for each in models:
            await each.call(trio.sleep, CALL_SECONDS)
        return row[source]

    return cell

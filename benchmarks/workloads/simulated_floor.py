"""The simulated pipelines on bare Trio: a task for every cell, one limiter for every endpoint and one for all tasks.

There are no row groups, no fairness, no events, and nothing is learnt from a refusal: a call that was refused or broken
is made again after the pause that it asks for, or else after a second. Roots are made in spans of the same size as
elsewhere.
"""

from __future__ import annotations

from typing import Any, Final

import trio

from benchmarks.workloads.outcome import Outcome, Params, RefusedError, Run, number
from benchmarks.workloads.samples import Stopwatch
from benchmarks.workloads.simulated_outcome import outcome_of, pipeline_of
from benchmarks.workloads.simulated_pipelines import ColumnSpec, PipelineSpec
from benchmarks.workloads.simulated_time import in_simulated_time
from benchmarks.workloads.simulated_world import Attempt, BrokenError, RefusedCallError, UnmakeableError, World

__all__ = ["prepare"]

PAUSE_SECONDS: Final = 1.0


def prepare(params: Params) -> Run:
    """The workload on bare Trio."""
    spec = pipeline_of(params)
    if spec.cancel_after is not None:
        raise RefusedError("bare Trio has no leases to give back")

    def run(_warm_up: bool) -> Outcome:
        watch = Stopwatch()
        world, rows = in_simulated_time(lambda: run_once(spec), number(params, "order_seed"))
        watch.stop()
        return outcome_of(world, watch, rows)

    return run


async def run_once(spec: PipelineSpec) -> tuple[World, list[dict[str, Any]]]:
    """One run; its world and its rows."""
    world = World(spec, trio.current_time, trio.sleep)
    flow = _Flow(world)
    async with trio.open_nursery() as nursery:
        for column in spec.columns:
            if not column.needs:
                for start in range(0, spec.records, spec.buffer_size):
                    count = min(spec.buffer_size, spec.records - start)
                    nursery.start_soon(flow.make_root, nursery, column, start, count)
    world.end()
    width = len(spec.columns)
    return world, [row for row in flow.rows if len(row) == width]


class _Flow:
    """Cells that start each other."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._limiters = {name: trio.CapacityLimiter(each.cap) for name, each in world.spec.providers.items()}
        self._tasks = trio.CapacityLimiter(world.spec.task_capacity)
        self.rows: list[dict[str, Any]] = [{} for _ in range(world.spec.records)]

    async def make_root(self, nursery: trio.Nursery, column: ColumnSpec, start: int, count: int) -> None:
        async with self._tasks:
            values = await self._world.make_root(column, start, count)
        for row, value in enumerate(values, start):
            self._made(nursery, column, row, value)

    async def make_cell(self, nursery: trio.Nursery, column: ColumnSpec, row: int) -> None:
        limiter = self._tasks if column.model is None else self._limiters[column.model]
        try:
            async with limiter:
                value = await self._world.make_cell(column, self.rows[row][column.needs[0]], _until_it_succeeds)
        except UnmakeableError:
            return
        self._made(nursery, column, row, value)

    def _made(self, nursery: trio.Nursery, column: ColumnSpec, row: int, value: object) -> None:
        self.rows[row][column.name] = value
        for each in self._world.spec.columns:
            if column.name in each.needs:
                nursery.start_soon(self.make_cell, nursery, each, row)


async def _until_it_succeeds(attempt: Attempt) -> str:
    while True:
        try:
            return await attempt()
        except RefusedCallError as refusal:
            await trio.sleep(refusal.retry_after or PAUSE_SECONDS)
        except BrokenError:
            await trio.sleep(PAUSE_SECONDS)

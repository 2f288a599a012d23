"""The simulated pipelines at data-designer-engine: its own scheduler, tracker, graph, buffers and request executor.

Its modules read `time.monotonic`; they get a `time` of ours, and its event loop is one whose clock jumps to the next
timer. Nothing else of it is touched. Model calls go through its `ModelRequestExecutor` and its adaptive controller with
their default configurations. Waiters of its controller wake up by themselves every 50 ms, in simulated time too.

It is installed only in the environment that the harness makes for it, hence the imports that a type checker cannot see.
"""

from __future__ import annotations

import asyncio
import logging
import selectors
from collections.abc import Awaitable, Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pandas as pd  # type: ignore[import-untyped,import-not-found,unused-ignore]
from data_designer.config.base import ConfigBase  # type: ignore[import-not-found]
from data_designer.config.column_configs import GenerationStrategy  # type: ignore[import-not-found]
from data_designer.config.scheduling import SchedulingMetadata  # type: ignore[import-not-found]
from data_designer.engine import observability  # type: ignore[import-not-found]
from data_designer.engine.column_generators.generators.base import (  # type: ignore[import-not-found]
    ColumnGeneratorCellByCell,
    FromScratchColumnGenerator,
)
from data_designer.engine.dataset_builders import async_scheduler  # type: ignore[import-not-found]
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
from data_designer.engine.models.clients.errors import ProviderError, ProviderErrorKind  # type: ignore[import-not-found]
from data_designer.engine.models.clients.model_request_executor import (  # type: ignore[import-not-found]
    ModelRequestExecutor,
)
from data_designer.engine.models.errors import (  # type: ignore[import-not-found]
    ModelInternalServerError,
    ModelRateLimitError,
)
from data_designer.engine.models.request_admission import controller  # type: ignore[import-not-found]

from benchmarks.workloads.outcome import Outcome, Params, Run
from benchmarks.workloads.samples import Stopwatch
from benchmarks.workloads.simulated_outcome import outcome_of, pipeline_of
from benchmarks.workloads.simulated_pipelines import ColumnSpec, PipelineSpec
from benchmarks.workloads.simulated_world import Attempt, BrokenError, RefusedCallError, World

__all__ = ["prepare"]

TURN_SECONDS = 1e-6
SHARED_RESOURCES = ("submission", "llm_wait")


def prepare(params: Params) -> Run:
    """The workload at the peer."""
    logging.disable(logging.CRITICAL)
    spec = pipeline_of(params)

    def run(_warm_up: bool) -> Outcome:
        sink = Events()
        loop = SimulatedLoop()
        for module in (observability, async_scheduler, controller):
            module.time = SimpleNamespace(monotonic=loop.time, perf_counter=loop.time)
        watch = Stopwatch()
        try:
            world, rows = loop.run_until_complete(run_once(spec, loop, sink))
        finally:
            loop.close()
        watch.stop()
        return outcome_of(world, watch, rows, scheduler_events=sink.scheduler, request_events=sink.request)

    return run


class JumpingSelector(selectors.SelectSelector):
    """Waits for nothing: what would be waited is put on the clock, and a little for each turn of the loop.

    Without that little, whoever waits for the rest of a pause that rounding has left would wait for ever.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing will ever happen"
            self.now += max(TURN_SECONDS, timeout)
        return ready


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer."""

    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


class Events:
    """Both streams, as the timeline wants them: with the resource that a task's event is about."""

    def __init__(self) -> None:
        self.scheduler: list[Any] = []
        self.request: list[Any] = []

    def emit_scheduler_event(self, event: Any) -> None:
        asked = event.diagnostics.get("resource_request", {})
        own = [name for name in asked if name not in SHARED_RESOURCES]
        resource = event.scheduler_resource_key or next(iter([*own, *asked]), None)
        names = ("event_kind", "captured_at_monotonic", "captured_correlation", "task_id", "task_execution_id")
        more = ("task_lease_id", "reason_or_result", "snapshot")
        fields = {name: getattr(event, name) for name in (*names, *more)}
        self.scheduler.append(
            SimpleNamespace(**fields, sequence=len(self.scheduler) + 1, scheduler_resource_key=resource)
        )

    def emit_request_event(self, event: Any) -> None:
        # Its executor and its controller count separately.
        object.__setattr__(event, "sequence", len(self.request) + 1)
        self.request.append(event)


class Answering:
    """The client at the other end of its executor: makes the attempt that it is given, in place of a request."""

    provider_name = "simulated"

    async def acompletion(self, attempt: Attempt) -> str:
        try:
            return await attempt()
        except RefusedCallError as refusal:
            raise ProviderError(
                ProviderErrorKind.RATE_LIMIT, "refused", status_code=429, retry_after=refusal.retry_after
            ) from refusal
        except BrokenError as broken:
            raise ProviderError(ProviderErrorKind.INTERNAL_SERVER, "broken", status_code=503) from broken


class ColumnConfig(ConfigBase):  # type: ignore[misc]
    """What a generator is told: its column."""

    name: str


class Root(FromScratchColumnGenerator[ColumnConfig]):  # type: ignore[misc]
    """A column that is made from scratch."""

    world: World
    spec: ColumnSpec
    starts: Callable[[int], int]

    @staticmethod
    def get_generation_strategy() -> Any:
        return GenerationStrategy.FULL_COLUMN

    def generate_from_scratch(self, num_records: int) -> Any:
        raise AssertionError("only the asynchronous way is used")

    async def agenerate_from_scratch(self, num_records: int) -> Any:
        correlation = observability.runtime_correlation_provider.current()
        start = self.starts(correlation.row_group)
        return pd.DataFrame({self.spec.name: await self.world.make_root(self.spec, start, num_records)})


class Cell(ColumnGeneratorCellByCell[ColumnConfig]):  # type: ignore[misc]
    """A column that is made cell by cell."""

    world: World
    spec: ColumnSpec
    executor: Any

    def get_scheduling_metadata(self) -> Any:
        if self.spec.model is None:
            return SchedulingMetadata.local()
        cap = self.world.spec.providers[self.spec.model].cap
        return SchedulingMetadata.model("simulated", self.spec.model, "chat", weight=cap)

    def generate(self, data: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError("only the asynchronous way is used")

    async def agenerate(self, data: dict[str, Any]) -> dict[str, Any]:
        data[self.spec.name] = await self.world.make_cell(self.spec, data[self.spec.needs[0]], self.call)
        return data

    async def call(self, attempt: Attempt) -> str:
        """One model call; its errors become those that its facade raises."""
        try:
            answer: str = await self.executor.acompletion(attempt)
        except ProviderError as error:
            if error.kind == ProviderErrorKind.RATE_LIMIT:
                raise ModelRateLimitError("refused") from error
            raise ModelInternalServerError("broken") from error
        return answer


async def run_once(spec: PipelineSpec, loop: SimulatedLoop, sink: Events) -> tuple[World, list[Mapping[str, Any]]]:
    """One run; its world and its rows."""
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    world = World(spec, loop.time, sleep)
    admission = controller.AdaptiveRequestAdmissionController(event_sink=sink)
    executors: dict[str, Any] = {}
    for name, provider in spec.providers.items():
        admission.register(provider_name="simulated", model_id=name, alias=name, max_parallel_requests=provider.cap)
        executors[name] = ModelRequestExecutor(Answering(), admission, "simulated", name, event_sink=sink)
    graph = ExecutionGraph()
    generators: dict[str, Any] = {}
    for column in spec.columns:
        config = ColumnConfig(name=column.name)
        generator: Any = Cell(config, None) if column.needs else Root(config, None)
        generator.world, generator.spec = world, column
        generator.starts = lambda row_group: row_group * spec.buffer_size
        generator.executor = executors.get(column.model or "")
        generators[column.name] = generator
        graph.add_column(column.name, generator.get_generation_strategy())
        for need in column.needs:
            graph.add_edge(upstream=need, downstream=column.name)
        if column.needs:
            graph.set_required_columns(column.name, list(column.needs))
    plan = CompactRowGroupPlan.fresh(num_records=spec.records, buffer_size=spec.buffer_size)
    buffers = RowGroupBufferManager(None)
    rows: list[Mapping[str, Any]] = []

    def keep(row_group: int) -> None:
        rows.extend(
            dict(buffers.get_row(row_group, row))
            for row in range(plan.row_group_size(row_group))
            if not buffers.is_dropped(row_group, row)
        )
        buffers.free_row_group(row_group)

    scheduler = async_scheduler.AsyncTaskScheduler(
        generators,
        graph,
        CompletionTracker.with_graph(graph, plan),
        plan,
        buffers,
        max_concurrent_row_groups=spec.row_groups_at_once,
        max_in_flight_tasks=spec.task_capacity,
        on_finalize_row_group=keep,
        num_records=spec.records,
        buffer_size=spec.buffer_size,
        scheduler_event_sink=sink,
    )
    if spec.cancel_after is not None:
        loop.call_later(spec.cancel_after, scheduler.request_cancel)
    try:
        await scheduler.run()
    except asyncio.CancelledError:
        assert spec.cancel_after is not None
        rows.clear()
    world.end()
    return world, rows

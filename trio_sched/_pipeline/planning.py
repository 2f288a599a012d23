"""The capacity plan of a run that does not take place: bound and checked like a run, and nothing else is done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike

from trio_sched._capacity import AsyncCapacityObservedMaxima, AsyncCapacityPlan
from trio_sched._pipeline.binding import bind_pipeline
from trio_sched._pipeline.bounds import ENGINE_THREADS, run_bounds
from trio_sched._pipeline.capacity import capacity_plan
from trio_sched._pipeline.config import RunConfig
from trio_sched._pipeline.model_calls import retry_free_clients
from trio_sched._pipeline.models import Model
from trio_sched._pipeline.sources import Row, open_input
from trio_sched._pipeline.steps import PipelineStep
from trio_sched._request.controller import AdaptiveRequestAdmissionController
from trio_sched._task.resolver import TaskSchedulingResolver
from trio_sched._util import inline

__all__ = ["plan_run"]


def plan_run(
    steps: Sequence[PipelineStep],
    *,
    rows: Iterable[Row] | str | PathLike[str] | None = None,
    records: int | None = None,
    models: Mapping[str, Model] | None = None,
    config: RunConfig | None = None,
) -> AsyncCapacityPlan:
    """What `run` would put into `capacity_plan.json` when it begins. Reads the first input row; raises as `run` does.

    Belongs to no run: it takes no output folder, makes no call, and needs no event loop.
    """
    config = config if config is not None else RunConfig()
    reader, _ = open_input(rows, records, buffer_size=config.buffer_size, blocking=inline)
    pipeline = bind_pipeline(steps, reader, models or {})
    bounds = run_bounds(config, pipeline.aliases, TaskSchedulingResolver(pipeline.nodes), ENGINE_THREADS)
    admission = AdaptiveRequestAdmissionController(bounds.requests, resolver=pipeline.resolver)
    clients = retry_free_clients(pipeline.aliases)
    return capacity_plan(
        pipeline,
        config,
        bounds,
        admission.pressure,
        AsyncCapacityObservedMaxima(),
        config.max_concurrent_row_groups,
        {},
        clients.records,
    )

"""One run, from declarations to a finished dataset.

The order is: read the first row, bind and check the pipeline, take the output folder, and only then open request
admission and the event writer, and run the scheduler. What can be refused is refused before the folder exists.
"""

from __future__ import annotations

import platform
import random
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from os import PathLike
from pathlib import Path

import attrs
import trio

from trio_sched import _validation as check
from trio_sched._blocking import Blocking, in_threads
from trio_sched._capacity import AsyncCapacityObservedMaxima, plain
from trio_sched._errors import PipelineError
from trio_sched._events.json_value import JsonValue
from trio_sched._events.jsonl import open_jsonl_sink
from trio_sched._events.sinks import (
    FanOutEventSink,
    RequestAdmissionEventSink,
    SchedulerAdmissionEventSink,
    scheduler_event_stream,
)
from trio_sched._observe.statistics import RequestStatisticsSink
from trio_sched._pipeline.binding import BoundPipeline, bind_pipeline
from trio_sched._pipeline.capacity import capacity_plan
from trio_sched._pipeline.columns import Column
from trio_sched._pipeline.config import RunConfig
from trio_sched._pipeline.failures import classify_failure
from trio_sched._pipeline.fingerprint import fingerprint
from trio_sched._pipeline.model_calls import ModelCalls
from trio_sched._pipeline.models import Model
from trio_sched._pipeline.result import RunResult
from trio_sched._pipeline.runner import PipelineRunner
from trio_sched._pipeline.sources import Row, open_rows
from trio_sched._pipeline.store import PartStore, RunFolder
from trio_sched._request.controller import AdaptiveRequestAdmissionController
from trio_sched._scheduler.row_groups import FixedRowGroupPlan
from trio_sched._scheduler.scheduler import AsyncTaskScheduler, SchedulerResult
from trio_sched._task.config import TaskAdmissionConfig
from trio_sched._task.controller import TaskAdmissionController
from trio_sched._task.resolver import TaskSchedulingResolver
from trio_sched._unwrap import single_error
from trio_sched._version import __version__

__all__ = ["execute", "run"]

_MAX_BLOCKING_THREADS = 8
"""Enough for every row group in flight to be written at once beside the event writer; more only wait for one disk."""


async def run(
    columns: Sequence[Column],
    *,
    output: str | PathLike[str],
    rows: Iterable[Row] | str | PathLike[str] | None = None,
    records: int | None = None,
    models: Mapping[str, Model] | None = None,
    config: RunConfig | None = None,
    event_sink: SchedulerAdmissionEventSink | RequestAdmissionEventSink | None = None,
) -> RunResult:
    """Make a dataset and put it into the folder `output`.

    columns: made with `@column` and `@from_scratch_column`, in any order. rows: input rows, as an iterable of mappings
    or a `.jsonl` or `.csv` file; or records: how many rows the from-scratch columns are to make. models: what columns
    call by name. event_sink: gets either or both event streams, besides the files.

    Raises a `PipelineError` for a pipeline that cannot run, `InvalidValueError` for a bad number, `InputRowError` for a
    bad row, `OutputExistsError` or `OutputNotWritableError` for a bad folder. A generator that raises drops its row and
    is counted in the result. Interrupted or cancelled, it leaves every finished row group behind and nothing else.
    """
    return await execute(
        columns,
        output=output,
        rows=rows,
        records=records,
        models=models,
        config=config,
        event_sink=event_sink,
        blocking=in_threads(_MAX_BLOCKING_THREADS),
    )


async def execute(
    columns: Sequence[Column],
    *,
    output: str | PathLike[str],
    rows: Iterable[Row] | str | PathLike[str] | None = None,
    records: int | None = None,
    models: Mapping[str, Model] | None = None,
    config: RunConfig | None = None,
    event_sink: SchedulerAdmissionEventSink | RequestAdmissionEventSink | None = None,
    blocking: Blocking,
) -> RunResult:
    """`run`, with a say in where blocking work goes."""
    config = config if config is not None else RunConfig()
    if (rows is None) == (records is None):
        raise PipelineError("a run needs either rows or records: input rows, or how many to make from scratch")
    reader = None
    if rows is not None:
        reader = open_rows(rows, buffer_size=config.buffer_size, blocking=blocking)
    pipeline = bind_pipeline(columns, reader, models or {})
    plan = reader
    if plan is None:
        plan = FixedRowGroupPlan(check.check_int("records", records, minimum=0), config.buffer_size)
    resolver = TaskSchedulingResolver(pipeline.columns)
    tasks = TaskAdmissionConfig(config.submission_capacity, resolver.resource_limits)
    folder = RunFolder(Path(output))
    folder.create()

    run_id = secrets.token_hex(8)
    document: dict[str, JsonValue] = {
        "schema_version": 1,
        "run_id": run_id,
        "status": "running",
        "fingerprint": fingerprint(pipeline, config, reader.source if reader is not None else None, records),
        "versions": {"trio_sched": __version__, "trio": trio.__version__, "python": platform.python_version()},
        "config": plain(attrs.asdict(config)),
        "columns": list(pipeline.graph.columns),
    }
    folder.write_json(folder.run_file, document)
    statistics = RequestStatisticsSink()
    requests = config.request_admission.with_limits()
    started_at = trio.current_time()
    status = "failed"
    store = PartStore(folder, pipeline.graph.columns, blocking=blocking)
    outcome: SchedulerResult | None = None
    try:
        with single_error():
            async with _open_sinks(folder, config, event_sink, statistics, blocking) as sink:
                admission = AdaptiveRequestAdmissionController(requests, event_sink=sink)
                calls = ModelCalls(pipeline, admission, config, random.Random(config.seed))
                scheduler = AsyncTaskScheduler(
                    pipeline.graph,
                    resolver,
                    PipelineRunner(pipeline.columns, calls.handles, store, seed=config.seed),
                    plan,
                    store,
                    admission=TaskAdmissionController(tasks),
                    classify=classify_failure,
                    max_concurrent_row_groups=config.max_concurrent_row_groups,
                    events=scheduler_event_stream(sink),
                    run_id=run_id,
                )

                def write_plan() -> None:
                    maxima = _maxima(scheduler, admission)
                    current = capacity_plan(pipeline, config, tasks, requests, admission.pressure, maxima)
                    folder.write_json(folder.capacity_file, plain_document(current))

                write_plan()
                try:
                    async with admission:
                        outcome = await scheduler.run()
                finally:
                    write_plan()
        status = "cancelled" if outcome.cancelled else "completed"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        document["status"] = status
        if outcome is not None:
            document |= {"rows": outcome.rows, "dropped_rows": outcome.dropped_rows}
        folder.write_json(folder.run_file, document)
    return RunResult(
        path=folder.path,
        run_id=run_id,
        scheduler=outcome,
        requests=statistics.by_resource,
        static_caps={endpoint: cap.cap for endpoint, cap in pipeline.resolver.static_caps().items()},
        wall_seconds=trio.current_time() - started_at,
        leaks=tuple(map(str, (*scheduler.leak_report(), *admission.leak_report()))),
    )

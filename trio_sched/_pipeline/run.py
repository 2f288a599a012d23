"""One run, from declarations to a finished dataset.

The order is: read the first row, bind and check the pipeline, take the output folder (`resume.py`), and only then open
request admission and the event writer, and run the scheduler. What can be refused is refused before the folder exists.
"""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from os import PathLike
from pathlib import Path
from typing import TypeAlias

import attrs
import trio

from trio_sched import _validation as check
from trio_sched._blocking import Blocking, in_threads
from trio_sched._capacity import AsyncCapacityPlan, plain
from trio_sched._client import RetryFreeClients
from trio_sched._errors import PipelineError
from trio_sched._events.jsonl import open_jsonl_sink
from trio_sched._events.sinks import (
    FanOutEventSink,
    RequestAdmissionEventSink,
    SchedulerAdmissionEventSink,
    scheduler_event_stream,
)
from trio_sched._executor import ModelRequestExecutor, RequestRetryConfig
from trio_sched._observe.display import LiveMode, RunWatch, choose_display, shown
from trio_sched._observe.run_progress import RunProgressSink
from trio_sched._observe.statistics import RequestStatisticsSink
from trio_sched._pipeline.admission import register_models
from trio_sched._pipeline.binding import BoundPipeline, bind_pipeline
from trio_sched._pipeline.capacity import capacity_plan
from trio_sched._pipeline.config import RunConfig
from trio_sched._pipeline.durable_parts import DurableParts, EarlierRows
from trio_sched._pipeline.failures import classify_failure
from trio_sched._pipeline.fingerprint import dataset_identity
from trio_sched._pipeline.folder import RunFolder, open_part_format
from trio_sched._pipeline.model_calls import ModelHandle, retry_free_clients
from trio_sched._pipeline.models import Model
from trio_sched._pipeline.output_errors import OutputNotWritableError
from trio_sched._pipeline.result import RunResult
from trio_sched._pipeline.resume import (
    ResumeMode,
    check_resume_mode,
    hold_output,
    make_output,
    reopen_output,
    resume_advice,
)
from trio_sched._pipeline.resume_plan import resume_plan
from trio_sched._pipeline.run_document import RunDocument
from trio_sched._pipeline.runner import PipelineRunner
from trio_sched._pipeline.sources import Row, open_rows
from trio_sched._pipeline.steps import PipelineStep
from trio_sched._pipeline.store import PartStore
from trio_sched._request.config import RequestAdmissionConfig
from trio_sched._request.controller import AdaptiveRequestAdmissionController
from trio_sched._scheduler.row_groups import FixedRowGroupPlan, RowGroupPlan, SkippingRowGroupPlan
from trio_sched._scheduler.scheduler import AsyncTaskScheduler, default_task_admission
from trio_sched._task.config import TaskAdmissionConfig
from trio_sched._task.controller import TaskAdmissionController
from trio_sched._task.resolver import TaskSchedulingResolver
from trio_sched._unwrap import single_error

logger = logging.getLogger("trio_sched.run")

__all__ = ["run"]

AnySink: TypeAlias = SchedulerAdmissionEventSink | RequestAdmissionEventSink

_MAX_BLOCKING_THREADS = 8
"""Enough for every row group in flight to be written at once beside the event writer; more only wait for one disk."""

_MAX_COLUMN_THREADS = 40
"""Of sync columns, beside those of files, which must not wait for them. As many as Trio itself uses by default."""


async def run(
    steps: Sequence[PipelineStep],
    *,
    output: str | PathLike[str],
    rows: Iterable[Row] | str | PathLike[str] | None = None,
    records: int | None = None,
    models: Mapping[str, Model] | None = None,
    config: RunConfig | None = None,
    resume: ResumeMode = "never",
    event_sink: AnySink | None = None,
    live: LiveMode | None = None,
    blocking: Blocking | None = None,
) -> RunResult:
    """Make a dataset and put it into the folder `output`.

    steps: columns, made with `@column`, `@batch_column` and `@from_scratch_column`, in any order, and processors, made
    with `@pre_batch_processor` and `@post_batch_processor`, each kind in the order in which they follow each other.
    rows: input rows, as an iterable of mappings or a `.jsonl` or `.csv` file; or records: how many rows the
    from-scratch columns are to make.
    models: what columns call by name. event_sink: gets either or both event streams, besides the files. live: shows
    progress on standard error, as a `panel` on the terminal, as log `lines`, or `auto` as fits; nothing by default.
    blocking: where files are read and written and sync functions run, worker threads by default; a simulation on a mock
    clock gives `trio_sched.lowlevel.inline`.

    resume: what to do with a run that `output` holds. `never` refuses it; `always` goes on with it, and refuses a
    folder without one; `if-possible` goes on with it, or begins where there is none. Only the row groups that are not
    durable are made; a run of another dataset is refused. Nothing is ever overwritten.

    Raises a `PipelineError` for a pipeline that cannot run, `InvalidValueError` for a bad number, `InputRowError` for a
    bad row, `InputChangedError` for input other than the resumed run's, an `OutputError` for a bad folder or a full
    disk. A generator that raises drops its row and is counted in the result. However it ends, it leaves every finished
    row group behind, and nothing of the others.
    """
    config = config if config is not None else RunConfig()
    column_blocking = blocking if blocking is not None else in_threads(_MAX_COLUMN_THREADS)
    blocking = blocking if blocking is not None else in_threads(_MAX_BLOCKING_THREADS)
    mode = check_resume_mode(resume)
    display = choose_display(live) if live is not None else None
    if (rows is None) == (records is None):
        raise PipelineError("a run needs either rows or records: input rows, or how many to make from scratch")
    reader = None
    if rows is not None:
        reader = open_rows(rows, buffer_size=config.buffer_size, blocking=blocking)
    pipeline = bind_pipeline(steps, reader, models or {})
    plan: SkippingRowGroupPlan
    if reader is not None:
        plan = reader
    else:
        plan = FixedRowGroupPlan(check.check_int("records", records, minimum=0), config.buffer_size)
    resolver = TaskSchedulingResolver(pipeline.columns)
    tasks = default_task_admission(resolver, submission_capacity=config.submission_capacity)
    clients = retry_free_clients(pipeline.aliases)
    part_format = open_part_format(config.format)
    source = await blocking(reader.identity) if reader is not None else None
    identity = dataset_identity(pipeline, config, source, records)
    order = pipeline.graph.columns
    folder = RunFolder(Path(output))
    with hold_output(folder, mode) as held:
        durable = DurableParts(config.buffer_size)
        if held is None:
            make_output(folder)
        else:
            durable = await blocking(reopen_output, folder, held, identity, part_format, order, records)
        document = RunDocument(folder, config, order, identity, resumed_from=held, earlier=durable.earlier)
        forget = reader.forget if reader is not None else None
        store = PartStore(folder, order, part_format, blocking=blocking, forget=forget)
        watch = None
        if display is not None:
            watch = RunWatch(RunProgressSink(_records_to_make(rows, records, durable.earlier)), display)
        to_do = resume_plan(plan, durable, folder, part_format, blocking)
        return await _Run(
            pipeline, to_do, resolver, tasks, clients, folder, store, config, blocking, column_blocking
        ).run(event_sink, watch, document, durable.earlier)


class _Run:
    """A pipeline that was accepted, from its first document to its result."""

    def __init__(
        self,
        pipeline: BoundPipeline,
        plan: RowGroupPlan,
        resolver: TaskSchedulingResolver,
        tasks: TaskAdmissionConfig,
        clients: RetryFreeClients,
        folder: RunFolder,
        store: PartStore,
        config: RunConfig,
        blocking: Blocking,
        column_blocking: Blocking,
    ) -> None:
        self.pipeline = pipeline
        self.plan = plan
        self.resolver = resolver
        self.tasks = tasks
        self.clients = clients
        self.folder = folder
        self.store = store
        self.config = config
        self.blocking = blocking
        self.column_blocking = column_blocking
        self.statistics = RequestStatisticsSink()

    async def run(
        self, event_sink: AnySink | None, watch: RunWatch | None, document: RunDocument, earlier: EarlierRows
    ) -> RunResult:
        """Run it; the folder's documents say how it stands, also when it fails."""
        document.write_start()
        try:
            with single_error():
                result = attrs.evolve(await self._run_with_sinks(event_sink, watch, document.run_id), earlier=earlier)
        except BaseException as error:
            with _quietly("run.json"):
                document.write_end(_status(error), error=type(error).__name__)
            self._advise(error)
            raise
        status = "cancelled" if result.scheduler.cancelled else "completed"
        document.write_end(status, rows=result.records, dropped_rows=result.dropped)
        return result

    def _advise(self, error: BaseException) -> None:
        advice = resume_advice(self.folder)
        logger.warning("run ended by %s: %s", type(error).__name__, advice)
        if sys.version_info >= (3, 11):
            error.add_note(advice)

    async def _run_with_sinks(self, event_sink: AnySink | None, watch: RunWatch | None, run_id: str) -> RunResult:
        sinks: list[AnySink] = [self.statistics]
        if event_sink is not None:
            sinks.append(event_sink)
        async with AsyncExitStack() as stack:
            if self.config.write_events:
                try:
                    files = await stack.enter_async_context(open_jsonl_sink(self.folder.events, blocking=self.blocking))
                except OSError as error:
                    raise OutputNotWritableError(self.folder.events, error) from error
                sinks.insert(0, files)
            if watch is not None:
                sinks.append(watch.sink)
                await stack.enter_async_context(shown(watch, self.blocking))
            return await self._run_admitted(FanOutEventSink(*sinks), run_id)

    async def _run_admitted(self, sink: FanOutEventSink, run_id: str) -> RunResult:
        requests = self.config.request_admission.with_limits()
        admission = AdaptiveRequestAdmissionController(requests, event_sink=sink)
        register_models(admission, self.pipeline.aliases)
        executor = ModelRequestExecutor(
            admission,
            retry=RequestRetryConfig(max_attempts=self.config.max_attempts),
            rng=random.Random(self.config.seed),
        )
        handles = {model: ModelHandle(model, executor, self.clients) for model in self.pipeline.aliases}
        task_admission = TaskAdmissionController(self.tasks)
        scheduler: AsyncTaskScheduler

        def living_rows(row_group: int) -> Sequence[int]:
            return scheduler.living_rows(row_group)

        scheduler = AsyncTaskScheduler(
            self.pipeline.graph,
            self.resolver,
            PipelineRunner(
                self.pipeline,
                handles,
                self.store,
                blocking=self.column_blocking,
                living_rows=living_rows,
                seed=self.config.seed,
            ),
            self.plan,
            self.store,
            admission=task_admission,
            classify=classify_failure,
            max_concurrent_row_groups=self.config.max_concurrent_row_groups,
            events=scheduler_event_stream(sink),
            run_id=run_id,
        )
        started_at = trio.current_time()
        self._write_plan(requests, admission, scheduler)
        try:
            async with admission:
                outcome = await scheduler.run()
        except BaseException:
            with _quietly("capacity_plan.json"):
                self._write_plan(requests, admission, scheduler)
            raise
        plan = self._write_plan(requests, admission, scheduler)
        return RunResult(
            path=self.folder.path,
            run_id=run_id,
            scheduler=outcome,
            requests=self.statistics.by_resource,
            static_caps={endpoint: each.cap for endpoint, each in self.pipeline.resolver.static_caps().items()},
            capacity_plan=plan,
            wall_seconds=trio.current_time() - started_at,
            leaks=(*map(str, task_admission.leak_report()), *map(str, admission.leak_report()), *_waiters(admission)),
        )

    def _write_plan(
        self,
        requests: RequestAdmissionConfig,
        admission: AdaptiveRequestAdmissionController,
        scheduler: AsyncTaskScheduler,
    ) -> AsyncCapacityPlan:
        seen = admission.pressure.maxima()
        maxima = attrs.evolve(
            scheduler.observed_maxima(),
            request_waiters_by_resource=seen.waiters_by_resource,
            request_in_flight_by_resource=seen.in_flight_by_resource,
            provider_model_aggregate_in_flight=seen.in_flight_by_endpoint,
            request_domain_current_limits=seen.current_limit_by_resource,
        )
        plan = capacity_plan(
            self.pipeline, self.config, self.tasks, requests, admission.pressure, maxima, self.clients.records
        )
        document = plain(plan)
        assert isinstance(document, dict)
        self.folder.write_json(self.folder.capacity_file, document)
        return plan


def _records_to_make(
    rows: Iterable[Row] | str | PathLike[str] | None, records: int | None, earlier: EarlierRows
) -> int | None:
    """How many rows are left to make, or None where only reading the input to its end would tell."""
    if isinstance(rows, Sequence) and not isinstance(rows, str):
        records = len(rows)
    return None if records is None else records - earlier.rows - earlier.dropped


def _status(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return "cancelled" if isinstance(error, trio.Cancelled) else "failed"


def _waiters(admission: AdaptiveRequestAdmissionController) -> Iterator[str]:
    for resource, snapshot in admission.pressure.snapshots().items():
        if snapshot.waiters:
            yield f"{snapshot.waiters} requests still wait for {resource}"


@contextmanager
def _quietly(document: str) -> Generator[None, None, None]:
    """On the way out with an error, trouble with a document is logged and does not take that error's place."""
    try:
        yield
    except OutputNotWritableError:
        logger.exception("%s could not be written", document)

"""One attempt at a dataset: request admission, event writer and scheduler, around a pipeline that was accepted.

The folder's documents say how the attempt stands, also when it fails.
"""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager

import attrs
import trio

from trio_sched._capacity import AsyncCapacityPlan, plain
from trio_sched._events.jsonl import open_jsonl_sink
from trio_sched._events.sinks import AnyAdmissionEventSink, FanOutEventSink, scheduler_event_stream
from trio_sched._executor import ModelRequestExecutor, RequestRetryConfig
from trio_sched._observe.display import RunWatch, shown
from trio_sched._observe.request_replay import RequestStatisticsSink
from trio_sched._observe.sampling import SummaryEventSink, open_summary_sink
from trio_sched._pipeline.binding import THREADS, BoundPipeline
from trio_sched._pipeline.capacity import RunBounds, capacity_plan
from trio_sched._pipeline.config import RunConfig
from trio_sched._pipeline.errors import OutputNotWritableError
from trio_sched._pipeline.folder import EarlierRows, RunDocument, RunFolder
from trio_sched._pipeline.models import ModelHandle
from trio_sched._pipeline.result import RunResult, uncalled_model
from trio_sched._pipeline.resume import resume_advice
from trio_sched._pipeline.runner import PipelineRunner, RunContext, classify_with
from trio_sched._pipeline.signals import signal_that_came
from trio_sched._pipeline.store import PartStore
from trio_sched._pipeline.views import PATIENCE_AT_THE_END, PATIENCE_ON_THE_WAY_OUT, write_views
from trio_sched._request.controller import AdaptiveRequestAdmissionController
from trio_sched._resources.identity import RuntimeCorrelation, runtime_correlation
from trio_sched._resources.task import SchedulerResourceKey, local_stage_resource
from trio_sched._scheduler.health import HealthConfig
from trio_sched._scheduler.messages import RowGroupPlan
from trio_sched._scheduler.retry import RetryConfig
from trio_sched._scheduler.scheduler import AsyncTaskScheduler, SchedulerConfig
from trio_sched._scheduler.stall import NoProgressError
from trio_sched._task.controller import TaskAdmissionController
from trio_sched._util import Blocking, ThreadPool, single_error

logger = logging.getLogger("trio_sched.run")

__all__ = ["RunAttempt"]


@attrs.frozen(eq=False, kw_only=True)
class RunAttempt:
    """Everything that one attempt works with, and the attempt itself: from its first document to its result.

    row_groups: those that are still to do. earlier: the rows that were durable before. blocking: where files are read
    and written. column_blocking: where sync functions run.
    """

    config: RunConfig
    pipeline: BoundPipeline
    bounds: RunBounds
    row_groups: RowGroupPlan
    folder: RunFolder
    document: RunDocument
    store: PartStore
    earlier: EarlierRows
    blocking: Blocking
    column_blocking: Blocking
    event_sink: AnyAdmissionEventSink | None = None
    watch: RunWatch | None = None
    statistics: RequestStatisticsSink = attrs.field(factory=RequestStatisticsSink, init=False)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> RunResult:
        """Run it. The folder's documents record its status, also when it fails."""
        document = self.document
        document.write_start()
        try:
            with single_error():
                result = await self._run_with_sinks()
                level = self.config.write_events
                await write_views(self.folder, self.blocking, level=level, patience=PATIENCE_AT_THE_END)
        except BaseException as error:
            with _quietly("run.json"):
                stop_reason = "no_progress" if isinstance(error, NoProgressError) else None
                document.write_end(_status(error), stop_reason=stop_reason, error=_name(error))
            self._advise(error)
            with trio.CancelScope(shield=True):
                level = self.config.write_events
                await write_views(self.folder, self.blocking, level=level, patience=PATIENCE_ON_THE_WAY_OUT)
            raise
        document.write_end(
            result.status,
            stop_reason=result.stop_reason,
            early_stop=str(result.scheduler.early_stop) if result.scheduler.early_stop is not None else None,
            rows=result.records,
            dropped_rows=result.dropped,
            filtered_rows=result.filtered,
        )
        for column in result.uncalled_models:
            logger.warning("%s", uncalled_model(column))
        if result.status != "completed":
            advice = resume_advice(self.folder, after_failures=result.stop_reason == "error_rate")
            logger.warning("run %s: %s", result.status, advice)
        return result

    def _advise(self, error: BaseException) -> None:
        advice = resume_advice(self.folder)
        logger.warning("run ended by %s: %s", _name(error), advice)
        if sys.version_info >= (3, 11):
            error.add_note(advice)

    async def _run_with_sinks(self) -> RunResult:
        sinks: list[AnyAdmissionEventSink] = [self.statistics]
        if self.event_sink is not None:
            sinks.append(self.event_sink)
        async with AsyncExitStack() as stack:
            if self.config.write_events == "all":
                files = await stack.enter_async_context(open_jsonl_sink(self.folder.events, blocking=self.blocking))
                sinks.insert(0, files)
            summary: SummaryEventSink | None = None
            if self.config.write_events == "summary":
                opened = open_summary_sink(
                    self.folder.events, self.document.run_id, self.statistics, blocking=self.blocking
                )
                summary = await stack.enter_async_context(opened)
                sinks.append(summary)
            if self.watch is not None:
                sinks.append(self.watch.sink)
                await stack.enter_async_context(shown(self.watch, self.blocking))
            with runtime_correlation.within(RuntimeCorrelation(self.document.run_id)):
                return await self._run_admitted(FanOutEventSink(*sinks), summary)

    async def _run_admitted(self, sink: FanOutEventSink, summary: SummaryEventSink | None) -> RunResult:
        admission = AdaptiveRequestAdmissionController(
            self.bounds.requests, event_sink=sink, resolver=self.pipeline.request_resolver
        )
        tasks = TaskAdmissionController(self.bounds.tasks, clock=trio.lowlevel.current_clock().current_time)
        handles = self._make_handles(admission)
        scheduler = self._make_scheduler(handles, admission, tasks, sink)
        if summary is not None:
            summary.watch(scheduler.sample, admission.pressure.snapshots)
        started_at = trio.current_time()
        self._write_plan(admission, scheduler)
        try:
            async with admission:
                outcome = await scheduler.run()
        except BaseException:
            with _quietly("capacity_plan.json"):
                self._write_plan(admission, scheduler)
            raise
        plan = self._write_plan(admission, scheduler)
        return RunResult(
            path=self.folder.path,
            run_id=self.document.run_id,
            scheduler=outcome,
            requests=self.statistics.by_resource,
            static_caps={endpoint: each.cap for endpoint, each in self.pipeline.request_resolver.static_caps().items()},
            capacity_plan=plan,
            wall_seconds=trio.current_time() - started_at,
            leaks=(*map(str, tasks.leak_report()), *map(str, admission.leak_report()), *_waiters(admission)),
            skipped_cells=self.store.skipped_cells,
            fallback_cells=self.store.fallback_cells,
            mended_cells=self.store.mended_cells,
            null_cells={column: count for column, count in self.store.null_cells.items() if handles.get(column)},
            uncalled_models=self._uncalled_models(handles, outcome.rows),
            earlier=self.earlier,
            events=self.config.write_events,
        )

    def _uncalled_models(self, handles: Mapping[str, Sequence[ModelHandle]], rows: int) -> tuple[str, ...]:
        """The columns with models that made cells of the `rows` written, and never called a model."""
        return tuple(
            column
            for column, models in handles.items()
            if models
            and not any(model.was_called for model in models)
            and rows > self.store.skipped_cells.get(column, 0)
        )

    def _make_handles(self, admission: AdaptiveRequestAdmissionController) -> dict[str, list[ModelHandle]]:
        executor = ModelRequestExecutor(
            admission,
            retry=RequestRetryConfig(max_attempts=self.config.max_attempts),
            rng=random.Random(self.config.seed),
        )
        return {
            column: [ModelHandle(model, executor, self.pipeline.clients) for model in bound.models]
            for column, bound in self.pipeline.nodes.items()
        }

    def _make_scheduler(
        self,
        handles: Mapping[str, Sequence[ModelHandle]],
        admission: AdaptiveRequestAdmissionController,
        tasks: TaskAdmissionController,
        sink: FanOutEventSink,
    ) -> AsyncTaskScheduler:
        def active_rows(row_group: int) -> Sequence[int]:
            return scheduler.living_rows(row_group)  # Each of the two needs the other; the runner asks later.

        context = RunContext(
            store=self.store, blocking=self.column_blocking, active_rows=active_rows, seed=self.config.seed
        )
        scheduler = AsyncTaskScheduler(
            self.pipeline.graph,
            self.pipeline.task_resolver,
            PipelineRunner(self.pipeline.nodes, handles, context),
            self.row_groups,
            self.store,
            admission=tasks,
            classify=classify_with(admission.answered, self.pipeline.needed_by_all),
            config=SchedulerConfig(
                row_groups=self.bounds.row_groups,
                retry=RetryConfig(max_salvage_rounds=self.config.max_attempts - 1),
                health=HealthConfig(stop_error_rate=self.config.stop_error_rate),
                no_progress_seconds=self.config.no_progress_seconds,
            ),
            pressure=admission.pressure,
            events=scheduler_event_stream(sink),
            run_id=self.document.run_id,
        )
        return scheduler

    def _write_plan(
        self, admission: AdaptiveRequestAdmissionController, scheduler: AsyncTaskScheduler
    ) -> AsyncCapacityPlan:
        seen, tasks = admission.pressure.maxima(), scheduler.observed_maxima()
        maxima = attrs.evolve(
            tasks,
            hidden_scheduler_resource_waiters={
                **tasks.hidden_scheduler_resource_waiters,
                **_waiters_for_threads(self.column_blocking),
            },
            request_waiters_by_resource=seen.waiters_by_resource,
            request_in_flight_by_resource=seen.in_flight_by_resource,
            provider_model_aggregate_in_flight=seen.in_flight_by_endpoint,
            request_domain_current_limits=seen.current_limit_by_resource,
        )
        plan = capacity_plan(
            self.pipeline,
            self.config,
            self.bounds,
            admission.pressure,
            maxima=maxima,
            row_group_target=scheduler.row_group_admission.target.value,
            row_group_blocks=scheduler.row_group_admission.blocked_reasons,
        )
        document = plain(plan)
        assert isinstance(document, dict)
        self.folder.write_json(self.folder.capacity_file, document)
        return plan


def _waiters_for_threads(blocking: Blocking) -> dict[SchedulerResourceKey, int]:
    """How many sync functions waited for a thread, at most at once, although their tasks held one already."""
    waited = blocking.most_waiting if isinstance(blocking, ThreadPool) else 0
    return {local_stage_resource(THREADS): waited} if waited else {}


def _status(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt | trio.Cancelled):
        return "interrupted"
    return "stopped" if isinstance(error, NoProgressError) else "failed"


def _name(error: BaseException) -> str:
    """What ended the run: the signal that cancelled it, or the type of an error."""
    return (signal_that_came() if isinstance(error, trio.Cancelled) else None) or type(error).__name__


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

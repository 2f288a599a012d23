"""What bounds a run, and its capacity plan: which value came from where, and how much of it was used.

`run_bounds` turns the settings of a run into the configuration of every stage, in one place, for the run itself and for
a plan without a run.

`capacity_plan` takes each value from the first of its sources that has one:

- a setting: what was given for the run, else the default;
- an endpoint's static cap: the smallest that its models ask for;
- the limit that a request resource begins with: what the configuration of request admission says, else where its rule
  begins, bounded by the cap and by a clamp;
- its rule: what its models ask for, else AIMD where the run was given that rule's tuning, else the default.

`plan_run` makes the plan of a run that does not take place.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Final

import attrs

from trio_sched._capacity import (
    AsyncCapacityConfigured,
    AsyncCapacityObservedMaxima,
    AsyncCapacityPlan,
    AsyncCapacityRuntimeSnapshot,
    CapacityValue,
    CapacityValueSource,
    RowGroupAdmissionPlan,
    WorkerThreadsPlan,
)
from trio_sched._clients import connection_limit
from trio_sched._errors import InvalidValueError
from trio_sched._pipeline.binding import BoundPipeline, bind_pipeline
from trio_sched._pipeline.columns import PipelineStep
from trio_sched._pipeline.config import RunConfig
from trio_sched._pipeline.models import Model, request_config
from trio_sched._pipeline.sources import Row, open_input
from trio_sched._request.config import DEFAULT_LIMIT, RequestAdmissionConfig
from trio_sched._request.controller import AdaptiveRequestAdmissionController
from trio_sched._request.evidence import DEFAULT_INITIAL_LIMIT
from trio_sched._request.limit import limit_name
from trio_sched._request.pressure import RequestPressureSnapshotProvider
from trio_sched._resources.identity import ProviderModelKey, ProviderModelStaticCap, RequestResourceKey
from trio_sched._scheduler.row_group_admission import RowGroupBlockReason, RowGroupConfig
from trio_sched._scheduler.scheduler import default_task_admission
from trio_sched._task.controller import TaskAdmissionConfig
from trio_sched._util import inline

if sys.platform != "win32":
    import resource

__all__ = ["ENGINE_THREADS", "RunBounds", "WorkerThreads", "capacity_plan", "plan_run", "run_bounds"]


@attrs.frozen
class WorkerThreads:
    """files: threads that read and write files, at most. sync_columns: those of sync columns and processors."""

    files: int
    sync_columns: int


ENGINE_THREADS: Final = WorkerThreads(files=8, sync_columns=40)
"""Files: enough to write every row group in flight at once beside the event writer; more would only wait for one disk.
Sync columns have threads of their own, so that files never wait for them: as many as Trio itself uses by default."""


@attrs.frozen
class RunBounds:
    """The configuration of every stage. threads: None where the caller of the run gave its own `blocking`."""

    row_groups: RowGroupConfig
    tasks: TaskAdmissionConfig
    requests: RequestAdmissionConfig
    threads: WorkerThreads | None


def run_bounds(config: RunConfig, pipeline: BoundPipeline, threads: WorkerThreads | None) -> RunBounds:
    """The configuration of every stage that `config` asks for with this pipeline.

    Raises `InvalidValueError` for the tuning of AIMD together with another rule.
    """
    return RunBounds(
        RowGroupConfig(max_concurrent=config.max_concurrent_row_groups),
        default_task_admission(pipeline.task_resolver, submission_capacity=config.submission_capacity),
        request_config(pipeline.aliases, config.request_admission, max_outage_seconds=config.max_outage_seconds),
        threads,
    )


def capacity_plan(
    pipeline: BoundPipeline,
    config: RunConfig,
    bounds: RunBounds,
    pressure: RequestPressureSnapshotProvider,
    *,
    maxima: AsyncCapacityObservedMaxima,
    row_group_target: int,
    row_group_blocks: Mapping[RowGroupBlockReason, int],
) -> AsyncCapacityPlan:
    """The plan at this moment: configured values with their sources, a snapshot of the limits, maxima so far.

    Raises `InvalidValueError` for a value that is missing and has no safe fallback.
    """
    resources = tuple(sorted({model.resource for model in pipeline.aliases}))
    endpoints = tuple(dict.fromkeys(each.provider_model_key for each in resources))
    caps = {endpoint: _static_cap(endpoint, pipeline) for endpoint in endpoints}
    limits = {each: _limit(each.provider_model_key, pipeline, bounds.requests) for each in resources}
    snapshots = pressure.snapshots()
    return AsyncCapacityPlan(
        configured=AsyncCapacityConfigured(
            buffer_size=CapacityValue(config.buffer_size, _source(config, "buffer_size")),
            row_group_admission=RowGroupAdmissionPlan(
                mode="fixed" if bounds.row_groups.adaptive is None else "adaptive",
                concurrency=CapacityValue(
                    bounds.row_groups.max_concurrent, _source(config, "max_concurrent_row_groups")
                ),
                max_admitted_rows=_max_admitted_rows(bounds.row_groups),
                target=row_group_target,
                observed_in_flight=maxima.row_groups_in_flight,
                # A target never shrinks, so the one now is the highest there was.
                observed_target=row_group_target,
                blocked_reasons=dict(row_group_blocks.items()),
            ),
            submission_capacity=CapacityValue(bounds.tasks.submission_capacity, _source(config, "submission_capacity")),
            task_resource_limits=CapacityValue(bounds.tasks.resource_limits, "engine_internal_config"),
            request_resources=CapacityValue(resources, "model_metadata"),
            provider_model_static_caps=caps,
            request_domain_initial_limits={
                each: _initial_limit(each, bounds.requests, caps[each.provider_model_key], limits[each].required)
                for each in resources
            },
            request_admission_config=CapacityValue(bounds.requests.snapshot(), _source(config, "request_admission")),
            transport_pool_limits={endpoint: _pool_limit(endpoint, pipeline) for endpoint in endpoints},
            client_retries=CapacityValue(pipeline.clients.records, "adapter_config"),
            worker_threads=_worker_threads(bounds),
            open_files=_open_files(),
            request_limits=limits,
        ),
        runtime_snapshot=AsyncCapacityRuntimeSnapshot(
            request_domain_current_limits={key: each.current_limit for key, each in snapshots.items()},
            request_domain_effective_max={key: each.effective_max for key, each in snapshots.items()},
            request_domain_blocked_until={key: each.blocked_until_monotonic for key, each in snapshots.items()},
            provider_model_aggregate_in_flight={
                endpoint: each.aggregate_in_flight for endpoint, each in pressure.global_snapshots().items()
            },
        ),
        observed_maxima=maxima,
    )


def plan_run(
    steps: Sequence[PipelineStep],
    *,
    rows: Iterable[Row] | str | PathLike[str] | None = None,
    records: int | None = None,
    models: Mapping[str, Model] | None = None,
    config: RunConfig | None = None,
) -> AsyncCapacityPlan:
    """The plan that `run` would write when it begins. Reads the first input row; raises as `run` does.

    It takes no output folder, makes no call, and needs no event loop.
    """
    config = config if config is not None else RunConfig()
    reader, _ = open_input(rows, records, buffer_size=config.buffer_size, blocking=inline)
    pipeline = bind_pipeline(steps, reader, models or {}, sync_threads=ENGINE_THREADS.sync_columns)
    bounds = run_bounds(config, pipeline, ENGINE_THREADS)
    admission = AdaptiveRequestAdmissionController(bounds.requests, resolver=pipeline.request_resolver)
    return capacity_plan(
        pipeline,
        config,
        bounds,
        admission.pressure,
        maxima=AsyncCapacityObservedMaxima(),
        row_group_target=config.max_concurrent_row_groups,
        row_group_blocks={},
    )


def _source(config: RunConfig, setting: str) -> CapacityValueSource:
    return "run_config" if setting in config.given else "default"


def _max_admitted_rows(config: RowGroupConfig) -> CapacityValue[int]:
    if config.max_admitted_rows is not None:
        return CapacityValue(config.max_admitted_rows, "engine_internal_config")
    return CapacityValue(
        None,
        "engine_internal_config",
        missing_reason="rows in flight are bounded by the row groups in flight times the buffer size",
    )


def _static_cap(endpoint: ProviderModelKey, pipeline: BoundPipeline) -> CapacityValue[ProviderModelStaticCap]:
    cap = pipeline.request_resolver.static_cap(endpoint)
    if cap is None:
        raise InvalidValueError(f"provider_model_static_caps[{endpoint}]", None, "known for every endpoint in use")
    was_asked_for = any(
        model.endpoint == endpoint and model.max_parallel_requests == cap.cap and "max_parallel_requests" in model.given
        for model in pipeline.aliases
    )
    return CapacityValue(cap, "model_metadata" if was_asked_for else "default")


def _limit(endpoint: ProviderModelKey, pipeline: BoundPipeline, config: RequestAdmissionConfig) -> CapacityValue[str]:
    asked = pipeline.request_resolver.limit(endpoint)
    if asked is not None:
        return CapacityValue(limit_name(asked), "model_metadata")
    return CapacityValue(limit_name(config.limit), "default" if config.limit == DEFAULT_LIMIT else "run_config")


def _initial_limit(
    key: RequestResourceKey,
    config: RequestAdmissionConfig,
    static_cap: CapacityValue[ProviderModelStaticCap],
    rule: str,
) -> CapacityValue[int]:
    asked, cap = config.initial_limits.get(key), static_cap.required.cap
    highest = config.effective_max(key, cap)
    if asked is not None and asked <= highest:
        return CapacityValue(asked, "run_config")
    fallback = "request_admission_config.initial_limits" if asked is None else None
    if rule == "evidence" and highest > DEFAULT_INITIAL_LIMIT:
        return CapacityValue(DEFAULT_INITIAL_LIMIT, "default", fallback_from=fallback)
    return CapacityValue(highest, "run_config" if highest < cap else static_cap.source, fallback_from=fallback)


def _pool_limit(endpoint: ProviderModelKey, pipeline: BoundPipeline) -> CapacityValue[int]:
    limit = connection_limit(model.client for model in pipeline.aliases if model.endpoint == endpoint)
    return CapacityValue(limit.connections, "adapter_config", missing_reason=limit.unknown_because)


def _worker_threads(bounds: RunBounds) -> WorkerThreadsPlan:
    threads = bounds.threads
    if threads is None:
        brought = CapacityValue[int](
            None, "dataset_builder", missing_reason="the run was given its own way to do blocking work"
        )
        return WorkerThreadsPlan(files=brought, sync_columns=brought)
    return WorkerThreadsPlan(
        files=CapacityValue(threads.files, "engine_internal_config"),
        sync_columns=CapacityValue(threads.sync_columns, "engine_internal_config"),
    )


def _open_files() -> CapacityValue[int]:
    if sys.platform == "win32":
        return CapacityValue(None, "environment", missing_reason="this system sets no limit for a process")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return CapacityValue(None, "environment", missing_reason="unlimited")
    return CapacityValue(soft, "environment")

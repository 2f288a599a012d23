"""What bounds a run, and its capacity plan: which value came from where, and how much of it was used.

`run_bounds` turns the settings of a run into the configuration of every stage, in one place, for the run itself and for
a plan without a run.

`capacity_plan` takes each value from the first of its sources that has one:

- a setting: what was given for the run, else the default;
- an endpoint's static cap: the smallest that its models ask for;
- the limit that a request resource begins with: what the configuration of request admission says, else where its rule
  begins, bounded by the cap and by a clamp;
- its rule: what its models ask for, else AIMD where the run was given that rule's tuning, else the default.

*Row groups.* A number that was given is a hard bound. Otherwise the scheduler opens row groups as long as an endpoint
has room, and the rows in flight are the bound: `ADMITTED_ROWS`, or four for each call that the caps allow, so that
calls are out while other rows wait for their last cell; where a column calls once per row group, as many row groups as
calls.

*Open files.* Each call in flight takes a connection, and a process may only have so many files open. Running out of
them costs no row, since whoever needs one waits, but it is a waste. So caps are lowered where the clients are known to
open more connections than there is room for, and a warning names both numbers. This package raises the limit of the
process on the command line alone (`_cli`): elsewhere it belongs to the program, whose other parts may not bear more.

`plan_run` makes the plan of a run that does not take place.
"""

from __future__ import annotations

import logging
import os
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
    CallCeiling,
    CapacityValue,
    CapacityValueSource,
    RowGroupAdmissionPlan,
    WorkerThreadsPlan,
)
from trio_sched._clients import connection_limit
from trio_sched._errors import InvalidValueError
from trio_sched._pipeline.binding import BoundNode, BoundPipeline, bind_pipeline, lower_caps
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
from trio_sched._scheduler.row_group_admission import (
    AdaptiveRowGroupTargetConfig,
    RowGroupBlockReason,
    RowGroupConfig,
)
from trio_sched._scheduler.scheduler import default_task_admission
from trio_sched._task.controller import TaskAdmissionConfig
from trio_sched._task.resolver import TASKS_PER_REQUEST_SLOT
from trio_sched._util import inline

if sys.platform != "win32":
    import resource

__all__ = [
    "ENGINE_THREADS",
    "RunBounds",
    "WorkerThreads",
    "capacity_plan",
    "plan_run",
    "raise_open_files",
    "run_bounds",
    "within_bounds",
]

logger = logging.getLogger("trio_sched.run")

ADMITTED_ROWS: Final = 10_000
"""Rows in flight at most, unless caps or the buffer size call for more: with 10 kB a row some 100 MB."""
_ROWS_PER_CALL: Final = 4
_TASKS_BESIDE_CALLS: Final = 512
"""Places for tasks that call no model, beside twice as many as the calls that the caps allow."""
_OPEN_BY_THE_PROGRAM: Final = 64
"""Files that are left to the program and its libraries: standard streams, modules, name resolution, certificates."""
_DOCUMENTS: Final = 5
"""The lock, the run's document and the capacity plan, the input, and one in reserve."""
_EVENT_FILES: Final = {"all": 3, "summary": 2, "none": 0}
_ORDERED: Final = "ordered columns, which make one cell at a time"
_UNLIMITED_AS: Final = (1 << 20, 1 << 16, 10_240)
"""What is asked for where the hard limit is none; macOS grants no more than the last of them."""


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
    """The configuration of every stage.

    threads: None where the caller of the run gave its own `blocking`. lowered: by endpoint whose cap was lowered, the
    cap that its models ask for.
    """

    row_groups: RowGroupConfig
    tasks: TaskAdmissionConfig
    requests: RequestAdmissionConfig
    threads: WorkerThreads | None
    lowered: Mapping[ProviderModelKey, int] = attrs.field(factory=dict[ProviderModelKey, int])


def run_bounds(config: RunConfig, pipeline: BoundPipeline, threads: WorkerThreads | None) -> RunBounds:
    """The configuration of every stage that `config` asks for with this pipeline.

    Raises `InvalidValueError` for the tuning of AIMD together with another rule.
    """
    return RunBounds(
        _row_group_config(config, pipeline),
        default_task_admission(pipeline.task_resolver, submission_capacity=_submission_capacity(config, pipeline)),
        request_config(pipeline.aliases, config.request_admission, max_outage_seconds=config.max_outage_seconds),
        threads,
    )


def within_bounds(
    pipeline: BoundPipeline, config: RunConfig, threads: WorkerThreads | None
) -> tuple[BoundPipeline, RunBounds]:
    """A pipeline as `config` and the open files of this process bound it; warns of what binds. Raises as `run_bounds`.

    It takes the place of the one given.
    """
    # Whoever does the blocking work, as a simulation does, need not open a connection for a call either.
    caps = _caps_within_open_files(pipeline, config) if threads is not None else {}
    asked = {endpoint: pipeline.request_resolver.static_caps()[endpoint].cap for endpoint in caps}
    if caps:
        sync_threads = threads.sync_columns if threads is not None else None
        pipeline = lower_caps(pipeline, caps, sync_threads=sync_threads)
    bounds = attrs.evolve(run_bounds(config, pipeline, threads), lowered=asked)
    _warn_of_ceilings(pipeline, config, bounds)
    return pipeline, bounds


def _warn_of_ceilings(pipeline: BoundPipeline, config: RunConfig, bounds: RunBounds) -> None:
    """Warn where somebody asked for more calls at once than another setting allows."""
    asked = {model.endpoint for model in pipeline.aliases if "max_parallel_requests" in model.given}
    for endpoint, cap in pipeline.request_resolver.static_caps().items():
        ceiling = _call_ceiling(endpoint, pipeline, config, bounds)
        if endpoint in asked and ceiling.calls < cap.cap and ceiling.bound_by != _ORDERED:
            logger.warning(
                "%s can have %d calls in flight, of max_parallel_requests=%d, with one call a task: bound by %s",
                endpoint,
                ceiling.calls,
                cap.cap,
                ceiling.bound_by,
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
    caps = {endpoint: _static_cap(endpoint, pipeline, bounds) for endpoint in endpoints}
    by_use = _open_files_by_use(pipeline, config)
    limits = {each: _limit(each.provider_model_key, pipeline, bounds.requests) for each in resources}
    snapshots = pressure.snapshots()
    return AsyncCapacityPlan(
        configured=AsyncCapacityConfigured(
            buffer_size=CapacityValue(config.buffer_size, _source(config, "buffer_size")),
            row_group_admission=RowGroupAdmissionPlan(
                mode="fixed" if bounds.row_groups.adaptive is None else "adaptive",
                concurrency=CapacityValue(
                    config.max_concurrent_row_groups, _source(config, "max_concurrent_row_groups")
                ),
                max_admitted_rows=_max_admitted_rows(bounds.row_groups, config),
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
            open_files_needed=CapacityValue(sum(by_use.values()), "engine_internal_config"),
            open_files_by_use=CapacityValue(by_use, "engine_internal_config"),
            request_limits=limits,
            call_ceilings={endpoint: _call_ceiling(endpoint, pipeline, config, bounds) for endpoint in endpoints},
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
    pipeline, bounds = within_bounds(pipeline, config, ENGINE_THREADS)
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


def _row_group_config(config: RunConfig, pipeline: BoundPipeline) -> RowGroupConfig:
    at_first = config.max_concurrent_row_groups
    rows = config.max_admitted_rows
    if "max_concurrent_row_groups" in config.given:
        fixed = RowGroupConfig(max_concurrent=at_first)
        return fixed if rows is None else attrs.evolve(fixed, max_admitted_rows=rows)
    if rows is None:
        calls, calls_per_row_group = 0, 0
        for endpoint, cap in pipeline.request_resolver.static_caps().items():
            nodes = _nodes_that_call(endpoint, pipeline)
            calls += cap.cap
            if any(bound.node.task_type != "cell" for bound in nodes):
                calls_per_row_group += cap.cap
        wanted = max(_ROWS_PER_CALL * calls, calls_per_row_group * config.buffer_size)
        rows = max(ADMITTED_ROWS, at_first * config.buffer_size, wanted)
    most = max(1, -(-rows // config.buffer_size))
    return RowGroupConfig(most, AdaptiveRowGroupTargetConfig(min(at_first, most)), rows)


def _submission_capacity(config: RunConfig, pipeline: BoundPipeline) -> int:
    """Tasks at once: what was given, else at least so many as all calls call for, and some beside them."""
    if "submission_capacity" in config.given:
        return config.submission_capacity
    calls = sum(cap.cap for cap in pipeline.request_resolver.static_caps().values())
    return max(config.submission_capacity, TASKS_PER_REQUEST_SLOT * calls + _TASKS_BESIDE_CALLS)


def _nodes_that_call(endpoint: ProviderModelKey, pipeline: BoundPipeline) -> list[BoundNode]:
    return [bound for bound in pipeline.nodes.values() if any(model.endpoint == endpoint for model in bound.models)]


def _call_ceiling(
    endpoint: ProviderModelKey, pipeline: BoundPipeline, config: RunConfig, bounds: RunBounds
) -> CallCeiling:
    """What bounds the calls of an endpoint: its cap, unless something else is lower."""
    cap = pipeline.request_resolver.static_caps()[endpoint].cap
    row_groups, most = bounds.row_groups.max_concurrent, bounds.row_groups.max_admitted_rows
    bound_by = f"max_concurrent_row_groups={row_groups} of buffer_size={config.buffer_size} rows"
    if most is not None and row_groups * config.buffer_size > most:
        row_groups, bound_by = max(1, most // config.buffer_size), f"max_admitted_rows={most}"
    elif "max_concurrent_row_groups" not in config.given:
        bound_by = f"max_admitted_rows={most}"
    rows = row_groups * config.buffer_size
    nodes = [bound.node for bound in _nodes_that_call(endpoint, pipeline)]
    tasks = sum(1 if node.ordered else rows if node.task_type == "cell" else row_groups for node in nodes)
    if all(node.ordered for node in nodes):
        bound_by = _ORDERED
    pool = connection_limit(model.client for model in pipeline.aliases if model.endpoint == endpoint).connections
    lowered = endpoint in bounds.lowered
    ceilings = [
        CallCeiling(cap, f"open files, of {_open_files().value}" if lowered else f"max_parallel_requests={cap}"),
        CallCeiling(tasks, bound_by),
        CallCeiling(bounds.tasks.submission_capacity, f"submission_capacity={bounds.tasks.submission_capacity}"),
    ]
    if pool is not None:
        ceilings.append(CallCeiling(pool, f"the clients' connection pools of {pool}"))
    return min(ceilings, key=lambda each: each.calls)


def _max_admitted_rows(bounds: RowGroupConfig, config: RunConfig) -> CapacityValue[int]:
    if bounds.max_admitted_rows is not None:
        was_given = config.max_admitted_rows is not None
        return CapacityValue(bounds.max_admitted_rows, "run_config" if was_given else "engine_internal_config")
    return CapacityValue(
        None,
        "engine_internal_config",
        missing_reason="rows in flight are bounded by the row groups in flight times the buffer size",
    )


def _static_cap(
    endpoint: ProviderModelKey, pipeline: BoundPipeline, bounds: RunBounds
) -> CapacityValue[ProviderModelStaticCap]:
    cap = pipeline.request_resolver.static_cap(endpoint)
    if cap is None:
        raise InvalidValueError(f"provider_model_static_caps[{endpoint}]", None, "known for every endpoint in use")
    if endpoint in bounds.lowered:
        asked = f"max_parallel_requests={bounds.lowered[endpoint]}"
        return CapacityValue(cap, "environment", fallback_from=asked)
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


def _open_files_by_use(pipeline: BoundPipeline, config: RunConfig) -> dict[str, int]:
    """How many files and connections a run may have open at once, as far as that is known."""
    calls = {
        f"calls of {endpoint}": _connections(endpoint, pipeline)[0]
        for endpoint in pipeline.request_resolver.static_caps()
    }
    return {
        **calls,
        "parts": ENGINE_THREADS.files,
        "events": _EVENT_FILES[config.write_events],
        "documents": _DOCUMENTS,
        "program": _OPEN_BY_THE_PROGRAM,
    }


def _connections(endpoint: ProviderModelKey, pipeline: BoundPipeline) -> tuple[int, bool]:
    """How many connections the calls of an endpoint may take at once, and whether its clients say so."""
    cap = pipeline.request_resolver.static_caps()[endpoint].cap
    limit = connection_limit(model.client for model in pipeline.aliases if model.endpoint == endpoint)
    if limit.connections is None:
        return cap, limit.sets_none
    return min(cap, limit.connections), True


def _caps_within_open_files(pipeline: BoundPipeline, config: RunConfig) -> dict[ProviderModelKey, int]:
    """The caps that have to be lowered, each to what is left for it; warns of them, and of what may run out of files.

    What is left is divided so that the largest demands are cut first. Where a client does not say whether a call takes
    a connection, its cap stays as it is.
    """
    limit = _open_files().value
    by_use = _open_files_by_use(pipeline, config)
    if limit is None or sum(by_use.values()) <= limit:
        return {}
    wanted = {endpoint: _connections(endpoint, pipeline) for endpoint in pipeline.request_resolver.static_caps()}
    known = {endpoint: calls for endpoint, (calls, is_known) in wanted.items() if is_known}
    calls = sum(number for number, _ in wanted.values())
    left = limit - (sum(by_use.values()) - calls) - max(0, _open_now() - _OPEN_BY_THE_PROGRAM)
    caps: dict[ProviderModelKey, int] = {}
    for count, (endpoint, number) in enumerate(sorted(known.items(), key=lambda each: each[1])):
        share = max(1, left // (len(known) - count))
        if number > share:
            caps[endpoint] = share
        left -= min(number, share)
    for endpoint, cap in caps.items():
        logger.warning(
            "max_parallel_requests of %s is lowered from %d to %d, as this process may have %d files open; "
            "raise that limit (ulimit -n) to at least %d",
            endpoint,
            pipeline.request_resolver.static_caps()[endpoint].cap,
            cap,
            limit,
            sum(by_use.values()),
        )
    if not caps:
        logger.warning(
            "the run may want %d files and connections open at once, and this process may have %d: calls may have to "
            "wait for one; raise that limit (ulimit -n), or lower max_parallel_requests",
            sum(by_use.values()),
            limit,
        )
    return caps


def _open_now() -> int:
    """How many files this process has open, 0 where that cannot be seen."""
    try:
        return len(os.listdir("/dev/fd"))
    except OSError:
        return 0


def raise_open_files() -> None:
    """Raise the limit of open files of this process to the most that the system allows it."""
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in _UNLIMITED_AS if hard == resource.RLIM_INFINITY else (hard, *_UNLIMITED_AS):
        if soft != resource.RLIM_INFINITY and wanted > soft:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            except (OSError, ValueError):
                continue
            return

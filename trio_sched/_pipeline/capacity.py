"""The capacity plan of a run of the pipeline: which value came from where, and what was used of it."""

from __future__ import annotations

from collections.abc import Mapping

from trio_sched._capacity import (
    AsyncCapacityConfigured,
    AsyncCapacityObservedMaxima,
    AsyncCapacityPlan,
    AsyncCapacityRuntimeSnapshot,
    CapacityValue,
    CapacityValueSource,
    RowGroupAdmissionPlan,
)
from trio_sched._client import ClientRetries
from trio_sched._pipeline.binding import BoundPipeline
from trio_sched._pipeline.config import RunConfig
from trio_sched._request.config import RequestAdmissionConfig
from trio_sched._request.pressure import RequestPressureSnapshotProvider
from trio_sched._resources.identity import RequestResourceKey
from trio_sched._scheduler.row_group_target import RowGroupBlockReason
from trio_sched._task.config import TaskAdmissionConfig

__all__ = ["capacity_plan"]


def capacity_plan(
    pipeline: BoundPipeline,
    config: RunConfig,
    tasks: TaskAdmissionConfig,
    requests: RequestAdmissionConfig,
    pressure: RequestPressureSnapshotProvider,
    maxima: AsyncCapacityObservedMaxima,
    row_group_target: int,
    row_group_blocks: Mapping[RowGroupBlockReason, int],
    client_retries: tuple[ClientRetries, ...],
) -> AsyncCapacityPlan:
    """The plan as it stands now: configured values with their sources, a snapshot of the limits, maxima so far."""
    caps = pipeline.resolver.static_caps()
    resources = tuple(sorted({model.resource for model in pipeline.aliases}))
    snapshots = pressure.snapshots()
    return AsyncCapacityPlan(
        configured=AsyncCapacityConfigured(
            buffer_size=_of(config, "buffer_size"),
            row_group_admission=RowGroupAdmissionPlan(
                mode="fixed",
                concurrency=_of(config, "max_concurrent_row_groups"),
                target=row_group_target,
                observed_in_flight=maxima.row_groups_in_flight,
                # A target never shrinks, so the one now is the highest there was.
                observed_target=row_group_target,
                blocked_reasons=dict(row_group_blocks.items()),
            ),
            submission_capacity=_of(config, "submission_capacity"),
            task_resource_limits=CapacityValue(tasks.resource_limits, "model_metadata"),
            request_resources=CapacityValue(resources, "model_metadata"),
            provider_model_static_caps=CapacityValue(caps, "model_metadata"),
            request_domain_initial_limits=CapacityValue(
                {resource: _initial_limit(resource, requests, pipeline) for resource in resources},
                "model_metadata",
                fallback_from="request_admission_config.initial_limits",
            ),
            request_admission_config=CapacityValue(requests.snapshot(), _source(config, "request_admission")),
            transport_pool_limits=CapacityValue(
                None, "adapter_config", missing_reason="connections are pooled by the caller's own client"
            ),
            client_retries=CapacityValue(client_retries, "adapter_config"),
        ),
        runtime_snapshot=AsyncCapacityRuntimeSnapshot(
            request_domain_current_limits={resource: each.current_limit for resource, each in snapshots.items()},
            request_domain_effective_max={resource: each.effective_max for resource, each in snapshots.items()},
            request_domain_blocked_until={
                resource: each.blocked_until_monotonic for resource, each in snapshots.items()
            },
            provider_model_aggregate_in_flight={
                endpoint: each.aggregate_in_flight for endpoint, each in pressure.global_snapshots().items()
            },
        ),
        observed_maxima=maxima,
    )


def _initial_limit(resource: RequestResourceKey, config: RequestAdmissionConfig, pipeline: BoundPipeline) -> int:
    cap = pipeline.resolver.static_caps()[resource.provider_model_key].cap
    effective_max = config.effective_max(resource, cap)
    return min(config.initial_limits.get(resource, effective_max), effective_max)


def _of(config: RunConfig, field: str) -> CapacityValue[int]:
    return CapacityValue(getattr(config, field), _source(config, field))


def _source(config: RunConfig, field: str) -> CapacityValueSource:
    """A value that equals the documented default was not chosen, as far as anyone can tell."""
    return "default" if getattr(config, field) == getattr(RunConfig(), field) else "run_config"

"""From a task to its place in admission: its group and what it asks for, by its generator's static metadata.

Each generator is asked for its metadata twice when the resolver is built, and never again: what it says must not depend
on when it is asked. A generator that owns several columns is one *flow*, named by all its columns; a flow is a group of
its own, so generators with equal metadata still take turns.

Every task asks for one unit of `submission`; a task of local work also for one of `local` where that is limited, and
for one of the local resource that its metadata names where that is limited, such as worker threads; a task that calls
one model also for one of its endpoint's stage resource. Stage resources exist only for the endpoints that
some generator here calls. Their limit is twice the endpoint's effective static cap, so that request admission never
runs dry while tasks come and go, and the smallest such where generators disagree about the cap. A model group's
`admitted_limit` is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, cast

import attrs

from trio_sched import _validation as check
from trio_sched._errors import UnknownNameError
from trio_sched._resources.identity import ProviderModelKey, RequestDomain, RequestResourceKey
from trio_sched._resources.task import (
    LOCAL,
    SUBMISSION,
    SchedulableTask,
    SchedulerResourceKey,
    SchedulerResourceRequest,
    Task,
    TaskGroupKey,
    TaskGroupSpec,
    endpoint_stage_resource,
    local_stage_resource,
    stable_task_id,
)
from trio_sched.metadata import ColumnGenerator, SchedulingMetadata, SchedulingMetadataError

__all__ = ["ResolvedTaskScheduling", "SchedulingMetadataDiagnostic", "TaskSchedulingResolver"]

TASKS_PER_REQUEST_SLOT: Final = 2


@attrs.frozen
class ResolvedTaskScheduling:
    """A task's group, what it asks for, and the request resource it will mostly call, if that is known."""

    group: TaskGroupSpec
    resource_request: SchedulerResourceRequest
    request_resource_key: RequestResourceKey | None = None


@attrs.frozen
class SchedulingMetadataDiagnostic:
    """Metadata that could not be used and was replaced by its fallback. columns: those of the generator."""

    columns: tuple[str, ...]
    code: str
    message: str
    fallback: SchedulingMetadata
    diagnostics: Mapping[str, object]


class TaskSchedulingResolver:
    """The only way into groups. `generators` maps each column to the generator that makes it.

    local_limit: how many tasks of local work may run at once; None leaves them to `submission` alone. named_limits: the
    same for local work of one name (`SchedulingMetadata.local(name)`), besides.
    """

    def __init__(
        self,
        generators: Mapping[str, ColumnGenerator],
        *,
        local_limit: int | None = None,
        named_limits: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        if local_limit is not None:
            check.check_int("local_limit", local_limit, minimum=1)
        for name, limit in named_limits.items():
            check.check_int(f"named_limits[{name!r}]", limit, minimum=1)
        flows: dict[int, tuple[ColumnGenerator, list[str]]] = {}
        for column, generator in generators.items():
            flows.setdefault(id(generator), (generator, []))[1].append(column)
        diagnostics: list[SchedulingMetadataDiagnostic] = []
        limits: dict[SchedulerResourceKey, int] = {}
        metadata_by_flow: list[tuple[tuple[str, ...], SchedulingMetadata]] = []
        for generator, columns in flows.values():
            flow = tuple(columns)
            metadata = _stable_metadata(generator, flow, diagnostics)
            metadata_by_flow.append((flow, metadata))
            if metadata.kind == "model":
                resource = endpoint_stage_resource(_endpoint(metadata))
                limit = TASKS_PER_REQUEST_SLOT * metadata.weight
                limits[resource] = min(limit, limits.get(resource, limit))
            elif metadata.kind == "local" and metadata.identity[1] in named_limits:
                limits[local_stage_resource(metadata.identity[1])] = named_limits[metadata.identity[1]]
        if local_limit is not None:
            limits[LOCAL] = local_limit
        self._limits = MappingProxyType(limits)
        self._diagnostics = tuple(diagnostics)
        self._by_column = {
            column: resolved
            for flow, metadata in metadata_by_flow
            for resolved in (_resolved(metadata, flow, self._limits),)
            for column in flow
        }

    @property
    def diagnostics(self) -> tuple[SchedulingMetadataDiagnostic, ...]:
        """The generators whose metadata was replaced by a fallback."""
        return self._diagnostics

    @property
    def by_column(self) -> Mapping[str, ResolvedTaskScheduling]:
        """Group and request of every column's tasks."""
        return MappingProxyType(self._by_column)

    @property
    def resource_limits(self) -> Mapping[SchedulerResourceKey, int]:
        """The limits of the stage resources in use, without `submission`."""
        return self._limits

    def resolve(self, task: Task) -> ResolvedTaskScheduling:
        """Group and request of `task`, the same for all tasks of one generator."""
        resolved = self._by_column.get(task.column)
        if resolved is None:
            raise UnknownNameError("column", task.column, used_by=f"{task!r}", known=self._by_column)
        return resolved

    def schedulable(self, task: Task) -> SchedulableTask:
        """`task` as the ready queue takes it, with the task itself as payload."""
        resolved = self.resolve(task)
        return SchedulableTask(
            stable_task_id(task), task, resolved.group, resolved.resource_request, resolved.request_resource_key
        )


def _stable_metadata(
    generator: ColumnGenerator, flow: tuple[str, ...], diagnostics: list[SchedulingMetadataDiagnostic]
) -> SchedulingMetadata:
    try:
        return _asked_twice(generator, flow)
    except SchedulingMetadataError as error:
        if error.fallback is None:
            raise
        diagnostics.append(
            SchedulingMetadataDiagnostic(
                flow, error.code, error.message, error.fallback, MappingProxyType(dict(error.diagnostics))
            )
        )
        return error.fallback


def _asked_twice(generator: ColumnGenerator, flow: tuple[str, ...]) -> SchedulingMetadata:
    first, second = generator.get_scheduling_metadata(), generator.get_scheduling_metadata()
    for metadata in (first, second):
        if not isinstance(cast("object", metadata), SchedulingMetadata):
            raise SchedulingMetadataError(
                "invalid_metadata",
                f"the generator of {_named(flow)} must return SchedulingMetadata, got {metadata!r}",
                diagnostics={"columns": flow},
            )
    if first != second:
        raise SchedulingMetadataError(
            "unstable_identity",
            f"the generator of {_named(flow)} must return the same metadata each time, got {first!r} and {second!r}",
            diagnostics={"columns": flow, "first": repr(first), "second": repr(second)},
        )
    return first


def _named(flow: tuple[str, ...]) -> str:
    return f"column{'s' if len(flow) > 1 else ''} {', '.join(map(repr, flow))}"


def _endpoint(metadata: SchedulingMetadata) -> ProviderModelKey:
    _, provider_name, model_id, _ = metadata.identity
    return ProviderModelKey(provider_name, model_id)


def _resolved(
    metadata: SchedulingMetadata, flow: tuple[str, ...], limits: Mapping[SchedulerResourceKey, int]
) -> ResolvedTaskScheduling:
    amounts: dict[SchedulerResourceKey, int] = {SUBMISSION: 1}
    admitted_limit: int | None = None
    request_resource_key: RequestResourceKey | None = None
    if metadata.kind == "model":
        endpoint = _endpoint(metadata)
        amounts[endpoint_stage_resource(endpoint)] = 1
        admitted_limit = TASKS_PER_REQUEST_SLOT * metadata.weight
        generation_kind = metadata.identity[3]
        if generation_kind in RequestDomain.__members__.values():
            request_resource_key = RequestResourceKey(
                endpoint.provider_name, endpoint.model_id, RequestDomain(generation_kind)
            )
    elif metadata.kind == "local":
        for resource in (LOCAL, local_stage_resource(metadata.identity[1])):
            if resource in limits:
                amounts[resource] = 1
    return ResolvedTaskScheduling(
        TaskGroupSpec(TaskGroupKey(metadata.kind, (*metadata.identity, *flow)), float(metadata.weight), admitted_limit),
        SchedulerResourceRequest(amounts),
        request_resource_key,
    )

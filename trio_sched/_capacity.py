"""The capacity plan: every value that bounded a run, its source, and how much of it was ever used.

The plan explains a run; it admits nothing. It is built from configuration and from frozen snapshots, never from a live
controller. Each configured number is a `CapacityValue` that says its source, and a value that is missing says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, Literal, TypeVar, cast

import attrs

from trio_sched._clients import ClientRetries
from trio_sched._errors import InvalidValueError
from trio_sched._events.records import JsonValue
from trio_sched._request.config import RequestAdmissionConfigSnapshot
from trio_sched._resources.identity import ProviderModelKey, ProviderModelStaticCap, RequestDomain, RequestResourceKey
from trio_sched._resources.task import SchedulerResourceKey

__all__ = [
    "AsyncCapacityConfigured",
    "AsyncCapacityObservedMaxima",
    "AsyncCapacityPlan",
    "AsyncCapacityRuntimeSnapshot",
    "CallCeiling",
    "CapacityValue",
    "CapacityValueSource",
    "PlanLine",
    "RowGroupAdmissionPlan",
    "WorkerThreadsPlan",
    "plain",
    "plan_lines",
]

T = TypeVar("T")

CapacityValueSource = Literal[
    "default",
    "run_config",
    "dataset_builder",
    "model_metadata",
    "engine_internal_config",
    "adapter_config",
    "environment",
    "runtime_snapshot",
    "benchmark_override",
]


@attrs.frozen
class CapacityValue(Generic[T]):
    """A number that bounds a run, and its source.

    source: where the value came from. fallback_from: the setting that was asked first and had none. missing_reason: why
    there is no value.

    Raises `InvalidValueError` unless exactly one of `value` and `missing_reason` is given.
    """

    value: T | None
    source: CapacityValueSource
    fallback_from: str | None = None
    missing_reason: str | None = None

    def __attrs_post_init__(self) -> None:
        if (self.value is None) == (self.missing_reason is None):
            raise InvalidValueError(
                "CapacityValue.missing_reason",
                self.missing_reason,
                f"given if, and only if, value is None: {self.value!r}",
            )

    @property
    def required(self) -> T:
        """The value. Raises `InvalidValueError` where it is missing."""
        if self.value is None:
            raise InvalidValueError("CapacityValue.value", None, f"there, but is missing: {self.missing_reason}")
        return self.value


@attrs.frozen
class RowGroupAdmissionPlan:
    """How many row groups may be in flight.

    concurrency: all of them where the mode is fixed, else those that are opened at first. observed_in_flight: the most
    there ever were.
    """

    mode: Literal["fixed", "adaptive"]
    concurrency: CapacityValue[int]
    max_admitted_rows: CapacityValue[int]
    target: int | None = None
    observed_in_flight: int | None = None
    observed_target: int | None = None
    blocked_reasons: Mapping[str, int] = attrs.field(factory=dict[str, int])


@attrs.frozen
class WorkerThreadsPlan:
    """How many worker threads may run at once: for files, and for sync columns and processors."""

    files: CapacityValue[int]
    sync_columns: CapacityValue[int]


@attrs.frozen
class CallCeiling:
    """The most calls that an endpoint can have in flight, with one call for each task, and the value that bounds them.

    Where rows or row groups bound them, there are as many only if the dataset has as many.
    """

    calls: int
    bound_by: str


@attrs.frozen
class AsyncCapacityConfigured:
    """What was in force from the start; a value that differs by endpoint or resource has a source for each.

    request_limits: the name of the rule that learns the limit of a request resource.
    transport_pool_limits: connections that the clients of an endpoint may open; it sizes transport and admits nothing.
    A pool that several endpoints share counts in full for each. worker_threads, open_files: of this process; each
    connection and each file takes one of the latter. open_files_by_use: how many the run may have open at once, a
    connection for each call in flight; open_files_needed: their sum. call_ceilings: what bounds the calls of each
    endpoint.
    """

    buffer_size: CapacityValue[int]
    row_group_admission: RowGroupAdmissionPlan
    submission_capacity: CapacityValue[int]
    task_resource_limits: CapacityValue[Mapping[SchedulerResourceKey, int]]
    request_resources: CapacityValue[tuple[RequestResourceKey, ...]]
    provider_model_static_caps: Mapping[ProviderModelKey, CapacityValue[ProviderModelStaticCap]]
    request_domain_initial_limits: Mapping[RequestResourceKey, CapacityValue[int]]
    request_admission_config: CapacityValue[RequestAdmissionConfigSnapshot]
    transport_pool_limits: Mapping[ProviderModelKey, CapacityValue[int]]
    client_retries: CapacityValue[tuple[ClientRetries, ...]]
    worker_threads: WorkerThreadsPlan
    open_files: CapacityValue[int]
    open_files_needed: CapacityValue[int]
    open_files_by_use: CapacityValue[Mapping[str, int]]
    request_limits: Mapping[RequestResourceKey, CapacityValue[str]] = attrs.field(
        factory=dict[RequestResourceKey, CapacityValue[str]]
    )
    call_ceilings: Mapping[ProviderModelKey, CallCeiling] = attrs.field(factory=dict[ProviderModelKey, CallCeiling])


@attrs.frozen
class AsyncCapacityRuntimeSnapshot:
    """What was in force at one instant; None where the run has not begun."""

    request_domain_current_limits: Mapping[RequestResourceKey, int] | None = None
    request_domain_effective_max: Mapping[RequestResourceKey, int] | None = None
    request_domain_blocked_until: Mapping[RequestResourceKey, float | None] | None = None
    provider_model_aggregate_in_flight: Mapping[ProviderModelKey, int] | None = None


@attrs.frozen
class AsyncCapacityObservedMaxima:
    """The most of each that was ever in use at once.

    hidden_scheduler_resource_waiters: workers that held a task lease and waited under it for capacity of the scheduler,
    such as a thread. Empty unless the engine has a fault.
    """

    row_groups_in_flight: int = 0
    queued_tasks_by_group: Mapping[str, int] = attrs.field(factory=dict[str, int])
    task_leases_by_resource: Mapping[SchedulerResourceKey, int] = attrs.field(factory=dict[SchedulerResourceKey, int])
    request_waiters_by_resource: Mapping[RequestResourceKey, int] = attrs.field(factory=dict[RequestResourceKey, int])
    request_in_flight_by_resource: Mapping[RequestResourceKey, int] = attrs.field(factory=dict[RequestResourceKey, int])
    provider_model_aggregate_in_flight: Mapping[ProviderModelKey, int] = attrs.field(
        factory=dict[ProviderModelKey, int]
    )
    request_domain_current_limits: Mapping[RequestResourceKey, int] = attrs.field(factory=dict[RequestResourceKey, int])
    transport_pool_utilization: CapacityValue[Mapping[ProviderModelKey, int]] = CapacityValue(
        None, "runtime_snapshot", missing_reason="clients do not say how many of their connections were in use at once"
    )
    hidden_scheduler_resource_waiters: Mapping[SchedulerResourceKey, int] = attrs.field(
        factory=dict[SchedulerResourceKey, int]
    )


@attrs.frozen
class AsyncCapacityPlan:
    """Configured values, a snapshot of the current ones, and the observed maxima."""

    configured: AsyncCapacityConfigured
    runtime_snapshot: AsyncCapacityRuntimeSnapshot
    observed_maxima: AsyncCapacityObservedMaxima


def plain(value: object) -> JsonValue:
    """A plan, any part of it, or a configuration as JSON: keys of resources and endpoints become their names.

    Fields that a class's constructor does not take are left out.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value.value if isinstance(value, RequestDomain) else value
    if isinstance(value, ProviderModelKey | RequestResourceKey):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in cast("Mapping[object, object]", value).items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in cast("Sequence[object]", value)]
    kind = type(value)
    if attrs.has(kind):
        return {field.name: plain(getattr(value, field.name)) for field in attrs.fields(kind) if field.init}
    raise TypeError(f"{value!r} has no place in a capacity plan")


# For people: read from `capacity_plan.json`, or from a plan that was never written


@attrs.frozen
class PlanLine:
    """One value of the capacity plan."""

    part: str
    name: str
    value: str
    source: str


def plan_lines(document: Mapping[str, JsonValue]) -> list[PlanLine]:
    """The capacity plan line by line: configured values with their source, then what was seen of them."""
    lines: list[PlanLine] = []
    for part in ("configured", "runtime_snapshot", "observed_maxima"):
        values = document.get(part)
        if isinstance(values, dict):
            lines.extend(_lines_of(part.replace("_", " "), "", values))
    return lines


def _lines_of(part: str, prefix: str, values: Mapping[str, JsonValue]) -> list[PlanLine]:
    lines: list[PlanLine] = []
    for name, value in values.items():
        # The names of endpoints and resources, which are no identifiers, stay as they are.
        label = prefix + (name.replace("_", " ") if name.isidentifier() else name)
        if isinstance(value, dict) and "bound_by" in value:
            lines.append(PlanLine(part, label, _text_of(value["calls"]), f"bound by {_text_of(value['bound_by'])}"))
        elif isinstance(value, dict) and "source" in value and "value" in value:
            reason = value.get("missing_reason")
            text = f"none: {reason}" if reason is not None else _text_of(value["value"])
            fallback = value.get("fallback_from")
            source = f"{value['source']}" + (f", in place of {fallback}" if fallback is not None else "")
            lines.append(PlanLine(part, label, text, source.replace("_", " ")))
        elif isinstance(value, dict) and part == "configured":
            lines.extend(_lines_of(part, f"{label}: ", value))
        else:
            lines.append(PlanLine(part, label, _text_of(value), ""))
    return lines


def _text_of(value: JsonValue) -> str:
    """A value as a short text."""
    if value is None:
        return "none"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_text_of(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_text_of, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)

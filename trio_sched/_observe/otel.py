"""Both event streams as OpenTelemetry metrics and spans, for the application's own SDK.

The bridge talks to OpenTelemetry's API package alone. Which SDK takes the data, where it goes and how much is kept is
the application's business; without an SDK every call below is a no-op of the API.

Metrics. Every label has few values: the event kind, the kind of stage resource, the provider's name, the domain, the
outcome, the HTTP status, the rule that sets the limit, why it changed a limit, and a label for the model that the
application chose. A model's own id is never a label: `model_labels` maps endpoints to labels, and one that repeats the
id is refused. Endpoints that are not in it share the label `other`.

Spans. A task's lease is a span that begins a trace of its own, linked to the span in which the application made this
sink, so that a run of a million tasks is not one trace. A request's lease is a client span below its task's span, and
linked to it too, so that it is found from either side also where a backend keeps no unfinished parents. Attributes of
requests follow the semantic conventions for generative AI; `gen_ai.request.model` is set for endpoints in
`model_labels` only. Times are those of the events: on a simulated clock spans have simulated lengths.

Nothing of a prompt, an answer, a row or an error's text is in the events, so nothing of it is here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

import attrs

from trio_sched._errors import InvalidValueError, require
from trio_sched._events.records import AdmissionEvent, RequestAdmissionEvent, SchedulerAdmissionEvent
from trio_sched._resources.identity import ProviderModelKey, RequestDomain, RequestResourceKey
from trio_sched._resources.request import OUTCOME_KINDS, RequestPressureSnapshot
from trio_sched._version import __version__

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import Span, SpanContext, TracerProvider

__all__ = ["OpenTelemetryEventSink"]

_SCOPE: Final = "trio_sched"
_OTHER_MODEL: Final = "other"
_RULES: Final = frozenset({"evidence", "aimd", "fixed"})
_OTHER_RULE: Final = "custom"
_CAUSES: Final = frozenset({"increased", "decreased", "probe_started", "probe_refused", "outage", "recovered"})
_OTHER_CAUSE: Final = "other"
_STATUSES: Final = range(100, 600)
"""What HTTP knows. A client may report anything, and a label has few values."""
_LIMIT_CHANGES: Final = ("request_limit_increased", "request_limit_decreased")

_OPERATIONS: Final = {
    RequestDomain.CHAT: "chat",
    RequestDomain.EMBEDDING: "embeddings",
    RequestDomain.IMAGE: "generate_content",
    RequestDomain.HEALTHCHECK: "healthcheck",
}
"""Names of the semantic conventions; a health check has none there."""

_SECONDS: Final = tuple(0.01 * 2**doublings for doublings in range(14))
"""Bucket boundaries that the conventions advise for `gen_ai.client.operation.duration`: 10 ms to 82 s."""


@attrs.frozen
class _OpenSpan:
    span: Span
    context: SpanContext
    begun_at: float


class OpenTelemetryEventSink:
    """An event sink that feeds OpenTelemetry; give it to `run` or `open_admission` as `event_sink`.

    model_labels: which label the metrics give an endpoint. The label may not be the model's id. meter_provider,
    tracer_provider: the API's global ones by default. `close` ends
    spans that are still open. Raises `MissingExtraError` unless the extra `otel` is installed.
    """

    def __init__(
        self,
        *,
        model_labels: Mapping[ProviderModelKey, str] | None = None,
        meter_provider: MeterProvider | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        require("otel", "opentelemetry.metrics", "opentelemetry.trace")
        from opentelemetry import metrics, trace
        from opentelemetry.context import Context

        self._model_labels = _checked_labels(model_labels or {})
        self._tracer = trace.get_tracer(_SCOPE, __version__, tracer_provider=tracer_provider)
        meter = metrics.get_meter(_SCOPE, __version__, meter_provider=meter_provider)
        self._no_parent: Context = Context()
        caller = trace.get_current_span().get_span_context()
        self._links_to_caller = [trace.Link(caller)] if caller.is_valid else []
        self._epoch_offset: float | None = None
        self._tasks: dict[tuple[str | None, int], _OpenSpan] = {}
        self._executions: dict[tuple[str, str], _OpenSpan] = {}
        self._requests: dict[tuple[str | None, int], _OpenSpan] = {}
        self._pressure: dict[RequestResourceKey, RequestPressureSnapshot] = {}
        self._rules: dict[ProviderModelKey, str] = {}

        self._events = meter.create_counter("trio_sched.events", "{event}", "Events of task and request admission")
        self._outcomes = meter.create_counter(
            "trio_sched.request.outcomes", "{request}", "Outbound attempts that ended, by outcome and HTTP status"
        )
        self._task_seconds = meter.create_histogram(
            "trio_sched.task.duration",
            "s",
            "Time a task held its lease",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._wait_seconds = meter.create_histogram(
            "trio_sched.request.wait.duration",
            "s",
            "Time a request waited for its lease",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._call_seconds = meter.create_histogram(
            "gen_ai.client.operation.duration",
            "s",
            "Time an outbound attempt held its lease",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        for name, field, description in (
            ("trio_sched.request.limit", "current_limit", "Adaptive limit of requests in flight"),
            ("trio_sched.request.in_flight", "in_flight_count", "Requests in flight"),
            ("trio_sched.request.waiters", "waiters", "Requests that wait for a lease"),
        ):
            meter.create_observable_gauge(name, [_Gauge(self, field)], "{request}", description)

    def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
        """Count it; begin or end the span of a task."""
        labels: dict[str, str] = {"trio_sched.event.kind": event.event_kind}
        if event.scheduler_resource_key is not None:
            labels["trio_sched.resource.kind"] = _resource_kind(event.scheduler_resource_key)
        self._events.add(1, labels)
        if event.task_lease_id is None:
            return
        if event.event_kind == "task_lease_acquired":
            self._begin_task(event, event.task_lease_id)
        elif event.event_kind == "task_completed" or event.event_kind == "cancelled":
            self._note_result(event, event.task_lease_id)
        elif event.event_kind == "task_lease_released":
            self._end_task(event, event.task_lease_id)

    def emit_request_event(self, event: RequestAdmissionEvent) -> None:
        """Count it; begin or end the span of a request."""
        resource = event.request_resource_key
        labels: dict[str, str] = {"trio_sched.event.kind": event.event_kind}
        if resource is not None:
            labels |= self.resource_labels(resource)
        if event.event_kind in _LIMIT_CHANGES:
            cause = event.diagnostics.get("cause")
            labels["trio_sched.limit.cause"] = cause if isinstance(cause, str) and cause in _CAUSES else _OTHER_CAUSE
        self._events.add(1, labels)
        if resource is None:
            if event.event_kind == "request_resource_registered":
                self._note_rule(event)
            return
        if event.pressure_snapshot is not None:
            self._pressure[resource] = event.pressure_snapshot
        if event.event_kind == "request_wait_completed":
            waited = event.diagnostics.get("waited_seconds")
            if isinstance(waited, int | float):
                self._wait_seconds.record(waited, self.resource_labels(resource))
        elif event.event_kind == "request_lease_acquired" and event.request_lease_id is not None:
            self._begin_request(event, resource, event.request_lease_id)
        elif event.event_kind == "request_lease_released":
            self._count_outcome(event, resource)
            if event.request_lease_id is not None:
                self._end_request(event, resource, event.request_lease_id)

    def close(self) -> None:
        """End the spans whose leases were never given back. May be called any number of times."""
        for open_span in (*self._requests.values(), *self._tasks.values()):
            open_span.span.set_attribute("trio_sched.lease.released", False)
            open_span.span.end()
        self._requests.clear()
        self._tasks.clear()
        self._executions.clear()

    def resource_labels(self, resource: RequestResourceKey) -> dict[str, str]:
        """The bounded labels of a request resource."""
        return {
            "gen_ai.provider.name": resource.provider_name,
            "gen_ai.operation.name": _OPERATIONS[resource.domain],
            "trio_sched.domain": resource.domain.value,
            "trio_sched.model": self._model_labels.get(resource.provider_model_key, _OTHER_MODEL),
        }

    def rule_label(self, resource: RequestResourceKey) -> str:
        """The name of the rule of a resource's limit; every rule that the application made has the same."""
        return self._rules.get(resource.provider_model_key, _OTHER_RULE)

    def pressures(self) -> Iterable[tuple[RequestResourceKey, RequestPressureSnapshot]]:
        """The last snapshot of every request resource; read by the exporter's thread."""
        return tuple(self._pressure.items())

    def _count_outcome(self, event: RequestAdmissionEvent, resource: RequestResourceKey) -> None:
        labels: dict[str, str | int] = {**self.resource_labels(resource)}
        outcome = event.reason_or_outcome
        labels["trio_sched.request.outcome"] = outcome if outcome in OUTCOME_KINDS else "unknown"
        status = _status(event)
        if status is not None:
            labels["http.response.status_code"] = status
        self._outcomes.add(1, labels)

    def _note_rule(self, event: RequestAdmissionEvent) -> None:
        facts = event.diagnostics
        rule = facts.get("limit")
        if isinstance(rule, str) and rule in _RULES:
            self._rules[ProviderModelKey(str(facts["provider_name"]), str(facts["model_id"]))] = rule

    def _begin_task(self, event: SchedulerAdmissionEvent, lease_id: int) -> None:
        from opentelemetry.trace import SpanKind

        correlation = event.captured_correlation
        column = correlation.task_column if correlation is not None else None
        attributes: dict[str, str | int] = {"trio_sched.task.id": event.task_id or ""}
        if correlation is not None:
            attributes["trio_sched.run.id"] = correlation.run_id
            if correlation.row_group is not None:
                attributes["trio_sched.row_group"] = correlation.row_group
        if column is not None:
            attributes["trio_sched.column"] = column
        if event.scheduler_resource_key is not None:
            attributes["trio_sched.resource"] = _resource_kind(event.scheduler_resource_key)
        span = self._tracer.start_span(
            f"task {column}" if column is not None else "task",
            context=self._no_parent,
            kind=SpanKind.INTERNAL,
            attributes=attributes,
            links=self._links_to_caller,
            start_time=self._nanoseconds(event.captured_at_monotonic),
        )
        task = _OpenSpan(span, span.get_span_context(), event.captured_at_monotonic)
        self._tasks[_run_id(event), lease_id] = task
        if correlation is not None and event.task_execution_id is not None:
            self._executions[correlation.run_id, event.task_execution_id] = task

    def _note_result(self, event: SchedulerAdmissionEvent, lease_id: int) -> None:
        from opentelemetry.trace import StatusCode

        task = self._tasks.get((_run_id(event), lease_id))
        if task is None:
            return
        if event.reason_or_result is not None:
            task.span.set_attribute("trio_sched.result", event.reason_or_result)
        error = event.diagnostics.get("error")
        if isinstance(error, str):
            task.span.set_attribute("error.type", error)
            task.span.set_status(StatusCode.ERROR)

    def _end_task(self, event: SchedulerAdmissionEvent, lease_id: int) -> None:
        task = self._tasks.pop((_run_id(event), lease_id), None)
        if task is None:
            return
        if event.captured_correlation is not None and event.task_execution_id is not None:
            self._executions.pop((event.captured_correlation.run_id, event.task_execution_id), None)
        labels: dict[str, str] = {}
        if event.scheduler_resource_key is not None:
            labels["trio_sched.resource.kind"] = _resource_kind(event.scheduler_resource_key)
        self._task_seconds.record(event.captured_at_monotonic - task.begun_at, labels)
        task.span.end(self._nanoseconds(event.captured_at_monotonic))

    def _begin_request(self, event: RequestAdmissionEvent, resource: RequestResourceKey, lease_id: int) -> None:
        from opentelemetry import trace

        correlation = event.captured_correlation
        task = None
        if correlation is not None and correlation.task_execution_id is not None:
            task = self._executions.get((correlation.run_id, correlation.task_execution_id))
        attributes: dict[str, str] = {
            "gen_ai.provider.name": resource.provider_name,
            "gen_ai.operation.name": _OPERATIONS[resource.domain],
            "trio_sched.domain": resource.domain.value,
        }
        if event.request_attempt_id is not None:
            attributes["trio_sched.request.attempt_id"] = event.request_attempt_id
        name = attributes["gen_ai.operation.name"]
        if resource.provider_model_key in self._model_labels:
            attributes["gen_ai.request.model"] = resource.model_id
            name = f"{name} {resource.model_id}"
        span = self._tracer.start_span(
            name,
            # An uncorrelated request belongs to whatever span the application has open around its call.
            context=trace.set_span_in_context(task.span, self._no_parent) if task is not None else None,
            kind=trace.SpanKind.CLIENT,
            attributes=attributes,
            links=[trace.Link(task.context)] if task is not None else [],
            start_time=self._nanoseconds(event.captured_at_monotonic),
        )
        self._requests[_run_id(event), lease_id] = _OpenSpan(span, span.get_span_context(), event.captured_at_monotonic)

    def _end_request(self, event: RequestAdmissionEvent, resource: RequestResourceKey, lease_id: int) -> None:
        from opentelemetry.trace import StatusCode

        request = self._requests.pop((_run_id(event), lease_id), None)
        if request is None:
            return
        labels = self.resource_labels(resource)
        outcome = event.reason_or_outcome
        if outcome is not None and outcome != "success":
            labels["error.type"] = outcome
            request.span.set_attribute("error.type", outcome)
            request.span.set_status(StatusCode.ERROR)
        status = _status(event)
        if status is not None:
            request.span.set_attribute("http.response.status_code", status)
        self._call_seconds.record(event.captured_at_monotonic - request.begun_at, labels)
        request.span.end(self._nanoseconds(event.captured_at_monotonic))

    def _nanoseconds(self, at: float) -> int:
        """An instant of the run's clock as nanoseconds since 1970; the first one seen is now."""
        if self._epoch_offset is None:
            self._epoch_offset = time.time() - at
        return int((at + self._epoch_offset) * 1e9)


@attrs.frozen
class _Gauge:
    """Reads one field of the last pressure snapshots when an exporter asks."""

    sink: OpenTelemetryEventSink
    field: str

    def __call__(self, options: CallbackOptions) -> Iterable[Observation]:
        from opentelemetry.metrics import Observation

        found: list[Observation] = []
        for resource, snapshot in self.sink.pressures():
            labels = self.sink.resource_labels(resource)
            if self.field == "current_limit":
                labels["trio_sched.algorithm"] = self.sink.rule_label(resource)
            found.append(Observation(getattr(snapshot, self.field), labels))
        return found


def _run_id(event: AdmissionEvent) -> str | None:
    return event.captured_correlation.run_id if event.captured_correlation is not None else None


def _status(event: RequestAdmissionEvent) -> int | None:
    status = event.diagnostics.get("provider_status")
    return status if isinstance(status, int) and status in _STATUSES else None


def _resource_kind(resource: str) -> str:
    """`submission`, `local` or `endpoint`: the part of a stage resource's name that says no model."""
    return resource.partition(":")[0]


def _checked_labels(labels: Mapping[ProviderModelKey, str]) -> dict[ProviderModelKey, str]:
    for endpoint, label in labels.items():
        field = f"model_labels[{str(endpoint)!r}]"
        raw = {endpoint.model_id.casefold(), str(endpoint).casefold()}
        if not label or label == _OTHER_MODEL or label.casefold() in raw:
            expected = f"a short text of your own, neither the model's id nor {_OTHER_MODEL!r}"
            raise InvalidValueError(field, label, expected)
    return dict(labels)

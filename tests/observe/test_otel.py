"""The OpenTelemetry bridge, with OpenTelemetry's own SDK in memory as the application."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import attrs
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, MetricsData, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import trio_sched as ts
from trio_sched._events.records import JsonValue
from trio_sched._observe.otel import OpenTelemetryEventSink
from trio_sched.lowlevel import (
    ProviderModelKey,
    RequestAdmissionEvent,
    RequestDomain,
    RequestPressureSnapshot,
    RequestResourceKey,
    RuntimeCorrelation,
    SchedulerAdmissionEvent,
)

WRITER = RequestResourceKey("openai", "secret-model-7b", RequestDomain.CHAT)
TASK = RuntimeCorrelation("run1", 3, "answer", "cell", "model", "abc", "3:7:cell:answer@1")


class Application:
    """What an application sets up for itself, in memory."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.exporter = InMemorySpanExporter()
        self.meters = MeterProvider(metric_readers=[self.reader])
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))

    def sink(self, model_labels: Mapping[ProviderModelKey, str] | None = None) -> OpenTelemetryEventSink:
        return OpenTelemetryEventSink(
            model_labels=model_labels, meter_provider=self.meters, tracer_provider=self.tracers
        )

    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def points(self, name: str) -> list[NumberDataPoint | HistogramDataPoint]:
        return [point for metric, point in self.all_points() if metric == name]

    def all_points(self) -> list[tuple[str, NumberDataPoint | HistogramDataPoint]]:
        data: MetricsData | None = self.reader.get_metrics_data()
        found: list[tuple[str, NumberDataPoint | HistogramDataPoint]] = []
        if data is None:
            return found
        for resource in data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        assert isinstance(point, NumberDataPoint | HistogramDataPoint)
                        found.append((metric.name, point))
        return found


def pressure(at: float, *, in_flight: int, limit: int = 8, waiters: int = 2) -> RequestPressureSnapshot:
    return RequestPressureSnapshot(
        at, 1, WRITER, 16, limit, in_flight, in_flight, waiters, None, 0.0, None, 0, None, {}
    )


def task_event(kind: str, at: float, result: str | None = None, error: str | None = None) -> SchedulerAdmissionEvent:
    return SchedulerAdmissionEvent(
        kind,  # type: ignore[arg-type]  # the helper takes any kind
        at,
        1,
        TASK,
        "3:7:cell:answer",
        TASK.task_execution_id,
        11,
        "endpoint:openai/secret-model-7b",
        result,
        None,
        {} if error is None else {"error": error},
    )


def request_event(
    kind: str, at: float, outcome: str | None = None, correlation: RuntimeCorrelation | None = TASK
) -> RequestAdmissionEvent:
    return RequestAdmissionEvent(
        kind,  # type: ignore[arg-type]  # the helper takes any kind
        at,
        1,
        correlation,
        "5.1",
        5,
        WRITER,
        WRITER,
        outcome,
        pressure(at, in_flight=1),
        {"waited_seconds": 0.5} if kind == "request_wait_completed" else {},
    )


def feed_one_task(sink: OpenTelemetryEventSink, outcome: str = "success") -> None:
    sink.emit_scheduler_event(task_event("task_lease_acquired", 100.0))
    sink.emit_request_event(request_event("request_wait_completed", 101.0))
    sink.emit_request_event(request_event("request_lease_acquired", 101.0))
    sink.emit_request_event(request_event("request_lease_released", 103.0, outcome))
    failed = outcome != "success"
    sink.emit_scheduler_event(
        task_event("task_completed", 104.0, "failed" if failed else "success", "RateLimitError" if failed else None)
    )
    sink.emit_scheduler_event(task_event("task_lease_released", 104.0, "released"))


def test_a_task_and_its_request_are_spans_of_one_trace_and_linked() -> None:
    application = Application()
    feed_one_task(application.sink())
    request, task = application.spans()
    assert task.name == "task answer"
    assert task.kind is SpanKind.INTERNAL
    assert task.parent is None
    assert request.kind is SpanKind.CLIENT
    assert request.parent is not None
    assert task.context is not None
    assert request.context is not None
    assert request.parent.span_id == task.context.span_id
    assert request.context.trace_id == task.context.trace_id
    assert [link.context.span_id for link in request.links] == [task.context.span_id]


def test_spans_are_as_long_as_the_leases() -> None:
    application = Application()
    feed_one_task(application.sink())
    request, task = application.spans()
    assert request.end_time is not None
    assert request.start_time is not None
    assert task.end_time is not None
    assert task.start_time is not None
    assert (request.end_time - request.start_time) / 1e9 == pytest.approx(2.0, abs=1e-5)
    assert (task.end_time - task.start_time) / 1e9 == pytest.approx(4.0, abs=1e-5)
    assert (request.start_time - task.start_time) / 1e9 == pytest.approx(1.0, abs=1e-5)


def test_a_task_is_linked_to_the_span_in_which_the_sink_was_made() -> None:
    application = Application()
    tracer = application.tracers.get_tracer("application")
    with tracer.start_as_current_span("nightly run") as outer:
        feed_one_task(application.sink())
    task = next(span for span in application.spans() if span.name == "task answer")
    assert [link.context.span_id for link in task.links] == [outer.get_span_context().span_id]
    assert task.parent is None


def test_conventional_names_and_the_model_only_where_it_is_allowed() -> None:
    plain, allowed = Application(), Application()
    feed_one_task(plain.sink())
    feed_one_task(allowed.sink({WRITER.provider_model_key: "large"}))
    without, with_model = plain.spans()[0], allowed.spans()[0]
    assert without.attributes is not None
    assert with_model.attributes is not None
    assert without.name == "chat"
    assert without.attributes["gen_ai.provider.name"] == "openai"
    assert without.attributes["gen_ai.operation.name"] == "chat"
    assert "gen_ai.request.model" not in without.attributes
    assert with_model.name == "chat secret-model-7b"
    assert with_model.attributes["gen_ai.request.model"] == "secret-model-7b"


def test_failures_say_their_type_and_nothing_else() -> None:
    application = Application()
    feed_one_task(application.sink(), "rate_limited")
    request, task = application.spans()
    assert request.attributes is not None
    assert task.attributes is not None
    assert request.attributes["error.type"] == "rate_limited"
    assert request.status.status_code is StatusCode.ERROR
    assert request.status.description is None
    assert task.attributes["error.type"] == "RateLimitError"
    assert task.status.status_code is StatusCode.ERROR


def test_a_request_outside_a_task_belongs_to_the_span_around_the_call() -> None:
    application = Application()
    sink = application.sink()
    with application.tracers.get_tracer("application").start_as_current_span("handler") as outer:
        sink.emit_request_event(request_event("request_lease_acquired", 1.0, correlation=None))
    sink.emit_request_event(request_event("request_lease_released", 2.0, "success", correlation=None))
    request = next(span for span in application.spans() if span.kind is SpanKind.CLIENT)
    assert request.parent is not None
    assert request.parent.span_id == outer.get_span_context().span_id
    assert request.links == ()


def test_metrics_have_the_expected_values() -> None:
    application = Application()
    feed_one_task(application.sink({WRITER.provider_model_key: "large"}))
    (calls,) = application.points("gen_ai.client.operation.duration")
    assert isinstance(calls, HistogramDataPoint)
    assert (calls.count, calls.sum) == (1, 2.0)
    assert calls.attributes == {
        "gen_ai.provider.name": "openai",
        "gen_ai.operation.name": "chat",
        "trio_sched.domain": "chat",
        "trio_sched.model": "large",
    }
    (waits,) = application.points("trio_sched.request.wait.duration")
    (tasks,) = application.points("trio_sched.task.duration")
    assert isinstance(waits, HistogramDataPoint)
    assert isinstance(tasks, HistogramDataPoint)
    assert waits.sum == 0.5
    assert tasks.sum == 4.0
    assert tasks.attributes == {"trio_sched.resource.kind": "endpoint"}


def registration(rule: str) -> RequestAdmissionEvent:
    facts: dict[str, JsonValue] = {"provider_name": "openai", "model_id": "secret-model-7b", "limit": rule}
    return RequestAdmissionEvent("request_resource_registered", 1.0, 1, diagnostics=facts)


@pytest.mark.parametrize(
    ("rule", "label"),
    [("evidence", "evidence"), ("aimd", "aimd"), ("fixed", "fixed"), ("my_secret.module.Rule", "custom")],
)
def test_gauges_show_the_last_snapshot_with_the_rule_of_the_limit(rule: str, label: str) -> None:
    application = Application()
    sink = application.sink()
    sink.emit_request_event(registration(rule))
    feed_one_task(sink)
    found = {
        name: (point.value, dict(point.attributes or {}))
        for name, point in application.all_points()
        if isinstance(point, NumberDataPoint) and name.startswith("trio_sched.request.") and "outcomes" not in name
    }
    assert found["trio_sched.request.limit"][0] == 8
    assert found["trio_sched.request.limit"][1]["trio_sched.algorithm"] == label
    assert found["trio_sched.request.in_flight"][0] == 1
    assert found["trio_sched.request.waiters"][0] == 2
    assert found["trio_sched.request.waiters"][1]["trio_sched.model"] == "other"


def test_outcomes_are_counted_by_category_and_status() -> None:
    application = Application()
    sink = application.sink({WRITER.provider_model_key: "large"})
    ends: list[tuple[str | None, JsonValue]] = [
        ("success", None),
        ("rate_limited", 429),
        ("rate_limited", 429),
        ("provider_failure", 503),
        ("provider_failure", 500),
        ("provider_failure", None),
        ("local_cancelled", None),
        ("provider_failure", 424_242),
        ("secret.kind", "secret"),
        (None, None),
    ]
    for outcome, status in ends:
        event = request_event("request_lease_released", 1.0, outcome)
        sink.emit_request_event(attrs.evolve(event, diagnostics={"provider_status": status}))
    sink.emit_request_event(request_event("request_lease_acquired", 2.0))
    points = application.points("trio_sched.request.outcomes")
    counted: dict[tuple[object, object], object] = {}
    for point in points:
        assert isinstance(point, NumberDataPoint)
        assert point.attributes is not None
        assert point.attributes["trio_sched.model"] == "large"
        labels = point.attributes
        counted[labels["trio_sched.request.outcome"], labels.get("http.response.status_code")] = point.value
    assert counted == {
        ("success", None): 1,
        ("rate_limited", 429): 2,
        ("provider_failure", 503): 1,
        ("provider_failure", 500): 1,
        ("provider_failure", None): 2,
        ("local_cancelled", None): 1,
        ("unknown", None): 2,
    }


@pytest.mark.parametrize(("cause", "label"), [("probe_refused", "probe_refused"), ("a.b", "other"), (None, "other")])
def test_changes_of_a_limit_are_counted_by_their_cause(cause: str | None, label: str) -> None:
    application = Application()
    sink = application.sink()
    facts: dict[str, JsonValue] = {"cause": cause, "previous": 8, "current": 7}
    changed = RequestAdmissionEvent(
        "request_limit_decreased", 1.0, 1, request_resource_key=WRITER, diagnostics=facts if cause else {}
    )
    sink.emit_request_event(changed)
    sink.emit_request_event(RequestAdmissionEvent("request_outage_started", 1.0, 2, request_resource_key=WRITER))
    counted = {
        (attributes["trio_sched.event.kind"], attributes.get("trio_sched.limit.cause")): point.value
        for point in application.points("trio_sched.events")
        if isinstance(point, NumberDataPoint) and (attributes := point.attributes) is not None
    }
    assert counted == {("request_limit_decreased", label): 1, ("request_outage_started", None): 1}


def test_no_label_holds_an_id_or_a_raw_model() -> None:
    application = Application()
    sink = application.sink({WRITER.provider_model_key: "large"})
    sink.emit_request_event(registration("some.module.SecretRule"))
    sink.emit_request_event(request_event("request_limit_decreased", 1.0))
    feed_one_task(sink, "rate_limited")
    labels = {(key, value) for _, point in application.all_points() for key, value in (point.attributes or {}).items()}
    assert {key for key, _ in labels} == {
        "trio_sched.event.kind",
        "trio_sched.resource.kind",
        "gen_ai.provider.name",
        "gen_ai.operation.name",
        "trio_sched.domain",
        "trio_sched.model",
        "trio_sched.algorithm",
        "trio_sched.limit.cause",
        "trio_sched.request.outcome",
        "error.type",
    }
    assert not [value for _, value in labels if "secret" in str(value) or ":" in str(value) or "." in str(value)]


@pytest.mark.parametrize("label", ["secret-model-7b", "Secret-Model-7B", "openai/secret-model-7b", "", "other"])
def test_a_raw_model_id_is_refused_as_a_label(label: str) -> None:
    expected = r"^model_labels\['openai/secret-model-7b'\] must be a short text of your own, neither the model's id nor"
    with pytest.raises(ts.InvalidValueError, match=expected):
        OpenTelemetryEventSink(model_labels={WRITER.provider_model_key: label})


def test_leases_that_never_came_back_are_ended_at_the_close() -> None:
    application = Application()
    with closing(application.sink()) as sink:
        sink.emit_scheduler_event(task_event("task_lease_acquired", 100.0))
        sink.emit_request_event(request_event("request_lease_acquired", 101.0))
    request, task = application.spans()
    assert request.attributes is not None
    assert task.attributes is not None
    assert request.attributes["trio_sched.lease.released"] is False
    assert task.attributes["trio_sched.lease.released"] is False
    sink.close()
    assert len(application.spans()) == 2


def test_a_release_without_a_beginning_is_counted_and_makes_no_span() -> None:
    application = Application()
    sink = application.sink()
    sink.emit_request_event(request_event("request_lease_released", 2.0, "success"))
    sink.emit_scheduler_event(task_event("task_completed", 2.0, "success"))
    sink.emit_scheduler_event(task_event("task_lease_released", 2.0))
    assert application.spans() == ()
    assert sum(p.value for p in application.points("trio_sched.events") if isinstance(p, NumberDataPoint)) == 3


def test_nothing_of_an_sdk_is_imported_or_configured() -> None:
    script = (
        "import sys, trio_sched.lowlevel\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
        "from trio_sched._observe.otel import OpenTelemetryEventSink\n"
        "sink = OpenTelemetryEventSink()\n"
        "from opentelemetry import metrics, trace\n"
        "foreign = ('opentelemetry.sdk', 'opentelemetry.exporter')\n"
        "assert not [name for name in sys.modules if name.startswith(foreign)]\n"
        "assert type(trace.get_tracer_provider()).__name__ == 'ProxyTracerProvider'\n"
        "assert type(metrics.get_meter_provider()).__name__ == '_ProxyMeterProvider'\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


async def test_a_whole_run_is_reported(tmp_path: Path) -> None:
    application = Application()
    model = ts.Model("openai", "secret-model-7b", max_parallel_requests=2)

    async def call() -> str:
        return "answer"

    @ts.column(needs=["topic"], model=model)
    async def answer(row: dict[str, str], model: ts.ModelHandle) -> str:
        return await model.call(call)

    with closing(application.sink()) as sink:
        result = await ts.run(
            [answer], rows=[{"topic": str(n)} for n in range(5)], output=tmp_path / "out", event_sink=sink
        )
    assert result.records == 5
    names = [span.name for span in application.spans()]
    assert names.count("chat") == 5
    assert names.count("task answer") == 5
    ends = {span.name: span for span in application.spans()}
    assert ends["chat"].attributes is not None
    assert "secret" not in str(dict(ends["chat"].attributes))

"""What a report shows, as plain values: figures, and charts as data for the charting library.

`ReportCollector` is a sink for both streams. It counts with the same code that counts for the run's own result, so the
figures of both are equal. Rows are those in the parts. Of the run's two documents only what is named here is taken
over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Final

import attrs

from trio_sched._capacity import PlanLine, plan_lines
from trio_sched._events.records import (
    AdmissionEvent,
    FailureSample,
    JsonValue,
    RequestAdmissionEvent,
    RequestStatistics,
    RunSample,
    SchedulerAdmissionEvent,
)
from trio_sched._observe.layers import LAYERS, Layer, TimeBins, nanoseconds, seconds
from trio_sched._observe.request_replay import RequestStatisticsSink
from trio_sched._observe.sampling import sample_of
from trio_sched._observe.view import CorrelatedRuntimeView, RuntimeViewBuilder
from trio_sched._resources.identity import RequestResourceKey
from trio_sched._resources.request import RequestPressureSnapshot

__all__ = [
    "LAYER_COLOURS",
    "LAYER_NAMES",
    "Chart",
    "DurableRows",
    "EndpointFigures",
    "ReportCollector",
    "ReportFigures",
    "Series",
    "endpoint_chart",
    "limits_chart",
    "rows_chart",
    "throughput_chart",
]

_ROWS: Final = "rows"
_TASKS: Final = "tasks"

LAYER_COLOURS: Final[dict[Layer, str]] = {
    "readiness": "grey",
    "fairness": "pink",
    "task_admission": "yellow",
    "request_admission": "blue",
    "cooldown": "orange",
    "provider": "green",
    "completion": "sky",
}

LAYER_NAMES: Final[dict[Layer, str]] = {layer: layer.replace("_", " ") for layer in LAYERS}

_PROBE_HEIGHT: Final = 0.93
_TRIAL_HEIGHT: Final = 0.98


@attrs.frozen
class EndpointFigures:
    """One request resource. Series have one value a bin: requests a second, limits and counts as means of the bin,
    `stopped` and `outage` as shares of it; `probes_refused` and `trials` count what happened in it. utilisation:
    seconds of answered calls over what the static cap could have carried. stopped_seconds: how long nothing could go
    out.
    """

    resource: str
    static_cap: int | None
    statistics: RequestStatistics
    first_limit: int | None
    utilisation: float | None
    answered: Sequence[float]
    refused: Sequence[float]
    limit: Sequence[float]
    in_flight: Sequence[float]
    waiting: Sequence[float]
    stopped: Sequence[float]
    outage: Sequence[float]
    probes_refused: Sequence[float]
    trials: Sequence[float]
    stopped_seconds: float


@attrs.frozen
class DurableRows:
    """The rows in a run's parts: written, and those that the parts lack, rejected or removed by processors."""

    rows: int
    dropped: int
    filtered: int
    row_groups: int


@attrs.frozen
class ReportFigures:
    """Everything on the page. durable: None where the parts cannot be read; all else comes from events.

    times: the beginning of each bin, in seconds since the first event. rows_seen: those that became durable meanwhile.
    sampled: whether it was made from a summary.
    """

    run_id: str
    status: str
    sampled: bool
    versions: Mapping[str, str]
    view: CorrelatedRuntimeView
    durable: DurableRows | None
    rows_seen: int
    times: Sequence[float]
    rows_per_second: Sequence[float]
    tasks_per_second: Sequence[float]
    endpoints: Sequence[EndpointFigures]
    failures: Sequence[FailureSample]
    plan: Sequence[PlanLine]


class ReportCollector:
    """Takes the events of one run in the order of their times; `figures` makes the report's values of them.

    scheduler_stream, request_stream: whether there are events of that stream.
    """

    def __init__(self, *, scheduler_stream: bool = True, request_stream: bool = True) -> None:
        # Executions one by one are for those who ask about one: the page shows sums.
        self._view = RuntimeViewBuilder(
            scheduler_stream=scheduler_stream, request_stream=request_stream, max_executions=0
        )
        self._statistics = RequestStatisticsSink()
        self._bins = TimeBins()
        self._names: dict[RequestResourceKey | None, str] = {}
        self._levels: dict[str, tuple[int, int, int]] = {}
        self._first_limits: dict[str, int] = {}
        self._stopped_until: dict[str, int] = {}
        self._failures: dict[tuple[str, str, str, bool], int] = {}
        self._sampled_at: int | None = None
        self._sampled_tasks = 0

    @property
    def result(self) -> str | None:
        """How the run ended, as far as its events say it."""
        return self._view.result

    def emit(self, event: AdmissionEvent) -> None:
        """Take the next event of either stream."""
        if isinstance(event, SchedulerAdmissionEvent):
            self.emit_scheduler_event(event)
        else:
            self.emit_request_event(event)

    def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
        """Take the next scheduler event."""
        self._view.emit_scheduler_event(event)
        at, correlation = nanoseconds(event.captured_at_monotonic), event.captured_correlation
        sample = sample_of(event)
        if sample is not None:
            self._take_sample(at, sample)
            return
        self._bins.reach(at)
        match event.event_kind:
            case "row_group_checkpointed":
                self._bins.add(_ROWS, at, _int(event.diagnostics.get("rows")))
            case "task_completed" if event.reason_or_result == "success":
                self._bins.add(_TASKS, at, 1)
            case "retry_deferred" | "non_retryable_dropped":
                column = (correlation.task_column if correlation is not None else None) or "unknown"
                error = str(event.diagnostics.get("error", "unknown"))
                final = event.event_kind == "non_retryable_dropped"
                key = (column, error, event.reason_or_result or "unknown", final)
                # A task that names the rows which it rejects says how many.
                self._failures[key] = self._failures.get(key, 0) + (_int(event.diagnostics.get("rows")) or 1)
            case _:
                pass

    def emit_request_event(self, event: RequestAdmissionEvent) -> None:
        """Take the next request event."""
        self._view.emit_request_event(event)
        self._statistics.emit_request_event(event)
        at, key = nanoseconds(event.captured_at_monotonic), event.request_resource_key
        resource = self._names.get(key)
        if resource is None:
            resource = self._names[key] = str(key)
        self._bins.reach(at)
        if event.pressure_snapshot is not None:
            self._show(resource, at, event.pressure_snapshot)
        match event.event_kind:
            case "request_lease_released":
                refused = event.reason_or_outcome == "rate_limited"
                self._bins.add(f"{'refused' if refused else 'answered'} {resource}", at, 1)
            case "request_outage_started":
                self._bins.set_level(f"outage {resource}", at, 1, before=0)
            case "request_outage_ended":
                self._bins.set_level(f"outage {resource}", at, 0)
            case "request_trial_started":
                self._bins.add(f"trials {resource}", at, 1)
            case "request_limit_decreased" if event.diagnostics.get("cause") == "probe_refused":
                self._bins.add(f"probes refused {resource}", at, 1)
            case _:
                pass

    def _take_sample(self, at: int, sample: RunSample) -> None:
        """Count what was counted until the sample, evenly over the time since the last, and show what it shows."""
        self._bins.reach(at)
        since, self._sampled_at = self._sampled_at, at
        before = self._statistics.by_resource
        results = [column.results.get("success", 0) for column in sample.scheduler.columns.values()]
        self._count(_TASKS, since, at, sum(results) - self._sampled_tasks)
        self._sampled_tasks = sum(results)
        for each in sample.requests:
            resource, earlier = str(each.pressure.resource), before.get(each.pressure.resource, RequestStatistics())
            counted = each.statistics
            refused = counted.outcomes.get("rate_limited", 0) - earlier.outcomes.get("rate_limited", 0)
            ended = sum(counted.outcomes.values()) - sum(earlier.outcomes.values())
            self._count(f"refused {resource}", since, at, refused)
            self._count(f"answered {resource}", since, at, ended - refused)
            self._count(f"trials {resource}", since, at, counted.trials - earlier.trials)
            self._count(f"probes refused {resource}", since, at, counted.probes_refused - earlier.probes_refused)
            self._show(resource, at, each.pressure)
            self._bins.set_level(f"outage {resource}", at, int(each.outage_since is not None), before=0)
        self._statistics.load(sample.requests)
        self._failures = {
            (each.column, each.error, each.reason, each.final): each.tasks for each in sample.scheduler.failures
        }

    def _show(self, resource: str, at: int, pressure: RequestPressureSnapshot) -> None:
        levels = (pressure.current_limit, pressure.in_flight_count, pressure.waiters)
        if levels != self._levels.get(resource):
            self._levels[resource] = levels
            self._first_limits.setdefault(resource, pressure.current_limit)
            self._bins.set_level(f"limit {resource}", at, pressure.current_limit)
            self._bins.set_level(f"in flight {resource}", at, pressure.in_flight_count)
            self._bins.set_level(f"waiting {resource}", at, pressure.waiters)
        if self._stopped_until:
            self._end_stops(at)
        until = pressure.blocked_until_monotonic
        if until is not None and pressure.cooldown_remaining_seconds > 0:
            self._bins.set_level(f"stopped {resource}", at, 1, before=0)
            self._stopped_until[resource] = nanoseconds(until)
        elif self._stopped_until.pop(resource, None) is not None:
            # An answered trial ends a stop before its time.
            self._bins.set_level(f"stopped {resource}", at, 0)

    def _count(self, series: str, since: int | None, until: int, amount: int) -> None:
        if amount:
            self._bins.divide(series, until if since is None else since, until, amount)

    def figures(
        self,
        status: str,
        run_document: Mapping[str, JsonValue],
        plan_document: Mapping[str, JsonValue],
        durable: DurableRows | None,
        *,
        problems: Sequence[str] = (),
        missing_events: int = 0,
    ) -> ReportFigures:
        """The figures so far, with what `run.json` and `capacity_plan.json` say; either may be empty."""
        self._end_stops(self._bins.ended_at)
        self._bins.close()
        view = self._view.view(problems=problems, missing_events=missing_events)
        versions = run_document.get("versions")
        return ReportFigures(
            run_id=view.run_id or str(run_document.get("run_id", "unknown")),
            status=status,
            sampled=self._sampled_at is not None,
            versions={name: str(version) for name, version in versions.items()} if isinstance(versions, dict) else {},
            view=view,
            durable=durable,
            rows_seen=self._bins.total(_ROWS),
            times=self._bins.times(),
            rows_per_second=self._bins.per_second(_ROWS),
            tasks_per_second=self._bins.per_second(_TASKS),
            endpoints=self._endpoints(view.wall_seconds),
            failures=[
                FailureSample(column, error, reason, final, tasks)
                for (column, error, reason, final), tasks in sorted(self._failures.items())
            ],
            plan=plan_lines(plan_document),
        )

    def _end_stops(self, now: int) -> None:
        for resource in [each for each, until in self._stopped_until.items() if until <= now]:
            self._bins.set_level(f"stopped {resource}", self._stopped_until.pop(resource), 0)

    def _endpoints(self, wall_seconds: float) -> list[EndpointFigures]:
        found: list[EndpointFigures] = []
        for key, statistics in sorted(self._statistics.by_resource.items()):
            resource = str(key)
            cap = self._view.requests.static_caps.get(key.provider_model_key)
            carried = cap * wall_seconds if cap is not None else 0.0
            found.append(
                EndpointFigures(
                    resource,
                    cap,
                    statistics,
                    self._first_limits.get(resource),
                    statistics.success_seconds / carried if carried else None,
                    answered=self._bins.per_second(f"answered {resource}"),
                    refused=self._bins.per_second(f"refused {resource}"),
                    limit=self._bins.means(f"limit {resource}"),
                    in_flight=self._bins.means(f"in flight {resource}"),
                    waiting=self._bins.means(f"waiting {resource}"),
                    stopped=self._bins.means(f"stopped {resource}"),
                    outage=self._bins.means(f"outage {resource}"),
                    probes_refused=self._bins.sums(f"probes refused {resource}"),
                    trials=self._bins.sums(f"trials {resource}"),
                    stopped_seconds=seconds(self._bins.total(f"stopped {resource}")),
                )
            )
        return found


def _int(value: JsonValue) -> int:
    return value if isinstance(value, int) else 0


# Charts


@attrs.frozen
class Series:
    """One line of a chart. shaded: filled below. stacked: drawn on top of the series after it. share: from 0 to 1.

    mark: where along the height a dot is drawn for each bin in which something happened; such a series has no line.
    """

    label: str
    colour: str
    values: Sequence[float]
    shaded: bool = False
    stacked: bool = False
    dashed: bool = False
    share: bool = False
    mark: float | None = None


@attrs.frozen
class Chart:
    """A chart over the run's time. `series` are in the order of the legend. `percent`: all values are shares."""

    name: str
    description: str
    times: Sequence[float]
    series: Sequence[Series]
    percent: bool = False

    def data(self) -> JsonValue:
        """What the page's script draws. Each mean holds for its whole bin, so the last is repeated at the end."""
        series: list[JsonValue] = []
        for each, values in zip(self.series, self._drawn_values(), strict=True):
            series.append(
                {
                    "label": each.label,
                    "colour": each.colour,
                    "values": [round(value, 4) for value in values],
                    "shaded": each.shaded,
                    "stacked": each.stacked,
                    "dashed": each.dashed,
                    "scale": "share" if each.share or each.mark is not None else "y",
                    "mark": each.mark,
                }
            )
        return {
            "times": [round(time, 4) for time in self.times],
            "series": series,
            "percent": self.percent,
            "top": 1 if self.percent else None,
        }

    def _drawn_values(self) -> list[Sequence[float]]:
        """Stacked series as running sums, the highest first, so that each lower one is painted over it."""
        if not any(each.stacked for each in self.series):
            return [each.values for each in self.series]
        drawn: list[Sequence[float]] = []
        for index in range(len(self.series)):
            rest = self.series[index:]
            drawn.append([min(1.0, sum(values)) for values in zip(*(each.values for each in rest), strict=True)])
        return drawn


def throughput_chart(figures: ReportFigures) -> Chart:
    """Tasks and answers a second."""
    bins = range(len(figures.times))
    answers = [sum(each.answered[index] for each in figures.endpoints) for index in bins]
    refusals = [sum(each.refused[index] for each in figures.endpoints) for index in bins]
    return Chart(
        "throughput",
        "Tasks finished, requests answered, and requests refused by rate limits, each second.",
        figures.times,
        [
            Series("tasks", "grey", figures.tasks_per_second, shaded=True),
            Series("requests answered", "green", answers),
            Series("requests refused", "orange", refusals),
        ],
    )


def rows_chart(figures: ReportFigures) -> Chart:
    """Durable rows so far."""
    widths = [later - earlier for earlier, later in pairwise((*figures.times, figures.view.wall_seconds))]
    made = [rate * width for rate, width in zip(figures.rows_per_second, widths, strict=True)]
    return Chart(
        "rows",
        "Durable rows so far; they come a row group at a time.",
        figures.times,
        [Series("durable rows", "blue", [round(rows) for rows in accumulate(made)], shaded=True)],
    )


def endpoint_chart(figures: ReportFigures, endpoint: EndpointFigures, number: int) -> Chart:
    """Limit, requests in flight and waiting ones of one request resource, and what its limit went through.

    Outages, trial calls and refused probes are left out where there were none.
    """
    series = [Series("stopped", "orange", endpoint.stopped, shaded=True, share=True)]
    if endpoint.statistics.outages:
        series.append(Series("outage", "pink", endpoint.outage, shaded=True, share=True))
    series += [
        Series("limit", "blue", endpoint.limit),
        Series("in flight", "green", endpoint.in_flight),
        Series("waiting", "grey", endpoint.waiting, dashed=True),
    ]
    if endpoint.statistics.probes_refused:
        series.append(Series("asked for more and refused", "yellow", endpoint.probes_refused, mark=_PROBE_HEIGHT))
    if endpoint.statistics.trials:
        series.append(Series("trial calls", "sky", endpoint.trials, mark=_TRIAL_HEIGHT))
    return Chart(
        f"endpoint-{number}",
        f"Limit, requests in flight, waiting requests and stops of {endpoint.resource}.",
        figures.times,
        series,
    )


def limits_chart(figures: ReportFigures) -> Chart:
    """Which layer limited progress, over time."""
    timeline = figures.view.timeline
    start = figures.view.started_at
    shares = [each.limited_by.shares() for each in timeline]
    return Chart(
        "limits",
        "The share of each time bin in which a layer limited progress; all layers together make the whole.",
        [each.started_at - start for each in timeline],
        [
            Series(LAYER_NAMES[layer], LAYER_COLOURS[layer], [share[layer] for share in shares], stacked=True)
            for layer in LAYERS
        ],
        percent=True,
    )

"""What a report shows, as plain values: collected from the events of a run and from its two documents.

`ReportCollector` is a sink for both streams. It counts with the same code that counts for the run's own result, so the
figures of both are equal. Of the documents only what is named here is taken over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from trio_sched._events.records import JsonValue, RequestAdmissionEvent, SchedulerAdmissionEvent
from trio_sched._observe.plan_lines import PlanLine, plan_lines
from trio_sched._observe.report.bins import TimeBins
from trio_sched._observe.statistics import RequestStatistics, RequestStatisticsSink
from trio_sched._observe.view import CorrelatedRuntimeView, RuntimeViewBuilder
from trio_sched._resources.identity import RequestResourceKey

__all__ = ["ColumnFigures", "EndpointFigures", "FailureFigures", "ReportCollector", "ReportFigures"]

_ROWS: Final = "rows"
_TASKS: Final = "tasks"


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
class ColumnFigures:
    """One column: executions by result."""

    column: str
    by_result: Mapping[str, int]


@attrs.frozen
class FailureFigures:
    """Tasks that failed alike. `final`: given up, else repeated later."""

    column: str
    error: str
    reason: str
    final: bool
    tasks: int


@attrs.frozen
class ReportFigures:
    """Everything on the page. `times`: the beginning of each bin, in seconds since the first event."""

    run_id: str
    status: str
    versions: Mapping[str, str]
    view: CorrelatedRuntimeView
    rows: int
    dropped_rows: int
    filtered_rows: int
    row_groups: int
    times: Sequence[float]
    rows_per_second: Sequence[float]
    tasks_per_second: Sequence[float]
    endpoints: Sequence[EndpointFigures]
    failures: Sequence[FailureFigures]
    plan: Sequence[PlanLine]


class ReportCollector:
    """Takes the events of one run in the order of their times; `figures` makes the report's values of them."""

    def __init__(self) -> None:
        # Executions one by one are for those who ask about one: the page shows sums.
        self._view = RuntimeViewBuilder(max_executions=0)
        self._statistics = RequestStatisticsSink()
        self._bins = TimeBins()
        self._names: dict[RequestResourceKey | None, str] = {}
        self._levels: dict[str, tuple[int, int, int]] = {}
        self._first_limits: dict[str, int] = {}
        self._stopped_until: dict[str, float] = {}
        self._sizes: dict[int, int] = {}
        self._failures: dict[tuple[str, str, str, bool], int] = {}
        self._dropped = 0
        self._filtered = 0
        self._row_groups = 0

    def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
        """Take the next scheduler event."""
        self._view.emit_scheduler_event(event)
        at, correlation = event.captured_at_monotonic, event.captured_correlation
        self._bins.reach(at)
        row_group = correlation.row_group if correlation is not None else None
        match event.event_kind:
            case "row_group_admitted" if row_group is not None:
                self._sizes[row_group] = _int(event.diagnostics.get("size"))
            case "row_group_checkpointed" if row_group is not None:
                rows = _int(event.diagnostics.get("rows"))
                self._bins.add(_ROWS, at, rows)
                self._row_groups += 1
                filtered = _int(event.diagnostics.get("filtered"))
                self._filtered += filtered
                self._dropped += max(0, self._sizes.pop(row_group, rows + filtered) - rows - filtered)
            case "task_completed" if event.reason_or_result == "success":
                self._bins.add(_TASKS, at, 1)
            case "retry_deferred" | "non_retryable_dropped":
                column = (correlation.task_column if correlation is not None else None) or "unknown"
                error = str(event.diagnostics.get("error", "unknown"))
                final = event.event_kind == "non_retryable_dropped"
                key = (column, error, event.reason_or_result or "unknown", final)
                # A task that named the rows which it gave up says how many.
                self._failures[key] = self._failures.get(key, 0) + (_int(event.diagnostics.get("rows")) or 1)
            case _:
                pass

    def emit_request_event(self, event: RequestAdmissionEvent) -> None:
        """Take the next request event."""
        self._view.emit_request_event(event)
        self._statistics.emit_request_event(event)
        at, key = event.captured_at_monotonic, event.request_resource_key
        resource = self._names.get(key)
        if resource is None:
            resource = self._names[key] = str(key)
        self._bins.reach(at)
        pressure = event.pressure_snapshot
        if pressure is not None:
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
                self._bins.set_level(f"stopped {resource}", at, 1.0, before=0.0)
                self._stopped_until[resource] = until
            elif self._stopped_until.pop(resource, None) is not None:
                # An answered trial ends a stop before its time.
                self._bins.set_level(f"stopped {resource}", at, 0.0)
        match event.event_kind:
            case "request_lease_released":
                refused = event.reason_or_outcome == "rate_limited"
                self._bins.add(f"{'refused' if refused else 'answered'} {resource}", at, 1)
            case "request_outage_started":
                self._bins.set_level(f"outage {resource}", at, 1.0, before=0.0)
            case "request_outage_ended":
                self._bins.set_level(f"outage {resource}", at, 0.0)
            case "request_trial_started":
                self._bins.add(f"trials {resource}", at, 1)
            case "request_limit_decreased" if event.diagnostics.get("cause") == "probe_refused":
                self._bins.add(f"probes refused {resource}", at, 1)
            case _:
                pass

    def figures(
        self,
        run_document: Mapping[str, JsonValue],
        plan_document: Mapping[str, JsonValue],
        problems: Sequence[str] = (),
    ) -> ReportFigures:
        """The figures so far, with what `run.json` and `capacity_plan.json` tell; either may be empty."""
        self._end_stops(self._bins.ended_at)
        self._bins.close()
        view = self._view.view(problems=problems)
        versions = run_document.get("versions")
        return ReportFigures(
            run_id=view.run_id or str(run_document.get("run_id", "unknown")),
            status=view.result or str(run_document.get("status", "unknown")),
            versions={name: str(told) for name, told in versions.items()} if isinstance(versions, dict) else {},
            view=view,
            rows=round(self._bins.total(_ROWS)),
            dropped_rows=self._dropped,
            filtered_rows=self._filtered,
            row_groups=self._row_groups,
            times=self._bins.times(),
            rows_per_second=self._bins.per_second(_ROWS),
            tasks_per_second=self._bins.per_second(_TASKS),
            endpoints=self._endpoints(view.wall_seconds),
            failures=[
                FailureFigures(column, error, reason, final, tasks)
                for (column, error, reason, final), tasks in sorted(self._failures.items())
            ],
            plan=plan_lines(plan_document),
        )

    def _end_stops(self, now: float) -> None:
        for resource in [each for each, until in self._stopped_until.items() if until <= now]:
            self._bins.set_level(f"stopped {resource}", self._stopped_until.pop(resource), 0.0)

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
                    limit=self._bins.per_second(f"limit {resource}"),
                    in_flight=self._bins.per_second(f"in flight {resource}"),
                    waiting=self._bins.per_second(f"waiting {resource}"),
                    stopped=self._bins.per_second(f"stopped {resource}"),
                    outage=self._bins.per_second(f"outage {resource}"),
                    probes_refused=self._bins.counts(f"probes refused {resource}"),
                    trials=self._bins.counts(f"trials {resource}"),
                    stopped_seconds=self._bins.total(f"stopped {resource}"),
                )
            )
        return found


def _int(value: JsonValue) -> int:
    return value if isinstance(value, int) else 0

"""Counts what went out to each request resource, from the request events as they pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from trio_sched._events.records import RequestAdmissionEvent, ResourceSample
from trio_sched._resources.identity import RequestResourceKey

__all__ = ["RequestStatistics", "RequestStatisticsSink"]

_KINDS = frozenset(
    {
        "request_lease_acquired",
        "request_lease_released",
        "request_limit_decreased",
        "request_limit_increased",
        "request_outage_started",
        "request_trial_started",
    }
)
_LIMIT_CHANGES = ("request_limit_decreased", "request_limit_increased")


@attrs.define(eq=False)
class RequestStatistics:
    """One request resource over a run. Seconds are of the run's clock.

    attempts: leases granted. outcomes: released leases by outcome. success_seconds: time held by leases that succeeded.
    lowest_limit, last_limit: of the adaptive limit, None while it never changed. probes: how often the limit was raised
    to ask whether the provider accepts more. probes_refused: how often more than was known to be accepted was refused.
    outages: how often the provider refused everything. trials: calls that went out alone to see whether it still does.
    statuses: released leases by the HTTP status that the provider answered with, where it was no success.
    """

    attempts: int = 0
    outcomes: dict[str, int] = attrs.field(factory=dict[str, int])
    success_seconds: float = 0.0
    in_flight: int = 0
    max_in_flight: int = 0
    lowest_limit: int | None = None
    last_limit: int | None = None
    probes: int = 0
    probes_refused: int = 0
    outages: int = 0
    trials: int = 0
    statuses: dict[str, int] = attrs.field(factory=dict[str, int])

    @property
    def was_refused(self) -> bool:
        """Whether the limit was refused when it asked for more, or there was an outage or a trial."""
        return bool(self.probes_refused or self.outages or self.trials)

    @property
    def refused_share(self) -> float:
        """Share of the attempts that the provider refused with a rate limit, from 0 to 1."""
        return self.outcomes.get("rate_limited", 0) / self.attempts if self.attempts else 0.0


class RequestStatisticsSink:
    """A request event sink that keeps `RequestStatistics` per resource."""

    def __init__(self) -> None:
        self._by_resource: dict[RequestResourceKey, RequestStatistics] = {}
        self._acquired_at: dict[int, float] = {}

    @property
    def by_resource(self) -> Mapping[RequestResourceKey, RequestStatistics]:
        """What was counted so far, live."""
        return self._by_resource

    def accepts_request_event(self, kind: str) -> bool:
        """Only the kinds that are counted."""
        return kind in _KINDS

    def emit_request_event(self, event: RequestAdmissionEvent) -> None:
        """Count one event."""
        resource, lease_id = event.request_resource_key, event.request_lease_id
        if resource is None:
            return
        statistics = self._by_resource.setdefault(resource, RequestStatistics())
        if event.event_kind == "request_lease_acquired" and lease_id is not None:
            statistics.attempts += 1
            statistics.in_flight += 1
            statistics.max_in_flight = max(statistics.max_in_flight, statistics.in_flight)
            self._acquired_at[lease_id] = event.captured_at_monotonic
        elif event.event_kind == "request_lease_released" and lease_id in self._acquired_at:
            outcome = event.reason_or_outcome or "unknown"
            held = event.captured_at_monotonic - self._acquired_at.pop(lease_id)
            statistics.in_flight -= 1
            statistics.outcomes[outcome] = statistics.outcomes.get(outcome, 0) + 1
            if outcome == "success":
                statistics.success_seconds += held
            status = event.diagnostics.get("provider_status")
            if isinstance(status, int):
                statistics.statuses[str(status)] = statistics.statuses.get(str(status), 0) + 1
        elif event.event_kind == "request_outage_started":
            statistics.outages += 1
        elif event.event_kind == "request_trial_started":
            statistics.trials += 1
        elif event.event_kind in _LIMIT_CHANGES and event.pressure_snapshot is not None:
            limit, cause = event.pressure_snapshot.current_limit, event.diagnostics.get("cause")
            statistics.probes += cause == "probe_started"
            statistics.probes_refused += cause == "probe_refused"
            statistics.last_limit = limit
            if statistics.lowest_limit is None or limit < statistics.lowest_limit:
                statistics.lowest_limit = limit

    def load(self, samples: Iterable[ResourceSample]) -> None:
        """Take over what samples of all resources have counted."""
        for sample in samples:
            self._by_resource[sample.pressure.resource] = RequestStatistics(
                sample.attempts,
                dict(sample.outcomes),
                sample.success_seconds,
                sample.pressure.in_flight_count,
                sample.max_in_flight,
                sample.lowest_limit,
                sample.last_limit,
                sample.probes,
                sample.probes_refused,
                sample.outages,
                sample.trials,
                dict(sample.statuses),
            )

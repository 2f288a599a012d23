"""What request admission holds and what went out, rebuilt from its events alone.

Waiters and leases are counted: a wait that starts and ends, a lease that is granted and comes back. Everything that the
rule of a resource decides, its limit, ceiling and stops, is taken from the newest pressure snapshot, which is exact for
any rule: nothing of it changes without an event that carries one. After the last event the replayed values equal the
controller's own snapshots.

What a rule is about (`Activity`) follows from the transitions that it named: a probe, an outage, a trial call.

`RequestStatisticsSink` counts over a whole run: attempts, outcomes, limits. The run's result and its report count with
it, so their figures are equal.

The order of two events of different resources does not matter.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final, Literal

import attrs

from trio_sched._events.records import JsonValue, RequestAdmissionEvent, RequestStatistics, ResourceSample
from trio_sched._resources.identity import ProviderModelKey, RequestResourceKey
from trio_sched._resources.request import RequestPressureSnapshot

__all__ = [
    "Activity",
    "ActivityKind",
    "LimitChange",
    "ReplayedResource",
    "RequestReplay",
    "RequestStatisticsSink",
    "activity_at",
]

_RECENT_CALLS: Final = 100
_NO_FAILURES: Final = frozenset({"success", "rate_limited"})
_RAISED: Final = frozenset({"increased", "probe_started"})
_CLOCK_SLACK: Final = 1e-6
"""Seconds by which the sum of a time and a hint may differ from the same sum made elsewhere."""


@attrs.frozen
class LimitChange:
    """A change of a limit: its cause as the rule named it, and the limit before and after it.

    asked: of a probe that was refused, how many more calls it asked for, 0 where that is not known.
    """

    cause: str
    previous: int
    current: int
    asked: int = 0


@attrs.define
class ReplayedResource:
    """One request resource.

    pressure: the newest snapshot. rule: which rule learns the limit, None where no event said it. held: the leases that
    are out, by id, and since when. hinted: calls that wait until the provider wants to see them again, by attempt, with
    that time. hinted_stop: the latest stop that a retry hint asked for. change: the latest of the limit. asked: the
    latest raise of the limit, while no call has proven it. outage_since: when an outage began that has not ended.
    not_answering: why its endpoint is not answering, or None. trial: the lease of the trial call that is out. calls:
    those that ended and were not cancelled. failures: how many of them failed, by outcome; a rate limit is no failure.
    recent_failed: whether each of the latest of them failed.
    """

    pressure: RequestPressureSnapshot
    rule: str | None = None
    held: dict[int, float] = attrs.field(factory=dict[int, float])
    waiters: int = 0
    hinted: dict[str, float] = attrs.field(factory=dict[str, float])
    hinted_stop: float | None = None
    change: LimitChange | None = None
    asked: LimitChange | None = None
    outage_since: float | None = None
    not_answering: str | None = None
    trial: int | None = None
    calls: int = 0
    failures: dict[str, int] = attrs.field(factory=dict[str, int])
    recent_failed: deque[bool] = attrs.field(factory=lambda: deque[bool](maxlen=_RECENT_CALLS))
    _refused_at: dict[int, float] = attrs.field(factory=dict[int, float])
    """When leases came back that the provider refused, until that is reported."""
    _witness: int | None = None
    """The lease whose answer proves the limit that was asked for."""

    @classmethod
    def of(cls, sample: ResourceSample) -> ReplayedResource:
        """What a sample shows. Of its leases the number is known, and since when the oldest of them is out."""
        pressure, (failed, recent) = sample.pressure, sample.recent
        resource = cls(
            pressure,
            sample.rule,
            held=dict.fromkeys(range(pressure.in_flight_count), sample.oldest or pressure.captured_at),
            waiters=pressure.waiters,
            hinted_stop=sample.hinted_stop,
            change=None if sample.change is None else LimitChange(*sample.change),
            asked=None if sample.asked is None else LimitChange(*sample.asked),
            outage_since=sample.outage_since,
            not_answering=sample.not_answering,
            trial=0 if sample.trial else None,
            calls=sample.calls,
            failures=dict(sample.failures),
        )
        resource.recent_failed.extend([True] * failed + [False] * (recent - failed))
        return resource

    @property
    def current_limit(self) -> int:
        """The limit in force."""
        return self.pressure.current_limit

    @property
    def effective_max(self) -> int:
        """The most that the limit may grow to."""
        return self.pressure.effective_max

    @property
    def blocked_until(self) -> float | None:
        """When the latest stop ends, which may have passed."""
        return self.pressure.blocked_until_monotonic

    @property
    def consecutive_rate_limits(self) -> int:
        """Rate limits since the last success outside of a stop."""
        return self.pressure.consecutive_rate_limits

    @property
    def in_flight(self) -> int:
        """Leases that are out."""
        return len(self.held)

    def stopped_at(self, now: float) -> bool:
        """Whether nothing may go out at `now`."""
        until = self.pressure.blocked_until_monotonic
        return until is not None and now < until

    @property
    def stop_is_hinted(self) -> bool:
        """Whether the latest stop is as long as a retry hint asked for."""
        return self.hinted_stop is not None and self.hinted_stop == self.blocked_until

    def waiting_for_hints(self, now: float) -> int:
        """How many waiting calls let others go first until their retry hint is over."""
        return sum(until > now for until in self.hinted.values())

    def agrees_with(self, snapshot: RequestPressureSnapshot) -> bool:
        """Whether `snapshot`, taken after the last event, shows the same."""
        pressure = self.pressure
        return (
            pressure.current_limit,
            pressure.effective_max,
            self.in_flight,
            self.waiters,
            pressure.blocked_until_monotonic if self.stopped_at(snapshot.captured_at) else None,
            pressure.rate_limit_ceiling,
            pressure.consecutive_rate_limits,
            pressure.last_outcome,
        ) == (
            snapshot.current_limit,
            snapshot.effective_max,
            snapshot.in_flight_count,
            snapshot.waiters,
            snapshot.blocked_until_monotonic,
            snapshot.rate_limit_ceiling,
            snapshot.consecutive_rate_limits,
            snapshot.last_outcome,
        )

    def call_ended(self, outcome: str) -> None:
        """Count a call by its outcome."""
        if outcome == "local_cancelled":
            return
        self.calls += 1
        failed = outcome not in _NO_FAILURES
        self.recent_failed.append(failed)
        if failed:
            self.failures[outcome] = self.failures.get(outcome, 0) + 1

    def wait_started(self, attempt: str | None, not_before: float | None) -> None:
        """A call waits from now on, and lets others go first until `not_before`."""
        self.waiters += 1
        if attempt is not None and not_before is not None:
            self.hinted[attempt] = not_before

    def wait_ended(self, attempt: str | None) -> None:
        """A call waits no more."""
        self.waiters -= 1
        if self.hinted and attempt is not None:
            self.hinted.pop(attempt, None)

    def granted(self, lease_id: int, at: float) -> None:
        """A lease is out."""
        self.held[lease_id] = at
        if self.asked is not None and self._witness is None and self.pressure.in_flight_count >= self.asked.current:
            self._witness = lease_id

    def released(self, lease_id: int, outcome: str | None, at: float) -> None:
        """A lease came back."""
        self.held.pop(lease_id, None)
        if outcome is not None:
            self.call_ended(outcome)
        if outcome == "rate_limited":
            self._refused_at[lease_id] = at
        if lease_id == self.trial:
            self.trial = None
        if lease_id == self._witness:
            self._witness = None
            if outcome == "success":
                self.asked = None

    def rate_limited(self, lease_id: int | None, hint: float | None, at: float) -> None:
        """The provider refused a call, and asked for a pause of `hint` seconds."""
        since = at if lease_id is None else self._refused_at.pop(lease_id, at)
        until = self.pressure.blocked_until_monotonic
        if hint is not None and until is not None and math.isclose(since + hint, until, abs_tol=_CLOCK_SLACK):
            self.hinted_stop = until

    def limit_changed(self, change: LimitChange) -> None:
        """The rule moved the limit."""
        if change.cause == "probe_refused" and self.asked is not None:
            change = attrs.evolve(change, asked=self.asked.current - self.asked.previous)
        self.change = change
        self.asked, self._witness = (change if change.cause in _RAISED else None), None


@attrs.define(eq=False)
class RequestReplay:
    """Feed it the events of one run in order with `apply`; read what it holds, and change nothing of that.

    rules: the name of the rule of each endpoint that said it. changes: rises with every event that may have changed
    anything here.
    """

    resources: dict[RequestResourceKey, ReplayedResource] = attrs.field(
        factory=dict[RequestResourceKey, ReplayedResource], init=False
    )
    static_caps: dict[ProviderModelKey, int] = attrs.field(factory=dict[ProviderModelKey, int], init=False)
    rules: dict[ProviderModelKey, str] = attrs.field(factory=dict[ProviderModelKey, str], init=False)
    uncorrelated: int = attrs.field(default=0, init=False)
    _not_answering: dict[ProviderModelKey, str] = attrs.field(factory=dict[ProviderModelKey, str], init=False)
    changes: int = attrs.field(default=0, init=False)

    def apply(self, event: RequestAdmissionEvent) -> None:
        """Take in the next event."""
        key, snapshot = event.request_resource_key, event.pressure_snapshot
        if key is None:
            self._endpoint(event)
            return
        resource = self.resources.get(key)
        if resource is None:
            if snapshot is None:
                return
            rule = self.rules.get(key.provider_model_key)
            resource = self.resources[key] = ReplayedResource(snapshot, rule)
            resource.not_answering = self._not_answering.get(key.provider_model_key)
        elif snapshot is not None:
            if snapshot.blocked_until_monotonic != resource.pressure.blocked_until_monotonic:
                self.changes += 1
            resource.pressure = snapshot
        if event.event_kind not in _MOVES_NOTHING:
            self.changes += 1
            self._move(resource, event)

    def load(self, samples: Iterable[ResourceSample]) -> None:
        """Take over the state of samples of all resources."""
        self.changes += 1
        for sample in samples:
            key = sample.pressure.resource
            self.resources[key] = ReplayedResource.of(sample)
            if sample.static_cap is not None:
                self.static_caps[key.provider_model_key] = sample.static_cap
            if sample.rule is not None:
                self.rules[key.provider_model_key] = sample.rule

    def _move(self, resource: ReplayedResource, event: RequestAdmissionEvent) -> None:
        at, lease_id, facts = event.captured_at_monotonic, event.request_lease_id, event.diagnostics
        match event.event_kind:
            case "request_wait_started":
                resource.wait_started(event.request_attempt_id, _number(facts.get("not_before_monotonic")))
            case "request_wait_completed" | "request_wait_timeout" | "request_wait_cancelled":
                resource.wait_ended(event.request_attempt_id)
            case "request_acquire_denied" if "waited_seconds" in facts:
                resource.wait_ended(event.request_attempt_id)
            case "request_lease_acquired":
                if lease_id is not None:
                    resource.granted(lease_id, at)
                correlation = event.captured_correlation
                self.uncorrelated += correlation is None or correlation.task_execution_id is None
            case "request_lease_released" if lease_id is not None:
                resource.released(lease_id, event.reason_or_outcome, at)
            case "request_rate_limited":
                resource.rate_limited(lease_id, _number(facts.get("retry_after_seconds")), at)
            case "request_limit_decreased" | "request_limit_increased":
                previous, current = _whole(facts.get("previous")), _whole(facts.get("current"))
                if previous is not None and current is not None and previous != current:
                    resource.limit_changed(LimitChange(_cause(event), previous, current))
            case "request_outage_started":
                resource.outage_since = at
            case "request_trial_started":
                resource.trial = lease_id if lease_id in resource.held else None
            case "request_outage_ended":
                resource.outage_since = None
            case _:
                pass

    def _endpoint(self, event: RequestAdmissionEvent) -> None:
        facts = event.diagnostics
        if event.event_kind in _STATES:
            endpoint = ProviderModelKey(str(facts["provider_name"]), str(facts["model_id"]))
            because = facts.get("because")
            self._not_answering.pop(endpoint, None)
            if event.event_kind != "request_endpoint_answering":
                self._not_answering[endpoint] = str(because)
            self.changes += 1
            for key, resource in self.resources.items():
                if key.provider_model_key == endpoint:
                    resource.not_answering = self._not_answering.get(endpoint)
            return
        if event.event_kind == "request_resource_registered":
            endpoint = ProviderModelKey(str(facts["provider_name"]), str(facts["model_id"]))
            cap, rule = _whole(facts.get("static_cap")), facts.get("limit")
            if cap is not None:
                self.static_caps[endpoint] = cap
            if isinstance(rule, str):
                self.rules[endpoint] = rule


_STATES: Final = frozenset({"request_endpoint_not_answering", "request_endpoint_answering", "request_endpoint_closed"})
_MOVES_NOTHING: Final = frozenset({"model_request_started", "model_request_completed"})


def _cause(event: RequestAdmissionEvent) -> str:
    """Why the limit changed; events of older runs say only which way."""
    cause = event.diagnostics.get("cause")
    return cause if isinstance(cause, str) else event.event_kind.removeprefix("request_limit_")


def _number(value: JsonValue) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _whole(value: JsonValue) -> int | None:
    return value if isinstance(value, int) else None


# What the limit of an endpoint is doing

ActivityKind = Literal["open", "probing", "stopped", "trial", "not_answering"]

_TRIES: Final = "evidence"
"""The rule that ends each stop with one trial call."""


@attrs.frozen
class Activity:
    """What the rule of a resource is about: it asks for more (`probing`), lets nothing out (`stopped`) or only one call
    (`trial`), or is `open`. Where its endpoint is `not_answering`, that comes first.

    outage: whether the provider refuses everything. seconds_left: of a stop. asks_for: how many more calls a probe asks
    for. trial_follows: whether one trial call goes out when a stop ends.
    """

    kind: ActivityKind = "open"
    outage: bool = False
    seconds_left: float = 0.0
    asks_for: int = 0
    trial_follows: bool = False

    def __str__(self) -> str:
        if self.outage:
            return f"outage: {self._in_an_outage()}"
        match self.kind:
            case "probing":
                return f"asking for {'one' if self.asks_for == 1 else self.asks_for} more"
            case "stopped":
                left = f"{self.seconds_left:.1f} s"
                return f"stopped {left}, then one trial" if self.trial_follows else f"cooling down {left}"
            case "trial":
                return "one trial is out"
            case "not_answering":
                return "not answering"
            case "open":
                return ""

    def _in_an_outage(self) -> str:
        if self.kind == "stopped":
            return f"next trial in {self.seconds_left:.1f} s"
        return "one trial is out" if self.kind == "trial" else "nothing answered yet"


def activity_at(resource: ReplayedResource, now: float) -> Activity:
    """What the rule of `resource` is about at `now`."""
    outage = resource.outage_since is not None
    if resource.not_answering is not None:
        return Activity("not_answering")
    if resource.stopped_at(now):
        assert resource.blocked_until is not None
        if resource.trial is not None:
            return Activity("trial", outage)
        follows = outage or resource.rule == _TRIES
        return Activity("stopped", outage, resource.blocked_until - now, trial_follows=follows)
    asked = resource.asked
    if asked is not None and asked.cause == "probe_started":
        return Activity("probing", outage, asks_for=asked.current - asked.previous)
    return Activity("open", outage)


# What went out

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
            self._by_resource[sample.pressure.resource] = sample.statistics

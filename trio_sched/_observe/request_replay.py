"""What request admission held, rebuilt from its events alone.

Counts are made from the transitions: a wait that starts and ends, a lease that is granted and comes back, a limit that
moves. Only where a resource is met for the first time does its pressure snapshot say where the counting begins. After
the last event the replayed values equal the controller's own snapshots.

The order of two events of different resources does not matter.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import attrs

from trio_sched._events.json_value import JsonValue
from trio_sched._events.request import RequestAdmissionEvent
from trio_sched._resources.identity import ProviderModelKey, RequestResourceKey
from trio_sched._resources.pressure import RequestPressureSnapshot

__all__ = ["ReplayedResource", "RequestReplay"]

_RECENT_CALLS: Final = 100
_NO_FAILURES: Final = frozenset({"success", "rate_limited"})


@attrs.define
class ReplayedResource:
    """One request resource. Limits are None until an event told them; `cooling_until` may have passed.

    held: the leases that are out, by id, and since when. retry_hint_seconds: what the provider asked for last. calls:
    those that ended and were not cancelled. failures: how many of them failed, by outcome; a rate limit is no failure.
    recent_failed: whether each of the latest of them failed.
    """

    current_limit: int | None = None
    effective_max: int | None = None
    held: dict[int, float] = attrs.field(factory=dict[int, float])
    waiters: int = 0
    cooling_until: float | None = None
    rate_limit_ceiling: int | None = None
    consecutive_rate_limits: int = 0
    last_outcome: str | None = None
    retry_hint_seconds: float | None = None
    calls: int = 0
    failures: dict[str, int] = attrs.field(factory=dict[str, int])
    recent_failed: deque[bool] = attrs.field(factory=lambda: deque[bool](maxlen=_RECENT_CALLS))

    def call_ended(self, outcome: str) -> None:
        """Count a call by its outcome."""
        if outcome == "local_cancelled":
            return
        self.calls += 1
        failed = outcome not in _NO_FAILURES
        self.recent_failed.append(failed)
        if failed:
            self.failures[outcome] = self.failures.get(outcome, 0) + 1

    @property
    def in_flight(self) -> int:
        """Leases that are out."""
        return len(self.held)

    def cooling_at(self, now: float) -> bool:
        """Whether a cooldown is in force at `now`."""
        return self.cooling_until is not None and now < self.cooling_until

    def agrees_with(self, snapshot: RequestPressureSnapshot) -> bool:
        """Whether `snapshot`, taken after the last event, shows the same."""
        cooling = self.cooling_until if self.cooling_at(snapshot.captured_at) else None
        return (
            self.current_limit,
            self.effective_max,
            self.in_flight,
            self.waiters,
            cooling,
            self.rate_limit_ceiling,
            self.consecutive_rate_limits,
            self.last_outcome,
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


@attrs.define(eq=False)
class RequestReplay:
    """Feed it the events of one run in order with `apply`; read what it holds, and change nothing of that.

    changes: rises with every event that may have changed anything here.
    """

    resources: dict[RequestResourceKey, ReplayedResource] = attrs.field(
        factory=dict[RequestResourceKey, ReplayedResource], init=False
    )
    static_caps: dict[ProviderModelKey, int] = attrs.field(factory=dict[ProviderModelKey, int], init=False)
    uncorrelated: int = attrs.field(default=0, init=False)
    changes: int = attrs.field(default=0, init=False)

    def apply(self, event: RequestAdmissionEvent) -> None:
        """Take in the next event."""
        key, facts = event.request_resource_key, event.diagnostics
        if key is None:
            self._endpoint(event)
            return
        resource = self.resources.get(key)
        if resource is None:
            if event.pressure_snapshot is None:
                return
            resource = self.resources[key] = _met(event.pressure_snapshot)
        if event.event_kind not in _MOVES_NOTHING:
            self.changes += 1
        match event.event_kind:
            case "request_wait_started":
                resource.waiters += 1
            case "request_wait_completed" | "request_wait_timeout" | "request_wait_cancelled":
                resource.waiters -= 1
            case "request_acquire_denied" if "waited_seconds" in facts:
                resource.waiters -= 1
            case "request_lease_acquired":
                if event.request_lease_id is not None:
                    resource.held[event.request_lease_id] = event.captured_at_monotonic
                self.uncorrelated += event.captured_correlation is None
            case "request_lease_released":
                if event.request_lease_id is not None:
                    resource.held.pop(event.request_lease_id, None)
                resource.last_outcome = event.reason_or_outcome
                if event.reason_or_outcome is not None:
                    resource.call_ended(event.reason_or_outcome)
                if event.reason_or_outcome == "success" and not resource.cooling_at(event.captured_at_monotonic):
                    resource.consecutive_rate_limits = 0
            case "request_rate_limited":
                resource.consecutive_rate_limits += 1
                resource.cooling_until = _number(facts.get("blocked_until_monotonic"))
                resource.retry_hint_seconds = _number(facts.get("retry_after_seconds"))
                if event.pressure_snapshot is not None:
                    # At a limit of 1 nothing is lowered, and no other event tells the ceiling.
                    resource.rate_limit_ceiling = event.pressure_snapshot.rate_limit_ceiling
            case "request_limit_decreased" | "request_limit_increased":
                resource.current_limit = _whole(facts.get("current"))
                resource.rate_limit_ceiling = _whole(facts.get("rate_limit_ceiling"))
            case "request_effective_cap_changed":
                resource.effective_max = _whole(facts.get("current"))
            case _:
                pass
        if event.pressure_snapshot is not None and event.pressure_snapshot.blocked_until_monotonic is not None:
            # A refusal closes its resource at once, and is judged a moment later.
            if resource.cooling_until != event.pressure_snapshot.blocked_until_monotonic:
                self.changes += 1
            resource.cooling_until = event.pressure_snapshot.blocked_until_monotonic

    def _endpoint(self, event: RequestAdmissionEvent) -> None:
        facts = event.diagnostics
        if event.event_kind == "request_resource_registered":
            cap = _whole(facts.get("static_cap"))
            if cap is not None:
                self.static_caps[ProviderModelKey(str(facts["provider_name"]), str(facts["model_id"]))] = cap


_MOVES_NOTHING: Final = frozenset({"model_request_started", "model_request_completed"})


def _met(snapshot: RequestPressureSnapshot) -> ReplayedResource:
    return ReplayedResource(
        current_limit=snapshot.current_limit,
        effective_max=snapshot.effective_max,
        rate_limit_ceiling=snapshot.rate_limit_ceiling,
    )


def _number(value: JsonValue) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _whole(value: JsonValue) -> int | None:
    return value if isinstance(value, int) else None

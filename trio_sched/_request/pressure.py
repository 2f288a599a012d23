"""Snapshots of the ledger for readers: consistent, immutable, and taken without changing anything.

A snapshot shows the state as it is. Time that passed without anybody acting on it (a cooldown that ended a moment
ago, with its timer not yet run) shows in `cooldown_remaining_seconds` and `blocked_until_monotonic`, not in the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Protocol

import attrs

from trio_sched._request.state import DomainState, EndpointState
from trio_sched._resources.identity import ProviderModelKey, RequestResourceKey
from trio_sched._resources.request import ProviderModelPressureSnapshot, RequestPressureSnapshot

__all__ = [
    "RequestAdmissionMaxima",
    "RequestPressure",
    "RequestPressureSnapshotProvider",
    "domain_snapshot",
    "endpoint_snapshot",
]


_NONE: Final[Mapping[str, int]] = MappingProxyType({})


class RequestPressureSnapshotProvider(Protocol):
    """Read-only access to request pressure. A query changes nothing; a resource never asked for gives None."""

    def snapshot(self, resource: RequestResourceKey) -> RequestPressureSnapshot | None:
        """One request resource."""
        ...

    def snapshots(self) -> Mapping[RequestResourceKey, RequestPressureSnapshot]:
        """Every request resource that was asked for."""
        ...

    def global_snapshot(self, provider: str, model: str) -> ProviderModelPressureSnapshot | None:
        """One endpoint."""
        ...

    def global_snapshots(self) -> Mapping[ProviderModelKey, ProviderModelPressureSnapshot]:
        """Every registered endpoint."""
        ...


@attrs.frozen
class RequestAdmissionMaxima:
    """The most there ever was, for the capacity plan."""

    in_flight_by_resource: Mapping[RequestResourceKey, int]
    in_flight_by_endpoint: Mapping[ProviderModelKey, int]
    waiters_by_resource: Mapping[RequestResourceKey, int]
    current_limit_by_resource: Mapping[RequestResourceKey, int]


def domain_snapshot(domain: DomainState, *, waiters: int, now: float) -> RequestPressureSnapshot:
    """One request resource at `now`."""
    limits = domain.limits
    in_flight = domain.limiter.borrowed_tokens
    until = limits.blocked_until
    blocked = until is not None and until > now
    # Fields in order: every event that is wanted carries a snapshot, and naming its fields doubles the cost of it.
    return RequestPressureSnapshot(
        now,
        domain.sequence,
        domain.key,
        limits.effective_max,
        limits.current_limit,
        in_flight,
        in_flight,
        waiters,
        until if blocked else None,
        until - now if until is not None and blocked else 0.0,
        limits.ceiling,
        limits.consecutive_rate_limits,
        domain.last_outcome,
        MappingProxyType(dict(domain.release_diagnostics)) if domain.release_diagnostics else _NONE,
    )


def endpoint_snapshot(endpoint: EndpointState, *, now: float) -> ProviderModelPressureSnapshot:
    """One endpoint at `now`."""
    in_flight = endpoint.limiter.borrowed_tokens
    return ProviderModelPressureSnapshot(
        captured_at=now,
        sequence=endpoint.sequence,
        provider_model=endpoint.key,
        static_cap=endpoint.static_cap.cap,
        aggregate_in_flight=in_flight,
        aggregate_active_lease_count=in_flight,
        aliases=endpoint.static_cap.aliases,
        raw_caps=endpoint.static_cap.raw_caps,
        domains=MappingProxyType(
            {
                name: domain.limiter.borrowed_tokens
                for name, domain in endpoint.domains.items()
                if domain.limiter.borrowed_tokens
            }
        ),
        state=endpoint.health.state,
        state_reason=endpoint.health.because,
        unanswered_since=endpoint.health.unanswered_since,
    )


class RequestPressure:
    """The pressure of one controller, read from its ledger."""

    __slots__ = ("_clock", "_domains", "_endpoints", "_waiters")

    def __init__(
        self,
        endpoints: Mapping[ProviderModelKey, EndpointState],
        domains: Mapping[RequestResourceKey, DomainState],
        waiters: Callable[[RequestResourceKey], int],
        clock: Callable[[], float],
    ) -> None:
        self._endpoints = endpoints
        self._domains = domains
        self._waiters = waiters
        self._clock = clock

    def __repr__(self) -> str:
        endpoints = [
            f"{key} {endpoint.limiter.borrowed_tokens} of {endpoint.static_cap.cap} in flight"
            for key, endpoint in self._endpoints.items()
        ]
        domains = [
            f"{key} limit {domain.limits.current_limit}, {self._waiters(key)} waiting"
            for key, domain in self._domains.items()
        ]
        return f"<RequestPressure {'; '.join([*endpoints, *domains]) or 'of no endpoint'}>"

    def snapshot(self, resource: RequestResourceKey) -> RequestPressureSnapshot | None:
        """One request resource, or None if it was never asked for."""
        domain = self._domains.get(resource)
        if domain is None:
            return None
        return domain_snapshot(domain, waiters=self._waiters(resource), now=self._clock())

    def snapshots(self) -> Mapping[RequestResourceKey, RequestPressureSnapshot]:
        """Every request resource that was asked for, at one instant."""
        now = self._clock()
        return MappingProxyType(
            {key: domain_snapshot(domain, waiters=self._waiters(key), now=now) for key, domain in self._domains.items()}
        )

    def global_snapshot(self, provider: str, model: str) -> ProviderModelPressureSnapshot | None:
        """One endpoint, or None if it was never registered."""
        endpoint = self._endpoints.get(ProviderModelKey(provider, model))
        return None if endpoint is None else endpoint_snapshot(endpoint, now=self._clock())

    def global_snapshots(self) -> Mapping[ProviderModelKey, ProviderModelPressureSnapshot]:
        """Every registered endpoint, at one instant."""
        now = self._clock()
        return MappingProxyType(
            {key: endpoint_snapshot(endpoint, now=now) for key, endpoint in self._endpoints.items()}
        )

    def maxima(self) -> RequestAdmissionMaxima:
        """Peaks since the controller was made; resources that never had any are absent."""
        domains = self._domains.items()
        return RequestAdmissionMaxima(
            in_flight_by_resource={key: domain.peak_in_flight for key, domain in domains if domain.peak_in_flight},
            in_flight_by_endpoint={
                key: endpoint.peak_in_flight for key, endpoint in self._endpoints.items() if endpoint.peak_in_flight
            },
            waiters_by_resource={key: domain.peak_waiters for key, domain in domains if domain.peak_waiters},
            current_limit_by_resource={key: domain.peak_limit for key, domain in domains},
        )

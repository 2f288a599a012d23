"""The live ledger of request admission: one record per endpoint, one per request domain within it, and every lease.

Each record owns a `trio.CapacityLimiter`, and the limiter is the count: what is in flight is what is borrowed, one
token per lease under the lease's own id. An endpoint's total is its static cap. A domain's total is the limit in force,
or 0 while it is stopped; `publish_limit` is the one place that sets it. What closes a domain before the total does, a
stop that has just begun or a refusal that is not applied yet, is read from the record itself, and so is the state of an
endpoint that does not answer.

Every lease is counted before it is handed over, and uncounted once. Lease ids count up from 1 within a controller, so
no memory of released ids is needed: an id that was issued and is not held any more was released.
"""

from __future__ import annotations

import trio

from trio_sched._request.config import RequestAdmissionConfig
from trio_sched._request.endpoint import EndpointHealth
from trio_sched._request.leases import RequestAdmissionLease
from trio_sched._request.limit import LimitChoice
from trio_sched._request.limit_state import AdaptiveRequestLimitState, RuleMaker
from trio_sched._resources import ReleaseReason
from trio_sched._resources.identity import (
    ProviderModelKey,
    ProviderModelStaticCap,
    RequestDomain,
    RequestResourceKey,
    RuntimeCorrelation,
)
from trio_sched._resources.request import RequestAdmissionItem

__all__ = ["DomainState", "EndpointState", "RequestLedger"]


class EndpointState:
    """One registered endpoint. `limit` chooses its rule, `health` knows whether it answers."""

    __slots__ = ("domains", "health", "key", "limit", "limiter", "peak_in_flight", "sequence", "static_cap")

    def __init__(
        self,
        key: ProviderModelKey,
        static_cap: ProviderModelStaticCap,
        limit: LimitChoice,
        health: EndpointHealth | None = None,
    ) -> None:
        self.key: ProviderModelKey = key
        self.static_cap: ProviderModelStaticCap = static_cap
        self.limit: LimitChoice = limit
        self.limiter: trio.CapacityLimiter = trio.CapacityLimiter(static_cap.cap)
        self.domains: dict[RequestDomain, DomainState] = {}
        self.health: EndpointHealth = EndpointHealth() if health is None else health
        self.sequence: int = 0
        self.peak_in_flight: int = 0

    @property
    def has_room(self) -> bool:
        """Whether one more call fits under the static cap, and may go out as far as the endpoint's state goes."""
        return self.health.admits and self.limiter.borrowed_tokens < self.limiter.total_tokens

    def set_static_cap(self, static_cap: ProviderModelStaticCap) -> None:
        """Enforce another cap from now on; what is in flight stays."""
        self.static_cap = static_cap
        self.limiter.total_tokens = static_cap.cap
        self.sequence += 1


class DomainState:
    """One request resource. pending: what was learned against it and is not applied yet, which keeps it closed."""

    __slots__ = (
        "endpoint",
        "key",
        "last_outcome",
        "limiter",
        "limits",
        "peak_in_flight",
        "peak_limit",
        "peak_waiters",
        "pending",
        "release_diagnostics",
        "sequence",
    )

    def __init__(self, key: RequestResourceKey, endpoint: EndpointState, limits: AdaptiveRequestLimitState) -> None:
        self.key: RequestResourceKey = key
        self.endpoint: EndpointState = endpoint
        self.limits: AdaptiveRequestLimitState = limits
        self.limiter: trio.CapacityLimiter = trio.CapacityLimiter(limits.current_limit)
        self.pending: int = 0
        self.last_outcome: str | None = None
        self.release_diagnostics: dict[str, int] = {}
        self.sequence: int = 0
        self.peak_in_flight: int = 0
        self.peak_limit: int = limits.current_limit
        self.peak_waiters: int = 0

    @property
    def has_own_room(self) -> bool:
        """Whether one more call fits under the domain's limit, whatever the endpoint's."""
        return (
            self.limiter.borrowed_tokens < self.limiter.total_tokens
            and not self.pending
            and self.limits.blocked_until is None
        )

    @property
    def has_room(self) -> bool:
        """Whether one more call fits under both limits."""
        return (
            self.limiter.borrowed_tokens < self.limiter.total_tokens
            and not self.pending
            and self.limits.blocked_until is None
            and self.endpoint.has_room
        )

    def borrow(self, lease_id: int) -> int:
        """Count one lease, at domain and endpoint; the limiters refuse what would exceed a limit.

        Returns how many of the domain's calls are in flight with it.
        """
        endpoint = self.endpoint
        self.limiter.acquire_on_behalf_of_nowait(lease_id)
        endpoint.limiter.acquire_on_behalf_of_nowait(lease_id)
        self.sequence += 1
        endpoint.sequence += 1
        in_flight = self.limiter.borrowed_tokens
        if in_flight > self.peak_in_flight:
            self.peak_in_flight = in_flight
        at_endpoint = endpoint.limiter.borrowed_tokens
        if at_endpoint > endpoint.peak_in_flight:
            endpoint.peak_in_flight = at_endpoint
        return in_flight

    def give_back(self, lease_id: int) -> None:
        """Uncount one lease, at domain and endpoint."""
        self.limiter.release_on_behalf_of(lease_id)
        self.endpoint.limiter.release_on_behalf_of(lease_id)
        self.sequence += 1
        self.endpoint.sequence += 1

    def publish_limit(self) -> None:
        """Let the limiter carry the limit in force, or 0 while the domain is stopped."""
        self.limiter.total_tokens = 0 if self.limits.blocked_until is not None else self.limits.current_limit
        self.peak_limit = max(self.peak_limit, self.limits.current_limit)
        self.sequence += 1


class RequestLedger:
    """The books of one controller."""

    __slots__ = ("_last_lease_id", "config", "domains", "endpoints", "generation", "leases", "rules")

    def __init__(self, config: RequestAdmissionConfig, generation: int) -> None:
        self._last_lease_id = 0
        self.config = config
        self.rules = RuleMaker(config)
        self.generation = generation
        self.endpoints: dict[ProviderModelKey, EndpointState] = {}
        self.domains: dict[RequestResourceKey, DomainState] = {}
        self.leases: dict[int, RequestAdmissionLease] = {}

    def open_domain(self, resource: RequestResourceKey, now: float) -> DomainState | None:
        """The books of a resource that is asked for the first time; None where its endpoint is not registered."""
        endpoint = self.endpoints.get(resource.provider_model_key)
        if endpoint is None:
            return None
        effective_max = self.config.effective_max(resource, endpoint.static_cap.cap)
        rule = self.rules.make(endpoint.limit, resource, effective_max, now)
        limits = AdaptiveRequestLimitState(resource, rule, effective_max=effective_max, now=now)
        domain = DomainState(resource, endpoint, limits)
        self.domains[resource] = endpoint.domains[resource.domain] = domain
        return domain

    def issue(
        self,
        item: RequestAdmissionItem,
        domain: DomainState,
        now: float,
        holder: str | None,
        correlation: RuntimeCorrelation | None,
    ) -> RequestAdmissionLease:
        """Count one more lease, and make it."""
        limits = domain.limits
        lease_id = self._last_lease_id = self._last_lease_id + 1
        grant = limits.granted(now, domain.borrow(lease_id))
        lease = self.leases[lease_id] = RequestAdmissionLease(
            lease_id,
            item,
            now,
            limits.current_limit,
            limits.effective_max,
            self.generation,
            grant,
            holder,
            correlation,
        )
        return lease

    def take_back(self, lease: RequestAdmissionLease) -> ReleaseReason:
        """Uncount a lease if it is held, else say why nothing was uncounted."""
        if lease.controller_generation != self.generation:
            return "wrong_controller_generation"
        held = self.leases.get(lease.lease_id)
        if held is None:
            return "duplicate" if 0 < lease.lease_id <= self._last_lease_id else "unknown_lease"
        if held is not lease and held != lease:
            return "stale_lease"
        del self.leases[lease.lease_id]
        self.domains[held.item.resource].give_back(lease.lease_id)
        return "released"

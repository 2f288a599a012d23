"""Who holds what: endpoints, their domains, and every lease, counted before it is handed over and uncounted once.

Lease ids count up from 1 within a controller, so no memory of released ids is needed: an id that was issued and is not
held any more was released. The counts themselves are the limiters of `state.py`.
"""

from __future__ import annotations

from trio_sched._request.config import RequestAdmissionConfig
from trio_sched._request.leases import RequestAdmissionLease
from trio_sched._request.limit_state import AdaptiveRequestLimitState
from trio_sched._request.rules import RuleMaker
from trio_sched._request.state import DomainState, EndpointState
from trio_sched._resources.correlation import RuntimeCorrelation
from trio_sched._resources.identity import ProviderModelKey, RequestResourceKey
from trio_sched._resources.release import ReleaseReason
from trio_sched._resources.request import RequestAdmissionItem

__all__ = ["RequestLedger"]


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

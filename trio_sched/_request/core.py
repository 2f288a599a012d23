"""The whole of request admission as synchronous code, with the time passed in.

Every operation has the same shape: let time pass, change the ledger, note the endpoints whose waiters may be affected,
and `settle`. `settle` is the only code that grants to waiters. It runs after every change and goes on until no waiter
that could be admitted is left, so between two operations there never is one: that is why a newcomer may be served at
once wherever there is room, without passing anybody who could have been served.

What an operation leaves for its caller to carry out is in `woken` (waiters that left the queue with a `decision`),
`updates` (for `apply`, oldest first) and `events.pending` (events). The caller takes them out when it is over.

        try_lease ------ room ------------------------------> lease --- release ---> gone, once
            |  full                                             ^
            v                                                   | settle, in fair order
         enqueue --> queued --- room ---------------------------+
                        |--- withdraw (cancelled, timed out) ---> gone
                        +--- shutdown, close_endpoint ----------> denied
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from types import MappingProxyType
from typing import Final, Literal

from trio_sched._errors import InvalidValueError
from trio_sched._events.records import JsonValue, RequestAdmissionEventKind
from trio_sched._events.sinks import RequestEventStream
from trio_sched._request.config import RequestAdmissionConfig, check_limit
from trio_sched._request.endpoint import ClosedReason, EndpointChange, EndpointHealth
from trio_sched._request.events import RequestEventRecorder
from trio_sched._request.leases import RequestAdmissionDenied, RequestAdmissionLease, RequestDenialReason
from trio_sched._request.limit import LimitChoice, limit_name
from trio_sched._request.limit_updates import LimitUpdate, LimitUpdater
from trio_sched._request.pressure import domain_snapshot
from trio_sched._request.queue import RequestFairQueue, RequestQueueView, RequestWaiter
from trio_sched._request.state import DomainState, EndpointState, RequestLedger
from trio_sched._resources import ReleaseResult
from trio_sched._resources.identity import ProviderModelKey, ProviderModelStaticCap, RuntimeCorrelation
from trio_sched._resources.request import RequestAdmissionItem, RequestPressureSnapshot, RequestReleaseOutcome

__all__ = ["RequestAdmissionCore", "RequestAdmissionPolicy"]

_ENDPOINT_EVENTS: Final[dict[EndpointChange, RequestAdmissionEventKind]] = {
    "not_answering": "request_endpoint_not_answering",
    "answering": "request_endpoint_answering",
    "closed": "request_endpoint_closed",
}
_RELEASED: Final = ReleaseResult(released=True, reason="released", diagnostics=MappingProxyType({}))


class RequestAdmissionPolicy:
    """A request is admitted when its domain is not stopped, and domain and endpoint both have room.

    Pure: it reads the ledger alone, and may be asked any number of times.
    """

    __slots__ = ()

    def admits(self, domain: DomainState) -> bool:
        """Whether the next request of `domain` may go out."""
        return domain.has_room

    def refusal(self, domain: DomainState, *, waiters_ahead: bool, waits_for_hint: bool) -> RequestDenialReason:
        """Why it may not.

        waiters_ahead: whether others already queue for the same capacity. waits_for_hint: whether the provider asked
        for a later moment.
        """
        health = domain.endpoint.health
        if health.state == "closed":
            return health.closed_for
        if not health.admits:
            return "endpoint_not_answering"
        if domain.limits.blocked_until is not None:
            return "cooldown"
        if waits_for_hint:
            return "retry_hint"
        return "queued_waiters_ahead" if waiters_ahead else "no_capacity"


class RequestAdmissionCore:
    """Ledger, queue and adaptive limits of one controller, settled after every change."""

    __slots__ = ("_limits", "_policy", "_shut", "_waiters_made", "events", "ledger", "queue", "updates", "woken")

    def __init__(self, config: RequestAdmissionConfig, stream: RequestEventStream, generation: int) -> None:
        self.ledger = RequestLedger(config, generation)
        self.queue = RequestFairQueue()
        self.events = RequestEventRecorder(stream, self._snapshot)
        self.woken: list[RequestWaiter] = []
        self._limits = LimitUpdater(self.events)
        self.updates: deque[LimitUpdate] = self._limits.updates
        self._policy = RequestAdmissionPolicy()
        self._shut = False
        self._waiters_made = 0

    # Asking

    def try_lease(
        self,
        item: RequestAdmissionItem,
        now: float,
        holder: str | None = None,
        correlation: RuntimeCorrelation | None = None,
    ) -> RequestAdmissionLease | RequestDenialReason:
        """A lease if one is free, else why not. A refusal is not on record until `deny` or `enqueue`."""
        if now >= self._limits.next_due:
            self.advance(now)
        domain = self.ledger.domains.get(item.resource)
        if domain is None:
            domain = self.ledger.open_domain(item.resource, now)
            if domain is None:
                return "shutdown" if self._shut else "hard_policy_denial"
            self._limits.watch(domain)
        if self._shut:
            return "shutdown"
        if not self._policy.admits(domain):
            waits_for_hint = item.not_before is not None and item.not_before > now
            return self._policy.refusal(
                domain, waiters_ahead=self._waiters_ahead(domain), waits_for_hint=waits_for_hint
            )
        if not self.events.silent:
            self.events.of_item("request_wait_started", item, domain, now, correlation)
        return self._grant(item, domain, now, holder, correlation, waited=0.0)

    def deny(
        self,
        item: RequestAdmissionItem,
        reason: RequestDenialReason,
        now: float,
        correlation: RuntimeCorrelation | None = None,
    ) -> RequestAdmissionDenied:
        """Put a refusal into words, and on record."""
        domain = self.ledger.domains.get(item.resource)
        if reason == "queue_timeout":
            self.events.of_item("request_wait_started", item, domain, now, correlation)
            self.events.of_item("request_wait_timeout", item, domain, now, correlation, reason, {"waited_seconds": 0.0})
        else:
            self.events.of_item("request_acquire_denied", item, domain, now, correlation, reason)
        return self._denied(item, reason, now)

    def enqueue(
        self,
        item: RequestAdmissionItem,
        now: float,
        *,
        holder: str | None = None,
        correlation: RuntimeCorrelation | None = None,
    ) -> RequestWaiter:
        """Queue a request that `try_lease` refused for want of capacity."""
        reason: RequestDenialReason | None = None
        facts: dict[str, JsonValue] | None = None
        if item.not_before is not None and item.not_before > now:
            reason, facts = "retry_hint", {"not_before_monotonic": item.not_before}
        domain = self.ledger.domains[item.resource]
        self._waiters_made += 1
        waiter = RequestWaiter(self._waiters_made, item, now, holder, correlation)
        self.queue.advance(now)
        self.queue.enqueue((waiter,))
        domain.sequence += 1
        waiting = self.queue.queued_in(item.resource)
        if waiting > domain.peak_waiters:
            domain.peak_waiters = waiting
        if not self.events.silent:
            if waiting == 1:
                self.events.of_domain("request_queue_formed", domain, now)
            self.events.of_item("request_wait_started", item, domain, now, correlation, reason, facts)
        self._touch(domain.endpoint)
        self.settle(now)
        return waiter

    def withdraw(self, waiter: RequestWaiter, now: float) -> None:
        """A waiter gave up before it was served."""
        removed = self.queue.remove(waiter.waiter_id)
        assert removed is waiter, "only a queued waiter can be withdrawn"
        domain = self.ledger.domains[waiter.item.resource]
        self._left_queue(domain, now)
        self._touch(domain.endpoint)
        self.settle(now)

    def record_withdrawal(
        self, waiter: RequestWaiter, reason: Literal["cancellation", "queue_timeout"], now: float
    ) -> RequestAdmissionDenied:
        """Put a withdrawal into words, and on record."""
        self.events.of_item(
            "request_wait_timeout" if reason == "queue_timeout" else "request_wait_cancelled",
            waiter.item,
            self.ledger.domains[waiter.item.resource],
            now,
            waiter.correlation,
            reason,
            {"waited_seconds": now - waiter.enqueued_at},
        )
        return self._denied(waiter.item, reason, now)

    # Giving back

    def release(self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome, now: float) -> ReleaseResult:
        """Take a lease back, once. Never raises and never adds capacity twice."""
        if now >= self._limits.next_due:
            self.advance(now)
        reason = self.ledger.take_back(lease)
        domain = self.ledger.domains.get(lease.item.resource)
        if domain is None or reason != "released":
            if domain is not None:
                domain.release_diagnostics[reason] = domain.release_diagnostics.get(reason, 0) + 1
                domain.sequence += 1
            self.events.of_lease("request_release_diagnostic", lease, domain, now, reason)
            return ReleaseResult(released=False, reason=reason)
        domain.last_outcome = outcome.kind
        self._limits.learn(domain, lease, outcome, now)
        health = domain.endpoint.health
        if outcome.kind == "success" and health.unanswered_since is None:
            health.answers += 1
            if lease.lease_id > health.answered:
                health.answered = lease.lease_id
        else:
            self._learn_of_endpoint(domain, lease, outcome, now)
        if not self.events.silent:
            facts: dict[str, JsonValue] = {"held_seconds": now - lease.acquired_at}
            if outcome.provider_status is not None:
                facts["provider_status"] = outcome.provider_status
            self.events.of_lease("request_lease_released", lease, domain, now, outcome.kind, facts)
        self._touch(domain.endpoint)
        self.settle(now)
        return _RELEASED

    def record_model_request(
        self,
        kind: Literal["model_request_started", "model_request_completed"],
        lease: RequestAdmissionLease,
        outcome: RequestReleaseOutcome | None,
        now: float,
    ) -> None:
        """Put a provider call on record."""
        domain = self.ledger.domains.get(lease.item.resource)
        self.events.of_lease(kind, lease, domain, now, None if outcome is None else outcome.kind)

    # Rules and time

    def apply(self, update: LimitUpdate, now: float) -> None:
        """Put into force what was learned."""
        self._limits.apply(update, now)
        self.settle(now)

    def next_deadline(self) -> float:
        """When `advance` next has something to do; infinite while nothing is due."""
        return self._limits.next_due

    def last_stop(self) -> float:
        """When the last of the stops in force ends; minus infinity where there is none."""
        ends = [
            *(domain.limits.blocked_until for domain in self.ledger.domains.values()),
            *(endpoint.health.paused_until for endpoint in self.ledger.endpoints.values()),
        ]
        return max((end for end in ends if end is not None), default=-math.inf)

    def advance(self, now: float) -> None:
        """Let time pass until `now`."""
        self._limits.advance(now)
        for endpoint in self._limits.due_endpoints(now):
            self._took_effect(endpoint, endpoint.health.advance(now), now)
        self.settle(now)

    def check_limit(self, key: ProviderModelKey, limit: LimitChoice, cap: int, now: float) -> None:
        """Raise `InvalidValueError` or `InvalidTypeError` unless `limit` can be the rule of an endpoint."""
        field = f"limit of {key}"
        check_limit(field, limit)
        endpoint = self.ledger.endpoints.get(key)
        if endpoint is not None and endpoint.domains:
            if endpoint.limit != limit:
                raise InvalidValueError(field, limit_name(limit), f"the one in use, {limit_name(endpoint.limit)!r}")
            return
        self.ledger.rules.prepare(limit, key, cap, now)

    def register(
        self,
        key: ProviderModelKey,
        static_cap: ProviderModelStaticCap,
        alias: str,
        now: float,
        limit: LimitChoice | None = None,
    ) -> None:
        """An endpoint is known from now on, or known under another cap.

        limit: its rule, None for the default or the one that it has. Raises as `check_limit`, and then changes nothing.
        """
        endpoint = self.ledger.endpoints.get(key)
        previous = None if endpoint is None else endpoint.static_cap.cap
        if endpoint is None:
            choice = self.ledger.config.limit if limit is None else limit
            self.check_limit(key, choice, static_cap.cap, now)
            health = EndpointHealth(self.ledger.config.max_outage_seconds)
            endpoint = self.ledger.endpoints[key] = EndpointState(key, static_cap, choice, health)
        else:
            if limit is not None:
                self.check_limit(key, limit, static_cap.cap, now)
                endpoint.limit = limit
            self.advance(now)
            endpoint.set_static_cap(static_cap)
        self.events.of_endpoint(
            "request_resource_registered",
            key,
            now,
            {
                "alias": alias,
                "max_parallel_requests": static_cap.raw_caps[alias],
                "static_cap": static_cap.cap,
                "limit": limit_name(endpoint.limit),
            },
        )
        if previous is None or previous == static_cap.cap:
            return
        self.events.of_endpoint(
            "request_effective_cap_changed", key, now, {"previous": previous, "current": static_cap.cap}
        )
        for domain in endpoint.domains.values():
            self._limits.cap_changed(domain, self.ledger.config.effective_max(domain.key, static_cap.cap), now)
        self._touch(endpoint)
        self.settle(now)

    def is_closed(self, key: ProviderModelKey) -> bool:
        """Whether an endpoint refuses whoever comes."""
        endpoint = self.ledger.endpoints.get(key)
        return endpoint is not None and endpoint.health.state == "closed"

    def close_endpoint(
        self, key: ProviderModelKey, explanation: str, now: float, denies_with: ClosedReason = "endpoint_closed"
    ) -> None:
        """Refuse whoever waits for an endpoint, and whoever comes. Its leases stay releasable."""
        endpoint = self.ledger.endpoints[key]
        if endpoint.health.state != "closed":
            endpoint.health.close(explanation, denies_with)
            self._took_effect(endpoint, "closed", now)

    def shutdown(self, now: float) -> None:
        """Refuse whoever waits, and whoever comes. Leases stay releasable."""
        self._shut = True
        self._refuse([waiter for key in self.ledger.endpoints for waiter in self.queue.waiters(key)], "shutdown", now)

    def settle(self, now: float) -> None:
        """Grant what can be granted at the endpoints that changed, in fair order."""
        touched = self._limits.touched
        if touched:
            self.queue.advance(now)
        while touched:
            endpoint = touched.pop()
            while endpoint.has_room and self.queue.queued_at(endpoint.key):
                selection = self.queue.select_next(self._eligible, endpoint=endpoint.key)
                if selection is None:
                    break
                waiter = self.queue.commit(selection)
                assert waiter is not None, "nothing comes between select and commit"
                domain = self.ledger.domains[waiter.item.resource]
                waiter.decision = self._grant(
                    waiter.item, domain, now, waiter.holder, waiter.correlation, waited=now - waiter.enqueued_at
                )
                self.woken.append(waiter)
                self._left_queue(domain, now)

    # Parts

    def _learn_of_endpoint(
        self, domain: DomainState, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome, now: float
    ) -> None:
        endpoint = domain.endpoint
        change = endpoint.health.ended(lease.lease_id, outcome, endpoint.limiter.borrowed_tokens, now)
        self._took_effect(endpoint, change, now)

    def _took_effect(self, endpoint: EndpointState, change: EndpointChange | None, now: float) -> None:
        """The state of an endpoint may be another one, or let a trial go."""
        health = endpoint.health
        self._limits.watch_endpoint(endpoint)
        if change is not None:
            endpoint.sequence += 1
            facts: dict[str, JsonValue] = {} if health.because is None else {"because": health.because}
            if change == "closed":
                facts["denies_with"] = health.closed_for
            self.events.of_endpoint(_ENDPOINT_EVENTS[change], endpoint.key, now, facts)
            if change == "closed":
                self._refuse(self.queue.waiters(endpoint.key), health.closed_for, now)
        if health.admits:
            self._touch(endpoint)

    def _touch(self, endpoint: EndpointState) -> None:
        if self.queue.queued_at(endpoint.key):
            self._limits.touched.append(endpoint)

    def _eligible(self, waiter: RequestWaiter, view: RequestQueueView) -> bool:
        return self._policy.admits(self.ledger.domains[waiter.item.resource])

    def _waiters_ahead(self, domain: DomainState) -> bool:
        """Whether somebody waits for this domain, or would be admitted if only the endpoint had room."""
        return any(
            self.queue.queued_in(other.key) and (other is domain or other.has_own_room)
            for other in domain.endpoint.domains.values()
        )

    def _grant(
        self,
        item: RequestAdmissionItem,
        domain: DomainState,
        now: float,
        holder: str | None,
        correlation: RuntimeCorrelation | None,
        waited: float,
    ) -> RequestAdmissionLease:
        lease = self.ledger.issue(item, domain, now, holder, correlation)
        if domain.limits.has_news:
            self._limits.granted(domain, lease)
        is_trial = False
        if domain.endpoint.health.state != "answering":
            is_trial = domain.endpoint.health.granted(lease.lease_id, now)
            self._limits.watch_endpoint(domain.endpoint)
        if not self.events.silent:
            self.events.of_lease("request_wait_completed", lease, domain, now, facts={"waited_seconds": waited})
            self.events.of_lease("request_lease_acquired", lease, domain, now)
            if is_trial:
                because: dict[str, JsonValue] = {"because": domain.endpoint.health.because}
                self.events.of_lease("request_trial_started", lease, domain, now, "endpoint_not_answering", because)
        return lease

    def _left_queue(self, domain: DomainState, now: float) -> None:
        domain.sequence += 1
        if not self.events.silent and not self.queue.queued_in(domain.key):
            self.events.of_domain("request_queue_drained", domain, now)

    def _refuse(self, waiters: Iterable[RequestWaiter], reason: RequestDenialReason, now: float) -> None:
        for waiter in waiters:
            self.queue.remove(waiter.waiter_id)
            domain = self.ledger.domains[waiter.item.resource]
            self._left_queue(domain, now)
            waited: dict[str, JsonValue] = {"waited_seconds": now - waiter.enqueued_at}
            self.events.of_item("request_acquire_denied", waiter.item, domain, now, waiter.correlation, reason, waited)
            waiter.decision = self._denied(waiter.item, reason, now)
            self.woken.append(waiter)

    def _denied(self, item: RequestAdmissionItem, reason: RequestDenialReason, now: float) -> RequestAdmissionDenied:
        domain = self.ledger.domains.get(item.resource)
        if domain is None:
            explanation = f"{item.resource.provider_model_key} is not registered; call register() for it first"
            facts = {} if reason == "shutdown" else {"explanation": explanation}
            return RequestAdmissionDenied(item, reason, diagnostics=facts)
        until = item.not_before if reason == "retry_hint" else None
        if reason in ("cooldown", "queue_timeout"):
            until = domain.limits.blocked_until
        if reason == "endpoint_not_answering":
            until = domain.endpoint.health.paused_until
        if until is not None:
            until = max(until, now)
        health = domain.endpoint.health
        closed = health.because if reason in ("endpoint_closed", "endpoint_not_answering") else None
        return RequestAdmissionDenied(
            item,
            reason,
            retry_after_seconds=None if until is None else until - now,
            available_after_monotonic=until,
            snapshot=self._snapshot(domain, now),
            diagnostics={} if closed is None else {"explanation": closed},
        )

    def _snapshot(self, domain: DomainState, now: float) -> RequestPressureSnapshot:
        return domain_snapshot(domain, waiters=self.queue.queued_in(domain.key), now=now)

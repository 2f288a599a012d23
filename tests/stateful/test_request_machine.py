"""The request core against a small obvious model, in virtual time.

Any order of asking, waiting, giving back, misusing, cancelling, registering, closing and letting time pass.

The model grants nothing itself; it keeps who holds and who waits, and states what must hold of them. Verdicts are
delivered late, as a supervisor would, or at once.
"""

from __future__ import annotations

import math

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from trio_sched._events.request import RequestAdmissionEvent, request_event_of
from trio_sched._events.sinks import InMemoryAdmissionEventSink, request_event_stream
from trio_sched._request.config import RequestAdmissionConfig
from trio_sched._request.core import RequestAdmissionCore
from trio_sched._request.leases import RequestAdmissionDenied, RequestAdmissionLease
from trio_sched._request.queue import RequestWaiter
from trio_sched._request.resolver import RequestResourceResolver
from trio_sched._resources.identity import ProviderModelKey, RequestDomain, RequestResourceKey
from trio_sched._resources.pressure import RequestPressureSnapshot
from trio_sched._resources.request import (
    RequestAdmissionItem,
    RequestGroupSpec,
    RequestOutcomeKind,
    RequestReleaseOutcome,
)

ENDPOINTS = (ProviderModelKey("openai", "gpt"), ProviderModelKey("anthropic", "claude"))
RESOURCES = tuple(
    RequestResourceKey(endpoint.provider_name, endpoint.model_id, domain)
    for endpoint in ENDPOINTS
    for domain in (RequestDomain.CHAT, RequestDomain.EMBEDDING, RequestDomain.IMAGE)
)
OUTCOMES: tuple[RequestOutcomeKind, ...] = (
    "success",
    "success",
    "success",
    "rate_limited",
    "rate_limited",
    "provider_failure",
    "provider_timeout",
    "local_cancelled",
)


@attrs.define(eq=False)
class Replayed:
    """One resource as its events tell it."""

    queued: int = 0
    held: int = 0
    picture: RequestPressureSnapshot | None = None

    def replay(self, event: RequestAdmissionEvent) -> None:
        kind = event.event_kind
        self.queued += kind == "request_wait_started"
        self.queued -= kind in ("request_wait_completed", "request_wait_cancelled")
        self.queued -= kind == "request_acquire_denied" and "waited_seconds" in event.diagnostics
        self.held += kind == "request_lease_acquired"
        self.held -= kind == "request_lease_released"
        self.picture = event.pressure_snapshot or self.picture


class RequestMachine(RuleBasedStateMachine):
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.held: dict[int, RequestAdmissionLease] = {}
        self.waiting: dict[int, RequestWaiter] = {}
        self.seen_ids: set[int] = set()
        self.decreases: dict[tuple[RequestResourceKey, int], int] = {}
        self.cooldowns: dict[RequestResourceKey, float] = {}
        self.closed: set[ProviderModelKey] = set()
        self.shut = False
        self.replayed: dict[RequestResourceKey, Replayed] = {}
        self.last_sequence = 0

    @initialize(
        caps=st.tuples(st.integers(1, 5), st.integers(1, 5)),
        successes=st.integers(1, 3),
        ramp=st.sampled_from([0.0, 0.0, 4.0]),
        initial=st.integers(1, 5),
    )
    def make(self, caps: tuple[int, int], successes: int, ramp: float, initial: int) -> None:
        config = RequestAdmissionConfig(
            initial_limits={RESOURCES[0]: initial},
            max_limit_clamps={RESOURCES[4]: 2},
            cooldown_seconds=1.0,
            multiplicative_decrease_factor=0.6,
            successes_until_increase=successes,
            startup_ramp_seconds=ramp,
        )
        self.core = RequestAdmissionCore(config, request_event_stream(InMemoryAdmissionEventSink()), 1)
        self.resolver = RequestResourceResolver()
        for endpoint, cap in zip(ENDPOINTS, caps, strict=True):
            self.put_cap(endpoint, "a", cap)

    def put_cap(self, endpoint: ProviderModelKey, alias: str, cap: int) -> None:
        merged = self.resolver.register(
            provider_name=endpoint.provider_name, model_id=endpoint.model_id, alias=alias, max_parallel_requests=cap
        )
        self.core.register(endpoint, merged, alias, self.now)

    def take_in(self, lease: RequestAdmissionLease) -> None:
        """A lease came into the world: it must be new, within every limit, and counted already."""
        resource = lease.item.resource
        assert lease.lease_id not in self.seen_ids
        self.seen_ids.add(lease.lease_id)
        self.held[lease.lease_id] = lease
        assert resource.provider_model_key not in self.closed
        assert not self.shut
        assert lease.acquired_at >= self.cooldowns.get(resource, 0.0)
        domain = self.core.ledger.domains[resource]
        assert lease.effective_max == domain.limits.effective_max
        assert lease.current_adaptive_limit <= lease.effective_max

    def collect(self) -> None:
        """What an operation left: waiters that were decided, events in order."""
        woken, self.core.woken = self.core.woken, []
        for waiter in woken:
            assert self.waiting.pop(waiter.waiter_id) is waiter
            if isinstance(waiter.decision, RequestAdmissionLease):
                assert waiter.decision.item is waiter.item
                self.take_in(waiter.decision)
            else:
                assert isinstance(waiter.decision, RequestAdmissionDenied)
                assert self.shut or waiter.item.resource.provider_model_key in self.closed
        for event in map(request_event_of, self.core.journal.pending):
            assert event.sequence == self.last_sequence + 1
            self.last_sequence = event.sequence
            if event.request_resource_key is not None:
                self.replayed.setdefault(event.request_resource_key, Replayed()).replay(event)
        self.core.journal.pending.clear()

    @rule(target=leases, resource=st.sampled_from(RESOURCES), weight=st.sampled_from([0.5, 1.0, 3.0]))
    def ask(self, resource: RequestResourceKey, weight: float) -> RequestAdmissionLease | RequestWaiter | None:
        item = RequestAdmissionItem(resource, RequestGroupSpec(resource, weight))
        answer = self.core.try_lease(item, self.now)
        result: RequestAdmissionLease | RequestWaiter | None
        if isinstance(answer, RequestAdmissionLease):
            self.take_in(answer)
            result = answer
        elif answer in ("shutdown", "hard_policy_denial"):
            assert self.shut or resource.provider_model_key in self.closed
            self.core.deny(item, answer, self.now)
            result = None
        else:
            result = self.core.enqueue(item, self.now)
            self.waiting[result.waiter_id] = result
        self.collect()
        return result

    @rule(resource=st.sampled_from(RESOURCES))
    def try_only(self, resource: RequestResourceKey) -> None:
        item = RequestAdmissionItem(resource, RequestGroupSpec(resource))
        answer = self.core.try_lease(item, self.now)
        if isinstance(answer, RequestAdmissionLease):
            self.take_in(answer)
            self.give_back(answer, "local_cancelled", None)
        else:
            denied = self.core.deny(item, answer, self.now)
            assert denied.available_after_monotonic is None or denied.available_after_monotonic >= self.now
            self.collect()

    def give_back(self, lease: RequestAdmissionLease, kind: RequestOutcomeKind, hint: float | None) -> None:
        resource = lease.item.resource
        before = self.core.ledger.domains[resource].limits.current_limit
        result = self.core.release(lease, RequestReleaseOutcome(kind, hint), self.now)
        assert result.released == (self.held.pop(lease.lease_id, None) is not None)
        if result.released and kind == "rate_limited":
            end = self.now + (hint or 1.0)
            self.cooldowns[resource] = max(end, self.cooldowns.get(resource, 0.0))
        assert kind == "rate_limited" or self.core.ledger.domains[resource].limits.current_limit >= before
        self.collect()

    @rule(
        thing=leases,
        kind=st.sampled_from(OUTCOMES),
        hint=st.sampled_from([None, None, 0.25, 6.0]),
    )
    def release(
        self, thing: RequestAdmissionLease | RequestWaiter | None, kind: RequestOutcomeKind, hint: float | None
    ) -> None:
        """Also releases twice, as bundles keep what was released."""
        decision = thing.decision if isinstance(thing, RequestWaiter) else thing
        if isinstance(decision, RequestAdmissionLease):
            self.give_back(decision, kind, hint)

    @rule(thing=leases, change=st.sampled_from(["generation", "content", "id"]))
    def misuse(self, thing: RequestAdmissionLease | RequestWaiter | None, change: str) -> None:
        decision = thing.decision if isinstance(thing, RequestWaiter) else thing
        if not isinstance(decision, RequestAdmissionLease):
            return
        forged = {
            "generation": attrs.evolve(decision, controller_generation=2),
            "content": attrs.evolve(decision, acquired_at=-1.0),
            "id": attrs.evolve(decision, lease_id=10**9),
        }[change]
        before = dict(self.core.ledger.leases)
        assert not self.core.release(forged, RequestReleaseOutcome("rate_limited"), self.now).released
        assert self.core.ledger.leases == before
        self.collect()

    @rule(thing=leases)
    def give_up(self, thing: RequestAdmissionLease | RequestWaiter | None) -> None:
        """A waiter is cancelled; one that was granted in the meantime keeps its lease."""
        if isinstance(thing, RequestWaiter) and thing.waiter_id in self.waiting:
            del self.waiting[thing.waiter_id]
            self.core.withdraw(thing, self.now)
            self.core.record_withdrawal(thing, "cancellation", self.now)
            assert thing.decision is None
            self.collect()

    @precondition(lambda self: bool(self.core.rings))
    @rule(everything=st.booleans())
    def judge(self, everything: bool) -> None:
        while self.core.rings:
            ring = self.core.rings.popleft()
            limits = ring.domain.limits
            epoch, until = limits.epoch, limits.blocked_until
            self.core.judge(ring, self.now)
            if limits.epoch != epoch:
                key = (ring.domain.key, epoch)
                self.decreases[key] = self.decreases.get(key, 0) + 1
            if until is not None and limits.blocked_until is not None:
                assert limits.blocked_until >= until
            self.collect()
            if not everything:
                break

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 3.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.core.advance(self.now)
        self.collect()

    @rule()
    def pass_to_deadline(self) -> None:
        deadline = self.core.next_deadline()
        if deadline != math.inf:
            self.now = max(self.now, deadline)
            self.core.advance(self.now)
            assert self.core.next_deadline() > self.now
            self.collect()

    @rule(endpoint=st.sampled_from(ENDPOINTS), alias=st.sampled_from("ab"), cap=st.integers(1, 6))
    def register(self, endpoint: ProviderModelKey, alias: str, cap: int) -> None:
        self.put_cap(endpoint, alias, cap)
        self.collect()

    @precondition(lambda self: len(self.seen_ids) > 12)
    @rule(endpoint=st.sampled_from(ENDPOINTS))
    def close(self, endpoint: ProviderModelKey) -> None:
        self.closed.add(endpoint)
        self.core.close_endpoint(endpoint, "quota", self.now)
        self.collect()

    @precondition(lambda self: len(self.seen_ids) > 16)
    @rule()
    def shutdown(self) -> None:
        self.shut = True
        self.core.shutdown(self.now)
        self.collect()
        assert not self.waiting

    @invariant()
    def held_plus_free_is_the_limit(self) -> None:
        for key, endpoint in self.core.ledger.endpoints.items():
            held = sum(lease.item.resource.provider_model_key == key for lease in self.held.values())
            assert endpoint.limiter.borrowed_tokens == held
            assert endpoint.limiter.total_tokens == endpoint.static_cap.cap
            assert endpoint.limiter.statistics().tasks_waiting == 0
        for resource, domain in self.core.ledger.domains.items():
            held = sum(lease.item.resource == resource for lease in self.held.values())
            assert domain.limiter.borrowed_tokens == held
            closed = domain.pending > 0 or domain.limits.cooling
            assert domain.limiter.total_tokens == (0 if closed else domain.limits.current_limit)
            assert 1 <= domain.limits.current_limit <= domain.limits.effective_max
            assert domain.limits.effective_max <= domain.endpoint.static_cap.cap

    @invariant()
    def leases_are_those_held(self) -> None:
        assert dict(self.core.ledger.leases) == self.held

    @invariant()
    def waiters_are_those_waiting(self) -> None:
        view = self.core.queue.view()
        assert view.queued_total == len(self.waiting)
        for key in RESOURCES:
            waiting = sum(waiter.item.resource == key for waiter in self.waiting.values())
            assert view.queued_by_group.get(key, 0) == waiting
        assert all(waiter.decision is None for waiter in self.waiting.values())

    @invariant()
    def nobody_waits_for_what_is_free(self) -> None:
        for waiter in self.waiting.values():
            domain = self.core.ledger.domains[waiter.item.resource]
            assert not domain.has_room
        assert not self.core.woken

    @invariant()
    def one_decrease_per_epoch(self) -> None:
        assert all(count == 1 for count in self.decreases.values())

    @invariant()
    def time_is_kept_for_whoever_needs_it(self) -> None:
        due = [
            deadline
            for domain in self.core.ledger.domains.values()
            if not domain.pending and (deadline := domain.limits.next_deadline()) is not None
        ]
        assert self.core.next_deadline() == min(due, default=math.inf)

    @invariant()
    def events_replay_to_the_present(self) -> None:
        for key, domain in self.core.ledger.domains.items():
            replayed = self.replayed.get(key, Replayed())
            assert replayed.queued == self.core.queue.queued_in(key)
            assert replayed.held == domain.limiter.borrowed_tokens
            picture = replayed.picture
            if picture is not None:
                assert picture.in_flight_count == domain.limiter.borrowed_tokens
                assert picture.waiters == self.core.queue.queued_in(key)
                assert picture.current_limit == domain.limits.current_limit
                assert picture.effective_max == domain.limits.effective_max

    def teardown(self) -> None:
        if not hasattr(self, "core"):
            return
        for lease in list(self.held.values()):
            self.give_back(lease, "success", None)
        self.judge_rest()
        for waiter in list(self.waiting.values()):
            self.give_up(waiter)
        while self.held:
            for lease in list(self.held.values()):
                self.give_back(lease, "success", None)
            self.judge_rest()
        assert not self.core.ledger.leases
        assert self.core.queue.view().queued_total == 0
        for domain in self.core.ledger.domains.values():
            assert domain.limiter.borrowed_tokens == domain.endpoint.limiter.borrowed_tokens == 0

    def judge_rest(self) -> None:
        while self.core.rings:
            self.core.judge(self.core.rings.popleft(), self.now)
        self.collect()


TestRequestMachine = RequestMachine.TestCase

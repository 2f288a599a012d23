"""The request core against a small obvious model, in virtual time, under every limit rule and one that is hostile.

Any order of asking, waiting, giving back, misusing, cancelling, registering, closing and letting time pass.

The model grants nothing itself; it keeps who holds and who waits, and states what must hold of them. Between core and
rule stands a witness, who sees each grant before the rule does. Updates are applied late, as a supervisor would, or at
once.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import attrs
import msgspec
import pytest
from examples import share_of_profile
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from limit_rules import RULE_NAMES, hostile
from watched_limit import WatchedLimit

from trio_sched._events.records import RequestAdmissionEvent
from trio_sched._events.sinks import InMemoryAdmissionEventSink, request_event_stream
from trio_sched._request.aimd import AimdLimit
from trio_sched._request.config import RequestAdmissionConfig, RequestAdmissionTuningConfig
from trio_sched._request.core import RequestAdmissionCore
from trio_sched._request.evidence import EvidenceLimit
from trio_sched._request.leases import RequestAdmissionDenied, RequestAdmissionLease, RequestDenialReason
from trio_sched._request.limit import FixedLimit, Grant, LimitFactory, LimitTransition, RequestLimit, RequestSample
from trio_sched._request.queue import RequestWaiter
from trio_sched._request.resolver import RequestResourceResolver
from trio_sched._resources.identity import ProviderModelKey, RequestDomain, RequestResourceKey
from trio_sched._resources.request import (
    RequestAdmissionItem,
    RequestGroupSpec,
    RequestOutcomeKind,
    RequestPressureSnapshot,
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


LATER = (None, None, None, -1.0, 0.5, 2.0)
"""In how many seconds a provider wants to see a call again."""

SHARE = 0.3
"""Of the profile's examples, for each rule."""


class RequestMachine(RuleBasedStateMachine):
    leases = Bundle("leases")
    rule_name = "evidence"

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.held: dict[int, RequestAdmissionLease] = {}
        self.waiting: dict[int, RequestWaiter] = {}
        self.seen_ids: set[int] = set()
        self.refusals_to_apply: dict[RequestResourceKey, int] = {}
        self.closed: set[ProviderModelKey] = set()
        self.shut = False
        self.replayed: dict[RequestResourceKey, Replayed] = {}
        self.last_sequence = 0
        self.faults: list[str] = []
        self.honest = True

    @initialize(
        caps=st.tuples(st.integers(1, 9), st.integers(1, 9)),
        successes=st.integers(1, 3),
        step=st.integers(1, 3),
        factor=st.sampled_from([0.01, 0.5, 0.6, 0.94]),
        cooldown=st.sampled_from([0.0, 1.0, 1.0]),
        ramp=st.sampled_from([0.0, 0.0, 4.0]),
        initial=st.integers(1, 9),
        seed=st.integers(0, 2**32),
    )
    def make(
        self,
        caps: tuple[int, int],
        successes: int,
        step: int,
        factor: float,
        cooldown: float,
        ramp: float,
        initial: int,
        seed: int,
    ) -> None:
        tuning = RequestAdmissionTuningConfig(factor, step, successes, cooldown, ramp)
        self.honest = self.rule_name != "hostile"
        made: dict[str, LimitFactory] = {
            "evidence": lambda most, now: EvidenceLimit(most, now, initial_limit=initial),
            "aimd": lambda most, now: AimdLimit(most, now, tuning=tuning, initial_limit=initial),
            "fixed": lambda most, now: FixedLimit(most, now, level=initial),
            "hostile": hostile(seed),
        }
        unwatched = made[self.rule_name]

        def watched(effective_max: int, now: float) -> RequestLimit:
            limit = WatchedLimit(unwatched(effective_max, now), self.faults, honest=self.honest)
            limit.before_grant = self.grant_is_due
            return limit

        config = RequestAdmissionConfig(max_limit_clamps={RESOURCES[4]: 2}, limit=watched, max_outage_seconds=20.0)
        self.core = RequestAdmissionCore(config, request_event_stream(InMemoryAdmissionEventSink()), 1)
        self.resolver = RequestResourceResolver()
        for endpoint, cap in zip(ENDPOINTS, caps, strict=True):
            self.put_cap(endpoint, "a", cap)

    def grant_is_due(self, rule: WatchedLimit, in_flight: int) -> None:
        """Called at the moment of a grant, before the rule hears of it: everything must allow it."""
        (domain,) = (each for each in self.core.ledger.domains.values() if each.limits.rule is rule)
        key = domain.key
        endpoint = key.provider_model_key
        at_endpoint = sum(each.limiter.borrowed_tokens for each in domain.endpoint.domains.values())
        for holds, fault in (
            (in_flight <= domain.limits.current_limit, "above the limit in force"),
            (not self.honest or in_flight <= domain.limits.learned, "above what has been learned"),
            (at_endpoint <= domain.endpoint.static_cap.cap, "above the static cap"),
            (domain.limits.blocked_until is None, "in a stop"),
            (not self.refusals_to_apply.get(key), "before a refusal is applied"),
            (not self.shut and endpoint not in self.closed, "after the end"),
        ):
            if not holds:
                self.faults.append(f"granted {fault}: {domain.limits!r}, {in_flight} in flight")

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
        limits = self.core.ledger.domains[resource].limits
        assert lease.acquired_at == self.now
        assert lease.effective_max == limits.effective_max
        assert self.held_in(resource) <= lease.current_adaptive_limit <= lease.effective_max
        assert (
            self.held_at(resource.provider_model_key)
            <= self.core.ledger.endpoints[resource.provider_model_key].static_cap.cap
        )

    def held_in(self, resource: RequestResourceKey) -> int:
        return sum(lease.item.resource == resource for lease in self.held.values())

    def held_at(self, endpoint: ProviderModelKey) -> int:
        return sum(lease.item.resource.provider_model_key == endpoint for lease in self.held.values())

    def collect(self) -> None:
        """What an operation left: waiters that were decided, events in order."""
        woken, self.core.woken = self.core.woken, []
        for waiter in woken:
            assert self.waiting.pop(waiter.waiter_id) is waiter
            if isinstance(waiter.decision, RequestAdmissionLease):
                assert waiter.decision.item is waiter.item
                self.was_next(waiter)
                self.take_in(waiter.decision)
            else:
                assert isinstance(waiter.decision, RequestAdmissionDenied)
                assert self.shut or waiter.item.resource.provider_model_key in self.closed
        for event in self.core.events.pending:
            assert event.sequence == self.last_sequence + 1
            self.last_sequence = event.sequence
            if event.request_resource_key is not None:
                self.replayed.setdefault(event.request_resource_key, Replayed()).replay(event)
        self.core.events.pending.clear()

    def was_next(self, waiter: RequestWaiter) -> None:
        """Whoever was served came first in its line: by age, but a call that was told a time only when alone."""

        def place(each: RequestWaiter) -> tuple[float, int]:
            until = each.item.not_before
            return (until if until is not None and until > self.now else -math.inf, each.waiter_id)

        rest = [each for each in self.waiting.values() if each.item.resource == waiter.item.resource]
        assert all(place(waiter) < place(each) for each in rest)

    def item(
        self, resource: RequestResourceKey, weight: float = 1.0, later: float | None = None
    ) -> RequestAdmissionItem:
        not_before = None if later is None else self.now + later
        return RequestAdmissionItem(resource, RequestGroupSpec(resource, weight), not_before=not_before)

    @rule(
        target=leases,
        resource=st.sampled_from(RESOURCES),
        weight=st.sampled_from([0.5, 1.0, 3.0]),
        later=st.sampled_from(LATER),
    )
    def ask(
        self, resource: RequestResourceKey, weight: float, later: float | None
    ) -> RequestAdmissionLease | RequestWaiter | None:
        return self.ask_for(resource, weight, later)

    def ask_for(
        self, resource: RequestResourceKey, weight: float, later: float | None
    ) -> RequestAdmissionLease | RequestWaiter | None:
        item = self.item(resource, weight, later=later)
        answer = self.core.try_lease(item, self.now)
        result: RequestAdmissionLease | RequestWaiter | None
        if isinstance(answer, RequestAdmissionLease):
            self.take_in(answer)
            result = answer
        elif answer == "shutdown" or self.core.is_closed(resource.provider_model_key):
            assert self.shut or self.core.is_closed(resource.provider_model_key)
            self.core.deny(item, answer, self.now)
            result = None
        else:
            result = self.core.enqueue(item, self.now)
            self.waiting[result.waiter_id] = result
        self.collect()
        return result

    @rule(target=leases, resource=st.sampled_from(RESOURCES), count=st.integers(2, 8))
    def ask_for_many(self, resource: RequestResourceKey, count: int) -> RequestAdmissionLease | RequestWaiter | None:
        for _ in range(count - 1):
            self.ask_for(resource, 1.0, None)
        return self.ask_for(resource, 1.0, None)

    @rule(resource=st.sampled_from(RESOURCES), later=st.sampled_from(LATER))
    def try_only(self, resource: RequestResourceKey, later: float | None) -> None:
        item = self.item(resource, later=later)
        answer = self.core.try_lease(item, self.now)
        if isinstance(answer, RequestAdmissionLease):
            self.take_in(answer)
            self.give_back(answer, RequestReleaseOutcome("local_cancelled"))
        else:
            self.is_denied(item, answer)
            self.collect()

    def is_denied(self, item: RequestAdmissionItem, reason: RequestDenialReason) -> None:
        """A denial has a reason that is true, and names the time if there is one."""
        denied = self.core.deny(item, reason, self.now)
        limits = self.core.ledger.domains[item.resource].limits
        health = self.core.ledger.endpoints[item.resource.provider_model_key].health
        waits = item.not_before is not None and item.not_before > self.now
        assert denied.reason == reason
        if item.resource.provider_model_key in self.closed or self.shut:
            assert reason in ("endpoint_closed", "shutdown")
        elif health.state == "closed":
            assert reason == health.closed_for
        elif not health.admits:
            assert health.state == "not_answering"
            assert (reason, denied.available_after_monotonic) == ("endpoint_not_answering", health.paused_until)
        elif limits.blocked_until is not None:
            assert (reason, denied.available_after_monotonic) == ("cooldown", max(limits.blocked_until, self.now))
        elif waits:
            assert (reason, denied.available_after_monotonic) == ("retry_hint", item.not_before)
        else:
            assert reason in ("no_capacity", "queued_waiters_ahead")
            assert denied.available_after_monotonic is None
        if denied.available_after_monotonic is not None:
            assert denied.available_after_monotonic >= self.now
            assert denied.retry_after_seconds == denied.available_after_monotonic - self.now

    def give_back(self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome) -> None:
        resource = lease.item.resource
        was_held = lease.lease_id in self.held
        domain = self.core.ledger.domains[resource]
        until = domain.limits.blocked_until
        if was_held and outcome.refused:
            self.refusals_to_apply[resource] = self.refusals_to_apply.get(resource, 0) + 1
        result = self.core.release(lease, outcome, self.now)
        assert result.released == was_held
        self.held.pop(lease.lease_id, None)
        lasts = self.rule_name == "aimd" or (self.rule_name == "fixed" and outcome.kind != "success")
        if lasts and until is not None and until > self.now:
            assert domain.limits.blocked_until is not None
            assert domain.limits.blocked_until >= until
        self.collect()

    @rule(
        thing=leases,
        kind=st.sampled_from(OUTCOMES),
        hint=st.sampled_from([None, None, 0.25, 6.0]),
        status=st.sampled_from([None, 500, 503, 529, 401, 400]),
    )
    def release(
        self,
        thing: RequestAdmissionLease | RequestWaiter | None,
        kind: RequestOutcomeKind,
        hint: float | None,
        status: int | None,
    ) -> None:
        """Also releases twice, as bundles keep what was released."""
        decision = thing.decision if isinstance(thing, RequestWaiter) else thing
        if isinstance(decision, RequestAdmissionLease):
            self.give_back(decision, RequestReleaseOutcome(kind, hint, status))

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

    @rule(thing=leases, others=st.integers(0, 8), kind=st.sampled_from(["success", "rate_limited"]))
    def release_many(
        self, thing: RequestAdmissionLease | RequestWaiter | None, others: int, kind: RequestOutcomeKind
    ) -> None:
        """A burst: calls of one resource that end alike."""
        decision = thing.decision if isinstance(thing, RequestWaiter) else thing
        if isinstance(decision, RequestAdmissionLease):
            alike = [lease for lease in self.held.values() if lease.item.resource == decision.item.resource]
            for lease in alike[: others + 1]:
                self.give_back(lease, RequestReleaseOutcome(kind))

    @rule(resource=st.sampled_from(RESOURCES), count=st.integers(2, 8))
    def refuse_all(self, resource: RequestResourceKey, count: int) -> None:
        """As many calls as may go out under one limit, all refused: one piece of news, whatever their number."""
        for answer in [self.ask_for(resource, 1.0, None) for _ in range(count)]:
            if isinstance(answer, RequestAdmissionLease):
                self.give_back(answer, RequestReleaseOutcome("rate_limited"))

    @precondition(lambda self: bool(self.core.updates))
    @rule(everything=st.booleans())
    def apply(self, everything: bool) -> None:
        while self.core.updates:
            self.apply_next()
            if not everything:
                break

    def apply_next(self) -> None:
        update = self.core.updates.popleft()
        if update.outcome is not None and update.outcome.refused:
            self.refusals_to_apply[update.domain.key] -= 1
        learned = update.domain.limits.learned
        self.core.apply(update, self.now)
        if not self.core.updates and self.honest:
            assert update.domain.limits.current_limit == update.domain.limits.learned
            assert learned <= update.domain.limits.effective_max
        self.collect()

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
            assert self.core.next_deadline() > self.now or not self.honest
            self.collect()

    @rule(endpoint=st.sampled_from(ENDPOINTS), alias=st.sampled_from("ab"), cap=st.integers(1, 9))
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
    def nothing_was_seen_that_may_not_be(self) -> None:
        assert self.faults == []

    @invariant()
    def held_plus_free_is_the_limit(self) -> None:
        for key, endpoint in self.core.ledger.endpoints.items():
            assert endpoint.limiter.borrowed_tokens == self.held_at(key)
            assert endpoint.limiter.total_tokens == endpoint.static_cap.cap
            assert endpoint.limiter.statistics().tasks_waiting == 0
        for resource, domain in self.core.ledger.domains.items():
            limits = domain.limits
            assert domain.limiter.borrowed_tokens == self.held_in(resource)
            if not self.has_updates(resource):
                assert domain.limiter.total_tokens == (0 if limits.blocked_until is not None else limits.current_limit)
                assert limits.current_limit == limits.learned
            assert domain.limiter.total_tokens in (0, limits.current_limit)
            assert 1 <= limits.current_limit <= limits.effective_max
            assert 1 <= limits.learned <= limits.effective_max
            assert limits.effective_max <= domain.endpoint.static_cap.cap
            assert (domain.pending > 0) >= (self.refusals_to_apply.get(resource, 0) > 0)
            if self.honest:
                assert limits.learned == limits.rule.current_limit
                until = limits.rule.blocked_until
                assert limits.blocked_until in (until, until if until is not None and until > self.now else None)

    def has_updates(self, resource: RequestResourceKey) -> bool:
        return any(update.domain.key == resource for update in self.core.updates)

    @invariant()
    def an_endpoint_that_does_not_answer_is_asked_by_one_call(self) -> None:
        for key, endpoint in self.core.ledger.endpoints.items():
            assert (endpoint.health.state == "answering") <= endpoint.health.admits
            assert (endpoint.health.state == "closed") <= (not endpoint.health.admits)
            if key in self.closed:
                assert endpoint.health.state == "closed"

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
        assert not self.core.woken
        for resource in {waiter.item.resource for waiter in self.waiting.values()}:
            domain = self.core.ledger.domains[resource]
            endpoint = resource.provider_model_key
            assert not self.shut
            assert not self.core.is_closed(endpoint)
            waits_for = (
                not domain.endpoint.health.admits
                or domain.limits.blocked_until is not None
                or self.has_updates(resource)
                or self.held_in(resource) >= domain.limits.current_limit
                or self.held_at(endpoint) >= domain.endpoint.static_cap.cap
            )
            assert waits_for

    @invariant()
    def time_is_kept_for_whoever_needs_it(self) -> None:
        due: list[float] = []
        for domain in self.core.ledger.domains.values():
            limits = domain.limits
            if domain.pending:
                continue
            deadline = limits.rule.next_deadline() if self.honest else limits.deadline
            if deadline is not None:
                due.append(deadline)
            if limits.blocked_until is not None:
                assert deadline is not None, "a stop that nobody ends"
                assert deadline <= limits.blocked_until
        for endpoint in self.core.ledger.endpoints.values():
            if endpoint.health.next_deadline() < math.inf:
                due.append(endpoint.health.next_deadline())
            if not endpoint.health.admits and endpoint.health.state == "not_answering":
                assert endpoint.health.next_trial_at < math.inf, "an endpoint that nobody asks again"
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
                assert picture.effective_max == domain.limits.effective_max
                if self.honest and not self.has_updates(key):
                    assert picture.current_limit == domain.limits.current_limit

    def teardown(self) -> None:
        if not hasattr(self, "core"):
            return
        for _ in range(200):
            if not (self.held or self.core.updates or self.waiting):
                break
            for lease in list(self.held.values()):
                self.give_back(lease, RequestReleaseOutcome("success"))
            while self.core.updates:
                self.apply_next()
            if not self.held:
                self.pass_to_deadline()
        if self.honest:
            assert not self.waiting, "nobody holds anything, and yet they wait"
        for waiter in list(self.waiting.values()):
            self.give_up(waiter)
        assert self.faults == []
        assert not self.core.ledger.leases
        assert self.core.queue.view().queued_total == 0
        for domain in self.core.ledger.domains.values():
            assert domain.limiter.borrowed_tokens == domain.endpoint.limiter.borrowed_tokens == 0
            assert domain.pending == 0


@pytest.mark.parametrize("rule_name", RULE_NAMES)
def test_request_machine(rule_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A hostile rule is reported whenever it is met for the first time.
    monkeypatch.setattr(logging.getLogger("trio_sched.request"), "disabled", True)

    class OfOneRule(RequestMachine):
        pass

    OfOneRule.rule_name = rule_name
    run_state_machine_as_test(OfOneRule, settings=settings(max_examples=share_of_profile(SHARE)))


class EveryRefusalIsNews(AimdLimit):
    """A mutant: AIMD without epochs."""

    def rate_limited(self, now: float, *, epoch: int, retry_after: float | None = None) -> list[LimitTransition]:
        return super().rate_limited(now, epoch=self.epoch, retry_after=retry_after)


class EveryRefusalIsEvidence(EvidenceLimit):
    """A mutant: evidence without epochs."""

    def ended(self, now: float, grant: Grant, sample: RequestSample) -> Sequence[LimitTransition]:
        return super().ended(now, msgspec.structs.replace(grant, epoch=self.epoch) if sample.refused else grant, sample)


@pytest.mark.parametrize(
    ("limit", "mutant"), [(AimdLimit(8), EveryRefusalIsNews(8)), (EvidenceLimit(8), EveryRefusalIsEvidence(8))]
)
def test_the_witness_sees_a_burst_that_is_taken_for_many_news(limit: RequestLimit, mutant: RequestLimit) -> None:
    assert faults_of_a_burst(limit) == []
    assert faults_of_a_burst(mutant) != []


def faults_of_a_burst(limit: RequestLimit) -> list[str]:
    watched = WatchedLimit(limit, [])
    grants = [watched.granted(0.0, rank) for rank in range(1, 9)]
    for left, grant in zip((7, 6, 5, 4), grants, strict=False):
        watched.ended(1.0, grant, RequestSample("rate_limited", in_flight=left, refused=True))
    return watched.faults

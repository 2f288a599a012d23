"""The evidence rule by plain samples: every state of its drawing, and every way between them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import attrs
import pytest
from request_samples import CHAT, item

from trio_sched._request.config import RequestAdmissionConfig
from trio_sched._request.controller import AdaptiveRequestAdmissionController
from trio_sched._request.evidence import EvidenceLimit
from trio_sched._request.leases import RequestAdmissionLease
from trio_sched._request.limit import Grant, LimitTransition, RequestSample
from trio_sched._resources.request import RequestOutcomeKind, RequestReleaseOutcome


@attrs.define(eq=False)
class Driver:
    """Calls of one rule. Time is a second for each answer, and stands still otherwise. out: grants by age."""

    rule: EvidenceLimit
    now: float = 0.0
    out: list[Grant] = attrs.field(factory=list[Grant])

    def grant(self) -> Grant:
        """One more call goes out."""
        grant = self.rule.granted(self.now, len(self.out) + 1)
        self.out.append(grant)
        return grant

    def fill(self) -> None:
        """Calls go out until the limit is in use."""
        while len(self.out) < self.rule.current_limit and self.rule.blocked_until is None:
            self.grant()

    def end(self, outcome: RequestOutcomeKind, hint: float | None = None, place: int = 0) -> Sequence[LimitTransition]:
        """The call at `place` ends."""
        grant = self.out.pop(place)
        refused = outcome == "rate_limited"
        return self.rule.ended(self.now, grant, RequestSample(outcome, hint, 1.0, None, len(self.out), refused))

    def answer(self, times: int = 1) -> list[LimitTransition]:
        """The oldest calls are answered, a second for each, and others take their places."""
        transitions: list[LimitTransition] = []
        for _ in range(times):
            self.now += 1.0
            transitions += self.end("success")
            self.fill()
        return transitions

    def refuse(self, times: int = 1, hint: float | None = None) -> list[int]:
        """Calls go out, as soon as there is room, and are refused at once; the limit after each."""
        levels: list[int] = []
        for _ in range(times):
            while len(self.out) >= self.rule.current_limit:
                self.end("success")
            self.grant()
            self.end("rate_limited", hint, place=-1)
            levels.append(self.rule.current_limit)
        return levels

    def wait(self) -> None:
        """Time passes until the rule's deadline."""
        deadline = self.rule.next_deadline()
        assert deadline is not None
        self.now = deadline
        self.rule.advance(deadline)


def driver(effective_max: int = 64, initial_limit: int | None = None) -> Driver:
    made = Driver(EvidenceLimit(effective_max, initial_limit=initial_limit))
    made.fill()
    return made


def kinds(transitions: Sequence[LimitTransition]) -> list[str]:
    return [each.kind for each in transitions]


# Where it starts, and what a cap means


@pytest.mark.parametrize(
    ("effective_max", "initial", "expected"), [(64, None, 16), (8, None, 8), (64, 30, 30), (8, 30, 8)]
)
def test_it_starts_at_16_or_where_it_is_told_below_the_cap(
    effective_max: int, initial: int | None, expected: int
) -> None:
    rule = EvidenceLimit(effective_max, initial_limit=initial)
    assert (rule.current_limit, rule.ceiling, rule.blocked_until, rule.next_deadline()) == (expected, None, None, None)


def test_a_lower_cap_brings_the_limit_down_and_a_higher_one_lets_it_grow() -> None:
    calls = driver()
    assert kinds(calls.rule.set_effective_max(10)) == ["decreased"]
    assert calls.rule.current_limit == 10
    assert calls.rule.set_effective_max(80) == []
    calls.answer(40)
    assert calls.rule.current_limit > 16


# Witnesses and the search


def test_only_the_witness_proves_the_level() -> None:
    calls = driver()
    assert calls.out[15] == Grant(0, 16, 16)
    assert calls.answer(15) == []
    (grown,) = calls.answer()
    assert (grown.kind, grown.previous, grown.current) == ("increased", 16, 24)


def test_a_limit_that_is_not_in_use_does_not_grow() -> None:
    calls = Driver(EvidenceLimit(64))
    for _ in range(200):
        calls.grant()
        calls.now += 1.0
        assert calls.end("success") == ()
    assert calls.rule.current_limit == 16


def test_the_step_triples_with_each_proof_up_to_the_level_before() -> None:
    calls = driver(10_000, initial_limit=4)
    levels = [each.current for each in calls.answer(4_000)]
    assert levels[:6] == [6, 10, 16, 26, 42, 68]


def test_a_failed_witness_is_replaced_by_the_next_call() -> None:
    calls = driver()
    assert calls.end("provider_failure", place=15) == ()
    calls.fill()
    calls.answer(15)
    assert kinds(calls.answer()) == ["increased"]


def test_a_slow_witness_does_not_hold_the_search_up() -> None:
    calls = driver(initial_limit=4)
    slow = calls.out.pop(3)
    answered = 0
    while calls.rule.current_limit == 4:
        answered += 1
        calls.now += 1.0
        grant = calls.rule.granted(calls.now, 4)
        calls.rule.ended(calls.now, grant, RequestSample("success", None, 1.0, None, 3))
    # Three rounds of calls of the same level.
    assert answered == 12
    assert slow.level == 4


# Refusals


def test_a_refused_burst_leaves_what_the_provider_kept() -> None:
    calls = driver()
    # It takes 10: six of the first sixteen are refused, all granted before the first news.
    transitions: list[LimitTransition] = []
    for _ in range(6):
        transitions += calls.end("rate_limited", place=-1)
    assert calls.rule.current_limit == 10
    assert calls.rule.ceiling == 11
    assert calls.rule.blocked_until is None
    assert set(kinds(transitions)) == {"decreased"}


def test_one_refusal_withdraws_a_permit_and_spares_a_tenth_and_its_hint_stops_nobody() -> None:
    calls = driver(initial_limit=40)
    (decreased,) = calls.end("rate_limited", 300.0, place=-1)
    assert (decreased.kind, decreased.previous, decreased.current, decreased.ceiling) == ("decreased", 40, 36, 40)
    assert calls.rule.blocked_until is None
    assert calls.rule.epoch == 1


def test_below_what_was_refused_each_proof_goes_half_way() -> None:
    calls = driver(initial_limit=40)
    calls.end("rate_limited", place=-1)
    calls.answer(20)
    raised = [(each.kind, each.current) for each in calls.answer(140)]
    assert raised[:3] == [("increased", 38), ("increased", 39), ("probe_started", 40)]


def test_a_refused_probe_costs_a_credit_and_the_next_one_waits_for_it() -> None:
    calls = driver(initial_limit=8)
    calls.end("rate_limited", place=-1)
    transitions: list[LimitTransition] = []
    while kinds(transitions)[-1:] != ["probe_started"]:
        transitions += calls.answer()
    assert (transitions[-1].previous, transitions[-1].current) == (7, 8)
    # What the probe asked for is refused: it was the newest call.
    assert kinds(calls.end("rate_limited", place=-1)) == ["probe_refused"]
    waited = 0
    while kinds(calls.answer()) != ["probe_started"]:
        waited += 1
    # An answer earns 0.8 % of a credit.
    assert waited == pytest.approx(125, abs=15)


def test_refusals_in_a_row_withdraw_twice_as_many_each_time() -> None:
    calls = driver(64, initial_limit=64)
    assert calls.refuse(5) == [57, 55, 51, 43, 27]
    assert calls.rule.blocked_until is None
    # 26 others were in flight, which is less than half of 64.
    calls.refuse()
    assert calls.rule.next_deadline() == 0.25


def test_after_a_fall_the_search_goes_half_way_back_without_paying() -> None:
    calls = driver(64, initial_limit=64)
    assert calls.refuse(3)[-1] == 51
    while calls.rule.ceiling == 55:
        calls.fill()
        calls.answer()
    assert calls.rule.ceiling == 58
    levels = [each.current for each in calls.answer(400) if each.kind == "increased"]
    assert 57 in levels


# Stops, trials and outages


def stopped(hint: float | None = None) -> Driver:
    calls = driver(initial_limit=4)
    calls.refuse(2, hint)
    assert calls.rule.blocked_until == 0.25
    return calls


def test_refused_at_half_everything_stops_for_a_moment_whatever_the_hint() -> None:
    calls = stopped(hint=60.0)
    assert calls.rule.next_deadline() == 0.25
    assert not calls.rule.advance(0.2)
    assert calls.rule.blocked_until == 0.25
    calls.wait()
    assert calls.rule.blocked_until is None


def test_one_trial_goes_and_everybody_else_waits_for_it() -> None:
    calls = stopped()
    calls.wait()
    trial = calls.grant()
    assert trial.trial
    assert calls.rule.blocked_until == calls.now + 0.25
    assert not Driver(calls.rule).rule.granted(calls.now, 2).trial


def test_an_answered_trial_opens_everything() -> None:
    calls = stopped()
    calls.wait()
    calls.grant()
    calls.now += 0.1
    calls.end("success", place=-1)
    assert calls.rule.blocked_until is None
    assert not calls.grant().trial


def test_a_trial_that_is_not_refused_in_time_opens_everything() -> None:
    calls = stopped()
    calls.wait()
    calls.grant()
    calls.wait()
    assert calls.rule.blocked_until is None
    assert not calls.grant().trial


@pytest.mark.parametrize("outcome", ["local_cancelled", "unexpected_exception"])
def test_a_trial_that_ends_on_our_side_lets_the_next_one_go_at_once(outcome: RequestOutcomeKind) -> None:
    calls = stopped()
    calls.wait()
    calls.grant()
    assert calls.end(outcome, place=-1) == ()
    assert calls.rule.blocked_until is None
    assert calls.grant().trial


def test_a_trial_that_fails_otherwise_is_followed_by_another_after_a_longer_pause() -> None:
    calls = stopped()
    pauses: list[float] = []
    for _ in range(3):
        calls.wait()
        assert calls.grant().trial
        assert calls.end("provider_failure", place=-1) == ()
        assert calls.rule.blocked_until is not None
        pauses.append(calls.rule.blocked_until - calls.now)
    assert pauses == [1.0, 2.0, 4.0]


def test_a_trial_that_hangs_makes_room_for_one_more_call() -> None:
    calls = driver(initial_limit=4)
    calls.answer()
    calls.refuse(3)
    calls.out.clear()
    assert calls.rule.current_limit == 1
    calls.wait()
    assert calls.grant().trial
    calls.wait()
    # The pause of a second is over, and the trial takes the only place. An answer took a second lately.
    assert calls.rule.blocked_until is None
    assert len(calls.out) == calls.rule.current_limit
    hung_at = calls.now
    deadline = calls.rule.next_deadline()
    assert deadline is not None
    assert deadline - hung_at == 2.0
    calls.now = deadline
    assert kinds(calls.rule.advance(deadline)) == ["probe_started"]
    assert calls.rule.current_limit == 2
    assert not calls.grant().trial
    calls.now += 1.0
    calls.end("success", place=-1)
    assert calls.rule.next_deadline() is None
    calls.fill()
    calls.answer(60)
    assert calls.rule.current_limit > 2


def test_a_refused_trial_is_an_outage_and_pauses_double_to_five_seconds() -> None:
    calls = stopped()
    pauses: list[float] = []
    found: list[str] = []
    for _ in range(6):
        calls.wait()
        calls.grant()
        found += kinds(calls.end("rate_limited", place=-1))
        assert calls.rule.blocked_until is not None
        pauses.append(calls.rule.blocked_until - calls.now)
    assert pauses == [1.0, 2.0, 4.0, 5.0, 5.0, 5.0]
    assert found.count("outage") == 1


def test_after_a_refused_trial_the_hint_counts() -> None:
    calls = stopped(hint=60.0)
    calls.wait()
    calls.grant()
    calls.end("rate_limited", 60.0, place=-1)
    assert calls.rule.blocked_until == calls.now + 60.0


def test_after_an_outage_it_goes_on_at_half_of_the_best_and_searches_back() -> None:
    calls = driver(64, initial_limit=32)
    calls.answer(400)
    assert calls.rule.current_limit == 64
    calls.refuse(6)
    calls.wait()
    calls.grant()
    calls.end("rate_limited", place=-1)
    calls.out.clear()
    calls.wait()
    calls.grant()
    calls.now += 1.0
    (recovered,) = calls.end("success")
    assert (recovered.kind, recovered.current) == ("recovered", 32)
    calls.fill()
    calls.answer(400)
    assert calls.rule.current_limit == 64


# Timeouts


def test_one_timeout_in_twenty_is_tolerated_and_more_are_refusals() -> None:
    calls = driver(initial_limit=20)
    assert calls.end("provider_timeout") == ()
    calls.fill()
    assert calls.rule.current_limit == 20
    assert kinds(calls.end("local_timeout")) == ["decreased"]
    level = calls.rule.current_limit
    calls.fill()
    # Without an answer in between, one more says nothing new.
    for _ in range(5):
        assert calls.end("provider_timeout") == ()
        calls.fill()
    assert calls.rule.current_limit == level


def test_answers_between_timeouts_pay_for_them() -> None:
    calls = driver(initial_limit=20)
    for _ in range(20):
        calls.answer(25)
        assert calls.end("provider_timeout", place=-1) == ()
        calls.fill()
    assert calls.rule.current_limit == 64


# Rates


def test_outages_that_come_again_are_a_rate_and_the_limit_becomes_what_it_sustains() -> None:
    """60 calls in each minute, of 2 s each: two at once use them up."""
    rule = EvidenceLimit(64)
    now, in_flight, used, window = 0.0, list[tuple[float, Grant, bool]](), 0, 0
    refused_late = sent_late = 0
    while now < 3600.0:
        free = rule.blocked_until is None and len(in_flight) < rule.current_limit
        if free:
            if int(now // 60) != window:
                window, used = int(now // 60), 0
            grant = rule.granted(now, len(in_flight) + 1)
            taken = used < 60
            used += taken
            in_flight.append((now + (2.0 if taken else 0.05), grant, taken))
            sent_late += now > 1200
            refused_late += now > 1200 and not taken
            continue
        ends = min((end for end, _, _ in in_flight), default=float("inf"))
        deadline = rule.next_deadline()
        now = min(ends, float("inf") if deadline is None else deadline)
        if deadline is not None and deadline <= now:
            rule.advance(now)
        for each in [each for each in in_flight if each[0] <= now]:
            in_flight.remove(each)
            outcome: RequestOutcomeKind = "success" if each[2] else "rate_limited"
            rule.ended(
                now,
                each[1],
                RequestSample(outcome, None, 2.0 if each[2] else 0.05, None, len(in_flight), not each[2]),
            )
    assert refused_late / sent_late < 0.05
    assert sent_late - refused_late > 0.9 * 40 * 60


# The rule in its controller


@pytest.mark.parametrize("seed", range(20))
def test_the_rule_alone_decides_as_in_a_controller(seed: int) -> None:
    """The same calls end in the same way; an unopened controller applies at once what its rule learns."""
    rng = random.Random(seed)
    alone = EvidenceLimit(40)
    controller = AdaptiveRequestAdmissionController(RequestAdmissionConfig())
    controller.register(provider_name="openai", model_id="gpt", alias="a", max_parallel_requests=40)
    out: list[tuple[RequestAdmissionLease, Grant]] = []
    for _ in range(400):
        while True:
            decision = controller.try_acquire(item())
            if not isinstance(decision, RequestAdmissionLease):
                break
            out.append((decision, alone.granted(decision.acquired_at, len(out) + 1)))
            assert out[-1][1] == decision.grant
        if not out:
            break
        lease, grant = out.pop(rng.randrange(len(out)))
        kind: RequestOutcomeKind = rng.choice(("success", "success", "success", "rate_limited", "provider_failure"))
        controller.release(lease, RequestReleaseOutcome(kind))
        snapshot = controller.pressure.snapshot(CHAT)
        assert snapshot is not None
        if alone.blocked_until is not None and snapshot.captured_at >= alone.blocked_until:
            break
        sample = RequestSample(kind, None, 0.0, None, len(out), kind == "rate_limited")
        alone.ended(snapshot.captured_at, grant, sample)
        assert snapshot.current_limit == alone.current_limit
        assert snapshot.rate_limit_ceiling == alone.ceiling

"""The state of an endpoint against its history: what happened is kept as a list, and each question is asked of that."""

from __future__ import annotations

import math

import attrs
import pytest
from examples import share_of_profile
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from trio_sched._request.endpoint import FIRST_PAUSE, LEAST_FAILURES, LONGEST_PAUSE, PATIENCE, EndpointHealth
from trio_sched._resources.request import RequestReleaseOutcome

OUTCOMES = {
    "answered": RequestReleaseOutcome("success"),
    "bad request": RequestReleaseOutcome("provider_failure", None, 400),
    "reset": RequestReleaseOutcome("provider_failure"),
    "error": RequestReleaseOutcome("provider_failure", None, 500),
    "timeout": RequestReleaseOutcome("provider_timeout"),
    "rate": RequestReleaseOutcome("rate_limited", None, 429),
    "overloaded": RequestReleaseOutcome("provider_failure", None, 503),
    "key": RequestReleaseOutcome("provider_failure", None, 401),
    "cancelled": RequestReleaseOutcome("local_cancelled"),
    "bug": RequestReleaseOutcome("unexpected_exception"),
}
ANSWERS = ("answered", "bad request")
FAILURES = ("reset", "error", "timeout")


@attrs.frozen
class Call:
    """trial_of: of which outage it is a trial, 0 for none. A trial of an earlier outage is a call like any other."""

    lease_id: int
    granted_at: float
    trial_of: int


class EndpointMachine(RuleBasedStateMachine):
    """`row`: how the calls ended since the last answer that counted, with the calls in flight when it began."""

    @initialize(max_outage=st.sampled_from([None, 20.0, 300.0]))
    def begin(self, max_outage: float | None) -> None:
        self.max_outage = math.inf if max_outage is None else max_outage
        self.health = EndpointHealth(max_outage)
        self.now = 0.0
        self.calls: list[Call] = []
        self.leases = 0
        self.row: list[str] = []
        self.in_flight_then = self.first_unanswered = 0
        self.unanswered_since: float | None = None
        self.failed_trial_at: float | None = None
        self.best_answered = self.answers = self.outages = 0

    @precondition(lambda self: self.health.admits and len(self.calls) < 12)
    @rule(count=st.integers(1, 4))
    def grant(self, count: int) -> None:
        for _ in range(count):
            if self.health.admits:
                self.leases += 1
                was_answering = self.health.state == "answering"
                is_trial = not was_answering and self.health.granted(self.leases, self.now)
                assert is_trial is not was_answering
                self.calls.append(Call(self.leases, self.now, self.outages if is_trial else 0))

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 11), how=st.sampled_from(sorted(OUTCOMES)))
    def end(self, which: int, how: str) -> None:
        call = self.calls.pop(which % len(self.calls))
        before = self.health.state
        is_trial = before == "not_answering" and call.trial_of == self.outages
        change = self.health.ended(call.lease_id, OUTCOMES[how], len(self.calls), self.now)
        after = self.health.state
        assert (change is not None) == (before != after)
        is_later = self.unanswered_since is None or call.lease_id > self.first_unanswered
        counts = (before == "answering" and is_later) or is_trial
        if how in ANSWERS:
            self.best_answered = max(self.best_answered, call.lease_id)
            self.answers += 1
            if before != "closed" and counts:
                self.row, self.unanswered_since = [], None
                assert after == "answering"
            else:
                assert after == before
            return
        if how in ("cancelled", "bug"):
            assert after == before
            return
        if how == "rate":
            assert after == ("answering" if is_trial else before)
            if is_trial:
                self.row, self.unanswered_since = [], None
            return
        if self.unanswered_since is None:
            self.unanswered_since, self.in_flight_then = self.now, len(self.calls) + 1
            self.first_unanswered = call.lease_id
        self.row.append(how)
        self.outages += before == "answering" and after == "not_answering"
        if before == "answering" and after == "not_answering" and how != "key":
            failures = sum(each in FAILURES for each in self.row)
            assert how in FAILURES
            assert failures >= max(LEAST_FAILURES, self.in_flight_then)
        if before == "answering" and how == "key":
            assert after == "not_answering"
            assert self.health.admits, "access is asked for again at once"
        if after == "closed" and before != "closed":
            assert how == "key"
            assert is_trial
            assert self.row.count("key") >= 2
        if is_trial and after == "not_answering" and how in FAILURES:
            assert not self.health.admits
            assert FIRST_PAUSE <= self.health.next_trial_at - self.now <= LONGEST_PAUSE

    @rule(seconds=st.floats(0.0, 40.0))
    def pass_time(self, seconds: float) -> None:
        self.let_pass(self.now + seconds)

    @precondition(lambda self: self.health.next_deadline() < math.inf)
    @rule()
    def pass_to_deadline(self) -> None:
        due = self.health.next_deadline()
        self.let_pass(max(due, self.now))
        assert self.health.next_deadline() > self.now or self.health.state == "closed", "time would stand still"

    def let_pass(self, until: float) -> None:
        while self.health.next_deadline() <= until and self.health.state != "closed":
            self.now = max(self.now, self.health.next_deadline())
            if self.health.advance(self.now) == "closed":
                assert self.health.closed_for == "endpoint_not_answering"
                assert self.unanswered_since is not None
                assert self.now - self.unanswered_since >= self.max_outage - 1e-6
        self.now = max(self.now, until)

    @invariant()
    def state_and_gate_agree(self) -> None:
        health = self.health
        assert health.unanswered_since == self.unanswered_since
        assert (health.answers, health.answered) == (self.answers, self.best_answered)
        if health.state == "answering":
            assert health.admits
            assert health.because is None
        elif health.state == "closed":
            assert not health.admits
            assert health.because
        else:
            assert health.because
            recent = [
                call for call in self.calls if call.trial_of == self.outages and self.now < call.granted_at + PATIENCE
            ]
            if health.admits:
                assert health.next_trial_at == math.inf
            else:
                assert recent or health.next_trial_at > self.now, "nobody is out, and nobody will go"


def test_the_state_of_an_endpoint_follows_from_its_history() -> None:
    run_state_machine_as_test(
        EndpointMachine, settings=settings(max_examples=share_of_profile(1), stateful_step_count=60)
    )


def test_a_closed_endpoint_stays_closed() -> None:
    health = EndpointHealth()
    health.close("its key is refused")
    assert health.ended(1, OUTCOMES["answered"], 0, 1.0) is None
    assert health.advance(100.0) is None
    assert (health.state, health.admits) == ("closed", False)


@pytest.mark.parametrize("in_flight", [1, 3, 8])
def test_as_many_failures_are_needed_as_calls_were_in_flight(in_flight: int) -> None:
    health = EndpointHealth()
    needed = max(LEAST_FAILURES, in_flight)
    changes = [health.ended(n + 1, OUTCOMES["reset"], in_flight - 1, 1.0) for n in range(needed)]
    assert changes == [None] * (needed - 1) + ["not_answering"]


def test_pauses_between_trials_double() -> None:
    health = EndpointHealth()
    for lease in (1, 2, 3):
        health.ended(lease, OUTCOMES["error"], 0, 0.0)
    now = 0.0
    pauses: list[float] = []
    for lease in range(4, 9):
        pauses.append(health.next_trial_at - now)
        now = health.next_trial_at
        health.advance(now)
        assert health.granted(lease, now)
        health.ended(lease, OUTCOMES["error"], 0, now)
    assert pauses == [5.0, 10.0, 20.0, 30.0, 30.0]

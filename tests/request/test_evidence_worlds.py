"""The evidence rule alone in random simulated worlds: what holds at every step, and that it always comes back.

A world is one provider with more demand than it takes. Its limit moves; it has outages and rate limits, with hints or
without; calls fail, time out and are cancelled, trials too. The last phase is quiet.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from typing import Final

import attrs
import pytest

from trio_sched._request.evidence import EvidenceLimit
from trio_sched._request.limit import Grant, RequestSample
from trio_sched._resources.request import RequestOutcomeKind

QUIET_ROUNDS: Final = 160
"""Round trips that a quiet provider grants before the limit has to be back."""


@attrs.frozen
class Phase:
    """A stretch of the provider's life.

    limit: the calls that it takes at once; 0 in an outage. rate: answers per second, or None. hint: what its refusals
    ask for. cancelled, failed, timed_out: shares of the calls.
    """

    seconds: float
    limit: int
    rate: float | None = None
    hint: float | None = None
    cancelled: float = 0.0
    failed: float = 0.0
    timed_out: float = 0.0


class World:
    """Runs the rule against a provider. Time is virtual, and everything follows from the seed."""

    def __init__(self, seed: int) -> None:
        rng = self.rng = random.Random(seed)
        self.round_trip = rng.choice((0.1, 1.0, 10.0))
        self.effective_max = rng.choice((1, 2, 5, 16, 40))
        self.rule = EvidenceLimit(self.effective_max, 0.0, initial_limit=rng.choice((None, 1, self.effective_max)))
        self.now = 0.0
        self.out: dict[int, Grant] = {}
        self.sent: dict[int, float] = {}
        self.ends: list[tuple[float, int, RequestOutcomeKind, float | None]] = []
        self.inside = 0
        self.tokens = 0.0
        self.numbers = itertools.count()
        self.trials = 0
        self.answered = 0
        self.used = 0.0
        self.quiet_limit = rng.randint(1, 24)

    def phases(self) -> list[Phase]:
        rng = self.rng
        phases = [
            Phase(
                seconds=self.round_trip * rng.uniform(1, 12),
                limit=rng.choice((0, 0, rng.randint(1, 30), rng.randint(1, 30), rng.randint(1, 30))),
                rate=rng.choice((None, None, rng.uniform(0.2, 5) / self.round_trip)),
                hint=rng.choice((None, 0.2, 1.0, 20.0)),
                cancelled=rng.choice((0.0, 0.1, 0.7)),
                failed=rng.choice((0.0, 0.1, 0.7)),
                timed_out=rng.choice((0.0, 0.02, 0.5)),
            )
            for _ in range(rng.randint(1, 5))
        ]
        longest_stop = 25.0
        return [*phases, Phase(longest_stop + QUIET_ROUNDS * self.round_trip, self.quiet_limit)]

    def live(self, phase: Phase) -> None:
        end = self.now + phase.seconds
        self.used = 0.0
        while self.now < end:
            self.go_out(phase)
            due = self.rule.next_deadline()
            assert due is not None or self.rule.blocked_until is None
            assert self.ends or due is not None, "nothing is out, nothing is due, and nothing may go out"
            now = min(self.ends[0][0] if self.ends else math.inf, math.inf if due is None else due, end)
            self.used += self.inside * (now - self.now)
            self.tokens = min(1.0 + (phase.rate or 0), self.tokens + (now - self.now) * (phase.rate or 0))
            self.now = now
            if due is not None and now >= due:
                self.rule.advance(now)
                assert self.rule.blocked_until is None
            while self.ends and self.ends[0][0] <= now:
                self.come_back()
            self.check()

    def go_out(self, phase: Phase) -> None:
        rule = self.rule
        while rule.blocked_until is None and len(self.out) < rule.current_limit:
            grant = rule.granted(self.now, len(self.out) + 1)
            number = next(self.numbers)
            self.out[number] = grant
            self.sent[number] = self.now
            if grant.trial:
                self.trials += 1
                assert self.stopped_until() > self.now
            heapq.heappush(self.ends, self.end_of(phase, number))
            self.check()

    def stopped_until(self) -> float:
        until = self.rule.blocked_until
        return -math.inf if until is None else until

    def end_of(self, phase: Phase, number: int) -> tuple[float, int, RequestOutcomeKind, float | None]:
        rng = self.rng
        takes = self.round_trip * rng.uniform(0.5, 1.5)
        if rng.random() < phase.cancelled:
            return self.now + takes * rng.random(), number, "local_cancelled", None
        if self.inside >= phase.limit or (phase.rate is not None and self.tokens < 1):
            hint = None if phase.hint is None else phase.hint * rng.uniform(0.5, 1)
            return self.now + 0.05 * takes, number, "rate_limited", hint
        self.tokens -= phase.rate is not None
        if rng.random() < phase.failed:
            return self.now + takes / 4, number, "provider_failure", None
        self.inside += 1
        if rng.random() < phase.timed_out:
            return self.now + 3 * takes, number, "provider_timeout", None
        return self.now + takes, number, "success", None

    def come_back(self) -> None:
        _, number, outcome, hint = heapq.heappop(self.ends)
        grant = self.out.pop(number)
        self.inside -= outcome in ("success", "provider_timeout")
        self.answered += outcome == "success"
        refused = outcome == "rate_limited"
        before, until = self.rule.current_limit, self.rule.blocked_until
        seconds = self.now - self.sent.pop(number)
        sample = RequestSample(outcome, hint, seconds, in_flight=len(self.out), refused=refused)
        transitions = self.rule.ended(self.now, grant, sample)
        levels = [before, *(each.current for each in transitions)]
        assert [each.previous for each in transitions] == levels[:-1]
        assert levels[-1] == self.rule.current_limit
        assert refused or outcome == "provider_timeout" or self.rule.current_limit >= before
        if until is not None and not grant.trial:
            assert self.rule.blocked_until is not None
            assert self.rule.blocked_until >= until
        self.check()

    def check(self) -> None:
        rule = self.rule
        assert 1 <= rule.current_limit <= self.effective_max
        assert rule.ceiling is None or rule.ceiling > rule.current_limit
        assert rule.blocked_until is None or rule.blocked_until <= self.now + 20.0
        waiting_for = [grant for grant in self.out.values() if grant.trial and grant.epoch == rule.epoch]
        assert len(waiting_for) <= 1, "one trial at a time"


@pytest.mark.parametrize("first", range(0, 200, 40))
def test_it_keeps_its_bounds_in_any_world_and_recovers_in_a_quiet_one(first: int) -> None:
    trials = 0
    for seed in range(first, first + 40):
        world = World(seed)
        *restless, quiet = world.phases()
        for phase in restless:
            world.live(phase)
        world.live(quiet)
        trials += world.trials
        allowed = min(world.quiet_limit, world.effective_max)
        assert 2 * world.rule.current_limit >= allowed, f"world {seed} stays at {world.rule!r} of {allowed}"
        assert 3 * world.used >= allowed * QUIET_ROUNDS * world.round_trip, f"world {seed} idles"
    assert trials > 50


def test_a_trial_that_ends_on_our_side_is_followed_by_another_at_once() -> None:
    outcomes: tuple[RequestOutcomeKind, ...] = ("local_cancelled", "unexpected_exception")
    rule = EvidenceLimit(4, initial_limit=1)
    rule.ended(0.0, rule.granted(0.0, 1), RequestSample("rate_limited", in_flight=0, refused=True))
    now = rule.next_deadline()
    assert now is not None
    rule.advance(now)
    for outcome in outcomes * 5:
        trial = rule.granted(now, 1)
        assert trial.trial
        assert rule.blocked_until is not None
        rule.ended(now, trial, RequestSample(outcome, in_flight=0))
        assert rule.blocked_until is None
    trial = rule.granted(now, 1)
    rule.ended(now, trial, RequestSample("success", in_flight=0))
    assert (rule.blocked_until, rule.next_deadline()) == (None, None)
    assert not rule.granted(now, 1).trial


def test_a_trial_that_never_ends_holds_up_nobody_for_longer_than_its_pause() -> None:
    rule = EvidenceLimit(4, initial_limit=1)
    rule.ended(0.0, rule.granted(0.0, 1), RequestSample("rate_limited", hint=3.0, in_flight=0, refused=True))
    rule.advance(0.25)
    assert rule.granted(0.25, 1).trial
    assert rule.next_deadline() == 0.5
    rule.advance(0.5)
    assert rule.blocked_until is None
    assert not rule.granted(0.5, 2).trial

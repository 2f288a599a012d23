from __future__ import annotations

import math
import random
from itertools import pairwise
from statistics import fmean

import pytest
from control_samples import EXACT

from benchmarks.control.call_times import LongTail, Normal
from benchmarks.control.gates import Concurrency, FixedWindow, SlidingWindow, TokenBucket
from benchmarks.control.neighbours import BurstyNeighbour
from benchmarks.control.providers import Refusals, ScriptedProvider
from benchmarks.control.schedules import Schedule, drift, phases
from benchmarks.control.simulator import Answer


def rng() -> random.Random:
    return random.Random(1)


def test_a_schedule_adds_up() -> None:
    schedule = Schedule(((0.0, 8), (600.0, 24)))
    assert schedule.integral(60.0, 1260.0) == 540 * 8 + 660 * 24
    assert schedule.integral(700.0, 800.0) == 100 * 24
    assert Schedule.constant(5).integral(1.0, 3.0) == 10
    assert (schedule.at(599.9), schedule.at(600.0)) == (8, 24)


@pytest.mark.parametrize("steps", [((1.0, 8),), ((0.0, 8), (5.0, 9), (5.0, 10)), ((0.0, 8), (5.0, 9), (4.0, 10))])
def test_a_schedule_that_does_not_go_forward_from_zero_is_refused(steps: tuple[tuple[float, int], ...]) -> None:
    with pytest.raises(AssertionError):
        Schedule(steps)


def test_phases_take_turns_and_a_walk_stays_within_its_bounds() -> None:
    turns = phases((24, 8), 15.0, 45.0, 600.0, rng())
    assert [level for _, level in turns.steps[:3]] == [24, 8, 24]
    assert all(15 <= after - before <= 45 for (before, _), (after, _) in pairwise(turns.steps))
    walk = drift(16, 128, 8, 5.0, 6000.0, rng())
    levels = [level for _, level in walk.steps]
    assert min(levels) >= 16
    assert max(levels) <= 128
    assert max(abs(after - before) for before, after in pairwise(levels)) == 8
    assert len(set(levels)) > 50


def test_what_is_used_is_at_most_what_is_allowed() -> None:
    """Three calls for 10 s; from second 4 on one is allowed, from second 6 on four."""
    gate = Concurrency(Schedule(((0.0, 3), (4.0, 1), (6.0, 4))))
    assert [gate.enter(0.0) for _ in range(4)] == [True, True, True, False]
    assert gate.enter(5.0) is False
    gate.leave(5.5)
    assert gate.used(5.5) == pytest.approx(4 * 3 + 1.5 * 1)
    assert gate.used(10.0) == pytest.approx(4 * 3 + 2 * 1 + 4 * 2)
    assert gate.offered(0.0, 10.0) == 4 * 3 + 2 * 1 + 4 * 4


def test_a_gate_notes_when_so_many_are_in() -> None:
    gate = Concurrency(4)
    gate.watch(1.8, 0.0)
    assert gate.reached_at == math.inf
    gate.enter(1.0)
    gate.enter(2.0)
    gate.enter(3.0)
    assert gate.reached_at == 2.0
    gate.watch(3, 3.5)
    assert gate.reached_at == 3.5


def test_a_bucket_takes_its_burst_and_then_its_rate_and_says_how_long() -> None:
    bucket = TokenBucket(rate=2.0, burst=3.0)
    assert [bucket.enter(moment) for moment in (0.0, 0.0, 0.0, 0.0)] == [True, True, True, False]
    assert bucket.wait(0.0) == pytest.approx(0.5)
    assert [bucket.enter(moment) for moment in (0.5, 0.5, 100.0)] == [True, False, True]
    assert (bucket.used(100.0), bucket.offered(0.0, 100.0)) == (5, 200.0)


def test_a_fixed_window_starts_anew() -> None:
    window = FixedWindow(quota=2, window=60.0)
    assert [window.enter(moment) for moment in (1.0, 2.0, 3.0, 59.9)] == [True, True, False, False]
    assert window.wait(59.0) == pytest.approx(1.0)
    assert [window.enter(moment) for moment in (60.0, 61.0, 62.0)] == [True, True, False]
    assert (window.used(62.0), window.offered(60.0, 180.0)) == (4, 4.0)


def test_a_sliding_window_forgets_call_by_call() -> None:
    window = SlidingWindow(quota=2, window=60.0)
    assert [window.enter(moment) for moment in (1.0, 30.0, 59.0, 60.5)] == [True, True, False, False]
    assert window.wait(60.5) == pytest.approx(0.5)
    assert [window.enter(moment) for moment in (61.0, 62.0, 90.0)] == [True, False, True]


def test_hints_come_in_turn_and_honest_ones_are_what_remains() -> None:
    provider = ScriptedProvider(Concurrency(0), EXACT, refusals=Refusals(hints=(20.0, None)))
    assert [provider.arrive(0.0, rng()).hint for _ in range(3)] == [20.0, None, 20.0]
    honest = ScriptedProvider(FixedWindow(0, 60.0), EXACT, refusals=Refusals(honest=10.0))
    assert honest.arrive(50.0, rng()).hint == pytest.approx(100.0)


def test_refusals_may_come_late() -> None:
    provider = ScriptedProvider(Concurrency(0), EXACT, refusals=Refusals(seconds=(1.0, 3.0)))
    source = rng()
    seconds = [provider.arrive(0.0, source).seconds for _ in range(200)]
    assert 1 <= min(seconds) < 1.2
    assert 2.8 < max(seconds) <= 3


def test_an_outage_refuses_in_its_own_way_and_no_place_is_held() -> None:
    gate = Concurrency(Schedule(((0.0, 1), (10.0, 0), (20.0, 1))))
    provider = ScriptedProvider(gate, EXACT, in_outage=Refusals(kind="provider_failure", status=503))
    answers = [provider.arrive(moment, rng()) for moment in (0.0, 1.0, 11.0)]
    assert [(answer.kind, answer.status, answer.refused) for answer in answers] == [
        ("success", 200, False),
        ("rate_limited", 429, True),
        ("provider_failure", 503, True),
    ]
    assert gate.in_flight == 1


def test_bad_and_hung_calls_hold_a_place() -> None:
    gate = Concurrency(1000)
    provider = ScriptedProvider(gate, EXACT, bad=0.3, hung=0.1)
    source = rng()
    answers = [provider.arrive(0.0, source) for _ in range(1000)]
    assert gate.in_flight == 1000
    assert not any(answer.refused for answer in answers)
    assert sum(answer.status == 400 for answer in answers) == pytest.approx(300, abs=40)
    assert {answer.seconds for answer in answers if answer.status == 400} == {0.1}
    assert sum(answer.seconds == math.inf for answer in answers) == pytest.approx(100, abs=30)


def test_a_provider_notes_the_first_answer_to_what_was_sent_later() -> None:
    provider = ScriptedProvider(Concurrency(1), EXACT)
    provider.watch(10.0)
    for sent_at, now in ((9.0, 10.5), (10.0, 11.0), (10.2, 12.0)):
        provider.answered(sent_at, Answer("success", 1.0), now)
    assert provider.first_answer_at == 11.0


@pytest.mark.parametrize("times", [Normal(0.3), LongTail(4.0), LongTail(10.0)])
def test_call_times_have_the_mean_that_they_say(times: Normal | LongTail) -> None:
    source = rng()
    drawn = [times.draw(source) for _ in range(50_000)]
    assert fmean(drawn) == pytest.approx(times.mean, rel=0.02)
    if isinstance(times, LongTail):
        assert (min(drawn), max(drawn)) == (1.0, 120.0)


def test_the_neighbour_is_on_for_as_long_as_it_says() -> None:
    neighbour = BurstyNeighbour(4, mean_stretch=5.0, until=100.0, seed=3)
    on, moment = 0.0, 0.0
    while (wake := neighbour.next_wake()) is not None and wake < 80.0:
        on += (wake - moment) * (neighbour.limit > 0)
        moment = wake
        neighbour.wake(wake)
    on += (80.0 - moment) * (neighbour.limit > 0)
    assert 20.0 < on < 60.0
    assert neighbour.on_seconds(0.0, 80.0) == pytest.approx(on)


def test_the_neighbour_pauses_after_a_refusal() -> None:
    neighbour = BurstyNeighbour(1, mean_stretch=1.0, until=10.0, seed=1)
    start = neighbour.next_wake()
    assert start is not None
    assert neighbour.grant(start - 0.001) is None
    neighbour.wake(start)
    ticket = neighbour.grant(start)
    assert ticket is not None
    neighbour.release(ticket, Answer("rate_limited", 0.05, refused=True), start)
    assert neighbour.grant(start) is None
    pause_end = neighbour.next_wake()
    assert pause_end is not None
    assert pause_end - start <= 0.75
    neighbour.wake(pause_end)
    assert (neighbour.grant(pause_end) is None) == (neighbour.limit == 0)

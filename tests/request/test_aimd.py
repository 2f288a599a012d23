"""AIMD by plain samples: no clock, no leases, no loop."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from trio_sched._request.aimd import AimdLimit
from trio_sched._request.config import RequestAdmissionTuningConfig
from trio_sched._request.limit import Grant, LimitTransition, RequestSample


def state(
    effective_max: int = 10,
    *,
    initial: int | None = None,
    factor: float = 0.5,
    step: int = 1,
    successes: int = 2,
    cooldown: float = 1.0,
    ramp: float = 0.0,
    now: float = 0.0,
) -> AimdLimit:
    tuning = RequestAdmissionTuningConfig(
        multiplicative_decrease_factor=factor,
        additive_increase_step=step,
        successes_until_increase=successes,
        cooldown_seconds=cooldown,
        startup_ramp_seconds=ramp,
    )
    return AimdLimit(effective_max, now, tuning=tuning, initial_limit=initial)


def cooling(limits: AimdLimit) -> bool:
    return limits.cooling


def ramping(limits: AimdLimit) -> bool:
    return limits.ramping


def succeed(limits: AimdLimit, times: int, now: float) -> list[LimitTransition]:
    transitions: list[LimitTransition] = []
    for _ in range(times):
        transitions += limits.success(now)
    return transitions


def decreased(previous: int, current: int, ceiling: int | None) -> LimitTransition:
    return LimitTransition("decreased", previous, current, ceiling)


def increased(previous: int, current: int, ceiling: int | None = None) -> LimitTransition:
    return LimitTransition("increased", previous, current, ceiling)


def soft(previous: int, current: int, ceiling: int) -> LimitTransition:
    return LimitTransition("soft_ceiling_recovered", previous, current, ceiling)


def full(previous: int, current: int, ceiling: int | None) -> LimitTransition:
    return LimitTransition("fully_recovered", previous, current, ceiling)


def test_starts_at_the_effective_maximum_unless_told() -> None:
    assert state(10).current_limit == 10
    assert state(10, initial=4).current_limit == 4
    assert state(10, initial=40).current_limit == 10
    assert state(1, initial=1).current_limit == 1


def test_a_fresh_state_has_nothing_to_wait_for() -> None:
    limits = state()
    assert limits.next_deadline() is None
    assert limits.advance(1e9) == []
    assert not cooling(limits)
    assert not ramping(limits)
    assert limits.ceiling is None


def test_a_rate_limit_lowers_cools_and_opens_an_epoch() -> None:
    limits = state(10)
    assert limits.rate_limited(5.0, epoch=0) == [decreased(10, 5, 10)]
    assert limits.current_limit == 5
    assert limits.epoch == 1
    assert limits.ceiling == 10
    assert limits.blocked_until == 6.0
    assert limits.next_deadline() == 6.0
    assert cooling(limits)


def test_the_decrease_is_floored_and_stops_at_one() -> None:
    limits = state(7)
    limits.rate_limited(0.0, epoch=0)
    assert limits.current_limit == 3
    limits.rate_limited(0.0, epoch=1)
    assert limits.current_limit == 1
    assert limits.rate_limited(0.0, epoch=2) == []
    assert limits.current_limit == 1
    assert limits.epoch == 3
    assert limits.ceiling == 1


def test_only_a_lease_of_the_current_epoch_lowers() -> None:
    limits = state(16)
    limits.rate_limited(0.0, epoch=0)
    for moment in range(1, 9):
        assert limits.rate_limited(float(moment), epoch=0) == []
    assert limits.current_limit == 8
    assert limits.epoch == 1
    assert limits.blocked_until == 9.0
    limits.rate_limited(9.0, epoch=1)
    assert limits.current_limit == 4


def test_a_cooldown_never_moves_earlier() -> None:
    limits = state()
    limits.rate_limited(0.0, epoch=0, retry_after=30.0)
    assert limits.blocked_until == 30.0
    limits.rate_limited(2.0, epoch=1)
    assert limits.blocked_until == 30.0
    limits.rate_limited(3.0, epoch=1, retry_after=5.0)
    assert limits.blocked_until == 30.0
    limits.rate_limited(4.0, epoch=1, retry_after=27.0)
    assert limits.blocked_until == 31.0


def test_the_cooldown_is_the_hint_or_the_default() -> None:
    assert state().cooldown_end(10.0, None) == 11.0
    assert state().cooldown_end(10.0, 0.0) == 11.0
    assert state().cooldown_end(10.0, 0.25) == 10.25
    limits = state()
    limits.rate_limited(0.0, epoch=0, retry_after=50.0)
    assert limits.cooldown_end(10.0, 7.0) == 50.0


def test_a_cooldown_ends_at_its_deadline_and_not_before() -> None:
    limits = state()
    limits.rate_limited(0.0, epoch=0, retry_after=3.0)
    assert limits.advance(math.nextafter(3.0, 0.0)) == []
    assert cooling(limits)
    assert limits.advance(3.0) == []
    assert not cooling(limits)
    assert limits.next_deadline() is None
    limits.rate_limited(4.0, epoch=1, retry_after=0.5)
    assert limits.blocked_until == 4.5


def test_a_streak_of_successes_adds_a_step() -> None:
    limits = state(10, initial=4, successes=3, step=2)
    assert not limits.success(0.0)
    assert not limits.success(0.0)
    assert limits.streak == 2
    assert limits.success(0.0) == [increased(4, 6)]
    assert limits.streak == 0
    assert succeed(limits, 3, 0.0) == [increased(6, 8)]
    assert succeed(limits, 3, 0.0) == [increased(8, 10)]


def test_growth_stops_at_the_effective_maximum() -> None:
    limits = state(5, initial=4, successes=1, step=3)
    assert succeed(limits, 1, 0.0) == [increased(4, 5)]
    for _ in range(5):
        assert not limits.success(0.0)
    assert limits.streak == 0
    assert limits.current_limit == 5


def test_at_the_maximum_a_streak_starts_over() -> None:
    limits = state(5, successes=3)
    assert not any(limits.success(0.0) for _ in range(4))
    assert limits.streak == 1


def test_a_call_is_counted_by_its_outcome() -> None:
    limits = state(10, initial=4, successes=1)
    grant = limits.granted(0.0, 3)
    assert grant == Grant(0, 3, 4)
    assert limits.ended(1.0, grant, RequestSample("success")) == [increased(4, 5)]
    for outcome in ("provider_failure", "provider_timeout", "local_timeout", "local_cancelled", "unexpected_exception"):
        assert not limits.ended(1.0, grant, RequestSample(outcome, hint=9.0, refused=True))
    assert not cooling(limits)
    assert limits.ended(2.0, grant, RequestSample("rate_limited", hint=9.0, refused=True)) == [decreased(5, 2, 5)]
    assert limits.next_deadline() == 11.0
    assert not limits.ended(3.0, grant, RequestSample("rate_limited"))
    assert limits.granted(11.0, 1).epoch == 1


def test_successes_during_a_cooldown_do_not_count() -> None:
    limits = state(10, successes=1)
    limits.rate_limited(0.0, epoch=0, retry_after=2.0)
    assert not limits.success(1.0)
    assert limits.streak == 0
    limits.advance(2.0)
    assert limits.success(2.0)


def test_a_success_at_the_end_of_the_cooldown_counts_before_it_is_noted() -> None:
    limits = state(10, successes=1)
    limits.rate_limited(0.0, epoch=0, retry_after=2.0)
    assert limits.success(2.0)


def test_a_rate_limit_wipes_the_streak() -> None:
    limits = state(10, initial=4, successes=2)
    limits.success(0.0)
    limits.rate_limited(0.0, epoch=0)
    assert limits.streak == 0
    limits.advance(1.0)
    assert not limits.success(1.0)


def test_recovery_is_told_once_past_the_ceiling_and_once_at_the_top() -> None:
    limits = state(6, initial=4, successes=1)
    assert limits.rate_limited(0.0, epoch=0) == [decreased(4, 2, 4)]
    limits.advance(1.0)
    assert succeed(limits, 1, 1.0) == [increased(2, 3, 4)]
    assert succeed(limits, 1, 1.0) == [increased(3, 4, 4)]
    assert succeed(limits, 1, 1.0) == [increased(4, 5, 4), soft(4, 5, 4)]
    assert succeed(limits, 1, 1.0) == [increased(5, 6, 4), full(5, 6, 4)]
    assert succeed(limits, 3, 1.0) == []
    assert limits.set_effective_max(5) == [decreased(6, 5, 4)]


def test_one_step_may_pass_the_ceiling_and_reach_the_top() -> None:
    limits = state(6, initial=5, successes=1, step=4)
    limits.rate_limited(0.0, epoch=0)
    limits.advance(1.0)
    assert succeed(limits, 1, 1.0) == [increased(2, 6, 5), soft(2, 6, 5), full(2, 6, 5)]


def test_recovery_at_a_limit_of_one_comes_with_the_end_of_the_cooldown() -> None:
    limits = state(1)
    assert limits.rate_limited(0.0, epoch=0) == []
    assert limits.advance(1.0) == [full(1, 1, 1)]
    assert limits.advance(2.0) == []


def test_full_recovery_waits_for_the_cooldown() -> None:
    limits = state(2)
    limits.rate_limited(0.0, epoch=0, retry_after=9.0)
    assert limits.set_effective_max(1) == []
    assert limits.current_limit == 1
    assert limits.advance(9.0) == [full(1, 1, 2)]


def test_without_a_rate_limit_nothing_recovers() -> None:
    limits = state(3, initial=2, successes=1)
    assert succeed(limits, 1, 0.0) == [increased(2, 3)]


def test_a_ramp_rises_linearly_to_the_initial_limit() -> None:
    limits = state(10, initial=5, ramp=8.0, now=100.0)
    assert limits.current_limit == 1
    assert ramping(limits)
    assert limits.next_deadline() == 102.0
    assert limits.advance(101.9) == []
    assert limits.advance(102.0) == [increased(1, 2)]
    assert limits.next_deadline() == 104.0
    assert limits.advance(106.5) == [increased(2, 4)]
    assert limits.advance(108.0) == [increased(4, 5)]
    assert not ramping(limits)
    assert limits.next_deadline() is None
    assert limits.advance(1e6) == []


def test_successes_during_the_ramp_do_not_count() -> None:
    limits = state(10, initial=5, ramp=8.0, successes=1)
    assert not limits.success(1.0)
    assert limits.streak == 0
    limits.advance(8.0)
    assert limits.success(8.0)


def test_a_rate_limit_ends_the_ramp_for_good() -> None:
    limits = state(10, initial=9, ramp=8.0)
    limits.advance(4.0)
    assert limits.current_limit == 5
    assert limits.rate_limited(4.0, epoch=0) == [decreased(5, 2, 5)]
    assert not ramping(limits)
    assert limits.next_deadline() == 5.0
    assert limits.advance(100.0) == []
    assert limits.current_limit == 2


def test_a_ramp_may_be_short_and_have_one_step() -> None:
    limits = state(10, initial=2, ramp=0.5)
    assert limits.current_limit == 1
    assert limits.next_deadline() == 0.5
    assert limits.advance(0.5) == [increased(1, 2)]


def test_a_ramp_to_one_is_no_ramp() -> None:
    limits = state(10, initial=1, ramp=8.0)
    assert not ramping(limits)
    assert limits.next_deadline() is None


def test_next_deadline_is_the_earlier_of_ramp_and_cooldown() -> None:
    limits = state(10, initial=5, ramp=8.0, now=0.0)
    assert limits.next_deadline() == 2.0
    limits.blocked_until = 1.0
    assert limits.next_deadline() == 1.0
    limits.blocked_until = 3.0
    assert limits.next_deadline() == 2.0


def test_a_lower_cap_brings_the_limit_down() -> None:
    limits = state(10)
    assert limits.set_effective_max(4) == [decreased(10, 4, None)]
    assert limits.epoch == 0
    assert limits.ceiling is None
    assert limits.set_effective_max(4) == []


def test_a_higher_cap_lifts_a_limit_that_was_never_lowered_by_a_rate_limit() -> None:
    limits = state(4)
    assert limits.set_effective_max(10) == [increased(4, 10)]
    limits = state(4, initial=6)
    assert limits.set_effective_max(10) == [increased(4, 6)]
    limits = state(8, initial=2, successes=1)
    succeed(limits, 3, 0.0)
    assert limits.set_effective_max(10) == []
    assert limits.current_limit == 5


def test_a_higher_cap_leaves_a_learned_limit_alone() -> None:
    limits = state(8)
    limits.rate_limited(0.0, epoch=0)
    limits.advance(1.0)
    assert limits.set_effective_max(16) == []
    assert limits.current_limit == 4


def test_a_lower_cap_may_complete_the_recovery() -> None:
    limits = state(8)
    limits.rate_limited(0.0, epoch=0)
    limits.advance(1.0)
    assert limits.set_effective_max(3) == [decreased(4, 3, 8), full(4, 3, 8)]


def test_a_cap_change_bends_the_ramp() -> None:
    limits = state(9, ramp=8.0)
    limits.advance(2.0)
    assert limits.current_limit == 3
    assert limits.set_effective_max(5) == []
    assert limits.current_limit == 3
    assert limits.next_deadline() == 6.0
    assert limits.set_effective_max(17) == []
    assert limits.next_deadline() == 1.5
    assert limits.advance(2.0) == [increased(3, 5)]


def test_a_cap_below_the_ramp_ends_it() -> None:
    limits = state(9, ramp=8.0)
    limits.advance(4.0)
    assert limits.set_effective_max(2) == [decreased(5, 2, None)]
    assert not ramping(limits)
    assert limits.next_deadline() is None


def test_a_cap_at_the_ramp_ends_it() -> None:
    limits = state(9, ramp=8.0)
    limits.advance(4.0)
    assert limits.set_effective_max(5) == []
    assert not ramping(limits)


def test_repr_tells_the_state() -> None:
    limits = state(10)
    limits.rate_limited(0.0, epoch=0)
    assert repr(limits) == "<AimdLimit 5/10 epoch 1 streak 0 blocked until 1.0>"


@given(
    effective_max=st.integers(2, 500),
    ramp=st.floats(1e-3, 1e6),
    start=st.floats(0, 1e9),
    waits=st.lists(st.floats(0, 0.3), max_size=20),
)
def test_a_ramp_never_waits_for_a_moment_that_brings_nothing(
    effective_max: int, ramp: float, start: float, waits: list[float]
) -> None:
    limits = state(effective_max, ramp=ramp, now=start)
    now = start
    for wait in waits:
        deadline = limits.next_deadline()
        if deadline is None:
            break
        before = limits.current_limit
        assert limits.advance(math.nextafter(deadline, -math.inf)) == []
        limits.advance(deadline)
        assert limits.current_limit > before
        now = max(now, deadline) + wait * ramp
        limits.advance(now)
    limits.advance(start + ramp + 1)
    assert limits.current_limit == effective_max
    assert not ramping(limits)


Report = st.one_of(
    st.tuples(st.just("success"), st.just(0.0), st.just(0)),
    st.tuples(st.just("rate_limited"), st.sampled_from([0.0, 0.5, 7.0]), st.integers(0, 2)),
    st.tuples(st.just("pass"), st.sampled_from([0.25, 1.0, 3.0]), st.just(0)),
    st.tuples(st.just("cap"), st.just(0.0), st.integers(1, 9)),
)


@given(
    reports=st.lists(Report, max_size=60),
    effective_max=st.integers(1, 9),
    successes=st.integers(1, 3),
    ramp=st.sampled_from([0.0, 2.0]),
)
def test_what_holds_after_any_history(
    reports: list[tuple[str, float, int]], effective_max: int, successes: int, ramp: float
) -> None:
    limits = state(effective_max, successes=successes, factor=0.7, ramp=ramp)
    now, decreases = 0.0, 0
    for kind, number, age in reports:
        blocked, limit, epoch = limits.blocked_until, limits.current_limit, limits.epoch
        transitions: list[LimitTransition] = []
        if kind == "success":
            transitions = list(limits.success(now))
            assert limits.current_limit >= limit
        elif kind == "rate_limited":
            transitions = limits.rate_limited(now, epoch=limits.epoch - age, retry_after=number or None)
            assert limits.blocked_until is not None
            assert limits.blocked_until >= (blocked or 0.0)
            assert limits.current_limit <= limit
            assert limits.epoch == epoch + (age == 0)
            assert limits.current_limit == limit or age == 0
            decreases += age == 0
        elif kind == "pass":
            now += number
            transitions = limits.advance(now)
            assert limits.current_limit >= limit
            assert limits.blocked_until is None or limits.blocked_until > now
        else:
            transitions = limits.set_effective_max(age)
        assert 1 <= limits.current_limit <= limits.effective_max
        assert limits.epoch == decreases
        moves = [step for step in transitions if step.kind in ("increased", "decreased")]
        assert [step.previous for step in moves[:1]] == [limit for _ in moves[:1]]
        assert moves == [] or moves[-1].current == limits.current_limit
        assert moves != [] or limits.current_limit == limit
        for step in transitions:
            if step.kind == "fully_recovered":
                assert step.current == limits.effective_max
                assert not cooling(limits)
            if step.kind == "soft_ceiling_recovered":
                assert limits.ceiling is not None
                assert step.previous <= limits.ceiling < step.current

"""A rule from outside is not believed unseen: what cannot be used is logged once, and the last good value stays."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from request_samples import CHAT, FAILED, RATE_LIMITED, SUCCESS, item, rate_limited

from trio_sched._errors import InvalidTypeError, InvalidValueError
from trio_sched._request.controller import AdaptiveRequestAdmissionController
from trio_sched._request.leases import RequestAdmissionDenied, RequestAdmissionLease
from trio_sched._request.limit import FixedLimit, Grant, LimitTransition, RequestLimit, RequestSample
from trio_sched._request.limit_state import AdaptiveRequestLimitState, made_by
from trio_sched._resources.request import RequestPressureSnapshot


class Scripted:
    """A rule that says what it was given to say."""

    def __init__(self, effective_max: int = 8, now: float = 0.0) -> None:
        self.current_limit: object = 4
        self.blocked_until: object = None
        self.deadline: object = None
        self.grant: object = Grant(0, 1, 4)
        self.transitions: object = ()
        self.error: BaseException | None = None
        self.samples: list[RequestSample] = []

    def granted(self, now: float, in_flight: int) -> object:
        self.fail()
        return self.grant

    def ended(self, now: float, grant: Grant, sample: RequestSample) -> object:
        self.samples.append(sample)
        self.fail()
        return self.transitions

    def advance(self, now: float) -> object:
        self.fail()
        return self.transitions

    def next_deadline(self) -> object:
        return self.deadline

    def fail(self) -> None:
        if self.error is not None:
            raise self.error


def state(rule: Scripted, effective_max: int = 8) -> AdaptiveRequestLimitState:
    return AdaptiveRequestLimitState(CHAT, cast("RequestLimit", rule), effective_max=effective_max, now=0.0)


def ended(limits: AdaptiveRequestLimitState, now: float = 1.0) -> Sequence[LimitTransition]:
    return limits.ended(now, Grant(0, 1, 4), RequestSample("success"))


@pytest.mark.parametrize("level", [0, -3, 9, 4.5, True, None, "4", math.nan])
def test_a_limit_that_cannot_be_one_is_logged_once_and_the_last_good_one_stays(
    level: object, caplog: pytest.LogCaptureFixture
) -> None:
    rule = Scripted()
    limits = state(rule)
    rule.current_limit = level
    assert ended(limits) == ()
    assert ended(limits) == ()
    assert (limits.learned, limits.current_limit) == (4, 4)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"The limit rule Scripted of {CHAT} cannot be used as it is: current_limit was {level!r}. "
        "The limit of 4 stays in force."
    )
    rule.current_limit = 5
    assert ended(limits) == [LimitTransition("increased", 4, 5)]


@pytest.mark.parametrize("until", [math.nan, math.inf, "soon", True])
def test_a_stop_that_is_no_time_stops_nobody(until: object, caplog: pytest.LogCaptureFixture) -> None:
    rule = Scripted()
    limits = state(rule)
    rule.blocked_until = until
    ended(limits)
    assert limits.blocked_until is None
    assert len(caplog.records) == 1


def test_a_stop_in_the_past_stops_nobody() -> None:
    rule = Scripted()
    limits = state(rule)
    rule.blocked_until = 1.0
    ended(limits, now=1.0)
    assert limits.blocked_until is None


def test_what_a_grant_changes_is_seen_at_once_where_it_is_a_trials_stop_and_else_when_a_call_ends() -> None:
    rule = Scripted()
    limits = state(rule)
    rule.blocked_until, rule.current_limit = 5.0, 3
    limits.granted(1.0, 1)
    assert (limits.blocked_until, limits.learned) == (None, 4)
    ended(limits)
    assert (limits.blocked_until, limits.learned) == (5.0, 3)
    rule = Scripted()
    limits = state(rule)
    rule.blocked_until, rule.grant = 5.0, Grant(0, 1, 4, trial=True)
    limits.granted(1.0, 1)
    assert limits.blocked_until == 5.0


def test_a_stop_ends_at_its_time_whatever_the_rule_says_then() -> None:
    rule = Scripted()
    limits = state(rule)
    rule.blocked_until = 5.0
    ended(limits)
    assert limits.blocked_until == 5.0
    # The rule names no deadline of its own, and goes on saying that it is stopped.
    assert limits.deadline == 5.0
    limits.advance(5.0)
    assert repr((limits.blocked_until, limits.deadline)) == "(None, None)"


def test_a_stop_ends_at_its_time_although_the_rule_only_raises() -> None:
    class Mute(Scripted):
        def next_deadline(self) -> object:
            self.fail()
            return None

    rule = Mute()
    limits = state(rule)
    rule.blocked_until = 5.0
    ended(limits)
    rule.error = RuntimeError("broken")
    assert limits.deadline == 5.0
    limits.advance(5.0)
    assert repr((limits.blocked_until, limits.deadline)) == "(None, None)"


def test_a_ceiling_that_raises_is_none() -> None:
    class Boastful(Scripted):
        @property
        def ceiling(self) -> int:
            raise RuntimeError("no ceiling")

    assert state(Boastful()).ceiling is None


@pytest.mark.parametrize(
    "wrong", [("sideways", 4, 3), ("increased", 4, 0), ("increased", "4", 5), ("increased", 4, 5, 0)]
)
def test_a_transition_checks_itself(wrong: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidValueError, match=r"^LimitTransition\.(kind|previous|current|ceiling) must be "):
        LimitTransition(*wrong)


def test_a_deadline_that_stays_in_the_past_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    rule = Scripted()
    limits = state(rule)
    rule.deadline = 3.0
    ended(limits)
    assert limits.deadline == 3.0
    limits.advance(3.0)
    assert (limits.deadline or 0.0) == 0.0
    assert "next_deadline was 3.0" in caplog.text


@pytest.mark.parametrize("error", [ValueError("boom"), ZeroDivisionError()])
def test_an_exception_is_contained(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    rule = Scripted()
    limits = state(rule)
    rule.error = error
    assert limits.granted(1.0, 3) == Grant(0, 3, 4)
    assert ended(limits) == ()
    assert list(limits.advance(2.0)) == []
    assert [record.exc_info is not None and record.exc_info[1] is error for record in caplog.records] == [True] * 3


@pytest.mark.parametrize("grant", [None, (0, 1, 4), "granted"])
def test_what_is_no_grant_is_replaced(grant: object, caplog: pytest.LogCaptureFixture) -> None:
    rule = Scripted()
    rule.grant = grant
    assert state(rule).granted(1.0, 2) == Grant(0, 2, 4)
    assert "granted was" in caplog.text


def test_transitions_that_are_none_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    rule = Scripted()
    limits = state(rule)
    mine = LimitTransition("decreased", 4, 3, 4)
    rule.transitions, rule.current_limit = [mine, "down"], 3
    assert ended(limits) == [mine]
    assert "transitions was 'down'" in caplog.text


def test_a_cap_below_the_limit_of_a_rule_that_does_not_follow_cuts_it_off() -> None:
    rule = Scripted()
    limits = state(rule)
    assert limits.set_effective_max(3, 0.0) == [LimitTransition("decreased", 4, 3)]
    limits.put_in_force()
    assert limits.current_limit == 3
    ended(limits)
    assert limits.learned == 3


class Broken:
    """Has nothing of a rule."""


def broken(effective_max: int, now: float) -> RequestLimit:
    return cast("RequestLimit", Broken())


def nothing(effective_max: int, now: float) -> RequestLimit:
    return cast("RequestLimit", None)


def four(effective_max: int, now: float) -> RequestLimit:
    return cast("RequestLimit", 4)


def takes_nothing() -> RequestLimit:
    return FixedLimit(3)


def raises(effective_max: int, now: float) -> RequestLimit:
    raise RuntimeError("no rule today")


def too_high(effective_max: int, now: float) -> RequestLimit:
    return FixedLimit(effective_max + 1)


@pytest.mark.parametrize(
    ("factory", "error", "message"),
    [
        (
            broken,
            InvalidTypeError,
            r"the limit of x must be a RequestLimit, which also has ",
        ),
        (nothing, InvalidTypeError, r"the limit of x must be a RequestLimit.*got None$"),
        (raises, InvalidValueError, r"the limit of x must be .*not one that raises RuntimeError\('no rule today'\)"),
        (takes_nothing, InvalidValueError, r"the limit of x must be .*not one that raises TypeError"),
        (too_high, InvalidValueError, r"the limit of x must be an int from 1 to 8 at first, got 9$"),
    ],
)
def test_a_factory_that_makes_no_rule_is_refused(
    factory: Callable[[int, float], RequestLimit], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{message}"):
        made_by(factory, "x", 8, 0.0)


# In a controller


def register(controller: AdaptiveRequestAdmissionController, limit: object = None, cap: int = 8) -> None:
    controller.register(
        provider_name="openai", model_id="gpt", alias="a", max_parallel_requests=cap, limit=cast("None", limit)
    )


def lease_of(controller: AdaptiveRequestAdmissionController) -> RequestAdmissionLease:
    decision = controller.try_acquire(item())
    assert isinstance(decision, RequestAdmissionLease), decision
    return decision


def snapshot_of(controller: AdaptiveRequestAdmissionController) -> RequestPressureSnapshot:
    snapshot = controller.pressure.snapshot(CHAT)
    assert snapshot is not None
    return snapshot


@pytest.mark.parametrize(
    ("limit", "error", "message"),
    [
        ("vegas", InvalidValueError, r"limit of openai/gpt must be one of 'evidence', 'aimd', 'fixed', or .*'vegas'$"),
        (7, InvalidTypeError, r"limit of openai/gpt must be one of 'evidence', .* got 7$"),
        (raises, InvalidValueError, r"the limit of openai/gpt must be .*no rule today"),
        (four, InvalidTypeError, r"the limit of openai/gpt must be a RequestLimit.*got 4$"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_at_registration_and_leaves_no_trace(
    limit: object, error: type[Exception], message: str
) -> None:
    controller = AdaptiveRequestAdmissionController()
    with pytest.raises(error, match=message):
        register(controller, limit)
    assert controller.pressure.global_snapshots() == {}
    register(controller, "fixed")
    assert lease_of(controller).current_adaptive_limit == 8


def test_a_factory_is_called_once_for_the_first_resource() -> None:
    calls: list[tuple[int, float]] = []

    def factory(effective_max: int, now: float) -> RequestLimit:
        calls.append((effective_max, now))
        return FixedLimit(effective_max, level=2)

    controller = AdaptiveRequestAdmissionController()
    register(controller, factory)
    assert len(calls) == 1
    assert calls[0][0] == 8
    assert lease_of(controller).current_adaptive_limit == 2
    assert len(calls) == 1


def test_the_ledger_stays_exact_under_a_rule_that_breaks(caplog: pytest.LogCaptureFixture) -> None:
    rule = Scripted()

    def factory(effective_max: int, now: float) -> RequestLimit:
        return cast("RequestLimit", rule)

    controller = AdaptiveRequestAdmissionController()
    register(controller, factory)
    leases = [lease_of(controller) for _ in range(4)]
    rule.error, rule.current_limit = RuntimeError("broken"), -1
    for lease, outcome in zip(leases, (SUCCESS, RATE_LIMITED, FAILED, rate_limited(9.0)), strict=True):
        assert controller.release(lease, outcome).released
    assert controller.leak_report() == ()
    assert [sample.in_flight for sample in rule.samples] == [3, 2, 1, 0]
    assert [sample.refused for sample in rule.samples] == [False, True, False, True]
    assert rule.samples[3].hint == 9.0
    again = [lease_of(controller) for _ in range(4)]
    denied = controller.try_acquire(item())
    assert isinstance(denied, RequestAdmissionDenied)
    assert denied.reason == "no_capacity"
    assert snapshot_of(controller).current_limit == 4
    assert len(caplog.records) == 3
    assert all(str(CHAT) in record.getMessage() for record in caplog.records)
    for lease in again:
        controller.release(lease, SUCCESS)

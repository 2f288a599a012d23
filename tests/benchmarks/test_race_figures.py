"""What the provider of the race counts, on times that the test passes in."""

from __future__ import annotations

import math

import pytest

from benchmarks.race.counting import Counter, share_below
from benchmarks.race.provider import finished_row, reply_to
from benchmarks.race.script import Phase, Script
from benchmarks.race.usage import Usage, usage

SWING = Script(0.3, 1.0, (Phase(10.0, 24), Phase(10.0, 8), Phase(0.0, 24)))
STEADY = Script(1.0, 2.5, (Phase(0.0, 4),))


@pytest.mark.parametrize(("seconds", "allowed"), [(0.0, 24), (9.99, 24), (10.0, 8), (19.99, 8), (20.0, 24), (1e6, 24)])
def test_what_is_allowed_follows_the_phases(seconds: float, allowed: int) -> None:
    assert SWING.allowed_after(seconds) == allowed


def test_a_span_is_cut_where_what_is_allowed_changes() -> None:
    assert SWING.steps_between(3.0, 25.0) == [(3.0, 10.0, 24), (10.0, 20.0, 8), (20.0, 25.0, 24)]
    assert SWING.steps_between(11.0, 12.0) == [(11.0, 12.0, 8)]
    assert SWING.steps_between(5.0, 5.0) == []


def test_a_script_survives_json() -> None:
    assert Script.from_json(SWING.to_json()) == SWING


def test_all_that_is_allowed_is_used() -> None:
    found = usage(STEADY, [(0.0, 4)], last_answer=31.0)
    assert found == Usage(20.0, 80.0, 80.0)  # from the tenth second to the one before the last
    assert found.utilisation == 1.0


def test_what_is_in_flight_above_the_limit_counts_no_more_than_the_limit() -> None:
    found = usage(SWING, [(0.0, 24), (12.0, 4)], last_answer=20.3)
    assert math.isclose(found.allowed_call_seconds, 24 * 7 + 8 * 10)
    assert math.isclose(found.used_call_seconds, 24 * 7 + 8 * 2 + 4 * 8)


def test_what_happens_while_a_client_settles_and_in_the_last_round_trip_does_not_count() -> None:
    settled = [(0.0, 1), (10.0, 4), (30.0, 1)]
    assert usage(STEADY, settled, last_answer=31.0).utilisation == 1.0
    assert usage(STEADY, [(0.0, 4), (10.0, 1)], last_answer=31.0).utilisation == 0.25


def test_a_race_too_short_to_be_measured_has_used_nothing() -> None:
    assert usage(STEADY, [(0.0, 4)], last_answer=5.0) == Usage(0.0, 0.0, 0.0)
    assert usage(STEADY, [(0.0, 4)], last_answer=5.0).utilisation == 0.0


def test_the_counter_refuses_above_the_limit_and_counts_every_end() -> None:
    counter = Counter(STEADY)
    assert [counter.admits(100.0) for _ in range(6)] == [True] * 4 + [False] * 2
    counter.answers(101.0, 101.0, None)
    counter.answers(101.25, 101.0, 7)
    counter.abandons(101.5)
    assert counter.in_flight == 1
    assert counter.admits(101.5)
    counter.answers(102.5, 102.5, 7)
    found = counter.figures(0.5)
    assert (found.attempts, found.refused, found.answered, found.abandoned, found.rows_finished) == (7, 2, 3, 1, 1)
    assert (found.busy_seconds, found.processor_share, found.late_seconds) == (2.5, 0.2, 0.25)


def test_the_clock_begins_with_the_first_call() -> None:
    counter = Counter(SWING)
    assert all(counter.admits(1_000.0) for _ in range(24))
    assert not counter.admits(1_009.9)
    for _ in range(17):
        counter.answers(1_009.9, 1_009.9, None)
    assert counter.admits(1_010.0)
    assert not counter.admits(1_010.0)


def test_utilisation_of_a_counted_race() -> None:
    counter = Counter(STEADY)
    for second in range(40):
        for _ in range(4):
            assert counter.admits(float(second))
        for _ in range(4):
            counter.answers(second + 0.75, second + 0.75, None)
    found = counter.figures(0.0)
    # From 10 to 38.75 s: 28 whole seconds of which three quarters are used, and three quarters that are used wholly.
    assert math.isclose(found.utilisation, 0.75 * 29 / 28.75)


def test_a_client_that_was_ended_is_measured_until_then() -> None:
    counter = Counter(STEADY)
    for _ in range(4):
        assert counter.admits(50.0)
    for _ in range(4):
        counter.answers(71.0, 71.0, None)
    assert counter.figures(0.0).utilisation == 1.0
    ended = counter.figures(0.0, until=91.0)
    assert (ended.busy_seconds, ended.utilisation) == (41.0, 11 / 30)


def test_nothing_asked_is_nothing_counted() -> None:
    found = Counter(STEADY).figures(1.0)
    assert (found.attempts, found.utilisation, found.busy_seconds, found.processor_share) == (0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("values", "expected"), [([], 0.0), ([3.0], 3.0), ([float(each) for each in range(100, 0, -1)], 99.0)]
)
def test_the_share_below(values: list[float], expected: float) -> None:
    assert share_below(values, 0.99) == expected


@pytest.mark.parametrize(
    ("body", "reply", "finished"),
    [
        (b'{"messages": [{"role": "user", "content": "row 12"}]}', "row 12 drafted", None),
        (b'{"messages": [{"role": "user", "content": "Finish: row 12 drafted"}]}', "row 12 finished", 12),
        (b'{"messages": [{"content": "row 3"}, {"content": "row 3 drafted"}]}', "row 3 finished", 3),
        (b'{"messages": [{"content": "Hello"}]}', "no row", None),
    ],
)
def test_the_second_call_of_a_row_is_known_by_the_answer_that_it_quotes(
    body: bytes, reply: str, finished: int | None
) -> None:
    assert (reply_to(body), finished_row(body)) == (reply, finished)

"""Limits that move: where they are is a function of time and key, within their bounds."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sched import InvalidValueError
from trio_sched._rehearsal.script import Drift, Neighbour, Phase, heads

KEY = "0:steady:drift"


def test_coins_fall_the_same_way_however_many_are_tossed() -> None:
    assert heads("a", 0) == 0
    counts = [heads("a", tosses) for tosses in range(2000)]
    assert {after - before for before, after in pairwise(counts)} == {0, 1}
    assert 900 < counts[-1] < 1100
    assert counts != [heads("b", tosses) for tosses in range(2000)]


def test_a_linear_drift_goes_to_the_other_bound_and_back() -> None:
    drift = Drift(to=6, step=2, seconds=0.5)
    assert [drift.level(2, half / 2, KEY) for half in range(9)] == [2, 4, 6, 4, 2, 4, 6, 4, 2]
    assert drift.level(2, 0.49, KEY) == 2


def test_a_drift_may_begin_at_its_upper_bound() -> None:
    assert [Drift(to=6).level(8, second, KEY) for second in range(6)] == [8, 7, 6, 7, 8, 7]


def test_a_walk_takes_single_steps_and_comes_everywhere() -> None:
    drift = Drift(to=24, seconds=0.1, shape="walk")
    levels = [drift.level(16, tick / 10 + 0.05, KEY) for tick in range(4000)]
    assert levels[0] == 16
    assert {abs(after - before) for before, after in pairwise(levels)} == {1}
    assert set(levels) == set(range(16, 25))
    assert levels != [drift.level(16, tick / 10 + 0.05, "1:steady:drift") for tick in range(4000)]


@given(
    start=st.integers(1, 200),
    to=st.integers(1, 200),
    step=st.integers(1, 500),
    elapsed=st.floats(0, 1000),
    shape=st.sampled_from(["linear", "walk"]),
)
def test_a_drift_stays_within_its_bounds(start: int, to: int, step: int, elapsed: float, shape: str) -> None:
    if start != to:
        drift = Drift(to=to, step=step, shape="walk" if shape == "walk" else "linear")
        assert min(start, to) <= drift.level(start, elapsed, KEY) <= max(start, to)


def test_a_neighbour_is_there_for_whole_intervals_half_of_the_time() -> None:
    neighbour = Neighbour(share=0.25, stretch_seconds=4.0)
    there = [neighbour.is_there(quarter, KEY) for quarter in range(4000)]
    stretches = [there[start : start + 4] for start in range(0, 4000, 4)]
    assert all(len(set(stretch)) == 1 for stretch in stretches)
    assert 400 < sum(stretch[0] for stretch in stretches) < 600


def test_a_neighbour_uses_its_share_while_it_is_there() -> None:
    neighbour = Neighbour(share=0.25, stretch_seconds=4.0)
    used = [neighbour.used_seconds(half / 2, KEY) for half in range(400)]
    there = [neighbour.is_there(half / 2, KEY) for half in range(399)]
    assert used[0] == 0.0
    assert [after - before for before, after in pairwise(used)] == [0.125 if present else 0.0 for present in there]


def test_a_phase_has_the_limit_that_its_drift_and_its_neighbour_leave() -> None:
    phase = Phase(max_in_flight=9, drift=Drift(to=5), neighbour=Neighbour(share=0.5, stretch_seconds=20.0))
    alone = Phase(max_in_flight=9, drift=Drift(to=5))
    assert [alone.limit_at(second, 0) for second in range(6)] == [9, 8, 7, 6, 5, 6]
    seeds = {heads(f"{seed}:steady:neighbour", 1): seed for seed in range(20)}
    assert [phase.limit_at(second, seeds[0]) for second in range(6)] == [9, 8, 7, 6, 5, 6]
    assert [phase.limit_at(second, seeds[1]) for second in range(6)] == [5, 4, 4, 3, 3, 3]
    assert Phase().limit_at(3.0, 0) is None


def test_phases_of_other_names_and_scripts_of_other_seeds_walk_otherwise() -> None:
    def walk(name: str, seed: int) -> list[int | None]:
        phase = Phase(name=name, max_in_flight=8, drift=Drift(to=16, shape="walk"))
        return [phase.limit_at(second, seed) for second in range(60)]

    assert walk("one", 0) == walk("one", 0)
    assert walk("one", 0) != walk("two", 0)
    assert walk("one", 0) != walk("one", 1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Drift(to=0), "Drift.to must be a positive int, got 0"),
        (lambda: Drift(to=2, step=0), "Drift.step must be a positive int, got 0"),
        (lambda: Drift(to=2, seconds=0.0), "Drift.seconds must be a finite number of at least 0.01, got 0.0"),
        (lambda: Drift(to=2, shape="sine"), "Drift.shape must be 'linear' or 'walk', got 'sine'"),  # type: ignore[arg-type]
        (lambda: Neighbour(share=1.5), "Neighbour.share must be a number from 0 to 1, got 1.5"),
        (
            lambda: Neighbour(stretch_seconds=0.001),
            "Neighbour.stretch_seconds must be a finite number of at least 0.01, got 0.001",
        ),
    ],
)
def test_a_bad_value_is_refused_with_field_and_value(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidValueError, match=f"^{re.escape(message)}$"):
        build()

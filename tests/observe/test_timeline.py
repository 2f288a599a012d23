"""Sums over time in a bounded number of bins: nothing is lost when a run outgrows them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sched._observe.layers import TimeBins

SECOND = 1_000_000_000
times = st.integers(0, 50_000 * SECOND)


def length_of(bins: TimeBins) -> list[float]:
    return [(later - earlier) / SECOND for earlier, later in pairwise(bins.edges())]


@given(st.lists(times, min_size=2, max_size=40).filter(lambda found: max(found) > min(found)))
def test_what_happened_is_counted_once_however_long_it_took(found: list[int]) -> None:
    bins = TimeBins()
    for at in sorted(found):
        bins.add("x", at, 1)
    bins.close()
    counted = sum(rate * width for rate, width in zip(bins.per_second("x"), length_of(bins), strict=True))
    assert counted == pytest.approx(len(found))
    assert bins.total("x") == len(found)
    assert len(bins.times()) <= 160


@given(st.lists(st.tuples(times, st.integers(0, 100)), min_size=2, max_size=40))
def test_a_level_keeps_its_integral(changes: list[tuple[int, int]]) -> None:
    changes.sort(key=lambda change: change[0])
    bins = TimeBins()
    for at, value in changes:
        bins.set_level("x", at, value)
    bins.close()
    expected = sum((later[0] - earlier[0]) * earlier[1] for earlier, later in pairwise(changes))
    assert bins.total("x") == sum(bins.sums("x")) == expected
    found = sum(mean * width for mean, width in zip(bins.means("x"), length_of(bins), strict=True))
    assert found == pytest.approx(expected / SECOND)


def test_a_level_was_so_from_the_start() -> None:
    bins = TimeBins()
    bins.reach(0)
    bins.set_level("limit", 10 * SECOND, 8)
    bins.reach(20 * SECOND)
    bins.close()
    assert set(bins.means("limit")) == {8.0}


def test_a_level_may_have_been_another_before() -> None:
    bins = TimeBins()
    bins.reach(0)
    bins.set_level("cooling", 10 * SECOND, 1, before=0)
    bins.set_level("cooling", 15 * SECOND, 0)
    bins.reach(20 * SECOND)
    bins.close()
    assert sum(bins.sums("cooling")) == 5 * SECOND


def test_without_time_there_are_no_bins() -> None:
    bins = TimeBins()
    assert bins.times() == []
    bins.add("x", 3, 1)
    bins.close()
    assert bins.times() == []
    assert list(bins.per_second("x")) == []

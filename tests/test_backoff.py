from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trio_sched._backoff import doubled

SECONDS = st.floats(1e-3, 1e6)


def test_it_doubles_from_the_first_time_on() -> None:
    assert [doubled(0.5, 3.0, failures=failures) for failures in (1, 2, 3, 4, 5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


@given(first=SECONDS, most=SECONDS, failures=st.integers(1, 10**9))
def test_it_never_shrinks_and_never_exceeds_the_maximum(first: float, most: float, failures: int) -> None:
    now, after = doubled(first, most, failures=failures), doubled(first, most, failures=failures + 1)
    assert now <= after <= most
    assert doubled(first, most, failures=10**9) == most

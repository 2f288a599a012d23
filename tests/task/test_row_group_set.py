"""The set of row groups, against Python's own."""

from __future__ import annotations

import random
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from trio_sched._task.completion import RowGroupSet


@given(added=st.lists(st.integers(0, 60)))
def test_it_is_a_set_whatever_the_order(added: list[int]) -> None:
    made = RowGroupSet()
    members: set[int] = set()
    for index in added:
        made.add(index)
        members.add(index)
        assert len(made) == len(members)
    for index in range(65):
        run = next(n for n in range(70) if index + n not in members)
        assert made.run_from(index) == run
        assert (index in made) == (index in members)


def test_members_cost_nothing_wherever_they_begin() -> None:
    made = RowGroupSet()
    order = list(range(1_000, 101_000))
    for start in range(0, len(order), 8):
        window = order[start : start + 8]
        random.Random(start).shuffle(window)
        order[start : start + 8] = window
    tracemalloc.start()
    try:
        for index in order:
            made.add(index)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(made) == 100_000
    assert held < 4_000

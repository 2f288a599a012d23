"""The set of durable row groups, against Python's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sched._pipeline.row_group_set import RowGroupSet


@given(members=st.sets(st.integers(0, 60)))
def test_it_is_a_set(members: set[int]) -> None:
    made = RowGroupSet()
    for index in sorted(members):
        made.add(index)
    assert len(made) == len(members)
    for index in range(65):
        run = next(n for n in range(70) if index + n not in members)
        assert made.run_from(index) == run
        assert (index in made) == (index in members)


@pytest.mark.parametrize("index", [0, 4])
def test_members_come_in_ascending_order(index: int) -> None:
    made = RowGroupSet()
    made.add(4)
    with pytest.raises(ValueError, match=f"row group {index} is added after row group 4"):
        made.add(index)

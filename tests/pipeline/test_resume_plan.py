"""Planning what is still to do: lazily, whatever the number of row groups."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from trio_sched._pipeline.errors import InputChangedError
from trio_sched._pipeline.resume import DurableParts, ResumePlan
from trio_sched._pipeline.sources import open_rows
from trio_sched._task.completion import RowGroupSet
from trio_sched.lowlevel import FixedRowGroupPlan, RowGroup, inline


def durable(indices: Iterator[int] | range, buffer_size: int) -> DurableParts:
    row_groups = RowGroupSet()
    last = None
    for last in indices:
        row_groups.add(last)
    return DurableParts(buffer_size, row_groups, last, buffer_size)


class CountingPlan(FixedRowGroupPlan):
    """Counts what it is asked to do."""

    calls = 0

    async def next_row_group(self) -> RowGroup | None:
        self.calls += 1
        return await super().next_row_group()

    async def skip(self, row_groups: int) -> int:
        self.calls += 1
        return await super().skip(row_groups)


async def test_a_million_row_groups_are_planned_without_counting_them() -> None:
    done = durable(iter([*range(400_000), *range(400_001, 999_998)]), 10)
    plan = CountingPlan(10_000_000, 10)
    tracemalloc.start()
    resumed = ResumePlan(plan, done, "the number of records")
    left: list[RowGroup] = []
    while (row_group := await resumed.next_row_group()) is not None:
        left.append(row_group)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert left == [RowGroup(index, index * 10, 10) for index in (400_000, 999_998, 999_999)]
    assert plan.calls == 6
    assert peak < 1_000_000


async def test_a_set_full_of_gaps_stays_small() -> None:
    tracemalloc.start()
    done = durable(range(0, 1_000_000, 2), 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(done.row_groups) == 500_000
    assert peak < 20_000_000


async def test_start_offsets_and_the_short_last_row_group_stay() -> None:
    done = DurableParts(10, durable(range(2), 10).row_groups, 1, 10)
    resumed = ResumePlan(FixedRowGroupPlan(25, 10, start_offset=7), done, "")
    assert await resumed.next_row_group() == RowGroup(2, 27, 5)
    assert await resumed.next_row_group() is None
    assert await resumed.next_row_group() is None


async def test_a_plan_that_ends_before_what_is_durable_is_refused() -> None:
    resumed = ResumePlan(FixedRowGroupPlan(25, 10), durable(range(3), 10), "the input")
    with pytest.raises(InputChangedError, match="row groups 0 to 2 hold 30 rows, and it has 25 for them"):
        await resumed.next_row_group()


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
async def test_rows_of_a_file_that_are_done_are_not_parsed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    header = "a\n" if suffix == ".csv" else ""
    lines = [f'{{"a": "{n}"}}' if suffix == ".jsonl" else f"{n}" for n in range(10)]
    lines[3] = "x,y,not a row"
    path.write_text(header + "\n".join(lines), encoding="utf-8")
    reader = open_rows(path, buffer_size=2, blocking=inline)
    assert await reader.skip(2) == 4
    assert await reader.next_row_group() == RowGroup(2, 4, 2)
    assert reader.take(2) == [{"a": "4"}, {"a": "5"}]
    assert await reader.skip(5) == 4


async def test_a_root_task_may_run_again_until_its_row_group_is_durable() -> None:
    reader = open_rows([{"a": n} for n in range(4)], buffer_size=2, blocking=inline)
    assert await reader.next_row_group() == RowGroup(0, 0, 2)
    assert await reader.next_row_group() == RowGroup(1, 2, 2)
    assert reader.take(0) == reader.take(0) == [{"a": 0}, {"a": 1}]
    reader.forget(0)
    assert reader.take(1) == [{"a": 2}, {"a": 3}]
    with pytest.raises(KeyError):
        reader.take(0)

"""Roots are the nodes that wait for nothing. One task makes a root for a row group, and goes the way of every task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pytest
import trio
from scheduler_samples import CHAIN, Setup, nothing, simulate, two_row_groups

from trio_sched import PipelineError
from trio_sched.lowlevel import (
    ExecutionGraph,
    Failure,
    GraphNode,
    RowDrop,
    RowFailure,
    Task,
    TaskAdmissionConfig,
)

TWO_ROOTS = (GraphNode("a", "from_scratch"), GraphNode("b", "from_scratch"), GraphNode("c", "cell", ("a", "b")))
THE_WAY = (
    "dependency_ready",
    "ready_enqueued",
    "selected",
    "task_lease_acquired",
    "worker_spawned",
    "task_completed",
    "task_lease_released",
)


def root(row_group: int = 0, column: str = "a") -> Task:
    return Task(column, row_group, None, "from_scratch")


@pytest.mark.parametrize("task_type", ["cell", "batch"])
def test_a_root_is_made_from_scratch_and_in_no_other_way(task_type: Literal["cell", "batch"]) -> None:
    with pytest.raises(PipelineError, match=r"^column 'a' needs no other column; say what it needs, or"):
        GraphNode("a", task_type)
    assert [node.column for node in ExecutionGraph(TWO_ROOTS).roots] == ["a", "b"]
    assert all(node.task_type == "from_scratch" for node in ExecutionGraph(TWO_ROOTS).roots)


@pytest.mark.parametrize("buffer_size", [1, 5])
def test_one_task_makes_a_root_for_a_whole_row_group_however_small(buffer_size: int) -> None:
    made: list[Task] = []

    async def work(task: Task) -> Sequence[RowDrop]:
        made.append(task)
        return ()

    async def main() -> None:
        setup = Setup(work, records=10, buffer_size=buffer_size)
        await setup.scheduler.run()
        roots = [task for task in made if task.column == "a"]
        assert sorted(task.row_group for task in roots) == list(range(10 // buffer_size))
        assert all(task == root(task.row_group) for task in roots)
        assert len([task for task in made if task.column == "b"]) == 10

    simulate(main)


def test_roots_go_the_way_of_every_task() -> None:
    async def main() -> None:
        setup = Setup(nothing, TWO_ROOTS, records=2, buffer_size=2)
        await setup.scheduler.run()
        for task_id in ("0:*:from_scratch:a", "0:*:from_scratch:b", "0:0:cell:c", "0:1:cell:c"):
            way = [event.event_kind for event in setup.sink.scheduler_events if event.task_id == task_id]
            assert tuple(way) == THE_WAY
        setup.assert_nothing_held()

    simulate(main)


def test_roots_take_units_of_the_same_limit_and_take_turns_with_cells() -> None:
    """With one unit, no root of a later row group goes before all cells of an earlier one, nor the other way round."""
    began: list[str] = []

    async def work(task: Task) -> Sequence[RowDrop]:
        began.append(task.column)
        await trio.sleep(1)
        return ()

    async def main() -> None:
        setup = Setup(
            work, CHAIN[:2], records=12, buffer_size=2, admission=TaskAdmissionConfig(1), config=two_row_groups(6)
        )
        await setup.scheduler.run()
        assert setup.scheduler.observed_maxima().task_leases_by_resource == {"submission": 1}
        assert "".join(began).startswith("aabababab")

    simulate(main)


def test_a_root_that_fails_for_a_while_is_deferred_and_comes_back_through_the_tracker() -> None:
    attempts = 0

    async def work(task: Task) -> Sequence[RowDrop]:
        nonlocal attempts
        if task == root():
            attempts += 1
            if attempts < 3:
                raise TimeoutError
        return ()

    async def main() -> None:
        setup = Setup(work, records=5, classify=lambda _: Failure("retryable", "provider_failure"))
        result = await setup.scheduler.run()
        assert (result.rows, result.dropped_rows, attempts) == (5, 0, 3)
        kinds = [event.event_kind for event in setup.sink.scheduler_events if event.task_id == "0:*:from_scratch:a"]
        again = ("task_completed", "task_lease_released", "retry_deferred", "salvage_redispatched", *THE_WAY[:5])
        assert tuple(kinds) == (*THE_WAY[:5], *again, *again, *THE_WAY[5:])

    simulate(main)


def test_a_root_that_fails_rejects_its_row_group_and_nothing_else() -> None:
    async def work(task: Task) -> Sequence[RowDrop]:
        if task == root(1):
            raise ValueError("no rows today")
        return ()

    async def main() -> None:
        setup = Setup(work, TWO_ROOTS, records=15)
        result = await setup.scheduler.run()
        assert (result.row_groups, result.rows, result.dropped_rows) == (3, 10, 5)
        assert sorted(setup.store.written) == [(0, (0, 1, 2, 3, 4)), (1, ()), (2, (0, 1, 2, 3, 4))]
        assert [(cause.column, cause.error_type, cause.rows) for cause in result.drop_causes] == [
            ("a", "ValueError", 5)
        ]

    simulate(main)


def test_a_root_that_fails_one_row_rejects_that_row() -> None:
    async def work(task: Task) -> Sequence[RowDrop]:
        return [RowFailure(2, ValueError("not this one"))] if task == root(column="b") else ()

    async def main() -> None:
        setup = Setup(work, TWO_ROOTS, records=5)
        result = await setup.scheduler.run()
        assert setup.store.written == [(0, (0, 1, 3, 4))]
        assert (result.rows, result.dropped_rows) == (4, 1)

    simulate(main)


def test_roots_run_side_by_side_and_what_needs_both_waits_for_the_later() -> None:
    began: dict[str, float] = {}

    async def work(task: Task) -> Sequence[RowDrop]:
        began.setdefault(task.column, trio.current_time())
        await trio.sleep(5 if task.column == "b" else 1)
        return ()

    async def main() -> None:
        start = trio.current_time()
        await Setup(work, TWO_ROOTS, records=5).scheduler.run()
        assert [began[column] - start for column in "abc"] == [0.0, 0.0, 5.0]

    simulate(main)


def test_the_work_of_a_root_whose_last_row_is_rejected_is_stopped() -> None:
    async def work(task: Task) -> Sequence[RowDrop]:
        if task == root(column="b"):
            raise ValueError
        await trio.sleep(60)
        return ()

    async def main() -> None:
        start = trio.current_time()
        setup = Setup(work, TWO_ROOTS, records=5)
        result = await setup.scheduler.run()
        assert (result.rows, result.dropped_rows) == (0, 5)
        assert trio.current_time() - start < 1
        setup.assert_nothing_held()

    simulate(main)

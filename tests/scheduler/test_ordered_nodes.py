"""Nodes that are ordered run one task at a time, in order; nothing waits for its turn while it runs."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest
import trio
from scheduler_samples import Setup, simulate

from trio_sched.lowlevel import Failure, GraphNode, RowDrop, RowFailure, RowFiltered, Task, TaskAdmissionConfig

NODES = (
    GraphNode("a", "from_scratch"),
    GraphNode("slow", "cell", ("a",)),
    GraphNode("story", "cell", ("slow",), ordered=True),
)


class Busy(Exception):
    pass


def preserved(error: Exception) -> Failure:
    return Failure("preserved" if isinstance(error, Busy) else "non_retryable", "rate_limited")


def test_cells_run_one_at_a_time_in_row_group_and_row_order() -> None:
    rng = random.Random(5)
    told: list[tuple[int, int | None]] = []
    running = 0

    async def work(task: Task) -> Sequence[RowDrop]:
        nonlocal running
        if task.column != "story":
            await trio.sleep(rng.uniform(0, 50))
            return ()
        running += 1
        assert running == 1
        await trio.sleep(rng.uniform(0, 3))
        told.append((task.row_group, task.row_index))
        running -= 1
        return ()

    async def main() -> None:
        setup = Setup(work, NODES)
        await setup.scheduler.run()
        assert told == [(group, row) for group in range(4) for row in range(5)]
        setup.assert_nothing_held()

    simulate(main)


def test_whole_row_groups_run_in_the_order_of_the_plan() -> None:
    told: list[int] = []

    async def work(task: Task) -> Sequence[RowDrop]:
        await trio.sleep(10 - task.row_group)
        if task.column == "chapter":
            told.append(task.row_group)
        return ()

    async def main() -> None:
        nodes = (GraphNode("a", "from_scratch"), GraphNode("chapter", "batch", ("a",), ordered=True))
        await Setup(work, nodes).scheduler.run()
        assert told == [0, 1, 2, 3]

    simulate(main)


def test_no_worker_waits_for_its_turn() -> None:
    async def work(task: Task) -> Sequence[RowDrop]:
        await trio.sleep(1)
        return ()

    async def main() -> None:
        setup = Setup(work, NODES, records=5, admission=TaskAdmissionConfig(2))
        await setup.scheduler.run()
        spawned = [event for event in setup.events("worker_spawned") if "story" in (event.task_id or "")]
        assert [event.task_id for event in spawned] == [f"0:{row}:cell:story" for row in range(5)]
        starts = [event.captured_at_monotonic for event in spawned]
        assert all(later - earlier >= 1 for earlier, later in itertools.pairwise(starts))

    simulate(main)


def test_a_deferred_predecessor_blocks_and_a_dropped_one_does_not() -> None:
    tries = 0
    told: list[tuple[int, int | None]] = []

    async def work(task: Task) -> Sequence[RowDrop]:
        nonlocal tries
        if task.column == "story":
            if (task.row_group, task.row_index) == (0, 1) and (tries := tries + 1) < 4:
                raise Busy
            if (task.row_group, task.row_index) == (0, 3):
                raise LookupError
            told.append((task.row_group, task.row_index))
        if task.column == "slow" and (task.row_group, task.row_index) == (1, 0):
            raise LookupError
        return ()

    async def main() -> None:
        setup = Setup(work, NODES, records=10, classify=preserved)
        result = await setup.scheduler.run()
        assert told == [(0, 0), (0, 1), (0, 2), (0, 4), (1, 1), (1, 2), (1, 3), (1, 4)]
        assert (result.rows, result.dropped_rows) == (8, 2)
        setup.assert_nothing_held()

    simulate(main)


def test_the_turn_is_not_passed_on_while_a_task_of_a_dropped_row_still_runs() -> None:
    events: list[str] = []

    async def work(task: Task) -> Sequence[RowDrop]:
        if task.column == "beside" and task.row_index == 0:
            await trio.sleep(1)
            raise LookupError
        if task.column == "story":
            events.append(f"begin {task.row_index}")
            if task.row_index == 0:
                try:
                    await trio.sleep_forever()
                finally:
                    with trio.CancelScope(shield=True):
                        await trio.sleep(5)
                    events.append("end 0")
        return ()

    async def main() -> None:
        nodes = (*NODES[:1], GraphNode("story", "cell", ("a",), ordered=True), GraphNode("beside", "cell", ("a",)))
        setup = Setup(work, nodes, records=2)
        result = await setup.scheduler.run()
        assert events == ["begin 0", "end 0", "begin 1"]
        assert (result.rows, result.dropped_rows) == (1, 1)
        setup.assert_nothing_held()

    simulate(main)


def test_a_processor_before_all_others_removes_rows_and_their_ready_work() -> None:
    seen: set[tuple[str, int | None]] = set()

    async def work(task: Task) -> Sequence[RowDrop]:
        seen.add((task.column, task.row_index))
        return [RowFiltered(1), RowFiltered(1), RowFailure(2, ValueError("bad"))] if task.column == "check" else ()

    async def main() -> None:
        nodes = (
            GraphNode("a", "from_scratch"),
            GraphNode("check", "batch", ("a",), outputs=()),
            GraphNode("b", "cell", ("a",), after=("check",)),
            GraphNode("last", "batch", after=("b",), outputs=()),
        )
        setup = Setup(work, nodes, records=5)
        result = await setup.scheduler.run()
        assert seen == {("a", None), ("check", None), ("b", 0), ("b", 3), ("b", 4), ("last", None)}
        assert (result.rows, result.dropped_rows, result.filtered_rows) == (3, 1, 1)
        assert [(cause.column, cause.rows) for cause in result.drop_causes] == [("check", 1)]
        assert setup.store.written == [(0, (0, 3, 4))]

    simulate(main)


def test_a_processor_that_fails_fatally_ends_the_run_with_its_cause() -> None:
    cause = ValueError("the processor is broken")
    error = RuntimeError("processor 'check' failed")
    error.__cause__ = cause

    async def work(task: Task) -> Sequence[RowDrop]:
        if task.column == "check":
            raise error
        return ()

    async def main() -> None:
        nodes = (GraphNode("a", "from_scratch"), GraphNode("check", "batch", ("a",), outputs=()))
        setup = Setup(work, nodes, classify=lambda _: Failure("fatal", "processor_failed"))
        with pytest.raises(RuntimeError) as caught:
            await setup.scheduler.run()
        assert caught.value is error
        assert caught.value.__cause__ is cause
        assert setup.events("scheduler_job_completed")[0].reason_or_result == "failed"
        setup.assert_nothing_held()

    simulate(main)

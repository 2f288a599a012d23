"""Row groups that lost every row to failures: when they are written, and when they are left to another run."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import pytest
import trio
from scheduler_samples import Setup, simulate

from trio_sched.lowlevel import (
    GraphNode,
    HealthConfig,
    RowDrop,
    RowFailure,
    RowFiltered,
    RowGroupConfig,
    SchedulerConfig,
    Task,
)

CELLS = (GraphNode("a", "from_scratch"), GraphNode("b", "cell", ("a",)))
WINDOW = 20
CONFIG = SchedulerConfig(row_groups=RowGroupConfig(1), health=HealthConfig(window=WINDOW, stop_error_rate=0.5))


def is_lost(task: Task, *row_groups: int) -> bool:
    return task.column == "b" and task.row_group in row_groups


@pytest.mark.parametrize("max_concurrent", [1, 2, 30])
def test_a_run_that_only_fails_writes_nothing_and_gives_nothing_up(max_concurrent: int) -> None:
    """Row groups that are lost before the error rate is known wait for it, and hold up no other."""

    async def work(task: Task) -> Sequence[RowDrop]:
        if task.column == "b":
            raise LookupError
        return ()

    async def main() -> None:
        setup = Setup(work, CELLS, records=1000, config=attrs.evolve(CONFIG, row_groups=RowGroupConfig(max_concurrent)))
        result = await setup.scheduler.run()
        assert result.early_stop is not None
        assert setup.store.written == []
        assert (result.row_groups, result.dropped_rows, result.drop_causes) == (0, 0, ())
        assert result.abandoned_row_groups == setup.kinds()["row_group_admitted"]
        assert isinstance(result.first_non_retryable_error, LookupError)
        assert setup.scheduler.observed_maxima().row_groups_in_flight <= max_concurrent
        setup.assert_nothing_held()

    simulate(main)


def test_a_lost_row_group_of_a_run_that_goes_well_is_written_once_its_failures_are_out_of_the_window() -> None:
    async def work(task: Task) -> Sequence[RowDrop]:
        if is_lost(task, 1):
            raise LookupError
        return ()

    async def main() -> None:
        setup = Setup(work, CELLS, records=60, config=CONFIG)
        result = await setup.scheduler.run()
        written = [row_group for row_group, _ in setup.store.written]
        # Each row group of five rows is six attempts; the fourth after the lost one ends the window.
        assert written.index(1) in (4, 5)
        assert sorted(written) == list(range(12))
        assert dict(setup.store.written)[1] == ()
        assert (result.rows, result.dropped_rows, result.early_stop) == (55, 5, None)
        setup.assert_nothing_held()

    simulate(main)


@pytest.mark.parametrize("lost", [(3,), (2, 3), (0, 1, 2, 3)])
def test_row_groups_lost_shortly_before_the_end_are_written_at_the_end(lost: tuple[int, ...]) -> None:
    async def work(task: Task) -> Sequence[RowDrop]:
        if is_lost(task, *lost):
            raise LookupError
        return ()

    async def main() -> None:
        config = attrs.evolve(CONFIG, health=HealthConfig(window=100))
        setup = Setup(work, CELLS, records=20, config=config)
        result = await setup.scheduler.run()
        assert sorted(row_group for row_group, _ in setup.store.written) == [0, 1, 2, 3]
        assert (result.row_groups, result.dropped_rows, result.early_stop) == (4, 5 * len(lost), None)
        assert setup.kinds()["row_group_checkpointed"] == 4

    simulate(main)


def test_what_was_lost_long_before_a_stop_stays_settled() -> None:
    async def work(task: Task) -> Sequence[RowDrop]:
        if is_lost(task, 0) or task.row_group > 9:
            raise LookupError
        return ()

    async def main() -> None:
        setup = Setup(work, CELLS, records=1000, config=CONFIG)
        result = await setup.scheduler.run()
        assert result.early_stop is not None
        assert dict(setup.store.written)[0] == ()
        assert sorted(row_group for row_group, _ in setup.store.written) == list(range(10))
        assert (result.rows, result.dropped_rows) == (45, 5)
        assert [(cause.column, cause.rows) for cause in result.drop_causes] == [("b", 5)]

    simulate(main)


def test_where_no_error_rate_stops_a_run_a_lost_row_group_is_written_at_once() -> None:
    async def work(task: Task) -> Sequence[RowDrop]:
        if task.column == "b":
            raise LookupError
        return ()

    async def main() -> None:
        config = attrs.evolve(CONFIG, health=HealthConfig(window=WINDOW, stop_error_rate=None))
        setup = Setup(work, CELLS, records=100, config=config)
        result = await setup.scheduler.run()
        assert setup.store.written == [(row_group, ()) for row_group in range(20)]
        assert (result.row_groups, result.dropped_rows) == (20, 100)

    simulate(main)


def test_a_row_group_whose_rows_were_all_removed_on_purpose_is_no_lost_one() -> None:
    async def work(task: Task) -> Sequence[RowDrop]:
        if task.column == "b" and task.row_group == 0:
            return [RowFiltered(row) for row in range(5)]
        if task.column == "b":
            return [RowFailure(row, LookupError()) for row in range(5)]
        return ()

    async def main() -> None:
        nodes = (GraphNode("a", "from_scratch"), GraphNode("b", "batch", ("a",)))
        setup = Setup(work, nodes, records=500, config=CONFIG)
        result = await setup.scheduler.run()
        assert result.early_stop is not None
        assert setup.store.written == [(0, ())]
        assert (result.row_groups, result.filtered_rows, result.dropped_rows) == (1, 5, 0)

    simulate(main)


def test_a_row_group_that_loses_its_last_row_after_the_stop_is_left_unwritten_too() -> None:
    """Row group 0 has a finished row when the run stops, and its processor then fails them all."""

    async def work(task: Task) -> Sequence[RowDrop]:
        if task.row_group == 0 and task.column == "check":
            await trio.sleep(100)
            return [RowFailure(row, LookupError()) for row in range(5)]
        if is_lost(task, *range(1, 1000)):
            await trio.sleep(1)
            raise LookupError
        return ()

    async def main() -> None:
        nodes = (*CELLS, GraphNode("check", "batch", ("a",), outputs=()))
        setup = Setup(work, nodes, records=1000, config=attrs.evolve(CONFIG, row_groups=RowGroupConfig(2)))
        result = await setup.scheduler.run()
        assert result.early_stop is not None
        assert setup.store.written == []
        assert (result.row_groups, result.dropped_rows) == (0, 0)
        assert result.abandoned_row_groups == setup.kinds()["row_group_admitted"]
        setup.assert_nothing_held()

    simulate(main)


def test_a_run_that_is_cancelled_leaves_lost_row_groups_unwritten() -> None:
    async def work(task: Task) -> Sequence[RowDrop]:
        if is_lost(task, 0):
            raise LookupError
        await trio.sleep(task.row_group)
        return ()

    async def main() -> None:
        setup = Setup(work, CELLS, config=CONFIG)
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                await trio.sleep(2.5)
                setup.scheduler.request_cancel()

            nursery.start_soon(stop)
            result = await setup.scheduler.run()
        assert result.cancelled
        assert [row_group for row_group, _ in setup.store.written] == [1]
        assert (result.rows, result.dropped_rows) == (5, 0)
        setup.assert_nothing_held()

    simulate(main)

"""What is kept of failures, and what an early stop leaves to be tried: no more than was deferred before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import trio
from scheduler_samples import Setup, simulate

from trio_sched.lowlevel import (
    Failure,
    GraphNode,
    HealthConfig,
    RetryConfig,
    RowDrop,
    RowGroupConfig,
    SchedulerConfig,
    Task,
)

NODES = (GraphNode("a", "from_scratch"), GraphNode("b", "cell", ("a",)))


class Broken(Exception):
    pass


class Odd(Exception):
    pass


def retryable(_: Exception) -> Failure:
    return Failure("retryable", "provider_failure")


def test_after_an_early_stop_a_failure_is_not_salvaged() -> None:
    """Row 0 is finished, the fourth rejected row stops the run, and then row 5 fails: it is not settled."""
    attempts: Counter[int | None] = Counter()

    async def work(task: Task) -> Sequence[RowDrop]:
        row = task.row_index
        if task.column == "b":
            attempts[row] += 1
            if row:
                await trio.sleep(0.1 * row)
                raise Broken
        return ()

    async def main() -> None:
        config = SchedulerConfig(
            row_groups=RowGroupConfig(1),
            retry=RetryConfig(max_salvage_rounds=3),
            health=HealthConfig(window=6, stop_error_rate=0.6),
        )
        setup = Setup(work, NODES, records=6, buffer_size=6, classify=retryable, config=config)
        result = await setup.scheduler.run()
        assert result.early_stop is not None
        assert (result.rows, result.dropped_rows, result.abandoned_row_groups) == (0, 0, 1)
        assert attempts == {0: 1, 1: 4, 2: 4, 3: 4, 4: 4, 5: 4}
        setup.assert_nothing_held()

    simulate(main)


def test_of_each_column_and_type_the_first_error_is_kept_with_how_many_rows() -> None:
    errors: list[Exception] = []

    async def work(task: Task) -> Sequence[RowDrop]:
        if task.column == "b" and task.row_index is not None:
            await trio.sleep(task.row_index)
            errors.append(Odd(task.row_index) if task.row_index % 2 else Broken(task.row_index))
            raise errors[-1]
        return ()

    async def main() -> None:
        config = SchedulerConfig(row_groups=RowGroupConfig(1), health=HealthConfig(stop_error_rate=None))
        setup = Setup(work, NODES, records=10, buffer_size=5, config=config)
        result = await setup.scheduler.run()
        causes = {(cause.column, cause.error_type): (cause.rows, cause.first_error) for cause in result.drop_causes}
        assert set(causes) == {("b", "Broken"), ("b", "Odd")}
        for (_, error_type), (rows, first_error) in causes.items():
            assert rows == (6 if error_type == "Broken" else 4)
            assert first_error is next(error for error in errors if type(error).__name__ == error_type)

    simulate(main)


def test_an_error_of_a_task_whose_row_is_lost_changes_nothing() -> None:
    """`c` is stopped when `b` fails, and raises what would end the run."""

    async def work(task: Task) -> Sequence[RowDrop]:
        if task.column == "b" and task.row_index == 0:
            await trio.sleep(1)
            raise Odd
        if task.column == "c" and task.row_index == 0:
            try:
                await trio.sleep_forever()
            finally:
                raise Broken
        return ()

    def classify(error: Exception) -> Failure:
        return Failure("fatal" if isinstance(error, Broken) else "non_retryable", "unexpected_exception")

    async def main() -> None:
        nodes = (*NODES, GraphNode("c", "cell", ("a",)))
        setup = Setup(work, nodes, records=2, buffer_size=2, classify=classify, config=SchedulerConfig())
        result = await setup.scheduler.run()
        assert (result.rows, result.dropped_rows) == (1, 1)
        assert [(cause.column, cause.error_type, cause.rows) for cause in result.drop_causes] == [("b", "Odd", 1)]
        setup.assert_nothing_held()

    simulate(main)

"""What a row takes along when it is rejected, and what runs of it meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
import trio
from scheduler_samples import FAN, Setup, simulate

from trio_sched.lowlevel import Failure, GraphNode, RowDrop, RowFailure, Task


def test_running_cells_of_a_row_that_was_given_up_are_cancelled() -> None:
    ended: list[str] = []

    async def work(task: Task) -> Sequence[RowDrop]:
        if task.column == "b" and task.row_index == 0:
            await trio.sleep(1)
            raise LookupError("bad row")
        if task.column == "c" and task.row_index == 0:
            try:
                await trio.sleep_forever()
            finally:
                ended.append("c of row 0")
        return ()

    async def main() -> None:
        setup = Setup(work, FAN, records=5)
        result = await setup.scheduler.run()
        assert ended == ["c of row 0"]
        assert trio.current_time() < 100
        assert (result.rows, result.dropped_rows, len(result.drop_causes)) == (4, 1, 1)
        assert [event.task_id for event in setup.events("cancelled")] == ["0:0:cell:c"]
        assert setup.events("cancelled")[0].reason_or_result == "row_given_up"
        completed = Counter(event.task_id for event in setup.events("task_completed"))
        assert max(completed.values()) == 1
        assert "0:0:cell:c" not in completed
        setup.assert_nothing_held()

    simulate(main)


def test_whatever_a_cancelled_cell_answers_is_reported_once_and_changes_nothing() -> None:
    async def work(task: Task) -> Sequence[RowDrop]:
        if task.column == "b":
            await trio.sleep(1)
            raise LookupError("bad row")
        if task.column == "c":
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                if task.row_index == 0:
                    return ()
                if task.row_index == 1:
                    raise ValueError("raised while cancelled") from None
                if task.row_index == 2:
                    return [RowFailure(2, ValueError("late"))]
                raise
        return ()

    async def main() -> None:
        setup = Setup(work, FAN, records=4, buffer_size=4)
        result = await setup.scheduler.run()
        assert (result.rows, result.dropped_rows) == (0, 4)
        assert [(cause.column, cause.rows) for cause in result.drop_causes] == [("b", 4)]
        assert setup.kinds()["retry_deferred"] == 0
        setup.assert_nothing_held()

    simulate(main)


def test_a_task_whose_row_group_is_gone_is_cancelled() -> None:
    async def work(task: Task) -> Sequence[RowDrop]:
        if task.column == "a":
            await trio.sleep(1)
            raise LookupError("no rows")
        await trio.Event().wait()
        return ()

    async def main() -> None:
        nodes = (GraphNode("a", "from_scratch"), GraphNode("b", "from_scratch"), GraphNode("c", "batch", ("b",)))
        setup = Setup(work, nodes, records=5)
        result = await setup.scheduler.run()
        assert (result.row_groups, result.rows, result.dropped_rows) == (1, 0, 5)
        setup.assert_nothing_held()

    simulate(main)


def test_deferred_work_of_a_row_that_was_given_up_is_forgotten() -> None:
    tries: Counter[str] = Counter()

    async def work(task: Task) -> Sequence[RowDrop]:
        tries[task.column] += 1
        if task.column == "c":
            raise ConnectionError
        if task.column == "b":
            await trio.sleep(0.5)
            raise LookupError
        return ()

    def classify(error: Exception) -> Failure:
        return Failure("preserved" if isinstance(error, ConnectionError) else "non_retryable", "x")

    async def main() -> None:
        setup = Setup(work, FAN, records=1, classify=classify)
        result = await setup.scheduler.run()
        assert tries == {"a": 1, "b": 1, "c": 1}
        assert result.dropped_rows == 1
        (withdrawn,) = setup.events("cancelled")
        assert (withdrawn.task_id, withdrawn.reason_or_result) == ("0:0:cell:c", "withdrawn")

    simulate(main)


def test_the_first_non_retryable_error_is_kept() -> None:
    async def work(task: Task) -> Sequence[RowDrop]:
        if task.column == "b":
            await trio.sleep(1 + (task.row_index or 0))
            raise LookupError(f"row {task.row_index}")
        return ()

    async def main() -> None:
        result = await Setup(work, records=5).scheduler.run()
        assert str(result.first_non_retryable_error) == "row 0"

    simulate(main)


def test_an_internal_bug_is_fatal_and_keeps_its_cause() -> None:
    async def work(task: Task) -> Sequence[RowDrop]:
        raise LookupError

    def broken(error: Exception) -> Failure:
        raise ZeroDivisionError("a bug of the classifier") from error

    async def main() -> None:
        setup = Setup(work, classify=broken)
        with pytest.raises(ZeroDivisionError) as caught:
            await setup.scheduler.run()
        assert isinstance(caught.value.__cause__, LookupError)
        setup.assert_nothing_held()

    simulate(main)


def test_a_runner_that_names_a_row_that_does_not_exist_is_a_bug() -> None:
    async def work(task: Task) -> Sequence[RowDrop]:
        return [RowFailure(5, ValueError())]

    async def main() -> None:
        with pytest.raises(Exception, match=r"^row group 0 has rows 0 to 4, and no row 5$"):
            await Setup(work, records=5).scheduler.run()

    simulate(main)

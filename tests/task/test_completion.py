"""What the tracker refuses, and what it forgets; its rules are held by the state machine."""

import gc
import re
import tracemalloc

import pytest

from trio_sched._resources.task import FrontierDelta, Task, stable_task_id
from trio_sched._task.completion import CompletionTracker, TrackerError
from trio_sched._task.graph import ExecutionGraph, GraphNode

GRAPH = ExecutionGraph([GraphNode("a", "from_scratch"), GraphNode("b", "cell", ("a",))])
ROOT = Task("a", 0, None, "from_scratch")
CELL = Task("b", 0, 0, "cell")


def test_completing_twice_is_a_bug_of_the_owner() -> None:
    tracker = CompletionTracker(GRAPH)
    tracker.open_row_group(0, 2)
    tracker.mark_complete(ROOT)
    with pytest.raises(TrackerError, match=rf"^{re.escape(str(ROOT))} was completed before$"):
        tracker.mark_complete(ROOT)
    tracker.mark_complete(CELL)
    with pytest.raises(TrackerError, match=rf"^{re.escape(str(CELL))} was completed before$"):
        tracker.mark_complete(CELL)


def test_opening_twice_and_touching_what_is_not_open() -> None:
    tracker = CompletionTracker(GRAPH)
    tracker.open_row_group(0, 1)
    with pytest.raises(TrackerError, match=r"^row group 0 was opened before$"):
        tracker.open_row_group(0, 1)
    with pytest.raises(TrackerError, match=r"^row group 1 is not open$"):
        tracker.drop_row(1, 0)
    with pytest.raises(TrackerError, match=r"^row group 0 still has 1 open rows$"):
        tracker.mark_durable(0)
    with pytest.raises(ValueError, match=r"^size must be a positive int, got 0$"):
        tracker.open_row_group(1, 0)


def test_late_completion_of_a_dropped_row_changes_nothing() -> None:
    tracker = CompletionTracker(GRAPH)
    tracker.open_row_group(0, 2)
    tracker.mark_complete(ROOT)
    tracker.drop_row(0, 0)
    assert tracker.mark_complete(CELL) == FrontierDelta()
    assert tracker.reopen(CELL) == FrontierDelta()


@pytest.mark.parametrize("first", [0, 1_000_000], ids=["from the beginning", "from where a resumed run goes on"])
def test_durable_row_groups_cost_next_to_nothing(first: int) -> None:
    tracker = CompletionTracker(GRAPH)

    def run(groups: range) -> None:
        for index in groups:
            tracker.open_row_group(index, 8)
            tracker.mark_complete(Task("a", index, None, "from_scratch"))
            for row in range(8):
                tracker.mark_complete(Task("b", index, row, "cell"))
            tracker.mark_durable(index)
        gc.collect()

    tracemalloc.start()
    run(range(first, first + 2000))
    before, _ = tracemalloc.get_traced_memory()
    run(range(first + 2000, first + 4000))
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 4_000
    with pytest.raises(TrackerError, match=f"row group {first + 7} was opened before"):
        tracker.open_row_group(first + 7, 1)


ROWS = ExecutionGraph(
    [
        GraphNode("a", "from_scratch"),
        GraphNode("b", "cell", ("a",)),
        GraphNode("c", "batch", ("b",)),
        GraphNode("d", "cell", ("b", "c")),
    ]
)


def cell(column: str, row: int, row_group: int = 0) -> Task:
    return Task(column, row_group, row, "cell")


def batch(column: str, row_group: int = 0) -> Task:
    return Task(column, row_group, None, "batch")


def with_roots_done(size: int) -> CompletionTracker:
    """Row group 0 with all cells of `b` ready and acknowledged."""
    tracker = CompletionTracker(ROWS)
    tracker.open_row_group(0, size)
    delta = tracker.mark_complete(ROOT)
    assert delta == FrontierDelta(tuple(cell("b", row) for row in range(size)), (ROOT,))
    tracker.mark_enqueued([stable_task_id(task) for task in delta.added])
    return tracker


def test_a_ready_task_stays_in_the_frontier_until_it_is_acknowledged() -> None:
    tracker = CompletionTracker(ROWS)
    assert tracker.open_row_group(3, 2) == FrontierDelta((Task("a", 3, None, "from_scratch"),))
    assert tracker.open_row_group(0, 2) == FrontierDelta((ROOT,))
    assert tracker.ready_frontier() == (Task("a", 3, None, "from_scratch"), ROOT)
    tracker.mark_enqueued([stable_task_id(ROOT), "nobody's"])
    assert tracker.ready_frontier() == (Task("a", 3, None, "from_scratch"),)
    assert tracker.open_row_groups == (3, 0)
    assert tracker.reopen(ROOT) == FrontierDelta((ROOT,))
    assert tracker.ready_frontier() == (Task("a", 3, None, "from_scratch"), ROOT)
    assert not tracker.is_ordered


def test_a_batch_is_ready_once_every_active_row_has_what_it_needs() -> None:
    tracker = with_roots_done(3)
    assert tracker.mark_complete(cell("b", 0)) == FrontierDelta()
    assert tracker.mark_complete(cell("b", 2)) == FrontierDelta()
    assert not tracker.has_finished_row(0)
    assert tracker.drop_row(0, 1) == FrontierDelta((batch("c"),), (cell("b", 1),))
    assert tracker.mark_complete(batch("c")) == FrontierDelta((cell("d", 0), cell("d", 2)), (batch("c"),))
    assert tracker.mark_complete(cell("d", 2)) == FrontierDelta((), (cell("d", 2),))
    assert tracker.has_finished_row(0)
    assert not tracker.is_complete(0)
    assert tracker.mark_complete(cell("d", 0)).added == ()
    assert tracker.is_complete(0)


def test_a_batch_that_is_ready_stays_ready_while_a_row_lives() -> None:
    tracker = with_roots_done(2)
    tracker.mark_complete(cell("b", 0))
    assert tracker.mark_complete(cell("b", 1)) == FrontierDelta((batch("c"),))
    assert tracker.drop_row(0, 1) == FrontierDelta()
    assert not tracker.is_needless(batch("c"))
    assert tracker.drop_row(0, 0) == FrontierDelta((), (batch("c"),))
    assert tracker.is_needless(batch("c"))
    assert tracker.reopen(batch("c")) == FrontierDelta()
    assert tracker.is_complete(0)
    assert not tracker.has_finished_row(0)


def test_dropping_the_last_row_removes_roots_that_have_not_run() -> None:
    tracker = CompletionTracker(ROWS)
    tracker.open_row_group(0, 1)
    assert tracker.drop_row(0, 0) == FrontierDelta((), (ROOT,))
    assert tracker.ready_frontier() == ()
    assert tracker.is_complete(0)


def test_what_a_dropped_row_still_makes_counts_for_nothing() -> None:
    tracker = with_roots_done(3)
    assert tracker.drop_row(0, 0) == FrontierDelta((), (cell("b", 0),))
    assert tracker.drop_row(0, 0) == FrontierDelta()
    assert tracker.mark_complete(cell("b", 0)) == FrontierDelta()
    assert tracker.mark_complete(cell("b", 1)) == FrontierDelta()
    assert tracker.mark_complete(cell("b", 2)) == FrontierDelta((batch("c"),))
    tracker.mark_complete(batch("c"))
    tracker.mark_complete(cell("d", 1))
    assert not tracker.is_complete(0)
    tracker.mark_complete(cell("d", 2))
    assert tracker.is_complete(0)


def test_a_row_that_is_finished_can_still_be_dropped() -> None:
    tracker = with_roots_done(2)
    for row in (0, 1):
        tracker.mark_complete(cell("b", row))
    tracker.mark_complete(batch("c"))
    tracker.mark_complete(cell("d", 0))
    assert tracker.drop_row(0, 0) == FrontierDelta()
    assert tracker.drop_row(0, 0) == FrontierDelta()
    assert not tracker.is_complete(0)
    assert not tracker.has_finished_row(0)
    assert tracker.living_rows(0) == (1,)
    tracker.mark_complete(cell("d", 1))
    assert tracker.is_complete(0)


@pytest.mark.parametrize("row", [-1, 2])
def test_a_row_that_does_not_exist_cannot_be_dropped(row: int) -> None:
    tracker = with_roots_done(2)
    with pytest.raises(TrackerError, match=rf"^row group 0 has rows 0 to 1, and no row {row}$"):
        tracker.drop_row(0, row)


def test_dropped_rows_are_known_for_ever_and_row_groups_end_in_any_order() -> None:
    tracker = CompletionTracker(ExecutionGraph([GraphNode("a", "from_scratch")]))
    dropped = {0: {7, 8, 15}, 1: set[int](), 2: {0}}
    for row_group, rows in dropped.items():
        tracker.open_row_group(row_group, 17)
        tracker.mark_complete(Task("a", row_group, None, "from_scratch"))
        for row in rows:
            tracker.drop_row(row_group, row)
    for row_group in (1, 0, 2):
        assert not tracker.is_durable(row_group)
        assert {row for row in range(17) if tracker.is_dropped(row_group, row)} == dropped[row_group]
        tracker.mark_durable(row_group)
        assert tracker.is_durable(row_group)
        assert {row for row in range(40) if tracker.is_dropped(row_group, row)} == dropped[row_group]
        with pytest.raises(TrackerError, match=f"row group {row_group} was opened before"):
            tracker.open_row_group(row_group, 1)
    assert tracker.open_row_groups == ()
    assert not tracker.is_durable(3)
    assert tracker.open_row_group(3, 1).added


def test_an_abandoned_row_group_is_forgotten() -> None:
    tracker = with_roots_done(2)
    tracker.open_row_group(1, 1)
    assert tracker.reopen(cell("b", 1)).added == (cell("b", 1),)
    assert tracker.abandon(0) == FrontierDelta((), (cell("b", 1),))
    assert tracker.ready_frontier() == (Task("a", 1, None, "from_scratch"),)
    assert tracker.open_row_groups == (1,)
    assert not tracker.is_durable(0)
    with pytest.raises(TrackerError, match="row group 0 is not open"):
        tracker.abandon(0)

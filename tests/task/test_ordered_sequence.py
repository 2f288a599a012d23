"""Ordered nodes: their tasks are a sequence, in which one is current until it has ended."""

from __future__ import annotations

from trio_sched._resources.task import FrontierDelta, Task, stable_task_id
from trio_sched._task.completion import CompletionTracker
from trio_sched._task.graph import ExecutionGraph, GraphNode

STORY = ExecutionGraph(
    [GraphNode("a", "from_scratch"), GraphNode("b", "cell", ("a",)), GraphNode("story", "cell", ("b",), ordered=True)]
)
COUNTER = ExecutionGraph([GraphNode("counter", "from_scratch", ordered=True)])
CHAPTER = ExecutionGraph([GraphNode("a", "from_scratch"), GraphNode("chapter", "batch", ("a",), ordered=True)])
NOTHING = FrontierDelta()


def root(row_group: int, column: str = "a") -> Task:
    return Task(column, row_group, None, "from_scratch")


def chapter(row_group: int) -> Task:
    return Task("chapter", row_group, None, "batch")


def cell(column: str, row_group: int, row: int) -> Task:
    return Task(column, row_group, row, "cell")


def opened(graph: ExecutionGraph, *sizes: int) -> CompletionTracker:
    """A tracker with row groups of these sizes, opened in this order, and numbered so too."""
    tracker = CompletionTracker(graph)
    for row_group, size in enumerate(sizes):
        tracker.open_row_group(row_group, size)
    return tracker


def acknowledge(tracker: CompletionTracker) -> None:
    tracker.mark_enqueued([stable_task_id(task) for task in tracker.ready_frontier()])


def test_cells_follow_each_other_by_row_and_then_by_row_group() -> None:
    tracker = opened(STORY, 2, 1)
    assert tracker.is_ordered
    for row_group in (1, 0):
        tracker.mark_complete(root(row_group))
    acknowledge(tracker)
    assert tracker.mark_complete(cell("b", 1, 0)) == NOTHING
    assert tracker.mark_complete(cell("b", 0, 1)) == NOTHING
    assert tracker.mark_complete(cell("b", 0, 0)) == FrontierDelta((cell("story", 0, 0),))
    acknowledge(tracker)
    assert tracker.mark_complete(cell("story", 0, 0)) == FrontierDelta((cell("story", 0, 1),))
    assert tracker.mark_complete(cell("story", 0, 1)) == FrontierDelta((cell("story", 1, 0),), (cell("story", 0, 1),))
    assert tracker.is_complete(0)


def test_row_groups_follow_each_other_in_the_order_of_their_opening() -> None:
    tracker = CompletionTracker(COUNTER)
    assert tracker.open_row_group(5, 3) == FrontierDelta((root(5, "counter"),))
    assert tracker.open_row_group(2, 3) == NOTHING
    assert tracker.mark_complete(root(5, "counter")) == FrontierDelta((root(2, "counter"),), (root(5, "counter"),))
    assert tracker.mark_complete(root(2, "counter")) == FrontierDelta((), (root(2, "counter"),))
    assert tracker.open_row_group(3, 1) == FrontierDelta((root(3, "counter"),))


def test_a_batch_waits_for_its_predecessor_and_for_what_it_needs() -> None:
    tracker = opened(CHAPTER, 2, 2, 2)
    assert tracker.mark_complete(root(1)).added == ()
    assert tracker.mark_complete(root(0)).added == (chapter(0),)
    assert tracker.mark_complete(chapter(0)).added == (chapter(1),)
    assert tracker.mark_complete(chapter(1)).added == ()
    assert tracker.mark_complete(root(2)).added == (chapter(2),)


def test_a_task_that_runs_again_stays_current() -> None:
    tracker = opened(STORY, 2)
    tracker.mark_complete(root(0))
    for row in (0, 1):
        tracker.mark_complete(cell("b", 0, row))
    acknowledge(tracker)
    assert tracker.reopen(cell("story", 0, 0)) == FrontierDelta((cell("story", 0, 0),))
    assert tracker.ready_frontier() == (cell("story", 0, 0),)


def test_a_row_dropped_before_its_task_is_ready_is_left_out() -> None:
    tracker = opened(STORY, 3)
    tracker.mark_complete(root(0))
    for row in (0, 1, 2):
        tracker.mark_complete(cell("b", 0, row))
    acknowledge(tracker)
    assert tracker.drop_row(0, 1) == NOTHING
    assert tracker.mark_complete(cell("story", 0, 0)) == FrontierDelta((cell("story", 0, 2),))


def test_a_ready_task_that_was_not_acknowledged_makes_room_at_once() -> None:
    tracker = opened(STORY, 2)
    tracker.mark_complete(root(0))
    for row in (0, 1):
        tracker.mark_complete(cell("b", 0, row))
    assert tracker.drop_row(0, 0) == FrontierDelta((cell("story", 0, 1),), (cell("story", 0, 0),))


def test_an_acknowledged_task_of_a_dropped_row_stays_current_until_it_has_ended() -> None:
    tracker = opened(STORY, 2)
    tracker.mark_complete(root(0))
    for row in (0, 1):
        tracker.mark_complete(cell("b", 0, row))
    acknowledge(tracker)
    assert tracker.drop_row(0, 0) == FrontierDelta((), (cell("story", 0, 0),))
    assert tracker.mark_ended(cell("story", 0, 1)) == NOTHING
    assert tracker.mark_ended(cell("b", 0, 0)) == NOTHING
    assert tracker.mark_ended(cell("story", 0, 0)) == FrontierDelta((cell("story", 0, 1),))
    assert tracker.mark_ended(cell("story", 0, 0)) == NOTHING


def test_a_row_group_without_active_rows_is_left_out() -> None:
    tracker = opened(CHAPTER, 1, 1, 1)
    tracker.mark_complete(root(2))
    assert tracker.drop_row(0, 0) == FrontierDelta((), (root(0),))
    assert tracker.drop_row(1, 0) == FrontierDelta((chapter(2),), (root(1),))


def test_a_batch_behind_another_was_never_ready() -> None:
    tracker = opened(CHAPTER, 1, 1)
    assert tracker.mark_complete(root(1)).added == ()
    assert tracker.drop_row(1, 0) == NOTHING


def test_a_dropped_row_lets_an_ordered_batch_begin_only_after_its_predecessor() -> None:
    chapters = ExecutionGraph(
        [
            GraphNode("a", "from_scratch"),
            GraphNode("b", "cell", ("a",)),
            GraphNode("chapter", "batch", ("b",), ordered=True),
        ]
    )
    tracker = opened(chapters, 2, 2)
    for row_group in (0, 1):
        tracker.mark_complete(root(row_group))
        assert tracker.mark_complete(cell("b", row_group, 0)).added == ()
    assert tracker.drop_row(1, 1) == FrontierDelta((), (cell("b", 1, 1),))
    assert tracker.drop_row(0, 1) == FrontierDelta((chapter(0),), (cell("b", 0, 1),))
    assert tracker.mark_complete(chapter(0)) == FrontierDelta((chapter(1),), (chapter(0),))


def test_an_abandoned_row_group_makes_room() -> None:
    tracker = opened(COUNTER, 1, 1)
    assert tracker.abandon(0) == FrontierDelta((root(1, "counter"),), (root(0, "counter"),))
    acknowledge(tracker)
    tracker.open_row_group(2, 1)
    assert tracker.abandon(1) == NOTHING
    assert tracker.mark_ended(root(1, "counter")) == FrontierDelta((root(2, "counter"),))

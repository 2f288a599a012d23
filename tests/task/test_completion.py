"""What the tracker refuses, and what it forgets; its rules are held by the state machine."""

import tracemalloc

import pytest

from trio_sched._resources.task import FrontierDelta, Task
from trio_sched._task.completion import CompletionTracker, TrackerError
from trio_sched._task.graph import ExecutionGraph, GraphNode

GRAPH = ExecutionGraph([GraphNode("a", "from_scratch"), GraphNode("b", "cell", ("a",))])
ROOT = Task("a", 0, None, "from_scratch")
CELL = Task("b", 0, 0, "cell")


def test_completing_twice_is_a_bug_of_the_owner() -> None:
    tracker = CompletionTracker(GRAPH)
    tracker.open_row_group(0, 2)
    tracker.mark_complete(ROOT)
    with pytest.raises(TrackerError, match="was completed before"):
        tracker.mark_complete(ROOT)
    tracker.mark_complete(CELL)
    with pytest.raises(TrackerError, match="was completed before"):
        tracker.mark_complete(CELL)


def test_opening_twice_and_touching_what_is_not_open() -> None:
    tracker = CompletionTracker(GRAPH)
    tracker.open_row_group(0, 1)
    with pytest.raises(TrackerError, match="row group 0 was opened before"):
        tracker.open_row_group(0, 1)
    with pytest.raises(TrackerError, match="row group 1 is not open"):
        tracker.drop_row(1, 0)
    with pytest.raises(TrackerError, match="row group 0 still has 1 open rows"):
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


def test_durable_row_groups_cost_next_to_nothing() -> None:
    tracker = CompletionTracker(GRAPH)

    def run(groups: range) -> None:
        for index in groups:
            tracker.open_row_group(index, 8)
            tracker.mark_complete(Task("a", index, None, "from_scratch"))
            for row in range(8):
                tracker.mark_complete(Task("b", index, row, "cell"))
            tracker.mark_durable(index)

    tracemalloc.start()
    run(range(2000))
    before, _ = tracemalloc.get_traced_memory()
    run(range(2000, 4000))
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 4_000
    with pytest.raises(TrackerError, match="row group 7 was opened before"):
        tracker.open_row_group(7, 1)

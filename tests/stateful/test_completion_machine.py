"""The tracker against a model that recomputes readiness from scratch after every step."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trio_sched._resources.task import Task, TaskType, stable_task_id
from trio_sched._task.completion import CompletionTracker
from trio_sched._task.graph import ExecutionGraph, GraphNode

NODES = [
    GraphNode("root", "from_scratch", outputs=("root", "side")),
    GraphNode("other", "from_scratch"),
    GraphNode("cell", "cell", ("root",)),
    GraphNode("join", "cell", ("cell", "other")),
    GraphNode("batch", "batch", ("cell", "side")),
    GraphNode("after", "cell", ("batch", "join")),
    GraphNode("last", "batch", ("after",)),
]
OWNER = {output: node.column for node in NODES for output in node.outputs}
NEEDS = {node.column: {OWNER[need] for need in node.needs} for node in NODES}
TYPES: dict[str, TaskType] = {node.column: node.task_type for node in NODES}


class ModelGroup:
    def __init__(self, size: int) -> None:
        self.size = size
        self.done: set[tuple[str, int]] = set()
        self.finished: set[str] = set()
        self.dropped: set[int] = set()

    def living(self) -> list[int]:
        return [row for row in range(self.size) if row not in self.dropped]

    def ready(self, row_group: int) -> set[Task]:
        """Every task that could run now and has not completed."""
        tasks: set[Task] = set()
        for column, needs in NEEDS.items():
            if TYPES[column] == "cell":
                tasks.update(
                    Task(column, row_group, row, "cell")
                    for row in self.living()
                    if (column, row) not in self.done and all((need, row) in self.done for need in needs)
                )
            elif column not in self.finished:
                living = self.living()
                if living and all((need, row) in self.done for need in needs for row in living):
                    tasks.add(Task(column, row_group, None, TYPES[column]))
        return tasks

    def complete(self) -> bool:
        return all((column, row) in self.done for column in NEEDS for row in self.living())


class TrackerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.tracker = CompletionTracker(ExecutionGraph(NODES))
        self.groups: dict[int, ModelGroup] = {}
        self.durable: dict[int, set[int]] = {}
        self.acknowledged: set[Task] = set()
        self.next_group = 0

    @precondition(lambda self: len(self.groups) < 3)
    @rule(size=st.integers(1, 4))
    def open_row_group(self, size: int) -> None:
        delta = self.tracker.open_row_group(self.next_group, size)
        self.groups[self.next_group] = ModelGroup(size)
        assert set(delta.added) == self.groups[self.next_group].ready(self.next_group)
        self.next_group += 1

    @precondition(lambda self: self.tracker.ready_frontier())
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        tasks = data.draw(st.lists(st.sampled_from(self.tracker.ready_frontier()), min_size=1, unique=True))
        self.tracker.mark_enqueued([stable_task_id(task) for task in tasks])
        self.acknowledged.update(tasks)

    @precondition(lambda self: any(group.ready(index) for index, group in self.groups.items()))
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        ready = sorted(
            (task for index, group in self.groups.items() for task in group.ready(index)), key=stable_task_id
        )
        task = data.draw(st.sampled_from(ready))
        group = self.groups[task.row_group]
        before = group.ready(task.row_group)
        delta = self.tracker.mark_complete(task)
        rows = group.living() if task.row_index is None else [task.row_index]
        group.done.update((task.column, row) for row in rows)
        if task.row_index is None:
            group.finished.add(task.column)
        assert set(delta.added) == group.ready(task.row_group) - before
        assert delta.removed == (() if task in self.acknowledged else (task,))
        self.acknowledged.discard(task)

    @precondition(lambda self: self.acknowledged)
    @rule(data=st.data())
    def reopen(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(sorted(self.acknowledged, key=stable_task_id)))
        assert self.tracker.reopen(task).added == (task,)
        self.acknowledged.discard(task)

    @precondition(lambda self: any(group.living() for group in self.groups.values()))
    @rule(data=st.data())
    def drop_row(self, data: st.DataObject) -> None:
        index = data.draw(st.sampled_from([i for i, group in self.groups.items() if group.living()]))
        group = self.groups[index]
        row = data.draw(st.sampled_from(group.living()))
        before = group.ready(index)
        delta = self.tracker.drop_row(index, row)
        group.dropped.add(row)
        after = group.ready(index)
        assert set(delta.added) == after - before
        assert set(delta.removed) == before - after
        self.acknowledged -= set(delta.removed)
        assert self.tracker.drop_row(index, row).empty

    @precondition(lambda self: any(group.complete() for group in self.groups.values()))
    @rule(data=st.data())
    def make_durable(self, data: st.DataObject) -> None:
        index = data.draw(st.sampled_from([i for i, group in self.groups.items() if group.complete()]))
        self.tracker.mark_durable(index)
        group = self.groups.pop(index)
        self.durable[index] = group.dropped
        self.acknowledged = {task for task in self.acknowledged if task.row_group != index}

    @invariant()
    def frontier_is_what_is_ready_and_not_acknowledged(self) -> None:
        ready = {task for index, group in self.groups.items() for task in group.ready(index)}
        open_frontier = {task for task in self.tracker.ready_frontier() if task.row_group in self.groups}
        assert open_frontier == ready - self.acknowledged

    @invariant()
    def completeness_and_drops_agree(self) -> None:
        assert self.tracker.open_row_groups == tuple(self.groups)
        for index, group in self.groups.items():
            assert self.tracker.is_complete(index) == group.complete()
            assert list(self.tracker.living_rows(index)) == group.living()
        for index, dropped in self.durable.items():
            assert self.tracker.is_durable(index)
            assert {row for row in range(16) if self.tracker.is_dropped(index, row)} == dropped


TestTracker = TrackerMachine.TestCase

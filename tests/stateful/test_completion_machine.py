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
    GraphNode("counter", "from_scratch", ordered=True),
    GraphNode("check", "batch", ("root", "counter"), outputs=()),
    GraphNode("story", "cell", ("root",), ordered=True, after=("check",)),
    GraphNode("chapter", "batch", ("story",), ordered=True),
    GraphNode("end", "batch", after=("story", "chapter", "last"), outputs=()),
]
OWNER = {output: node.column for node in NODES for output in node.outputs}
NEEDS = {node.column: {OWNER[need] for need in node.needs} | set(node.after) for node in NODES}
TYPES: dict[str, TaskType] = {node.column: node.task_type for node in NODES}
ORDERED = {node.column for node in NODES if node.ordered}


class ModelGroup:
    def __init__(self, size: int) -> None:
        self.size = size
        self.done: set[tuple[str, int]] = set()
        self.finished: set[str] = set()
        self.dropped: set[int] = set()

    def active(self) -> list[int]:
        return [row for row in range(self.size) if row not in self.dropped]

    def ready(self, row_group: int, *, ordered: bool = False) -> set[Task]:
        """Every task that has its inputs and has not completed, at the nodes that are ordered or not."""
        tasks: set[Task] = set()
        for column, needs in NEEDS.items():
            if (column in ORDERED) is not ordered:
                continue
            if TYPES[column] == "cell":
                tasks.update(
                    Task(column, row_group, row, "cell")
                    for row in self.active()
                    if (column, row) not in self.done and all((need, row) in self.done for need in needs)
                )
            elif column not in self.finished:
                active = self.active()
                if active and all((need, row) in self.done for need in needs for row in active):
                    tasks.add(Task(column, row_group, None, TYPES[column]))
        return tasks

    def first_unfinished(self, row_group: int, column: str) -> Task | None:
        """Whose turn it is at an ordered node, were there no other row group."""
        active = self.active()
        if TYPES[column] == "cell":
            rows = [row for row in active if (column, row) not in self.done]
            return Task(column, row_group, rows[0], "cell") if rows else None
        return Task(column, row_group, None, TYPES[column]) if active and column not in self.finished else None

    def complete(self) -> bool:
        return all((column, row) in self.done for column in NEEDS for row in self.active())


class TrackerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.tracker = CompletionTracker(ExecutionGraph(NODES))
        self.groups: dict[int, ModelGroup] = {}
        self.durable: dict[int, set[int]] = {}
        self.acknowledged: set[Task] = set()
        self.lingering: dict[str, Task] = {}
        """Per ordered node, a task that was dropped while it was out, and has not ended."""
        self.next_group = 0

    def ready(self) -> set[Task]:
        tasks = {task for index, group in self.groups.items() for task in group.ready(index)}
        for column in ORDERED - set(self.lingering):
            turns = (group.first_unfinished(index, column) for index, group in self.groups.items())
            first = next((task for task in turns if task is not None), None)
            if first is not None and first in self.groups[first.row_group].ready(first.row_group, ordered=True):
                tasks.add(first)
        return tasks

    @precondition(lambda self: len(self.groups) < 3)
    @rule(size=st.integers(1, 4))
    def open_row_group(self, size: int) -> None:
        before = self.ready()
        delta = self.tracker.open_row_group(self.next_group, size)
        self.groups[self.next_group] = ModelGroup(size)
        assert set(delta.added) == self.ready() - before
        self.next_group += 1

    @precondition(lambda self: self.tracker.ready_frontier())
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        tasks = data.draw(st.lists(st.sampled_from(self.tracker.ready_frontier()), min_size=1, unique=True))
        self.tracker.mark_enqueued([stable_task_id(task) for task in tasks])
        self.acknowledged.update(tasks)

    @precondition(lambda self: self.ready())
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        before = self.ready()
        task = data.draw(st.sampled_from(sorted(before, key=stable_task_id)))
        group = self.groups[task.row_group]
        delta = self.tracker.mark_complete(task)
        rows = group.active() if task.row_index is None else [task.row_index]
        group.done.update((task.column, row) for row in rows)
        if task.row_index is None:
            group.finished.add(task.column)
        assert set(delta.added) == self.ready() - before
        assert delta.removed == (() if task in self.acknowledged else (task,))
        self.acknowledged.discard(task)

    @precondition(lambda self: self.acknowledged)
    @rule(data=st.data())
    def reopen(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(sorted(self.acknowledged, key=stable_task_id)))
        assert self.tracker.reopen(task).added == (task,)
        self.acknowledged.discard(task)

    @precondition(lambda self: any(group.active() for group in self.groups.values()))
    @rule(data=st.data())
    def drop_row(self, data: st.DataObject) -> None:
        index = data.draw(st.sampled_from([i for i, group in self.groups.items() if group.active()]))
        group = self.groups[index]
        row = data.draw(st.sampled_from(group.active()))
        before = self.ready()
        delta = self.tracker.drop_row(index, row)
        group.dropped.add(row)
        needless = {task for task in before if task.row_group == index and task.row_index in (row, None)}
        if group.active():
            needless = {task for task in needless if task.row_index == row}
        self.lingering.update({task.column: task for task in needless & self.acknowledged if task.column in ORDERED})
        after = self.ready()
        assert set(delta.added) == after - before
        assert set(delta.removed) == before - after
        self.acknowledged -= set(delta.removed)
        assert self.tracker.drop_row(index, row).empty

    @precondition(lambda self: self.lingering)
    @rule(data=st.data(), how=st.sampled_from(["mark_ended", "mark_complete", "reopen"]))
    def end(self, data: st.DataObject, how: str) -> None:
        column = data.draw(st.sampled_from(sorted(self.lingering)))
        before = self.ready()
        task = self.lingering.pop(column)
        if how == "mark_ended" or task.row_group not in self.groups or task.row_index is None:
            delta = self.tracker.mark_ended(task)
        elif how == "reopen":
            delta = self.tracker.reopen(task)
        else:
            delta = self.tracker.mark_complete(task)
        assert set(delta.added) == self.ready() - before
        assert delta.removed == ()
        assert self.tracker.mark_ended(task).empty

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
        assert set(self.tracker.ready_frontier()) == self.ready() - self.acknowledged

    @invariant()
    def an_ordered_node_has_one_task_out_at_most(self) -> None:
        out = [task.column for task in self.acknowledged | set(self.lingering.values()) if task.column in ORDERED]
        assert len(out) == len(set(out))

    @invariant()
    def completeness_and_drops_agree(self) -> None:
        assert self.tracker.open_row_groups == tuple(self.groups)
        for index, group in self.groups.items():
            assert self.tracker.is_complete(index) == group.complete()
            assert list(self.tracker.living_rows(index)) == group.active()
        for index, dropped in self.durable.items():
            assert self.tracker.is_durable(index)
            assert {row for row in range(16) if self.tracker.is_dropped(index, row)} == dropped


TestTracker = TrackerMachine.TestCase

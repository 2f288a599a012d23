"""Which cells have all their inputs: the one place that knows what is done and what is ready.

Per row the tracker keeps one int, the bits of the generators that have finished it. When a bit is set, only the nodes
fed by it are looked at, and a node becomes ready exactly once, when the last bit it needs arrives. A batch node counts
the living rows that have what it needs and becomes ready when all of them do.

A ready task sits in the *frontier* until it is acknowledged. The tracker never enqueues: its owner takes
`ready_frontier()`, offers it to the queue, and acknowledges with `mark_enqueued` exactly what the queue accepted. A
task that must run again re-enters through `reopen`, so a retry takes the same way as a first attempt.

A row group is opened, completes when every living row has every column, and is compacted when it is durable: from then
on it costs nothing but a note of its dropped rows, if any. Every mutation returns a `FrontierDelta`.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from trio_sched import _validation as check
from trio_sched._errors import TrioSchedError
from trio_sched._resources.task import FrontierDelta, Task, stable_task_id
from trio_sched._task.graph import ExecutionGraph, GraphNode

__all__ = ["CompletionTracker", "TrackerError"]


class TrackerError(TrioSchedError):
    """A transition that the tracker's state does not allow: a bug in its owner, never a user's mistake."""


@attrs.define(eq=False)
class _RowGroup:
    """Invariant: open_rows counts the rows that are neither dropped nor finished."""

    size: int
    done: list[int]
    dropped: set[int]
    open_rows: int
    finished_batches: set[str]
    satisfied: dict[str, int]
    """Per unfinished batch node, the living rows that have what it needs."""


class CompletionTracker:
    """Tracks done, ready and dropped cells of the open row groups of one `ExecutionGraph`."""

    def __init__(self, graph: ExecutionGraph) -> None:
        self._graph = graph
        self._groups: dict[int, _RowGroup] = {}
        self._frontier: dict[str, Task] = {}
        self._durable = _IndexSet()
        self._dropped_rows: dict[int, bytes] = {}
        self._batch_nodes = [node for node in graph.nodes.values() if node.task_type == "batch"]

    def ready_frontier(self) -> tuple[Task, ...]:
        """Ready tasks that have not been acknowledged, oldest first."""
        return tuple(self._frontier.values())

    def mark_enqueued(self, task_ids: Iterable[str]) -> None:
        """Acknowledge tasks that the queue accepted; they leave the frontier."""
        for task_id in task_ids:
            self._frontier.pop(task_id, None)

    def open_row_group(self, row_group: int, size: int) -> FrontierDelta:
        """Start tracking a row group of `size` rows (at least 1); its roots become ready."""
        check.check_int("size", size, minimum=1)
        if row_group in self._groups or row_group in self._durable:
            raise TrackerError(f"row group {row_group} was opened before")
        self._groups[row_group] = _RowGroup(
            size=size,
            done=[0] * size,
            dropped=set(),
            open_rows=size,
            finished_batches=set(),
            satisfied={node.column: 0 for node in self._batch_nodes},
        )
        return self._publish([Task(node.column, row_group, None, "from_scratch") for node in self._graph.roots])

    def mark_complete(self, task: Task) -> FrontierDelta:
        """Note that `task` has made its cells. A task of a row dropped in the meantime changes nothing."""
        group = self._group(task.row_group)
        removed = self._withdraw(task)
        if task.row_index is None:
            if task.column in group.finished_batches:
                raise TrackerError(f"{task} was completed before")
            group.finished_batches.add(task.column)
            group.satisfied.pop(task.column, None)
            rows: Iterable[int] = (row for row in range(group.size) if row not in group.dropped)
        else:
            if task.row_index in group.dropped:
                return FrontierDelta(removed=removed)
            if group.done[task.row_index] & self._graph.bit[task.column]:
                raise TrackerError(f"{task} was completed before")
            rows = (task.row_index,)
        added: list[Task] = []
        bit = self._graph.bit[task.column]
        downstream = self._graph.downstream[task.column]
        for row in rows:
            added.extend(self._set_bit(task.row_group, group, row, bit, downstream))
        return self._publish(added, removed)

    def reopen(self, task: Task) -> FrontierDelta:
        """Make a task that did not complete ready again, unless nothing depends on it any more."""
        if self.is_needless(task):
            return FrontierDelta()
        return self._publish([task])

    def drop_row(self, row_group: int, row_index: int) -> FrontierDelta:
        """Give a row up. `removed` holds every ready task that is now needless, acknowledged or not.

        That is the row's own cells, and with the last living row every task of the row group.
        """
        group = self._group(row_group)
        if row_index in group.dropped:
            return FrontierDelta()
        graph = self._graph
        done = group.done[row_index]
        group.dropped.add(row_index)
        if done != graph.full_mask:
            group.open_rows -= 1
        living = group.size - len(group.dropped)
        added: list[Task] = []
        removed: list[Task] = []
        for node in graph.nodes.values():
            needs = graph.needs_mask[node.column]
            has_needs = not needs & ~done
            if node.task_type == "cell":
                if has_needs and not done & graph.bit[node.column]:
                    removed.append(Task(node.column, row_group, row_index, "cell"))
                continue
            if node.column in group.finished_batches:
                continue
            whole = Task(node.column, row_group, None, node.task_type)
            if node.task_type == "batch":
                was_ready = group.satisfied[node.column] == living + 1
                if has_needs:
                    group.satisfied[node.column] -= 1
                if living and not was_ready and group.satisfied[node.column] == living:
                    added.append(whole)
                if not was_ready:
                    continue
            if not living:
                removed.append(whole)
        for task in removed:
            self._frontier.pop(stable_task_id(task), None)
        return self._publish(added, tuple(removed))

    def is_complete(self, row_group: int) -> bool:
        """Whether every living row of an open row group has every column."""
        return self._group(row_group).open_rows == 0

    def is_dropped(self, row_group: int, row_index: int) -> bool:
        """Whether a row was given up; answers for durable row groups too."""
        if row_group in self._groups:
            return row_index in self._groups[row_group].dropped
        bits = self._dropped_rows.get(row_group, b"")
        byte, bit = divmod(row_index, 8)
        return byte < len(bits) and bool(bits[byte] >> bit & 1)

    def is_needless(self, task: Task) -> bool:
        """Whether nothing depends on `task` any more: its row, or every row of its row group, was given up."""
        group = self._group(task.row_group)
        return len(group.dropped) == group.size if task.row_index is None else task.row_index in group.dropped

    def living_rows(self, row_group: int) -> tuple[int, ...]:
        """Row indices of an open row group that were not given up, ascending."""
        group = self._group(row_group)
        return tuple(row for row in range(group.size) if row not in group.dropped)

    def is_durable(self, row_group: int) -> bool:
        """Whether the row group has been compacted."""
        return row_group in self._durable

    @property
    def open_row_groups(self) -> tuple[int, ...]:
        """Row groups opened and not yet durable, in order of opening."""
        return tuple(self._groups)

    def mark_durable(self, row_group: int) -> None:
        """Forget everything about a complete row group but its dropped rows."""
        group = self._group(row_group)
        if group.open_rows:
            raise TrackerError(f"row group {row_group} still has {group.open_rows} open rows")
        del self._groups[row_group]
        self._durable.add(row_group)
        if group.dropped:
            bits = bytearray((max(group.dropped) >> 3) + 1)
            for row in group.dropped:
                bits[row >> 3] |= 1 << (row & 7)
            self._dropped_rows[row_group] = bytes(bits)

    def _group(self, row_group: int) -> _RowGroup:
        try:
            return self._groups[row_group]
        except KeyError:
            raise TrackerError(f"row group {row_group} is not open") from None

    def _set_bit(
        self, row_group: int, group: _RowGroup, row: int, bit: int, downstream: tuple[GraphNode, ...]
    ) -> Iterable[Task]:
        graph = self._graph
        done = group.done[row] | bit
        group.done[row] = done
        if done == graph.full_mask:
            group.open_rows -= 1
        for node in downstream:
            if graph.needs_mask[node.column] & ~done:
                continue
            if node.task_type == "cell":
                yield Task(node.column, row_group, row, "cell")
            else:
                group.satisfied[node.column] += 1
                if group.satisfied[node.column] == group.size - len(group.dropped):
                    yield Task(node.column, row_group, None, "batch")

    def _withdraw(self, task: Task) -> tuple[Task, ...]:
        return () if self._frontier.pop(stable_task_id(task), None) is None else (task,)

    def _publish(self, added: list[Task], removed: tuple[Task, ...] = ()) -> FrontierDelta:
        for task in added:
            self._frontier[stable_task_id(task)] = task
        return FrontierDelta(tuple(added), removed)


class _IndexSet:
    """A set of ints from 0 that fills roughly in order: a low-water mark, and only what lies above it."""

    def __init__(self) -> None:
        self._below = 0
        self._above: set[int] = set()

    def add(self, index: int) -> None:
        self._above.add(index)
        while self._below in self._above:
            self._above.remove(self._below)
            self._below += 1

    def __contains__(self, index: int) -> bool:
        return index < self._below or index in self._above

"""Which cells have all their inputs: the one place that knows what is done and what is ready.

Per row the tracker keeps one int, the bits of the generators that have finished it. When a bit is set, only the nodes
fed by it are looked at, and a node becomes ready exactly once, when the last bit it needs arrives. A batch node counts
the active rows that have what it needs, and becomes ready when all of them do.

A ready task sits in the *frontier* until it is acknowledged. The tracker never enqueues: its owner takes
`ready_frontier()`, offers it to the queue, and acknowledges with `mark_enqueued` exactly what the queue accepted. A
task that must run again re-enters through `reopen`, so a retry takes the same way as a first attempt.

The tasks of an *ordered* node form a sequence and become ready one at a time. A task of a row that was dropped in the
meantime holds its successor back until its owner says, with `mark_ended`, that nobody runs it any more.

A row is *active* until it is dropped. A row group is opened, completes when every active row has every column, and is
compacted when it is durable: from then on it costs nothing but a note of its dropped rows, if any. Every mutation
returns a `FrontierDelta`.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from trio_sched import _validation as check
from trio_sched._errors import TrioSchedError
from trio_sched._resources.task import FrontierDelta, Task, stable_task_id
from trio_sched._task.graph import ExecutionGraph, GraphNode

__all__ = ["CompletionTracker", "RowGroupSet", "TrackerError"]

_UNCHANGED: Final = FrontierDelta()


class TrackerError(TrioSchedError):
    """A transition that the tracker's state does not allow: a bug in its owner, never a user's mistake."""


@attrs.define(eq=False)
class RowGroupProgress:
    """How far one open row group is. Invariant: open_rows counts the rows that are neither dropped nor finished.

    done: per row, the bits of the nodes that have finished it. satisfied: per unfinished batch node, the active rows
    that have what it waits for.
    """

    size: int
    done: list[int]
    dropped: set[int]
    open_rows: int
    finished_batches: set[str]
    satisfied: dict[str, int]

    @property
    def active(self) -> int:
        """How many rows were not dropped."""
        return self.size - len(self.dropped)


@attrs.define(eq=False)
class OrderedSequence:
    """The tasks of one ordered node, which run one at a time. current: the one that was made ready and has not ended.

    They are ordered by the opening of their row groups, and within a row group by row. A dropped row is left out; if
    its task had been made ready already, it stays current until nobody runs it any more, so two never overlap. A task
    that failed and waits to run again stays current too.
    """

    node: GraphNode
    bit: int
    needs_mask: int
    current: Task | None = None
    _row_groups: deque[int] = attrs.field(factory=deque[int], init=False)
    _row: int = attrs.field(default=0, init=False)

    def opened(self, row_group: int) -> None:
        """The tasks of `row_group` come after those of all row groups that were opened before it."""
        self._row_groups.append(row_group)

    def advance(self, groups: Mapping[int, RowGroupProgress]) -> Task | None:
        """The next task, if none is current and it has all its inputs; it is current from then on."""
        if self.current is not None:
            return None
        while self._row_groups:
            row_group = self._row_groups[0]
            group = groups.get(row_group)
            if group is not None:
                is_ready = self._is_ready(group)
                if is_ready:
                    row = self._row if self.node.task_type == "cell" else None
                    self.current = Task(self.node.column, row_group, row, self.node.task_type)
                if is_ready is not None:
                    return self.current
            self._row_groups.popleft()
            self._row = 0
        return None

    def _is_ready(self, group: RowGroupProgress) -> bool | None:
        """Whether the next task of `group` has all its inputs; None if there is no next."""
        column = self.node.column
        if self.node.task_type != "cell":
            if column in group.finished_batches or not group.active:
                return None
            return self.node.task_type == "from_scratch" or group.satisfied[column] == group.active
        while self._row < group.size:
            done = group.done[self._row]
            if self._row not in group.dropped and not done & self.bit:
                return not self.needs_mask & ~done
            self._row += 1
        return None


class RowGroupSet:
    """Row-group indices, kept as ranges: it costs memory by its gaps, not by its members."""

    def __init__(self) -> None:
        self._bounds = array("Q")
        """Start and end of each range, alternating and ascending; a range's end is not in it."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, index: int) -> bool:
        return self.run_from(index) > 0

    def add(self, index: int) -> None:
        """Add an index; one that is there already changes nothing."""
        bounds = self._bounds
        position = bisect_right(bounds, index)
        if position % 2:
            return
        continues = position > 0 and bounds[position - 1] == index
        precedes = position < len(bounds) and bounds[position] == index + 1
        if continues and precedes:
            del bounds[position - 1 : position + 1]
        elif continues:
            bounds[position - 1] = index + 1
        elif precedes:
            bounds[position] = index
        else:
            bounds[position:position] = array("Q", (index, index + 1))
        self._count += 1

    def run_from(self, index: int) -> int:
        """How many members there are from `index` on without a gap."""
        position = bisect_right(self._bounds, index)
        return self._bounds[position] - index if position % 2 else 0


class CompletionTracker:
    """Tracks done, ready and dropped cells of the open row groups of one `ExecutionGraph`."""

    def __init__(self, graph: ExecutionGraph) -> None:
        self._graph = graph
        self._groups: dict[int, RowGroupProgress] = {}
        self._frontier: dict[str, Task] = {}
        self._durable = RowGroupSet()
        self._dropped_rows: dict[int, bytes] = {}
        self._batch_nodes = [node for node in graph.nodes.values() if node.task_type == "batch"]
        self._sequences = {
            node.column: OrderedSequence(node, graph.bit[node.column], graph.needs_mask[node.column])
            for node in graph.nodes.values()
            if node.ordered
        }
        self._sequences_moved_by = {
            column: tuple(
                self._sequences[each.column]
                for each in (graph.nodes[column], *graph.downstream[column])
                if each.column in self._sequences
            )
            for column in graph.order
        }

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
        self._groups[row_group] = RowGroupProgress(
            size=size,
            done=[0] * size,
            dropped=set(),
            open_rows=size,
            finished_batches=set(),
            satisfied={node.column: 0 for node in self._batch_nodes},
        )
        roots = [Task(root.column, row_group, None, "from_scratch") for root in self._graph.roots if not root.ordered]
        for sequence in self._sequences.values():
            sequence.opened(row_group)
        return self._publish(roots + self._advance(self._sequences.values()))

    def mark_complete(self, task: Task) -> FrontierDelta:
        """Note that `task` has made its cells. A task of a row dropped in the meantime changes nothing."""
        group = self._group(task.row_group)
        removed = self._withdraw(task)
        column, row = task.column, task.row_index
        bit, sequences = self._graph.bit[column], self._sequences_moved_by[column]
        added: list[Task] = []
        if sequences:
            self._end(task)
        if row is not None:
            if row in group.dropped:
                return self._publish(self._advance(sequences), removed)
            if group.done[row] & bit:
                raise TrackerError(f"{task} was completed before")
            self._set_bit(task, group, row, bit, added)
        else:
            if column in group.finished_batches:
                raise TrackerError(f"{task} was completed before")
            group.finished_batches.add(column)
            group.satisfied.pop(column, None)
            for active in range(group.size):
                if active not in group.dropped:
                    self._set_bit(task, group, active, bit, added)
        if sequences:
            added.extend(self._advance(sequences))
        return self._publish(added, removed)

    def reopen(self, task: Task) -> FrontierDelta:
        """Make a task that did not complete ready again, unless nothing depends on it any more."""
        return self.mark_ended(task) if self.is_needless(task) else self._publish([task])

    def mark_ended(self, task: Task) -> FrontierDelta:
        """Note that a task that is needless now is neither queued nor running any more: its successor may run."""
        if not self._end(task):
            return _UNCHANGED
        return self._publish(self._advance(self._sequences_moved_by[task.column]))

    def drop_row(self, row_group: int, row_index: int) -> FrontierDelta:
        """Drop a row. `removed` holds every ready task that is now needless, acknowledged or not.

        That is the row's own cells, and with the last active row every task of the row group. Those among them that
        were acknowledged are to be taken out of the queue or stopped; for each, `mark_ended` follows.
        """
        group = self._group(row_group)
        if not 0 <= row_index < group.size:
            raise TrackerError(f"row group {row_group} has rows 0 to {group.size - 1}, and no row {row_index}")
        if row_index in group.dropped:
            return _UNCHANGED
        graph = self._graph
        done = group.done[row_index]
        group.dropped.add(row_index)
        if done != graph.full_mask:
            group.open_rows -= 1
        active = group.active
        added: list[Task] = []
        removed: list[Task] = []
        for node in graph.nodes.values():
            needs = graph.needs_mask[node.column]
            has_needs = not needs & ~done
            if node.task_type == "cell":
                cell = Task(node.column, row_group, row_index, "cell")
                if has_needs and not done & graph.bit[node.column] and self._may_be_out(cell):
                    removed.append(cell)
                continue
            if node.column in group.finished_batches:
                continue
            whole = Task(node.column, row_group, None, node.task_type)
            was_ready = True
            if node.task_type == "batch":
                was_ready = group.satisfied[node.column] == active + 1
                if has_needs:
                    group.satisfied[node.column] -= 1
                if active and not was_ready and group.satisfied[node.column] == active and not node.ordered:
                    added.append(whole)
            if was_ready and not active and self._may_be_out(whole):
                removed.append(whole)
        for task in removed:
            if self._withdraw(task):
                self._end(task)
        return self._publish(added + self._advance(self._sequences.values()), tuple(removed))

    def abandon(self, row_group: int) -> FrontierDelta:
        """Forget an open row group that will not be finished. `removed` holds its tasks that were not acknowledged."""
        self._group(row_group)
        removed = tuple(task for task in self._frontier.values() if task.row_group == row_group)
        for task in removed:
            self._withdraw(task)
            self._end(task)
        del self._groups[row_group]
        return self._publish(self._advance(self._sequences.values()), removed)

    def has_finished_row(self, row_group: int) -> bool:
        """Whether an active row of an open row group has every column."""
        group = self._group(row_group)
        return any(done == self._graph.full_mask and row not in group.dropped for row, done in enumerate(group.done))

    @property
    def is_ordered(self) -> bool:
        """Whether any node is ordered, so that a row group is made with its predecessors in mind."""
        return bool(self._sequences)

    def is_complete(self, row_group: int) -> bool:
        """Whether every active row of an open row group has every column."""
        return self._group(row_group).open_rows == 0

    def has_living_row(self, row_group: int) -> bool:
        """Whether a row of an open row group is active."""
        return self._group(row_group).active > 0

    def is_dropped(self, row_group: int, row_index: int) -> bool:
        """Whether a row was dropped; answers for durable row groups too."""
        if row_group in self._groups:
            return row_index in self._groups[row_group].dropped
        bits = self._dropped_rows.get(row_group, b"")
        byte, bit = divmod(row_index, 8)
        return byte < len(bits) and bool(bits[byte] >> bit & 1)

    def is_needless(self, task: Task) -> bool:
        """Whether nothing depends on `task` any more: its row, or every row of its row group, was dropped."""
        group = self._group(task.row_group)
        return len(group.dropped) == group.size if task.row_index is None else task.row_index in group.dropped

    def living_rows(self, row_group: int) -> tuple[int, ...]:
        """The active rows of an open row group, ascending."""
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

    def _group(self, row_group: int) -> RowGroupProgress:
        try:
            return self._groups[row_group]
        except KeyError:
            raise TrackerError(f"row group {row_group} is not open") from None

    def _set_bit(self, completed: Task, group: RowGroupProgress, row: int, bit: int, added: list[Task]) -> None:
        """Note that a row has what `completed` made, and add to `added` what is ready by that."""
        graph = self._graph
        done = group.done[row] | bit
        group.done[row] = done
        if done == graph.full_mask:
            group.open_rows -= 1
        for node in graph.downstream[completed.column]:
            if graph.needs_mask[node.column] & ~done:
                continue
            if node.task_type == "cell":
                if not node.ordered:
                    added.append(Task(node.column, completed.row_group, row, "cell"))
            else:
                group.satisfied[node.column] += 1
                if group.satisfied[node.column] == group.active and not node.ordered:
                    added.append(Task(node.column, completed.row_group, None, "batch"))

    def _may_be_out(self, ready: Task) -> bool:
        """Whether a task that has all its inputs was made ready: at an ordered node only the current one was."""
        sequence = self._sequences.get(ready.column)
        return sequence is None or sequence.current == ready

    def _end(self, task: Task) -> bool:
        """Note that `task` is not current any more; whether it was."""
        sequence = self._sequences.get(task.column)
        if sequence is None or sequence.current != task:
            return False
        sequence.current = None
        return True

    def _advance(self, sequences: Iterable[OrderedSequence]) -> list[Task]:
        return [task for sequence in sequences if (task := sequence.advance(self._groups)) is not None]

    def _withdraw(self, task: Task) -> tuple[Task, ...]:
        return () if self._frontier.pop(stable_task_id(task), None) is None else (task,)

    def _publish(self, added: list[Task], removed: tuple[Task, ...] = ()) -> FrontierDelta:
        for task in added:
            self._frontier[stable_task_id(task)] = task
        return FrontierDelta(tuple(added), removed) if added or removed else _UNCHANGED

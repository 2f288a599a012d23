"""Whose turn it is at an ordered node, whose tasks run one at a time.

Order is that in which row groups were opened, and within a row group that of its rows. The task in turn is given out
when it has all its inputs, and holds the turn until it completes or has *ended*. A row that was given up has no turn.
If its task had been given out already, the turn is held until nobody runs that task any more, so two never overlap. A
task that failed and waits to run again still holds the turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import attrs

from trio_sched._resources.task import Task
from trio_sched._task.graph import GraphNode

__all__ = ["RowGroupProgress", "Turn"]


@attrs.define(eq=False)
class RowGroupProgress:
    """How far one open row group is. Invariant: open_rows counts the rows that are neither dropped nor finished.

    done: per row, the bits of the nodes that have finished it. satisfied: per unfinished batch node, the living rows
    that have what it waits for.
    """

    size: int
    done: list[int]
    dropped: set[int]
    open_rows: int
    finished_batches: set[str]
    satisfied: dict[str, int]

    @property
    def living(self) -> int:
        """How many rows were not given up."""
        return self.size - len(self.dropped)


@attrs.define(eq=False)
class Turn:
    """The turn at `node`. task: who holds it, or None."""

    node: GraphNode
    bit: int
    needs_mask: int
    task: Task | None = None
    _row_groups: deque[int] = attrs.field(factory=deque[int], init=False)
    _row: int = attrs.field(default=0, init=False)

    def opened(self, row_group: int) -> None:
        """Its turn comes after those of all row groups that were opened before it."""
        self._row_groups.append(row_group)

    def advance(self, groups: Mapping[int, RowGroupProgress]) -> Task | None:
        """The next task, if nobody holds the turn and the next has all its inputs; it holds the turn from then on."""
        if self.task is not None:
            return None
        while self._row_groups:
            row_group = self._row_groups[0]
            group = groups.get(row_group)
            if group is not None:
                is_ready = self._is_ready(group)
                if is_ready:
                    row = self._row if self.node.task_type == "cell" else None
                    self.task = Task(self.node.column, row_group, row, self.node.task_type)
                if is_ready is not None:
                    return self.task
            self._row_groups.popleft()
            self._row = 0
        return None

    def _is_ready(self, group: RowGroupProgress) -> bool | None:
        """Whether the next task of `group` has all its inputs; None if there is no next."""
        column = self.node.column
        if self.node.task_type != "cell":
            if column in group.finished_batches or not group.living:
                return None
            return self.node.task_type == "from_scratch" or group.satisfied[column] == group.living
        while self._row < group.size:
            done = group.done[self._row]
            if self._row not in group.dropped and not done & self.bit:
                return not self.needs_mask & ~done
            self._row += 1
        return None

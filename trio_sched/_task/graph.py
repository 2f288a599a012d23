"""Which column needs which: the static shape of a dataset, checked once, before anything runs.

A node is one generator: the column its tasks are named after, the columns it writes, the columns it needs, and how its
tasks are cut (`from_scratch`, `cell` or `batch`). The graph gives every node a bit, so that the tracker can keep what a
row has and what a node needs as plain ints, and test readiness with one `and`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import attrs

from trio_sched import _validation as check
from trio_sched._errors import CycleError, DuplicateColumnError, InvalidValueError, PipelineError, UnknownNameError
from trio_sched._resources.task import TaskType

__all__ = ["ExecutionGraph", "GraphNode"]

_TASK_TYPES = ("from_scratch", "cell", "batch")


def _task_type(_instance: object, _attribute: object, value: object) -> None:
    if value not in _TASK_TYPES:
        raise InvalidValueError("GraphNode.task_type", value, "one of 'from_scratch', 'cell', 'batch'")


def _own_column(node: GraphNode) -> tuple[str, ...]:
    return (node.column,)


@attrs.frozen
class GraphNode:
    """One generator in the graph. outputs: the columns it writes, by default just `column`, which must be the first."""

    column: str = attrs.field(validator=check.text)
    task_type: TaskType = attrs.field(validator=_task_type)
    needs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = attrs.field(default=attrs.Factory(_own_column, takes_self=True))

    def __attrs_post_init__(self) -> None:
        if self.task_type == "from_scratch" and self.needs:
            raise PipelineError(
                f"column {self.column!r} is made from scratch and cannot need {', '.join(self.needs)}; "
                "make it a cell or batch column"
            )
        if self.task_type != "from_scratch" and not self.needs:
            raise PipelineError(
                f"column {self.column!r} needs no other column; say what it needs, or make it from scratch"
            )


@attrs.define(eq=False, init=False)
class ExecutionGraph:
    """The checked graph. Raises a `PipelineError` for a cycle, an unknown need, or two owners of one column."""

    nodes: Mapping[str, GraphNode]
    order: tuple[str, ...]
    needs_mask: Mapping[str, int]
    bit: Mapping[str, int]
    full_mask: int
    downstream: Mapping[str, tuple[GraphNode, ...]]
    columns: tuple[str, ...]

    def __init__(self, nodes: Iterable[GraphNode]) -> None:
        by_column: dict[str, GraphNode] = {}
        owner: dict[str, GraphNode] = {}
        for node in nodes:
            for column in node.outputs:
                if column in owner:
                    raise DuplicateColumnError(column, (owner[column].column, node.column))
                owner[column] = node
            by_column[node.column] = node
        if not by_column:
            raise PipelineError("a pipeline needs at least one column")
        for node in by_column.values():
            for need in node.needs:
                if need not in owner:
                    raise UnknownNameError("column", need, used_by=f"column {node.column!r}", known=owner)
        feeds: dict[str, list[GraphNode]] = {column: [] for column in by_column}
        for node in by_column.values():
            for source in dict.fromkeys(owner[need].column for need in node.needs):
                feeds[source].append(node)
        self.nodes = MappingProxyType(by_column)
        self.order = _topological_order(by_column, owner)
        self.bit = MappingProxyType({column: 1 << position for position, column in enumerate(self.order)})
        self.full_mask = (1 << len(self.order)) - 1
        self.needs_mask = MappingProxyType(
            {
                node.column: sum(self.bit[source] for source in {owner[need].column for need in node.needs})
                for node in by_column.values()
            }
        )
        self.downstream = MappingProxyType({column: tuple(nodes) for column, nodes in feeds.items()})
        self.columns = tuple(column for name in self.order for column in by_column[name].outputs)

    @property
    def roots(self) -> tuple[GraphNode, ...]:
        """Nodes that need nothing, in order."""
        return tuple(self.nodes[column] for column in self.order if not self.nodes[column].needs)


def _topological_order(by_column: Mapping[str, GraphNode], owner: Mapping[str, GraphNode]) -> tuple[str, ...]:
    order: dict[str, None] = {}
    for start in by_column:
        path: dict[str, None] = {}
        stack = [(start, iter(by_column[start].needs))]
        path[start] = None
        while stack:
            column, needs = stack[-1]
            if column in order:
                stack.pop()
                continue
            for need in needs:
                source = owner[need].column
                if source in path:
                    names = list(path)
                    raise CycleError([*names[names.index(source) :], source])
                if source not in order:
                    path[source] = None
                    stack.append((source, iter(by_column[source].needs)))
                    break
            else:
                order[column] = None
                path.pop(column)
                stack.pop()
    return tuple(order)

"""Which column needs which: the static shape of a dataset, checked once, before anything runs.

A node is one generator: the column its tasks are named after, the columns it writes, the columns it needs, and how its
tasks are cut (`from_scratch`, `cell` or `batch`). A node may also come `after` others of which it reads nothing, and it
may be `ordered`. The graph gives every node a bit, so that the tracker can keep what a row has and what a node waits
for as plain ints, and test readiness with one `and`.
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
    """One generator in the graph.

    column: what its tasks are named after. needs: the columns it reads. outputs: the columns it writes, by default just
    `column`, which must be the first; a batch node may write none. ordered: its tasks run one at a time, row group by
    row group in the order of their opening, and row by row. after: nodes, by their `column`, that must have finished a
    row before this one may begin with it, although it reads nothing of theirs.
    """

    column: str = attrs.field(validator=check.text)
    task_type: TaskType = attrs.field(validator=_task_type)
    needs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = attrs.field(default=attrs.Factory(_own_column, takes_self=True))
    ordered: bool = False
    after: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        waits_for = (*self.needs, *self.after)
        if self.task_type == "from_scratch" and waits_for:
            raise PipelineError(
                f"column {self.column!r} is made from scratch and cannot need {', '.join(waits_for)}; "
                "make it a cell or batch column"
            )
        if self.task_type != "from_scratch" and not waits_for:
            raise PipelineError(
                f"column {self.column!r} needs no other column; say what it needs, or make it from scratch"
            )
        if not self.outputs and self.task_type != "batch":
            raise InvalidValueError("GraphNode.outputs", self.outputs, "not empty unless the node is a batch node")
        if self.outputs and self.outputs[0] != self.column:
            raise InvalidValueError("GraphNode.outputs", self.outputs, f"empty, or begin with {self.column!r}")


@attrs.define(eq=False, init=False)
class ExecutionGraph:
    """The checked graph. Raises a `PipelineError` for a cycle, an unknown need, or two owners of one column.

    Per node, by its column: `bit`, `needs_mask` (the bits of all it waits for), `downstream` (the nodes that wait for
    it). order: every node after those it waits for. columns: all that is written.
    """

    nodes: Mapping[str, GraphNode]
    order: tuple[str, ...]
    needs_mask: Mapping[str, int]
    bit: Mapping[str, int]
    full_mask: int
    downstream: Mapping[str, tuple[GraphNode, ...]]
    columns: tuple[str, ...]
    _before_or_after: Mapping[str, int]

    def __init__(self, nodes: Iterable[GraphNode]) -> None:
        by_column: dict[str, GraphNode] = {}
        owner: dict[str, GraphNode] = {}
        named: dict[str, GraphNode] = {}
        for node in nodes:
            for column in node.outputs or (node.column,):
                if column in named:
                    raise DuplicateColumnError(column, (named[column].column, node.column))
                named[column] = node
            owner.update(dict.fromkeys(node.outputs, node))
            by_column[node.column] = node
        if not by_column:
            raise PipelineError("a pipeline needs at least one column")
        sources = {column: _sources(node, by_column, owner) for column, node in by_column.items()}
        feeds: dict[str, list[GraphNode]] = {column: [] for column in by_column}
        for column, waits_for in sources.items():
            for source in waits_for:
                feeds[source].append(by_column[column])
        self.nodes = MappingProxyType(by_column)
        self.order = _topological_order(sources)
        self.bit = MappingProxyType({column: 1 << position for position, column in enumerate(self.order)})
        self.full_mask = (1 << len(self.order)) - 1
        self.needs_mask = MappingProxyType(
            {column: sum(self.bit[source] for source in waits_for) for column, waits_for in sources.items()}
        )
        self.downstream = MappingProxyType({column: tuple(nodes) for column, nodes in feeds.items()})
        self.columns = tuple(column for name in self.order for column in by_column[name].outputs)
        self._before_or_after = _before_or_after(self.order, sources, self.bit)

    @property
    def roots(self) -> tuple[GraphNode, ...]:
        """Nodes that wait for nothing, in order."""
        return tuple(self.nodes[column] for column in self.order if not self.needs_mask[column])

    def may_run_beside_another(self, column: str) -> bool:
        """Whether some other node may work on a row while this one does: it comes neither before nor after it."""
        return self._before_or_after[column] | self.bit[column] != self.full_mask


def _sources(node: GraphNode, by_column: Mapping[str, GraphNode], owner: Mapping[str, GraphNode]) -> tuple[str, ...]:
    """The nodes that `node` waits for, each once, in the order in which it names them."""
    for need in node.needs:
        if need not in owner:
            raise UnknownNameError("column", need, used_by=f"column {node.column!r}", known=owner)
    for earlier in node.after:
        if earlier not in by_column:
            raise UnknownNameError("node", earlier, used_by=f"column {node.column!r}", known=by_column)
    return tuple(dict.fromkeys((*(owner[need].column for need in node.needs), *node.after)))


def _before_or_after(
    order: tuple[str, ...], sources: Mapping[str, tuple[str, ...]], bit: Mapping[str, int]
) -> dict[str, int]:
    """Per node, the bits of all nodes that it waits for, or that wait for it, however indirectly."""
    before: dict[str, int] = {}
    for column in order:
        before[column] = 0
        for source in sources[column]:
            before[column] |= before[source] | bit[source]
    found = dict(before)
    for column in order:
        for other in order:
            if before[column] & bit[other]:
                found[other] |= bit[column]
    return found


def _topological_order(sources: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    order: dict[str, None] = {}
    for start in sources:
        path: dict[str, None] = {start: None}
        stack = [(start, iter(sources[start]))]
        while stack:
            column, waits_for = stack[-1]
            if column in order:
                stack.pop()
                continue
            for source in waits_for:
                if source in path:
                    names = list(path)
                    raise CycleError([*names[names.index(source) :], source])
                if source not in order:
                    path[source] = None
                    stack.append((source, iter(sources[source])))
                    break
            else:
                order[column] = None
                path.pop(column)
                stack.pop()
    return tuple(order)

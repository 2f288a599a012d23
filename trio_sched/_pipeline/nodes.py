"""Places every step of a pipeline in the graph.

Input rows and columns from scratch are the roots. Pre-batch processors come after all roots, one after the other, and
every other node after the last of them. Post-batch processors come after everything else, again one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, cast

from trio_sched._errors import PipelineError
from trio_sched._pipeline.columns import Column
from trio_sched._pipeline.processors import Processor
from trio_sched._pipeline.sources import RowReader
from trio_sched._pipeline.steps import PipelineStep
from trio_sched._task.graph import GraphNode

__all__ = ["NodeOrigin", "place_steps"]

NodeOrigin: TypeAlias = Column | Processor | RowReader


def place_steps(steps: Sequence[PipelineStep], reader: RowReader | None) -> list[tuple[GraphNode, NodeOrigin]]:
    """The nodes of the graph, each with what it comes from. Raises `PipelineError` for what is no step."""
    columns: list[Column] = []
    before: list[Processor] = []
    behind: list[Processor] = []
    for step in cast("Sequence[object]", steps):
        match step:
            case Column():
                columns.append(step)
            case Processor(stage="pre-batch"):
                before.append(step)
            case Processor():
                behind.append(step)
            case _:
                raise PipelineError(
                    "columns must be made with @column, @batch_column or @from_scratch_column, "
                    f"and processors with @pre_batch_processor or @post_batch_processor, got {step!r}"
                )
    if reader is None and not columns:
        raise PipelineError("a pipeline needs at least one column")
    placed: list[tuple[GraphNode, NodeOrigin]] = []
    if reader is not None:
        placed.append((GraphNode(reader.columns[0], "from_scratch", (), reader.columns), reader))
    placed += [(column.node(), column) for column in columns if column.task_type == "from_scratch"]
    last = _chain(before, placed, ())
    placed += [(column.node(after=last), column) for column in columns if column.task_type != "from_scratch"]
    _chain(behind, placed, last)
    return placed


def _chain(
    processors: Sequence[Processor], placed: list[tuple[GraphNode, NodeOrigin]], last: tuple[str, ...]
) -> tuple[str, ...]:
    """Place each processor behind all that are placed; the names of the last of them."""
    for processor in processors:
        seen = tuple(column for node, _ in placed for column in node.outputs)
        placed.append((GraphNode(processor.node_name, "batch", seen, processor.outputs, after=last), processor))
        last = (processor.node_name,)
    return last

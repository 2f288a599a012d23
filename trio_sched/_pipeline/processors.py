"""Processors: plain functions over all the rows of a row group, before its columns are made or after.

- `@pre_batch_processor` sees the rows as they come, with the columns of the input and those from scratch, before
  anything else is made of them.
- `@post_batch_processor` sees the finished rows, just before the row group is written. With `outputs=["rank"]` it also
  adds columns, which nothing else can need.

A processor gets a list with a dict for each active row, in order, and returns a list of the same length. It returns
each row, changed or not, or None in its place, which removes it. A row need only hold the columns that change, and
those that the processor adds. A row that is removed is no failure; the result counts it as filtered. Several processors
of a kind run one after the other, in the order of the pipeline.

A processor concerns the whole dataset: one that raises, or returns anything else, ends the run with a `ProcessorError`.
What is durable by then is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import attrs

from trio_sched._errors import PipelineError
from trio_sched._pipeline.columns import Function, PipelineStep, accept_function, column_names, function_name
from trio_sched._pipeline.errors import Stage
from trio_sched._pipeline.outputs import Cell, keep_cell, malformed, one_per_row

__all__ = ["Processor", "post_batch_processor", "pre_batch_processor"]


@attrs.define(eq=False, kw_only=True)
class Processor(PipelineStep):
    """A processor of a pipeline, made with `pre_batch_processor` or `post_batch_processor`.

    stage: `pre-batch` or `post-batch`. outputs: the columns that it adds.
    """

    stage: Stage
    outputs: tuple[str, ...] = ()

    @property
    def node_name(self) -> str:
        """Its name in the graph: the first column that it adds, or else its own name."""
        return self.outputs[0] if self.outputs else self.name

    def changes(self, made: object, rows: int, columns: Sequence[str]) -> list[dict[str, Cell] | None]:
        """What to keep of the value `made` that it returned: per row the changed cells, or None for a row to remove.

        rows: how many it was given. columns: those it was given. Raises `MalformedOutputError`.
        """
        return [None if row is None else self._cells(row, columns) for row in one_per_row(self.name, made, rows)]

    def _cells(self, row: object, columns: Sequence[str]) -> dict[str, Cell]:
        expected = "for each row the dict of its columns, or None to remove it"
        if not isinstance(row, Mapping):
            raise malformed(self.name, row, "in the place of a row", expected)
        given = dict(cast("Mapping[str, object]", row))
        missing = [column for column in self.outputs if column not in given]
        unknown = [column for column in given if column not in columns and column not in self.outputs]
        if missing or unknown:
            problem = f"without {missing}" if missing else f"with {unknown}, of which no row has a column"
            raise malformed(self.name, given, problem, expected)
        return {column: keep_cell(column, value) for column, value in given.items()}


def pre_batch_processor(*, name: str | None = None) -> Callable[[Function], Processor]:
    """Make a function a processor of the rows as they come. name: by default the function's.

    Raises `PipelineError` for a function that does not take one argument.
    """
    return _decorator("pre-batch", name, ())


def post_batch_processor(*, name: str | None = None, outputs: Iterable[str] = ()) -> Callable[[Function], Processor]:
    """Make a function a processor of the finished rows. name: by default the function's. outputs: columns it adds.

    Raises `PipelineError` for a function that does not take one argument.
    """
    return _decorator("post-batch", name, column_names("outputs", outputs))


def _decorator(stage: Stage, name: str | None, outputs: tuple[str, ...]) -> Callable[[Function], Processor]:
    if len(set(outputs)) < len(outputs):
        raise PipelineError(f"outputs must name every column once, got {outputs!r}")

    def decorate(function: Function) -> Processor:
        known_as = function_name(f"{stage} processor", function, name)
        is_async = accept_function(f"{stage} processor {known_as!r}", function, ["rows"])
        return Processor(name=known_as, stage=stage, function=function, is_async=is_async, outputs=outputs)

    return decorate

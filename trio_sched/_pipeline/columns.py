"""Columns: plain async functions with a name, what they need, and the models they call.

`@column` makes a column cell by cell: the function gets a dict of just the columns it needs, then a handle for each of
its models, and returns the cell. `@from_scratch_column` makes the first column of a dataset without input: the function
gets a `RowSpan` and returns one value per row of it, so any part of the dataset can be made without what comes before.

A column is named after its function and can still be called as one.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeAlias, cast

import attrs

from trio_sched import _validation as check
from trio_sched._errors import PipelineError
from trio_sched._generator import ColumnGenerator
from trio_sched._pipeline.models import Model
from trio_sched._task.graph import GraphNode

__all__ = ["CellColumn", "Column", "FromScratchColumn", "RowSpan", "column", "from_scratch_column"]

CellFunction: TypeAlias = Callable[..., Awaitable[object]]
FromScratchFunction: TypeAlias = Callable[["RowSpan"], Awaitable[Sequence[object]]]


@attrs.frozen
class RowSpan:
    """Rows `start` to `start + count` of a dataset that is made with `seed`."""

    start: int
    count: int
    seed: int


@attrs.define(eq=False)
class Column(ColumnGenerator):
    """A column of a pipeline: made by one of the decorators of this module."""

    name: str = attrs.field(validator=check.text)

    def node(self) -> GraphNode:
        """The column's place in the graph."""
        raise NotImplementedError(f"{type(self).__name__} is not made with @column or @from_scratch_column")


@attrs.define(eq=False)
class CellColumn(Column):
    """A column made cell by cell."""

    function: CellFunction
    needs: tuple[str, ...]
    models: tuple[Model | str, ...]

    def node(self) -> GraphNode:
        """The column's place in the graph."""
        return GraphNode(self.name, "cell", self.needs)

    async def __call__(self, *args: object) -> object:
        """Call the function as it is."""
        return await self.function(*args)


@attrs.define(eq=False)
class FromScratchColumn(Column):
    """A column made without input, a span of rows at a time."""

    function: FromScratchFunction

    def node(self) -> GraphNode:
        """The column's place in the graph."""
        return GraphNode(self.name, "from_scratch")

    async def __call__(self, span: RowSpan) -> Sequence[object]:
        """Call the function as it is."""
        return await self.function(span)


def column(
    *, needs: Iterable[str], model: Model | str | Sequence[Model | str] = (), name: str | None = None
) -> Callable[[CellFunction], CellColumn]:
    """Make an async function a column, cell by cell.

    needs: the columns whose cells the function reads, at least one. model: the model or models it calls, or their names
    among the `models` given to `run`; the function gets one handle for each, after the row. name: the column's name, by
    default the function's. Raises `PipelineError` for a function that is not async or does not take those arguments.
    """
    if isinstance(needs, str):
        raise PipelineError(f"needs must be a list of column names, got the string {needs!r}; write [{needs!r}]")
    wanted = tuple(needs)
    models = (model,) if isinstance(model, Model | str) else tuple(model)

    def decorate(function: CellFunction) -> CellColumn:
        made = CellColumn(_name(function, name), function, wanted, models)
        for each in models:
            if not isinstance(cast("object", each), Model | str):
                raise PipelineError(f"column {made.name!r}: model must be a Model or the name of one, got {each!r}")
        arguments = ["row", *(f"model {each}" for each in models)]
        _check_function(made.name, function, arguments)
        made.node()
        return made

    return decorate


def from_scratch_column(*, name: str | None = None) -> Callable[[FromScratchFunction], FromScratchColumn]:
    """Make an async function a column that starts a dataset.

    The function gets a `RowSpan` and returns exactly `count` values, the same for the same span and seed. Raises
    `PipelineError` for a function that is not async or does not take one argument.
    """

    def decorate(function: FromScratchFunction) -> FromScratchColumn:
        made = FromScratchColumn(_name(function, name), function)
        _check_function(made.name, function, ["span"])
        return made

    return decorate


def _name(function: Callable[..., object], name: str | None) -> str:
    return name if name is not None else getattr(function, "__name__", "")


def _check_function(name: str, function: Callable[..., object], arguments: list[str]) -> None:
    target = function if inspect.isroutine(function) else type(function).__call__
    if not inspect.iscoroutinefunction(target):
        raise PipelineError(f"column {name!r} must be made by an async function, got {function!r}; write `async def`")
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        raise PipelineError(
            f"column {name!r} calls its function with {len(arguments)} arguments ({', '.join(arguments)}), "
            f"which it does not take: {error}"
        ) from error

"""Columns: plain functions with a name, what they need, and the models they call.

- `@column` makes a column cell by cell: the function gets a dict of just the columns it needs, then a handle for each
  of its models, and returns the cell.
- `@batch_column` makes a column for a whole row group at once: the function gets a list of such dicts, one for each
  active row, and returns one value per row.
- `@from_scratch_column` makes the first column of a dataset without input: the function gets a `RowSpan` and returns
  one value per row of it, so any part of the dataset can be made without what comes before.

An async function runs in the run's own thread and should leave work that takes long or blocks to a sync one. A sync
function runs in a worker thread. A thread cannot be stopped from outside: a run that is cancelled waits until the
function returns, so one that takes long should now and then call `trio.from_thread.check_cancelled()`. A function that
calls a model is always async; a client that blocks is called with `await model.call(trio.to_thread.run_sync, ...)`.
Whether a function is async is read from its definition once, where it is declared.

A function may make several columns. With `outputs=["title", "body"]` it returns a mapping with exactly these, and the
first of them names it. With `side_effect_columns=["thinking"]` it may also give a value for those; absent means null.
Another column needs one of them by its own name.

With `skip_when=lambda row: not row["topic"]` a function is not called for some rows. A skipped cell holds the column's
`skip_value`, null by default. Columns that need it are skipped for that row too, unless they were declared with
`skip_with_needs=False`: those get the value that it holds. Batch columns do not see the rows for which they are
skipped. A rule runs in the run's own thread, once per row, before the call; it should only look. A rule that raises
rejects its row.

A function that raises `TryAgain` has its cell made again, `attempts` times in all. So does one that returns what its
column's `check` refuses (`checks.py`), or what cannot be kept. After the last attempt the row is rejected, or the cell
takes `on_failure`. A column over many rows is made again as a whole.

What a function gets is its own: it may change it, and nobody else sees that. Over many rows it may return an exception
in the place of a value, which rejects just that row; a rate limit there has all of them made again later, since it says
nothing about its row. A value that cannot be kept, such as one that is not JSON or a list of the wrong length, is
malformed: after the last attempt the rows that it spoiled are rejected, and the result says why.

A column is named after its function and can still be called as one, always with `await`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, TypeAlias, cast

import attrs

from trio_sched import _validation as check
from trio_sched._errors import PipelineError
from trio_sched._pipeline.checks import Check, CheckedValue, KeepRule, class_or_schema_check
from trio_sched._pipeline.errors import MalformedOutputError
from trio_sched._pipeline.models import Model
from trio_sched._pipeline.outputs import Cell, Outputs
from trio_sched._resources.task import TaskType
from trio_sched._task.graph import GraphNode

if sys.version_info < (3, 11):
    pass

__all__ = [
    "Column",
    "Function",
    "PipelineStep",
    "RowSpan",
    "SkipRule",
    "SkipWhen",
    "accept_function",
    "batch_column",
    "column",
    "column_names",
    "from_scratch_column",
    "function_name",
    "skip_rule",
]

Function: TypeAlias = Callable[..., object]


@attrs.define(eq=False, kw_only=True)
class PipelineStep:
    """A function that is declared as a part of a pipeline.

    is_async: whether it runs in the run's own thread rather than in a worker thread.
    """

    name: str = attrs.field(validator=check.text)
    function: Function
    is_async: bool

    async def __call__(self, *args: object) -> object:
        """Call the function as it is, and await what an async one returns."""
        made = self.function(*args)
        return await cast("Awaitable[object]", made) if self.is_async else made


@attrs.frozen
class RowSpan:
    """The rows that a column from scratch is to make.

    start: the first of them, counted from 0. count: how many. seed: that of the run.
    """

    start: int
    count: int
    seed: int


SkipWhen: TypeAlias = Callable[..., object]

_ATTEMPTS_WITH_CHECK: Final = 3


@attrs.frozen(eq=False)
class SkipRule:
    """when: whether to skip a row. with_needs: whether to skip where a needed cell was skipped. cells: kept instead."""

    when: SkipWhen | None
    with_needs: bool
    cells: tuple[Cell, ...]


Models: TypeAlias = "Model | str | Sequence[Model | str]"


@attrs.define(eq=False, kw_only=True)
class Column(PipelineStep):
    """A column of a pipeline, or several that one function makes, made with one of the decorators.

    task_type: `cell`, `batch` or `from_scratch`. outputs: the columns that it writes. needs: those that it reads.
    models: those that its function calls, or their names. skip: when its cells are skipped. keeping: what is kept
    of what its function returns. ordered: whether its function is called for one row, or one row group, at a time.
    """

    task_type: TaskType
    outputs: Outputs
    needs: tuple[str, ...] = ()
    models: tuple[Model | str, ...] = ()
    skip: SkipRule | None = None
    keeping: KeepRule = attrs.field(factory=KeepRule)
    ordered: bool = False

    def node(self, *, after: tuple[str, ...] = ()) -> GraphNode:
        """The column's node in the graph, after the nodes `after`; a column from scratch is after none."""
        after = () if self.task_type == "from_scratch" else after
        return GraphNode(self.name, self.task_type, self.needs, self.outputs.columns, ordered=self.ordered, after=after)


def column(
    *,
    needs: Iterable[str],
    model: Models = (),
    name: str | None = None,
    outputs: Iterable[str] = (),
    side_effect_columns: Iterable[str] = (),
    ordered: bool = False,
    skip_when: SkipWhen | None = None,
    skip_value: object = None,
    skip_with_needs: bool = True,
    attempts: int | None = None,
    on_failure: object = attrs.NOTHING,
    check: Check | None = None,
) -> Callable[[Function], Column]:
    """Make a function a column, cell by cell.

    The function gets a dict of the columns it needs, then a handle for each of its models, and returns the cell. A
    function that raises rejects its row, unless the failure may pass; then it is called again later.

    needs: the columns whose cells the function reads, at least one. model: the model or models that it calls, or their
    names among the `models` given to `run`. name: the column's name, by default the function's. outputs: several
    columns that it makes; it then returns a mapping with exactly these, and the first of them names it.
    side_effect_columns: columns for which the mapping may also have a value; null where it has none. ordered: whether
    the function is called for one row at a time, in the order of the rows, which takes as long as all its calls
    together. skip_when: a sync function of the row's needed columns that returns whether to skip the cell. skip_value:
    what a skipped cell holds, in the form in which the function would return it. skip_with_needs: whether the cell is
    also skipped where one that it needs was.

    attempts: how often the cell is made in all, where the function raises `TryAgain`, its output is malformed or its
    check refuses it; 1 by default, 3 with a check. on_failure: what the cell holds after the last attempt, in the form
    in which it would be kept; without it the row is rejected. check: a sync function from what was returned to the
    value to keep; or a pydantic, msgspec or attrs class, a dataclass or a `TypedDict`; or a JSON schema, a dict (extra
    `schema`). Of several outputs it gets all of them. It runs in the run's own thread.

    Raises `PipelineError` for a function that does not take those arguments, or that calls models and is not async, and
    for a check, a number of attempts or a value that cannot be used.
    """
    skipping = (skip_when, skip_value, skip_with_needs)
    keeping = (attempts, on_failure, check)
    return _decorator("cell", "row", needs, model, name, outputs, side_effect_columns, ordered, keeping, skipping)


def batch_column(
    *,
    needs: Iterable[str],
    model: Models = (),
    name: str | None = None,
    outputs: Iterable[str] = (),
    side_effect_columns: Iterable[str] = (),
    ordered: bool = False,
    skip_when: SkipWhen | None = None,
    skip_value: object = None,
    skip_with_needs: bool = True,
    attempts: int | None = None,
    on_failure: object = attrs.NOTHING,
    check: Check | None = None,
) -> Callable[[Function], Column]:
    """Make a function a column, a whole row group at once.

    The function gets a list of dicts, one for each active row of the row group, in order, once every one of them has
    what is needed, and then a handle for each of its models. It returns a list with one value per row, in the same
    order; an exception in the place of a value rejects that row. If it raises, it is called again later or the rows of
    the row group are rejected, as for a cell. Which rows a row group has depends on `RunConfig.buffer_size`, and which
    of them are active may depend on when others failed. Rows for which it is skipped are not among them, and if none is
    left the function is not called. The parameters are those of `column`; `ordered`: one row group at a time, in order.
    `check` gets the value of each row. The function is called again for all of them until every row has something to
    keep. After the last attempt the one that left the fewest rows without counts, and those rows are rejected or take
    `on_failure`.
    """
    skipping = (skip_when, skip_value, skip_with_needs)
    keeping = (attempts, on_failure, check)
    return _decorator("batch", "rows", needs, model, name, outputs, side_effect_columns, ordered, keeping, skipping)


def from_scratch_column(
    *,
    model: Models = (),
    name: str | None = None,
    outputs: Iterable[str] = (),
    side_effect_columns: Iterable[str] = (),
    ordered: bool = False,
    attempts: int | None = None,
    on_failure: object = attrs.NOTHING,
    check: Check | None = None,
) -> Callable[[Function], Column]:
    """Make a function a column that starts a dataset.

    The function gets a `RowSpan`, and then a handle for each of its models. It returns exactly `count` values, the same
    for the same span and seed; an exception in the place of a value rejects that row. The parameters are those of
    `batch_column`.
    """
    keeping = (attempts, on_failure, check)
    return _decorator("from_scratch", "span", (), model, name, outputs, side_effect_columns, ordered, keeping)


def _decorator(
    task_type: TaskType,
    argument: str,
    needs: Iterable[str],
    model: Models,
    name: str | None,
    outputs: Iterable[str],
    side_effect_columns: Iterable[str],
    ordered: bool,
    keeping: tuple[int | None, object, Check | None],
    skipping: tuple[SkipWhen | None, object, bool] | None = None,
) -> Callable[[Function], Column]:
    wanted = column_names("needs", needs)
    models = _models(model)
    own = column_names("outputs", outputs)
    side_effects = column_names("side_effect_columns", side_effect_columns)
    if own and name is not None and name != own[0]:
        raise PipelineError(f"a function is known by its first output {own[0]!r}, not by name={name!r}; leave that out")

    def decorate(function: Function) -> Column:
        known_as = own[0] if own else function_name("column", function, name)
        owner = f"column {known_as!r}"
        arguments = [argument, *(f"model {each}" for each in models)]
        shape = Outputs(own or (known_as,), side_effects, as_mapping=bool(own or side_effects))
        made = Column(
            name=known_as,
            task_type=task_type,
            function=function,
            is_async=accept_function(owner, function, arguments, models=len(models)),
            outputs=shape,
            needs=wanted,
            models=models,
            ordered=ordered,
            keeping=_keep_rule(owner, shape, *keeping),
            skip=skip_rule(owner, shape, *skipping) if skipping is not None else None,
        )
        made.node()
        return made

    return decorate


def _models(model: Models) -> tuple[Model | str, ...]:
    several = not isinstance(model, str) and isinstance(cast("object", model), Sequence)
    models = tuple(cast("Sequence[Model | str]", model)) if several else (cast("Model | str", model),)
    for each in models:
        if not isinstance(cast("object", each), Model | str):
            raise PipelineError(f"model must be a Model or the name of one, or a list of those, got {each!r}")
    return models


def skip_rule(owner: str, outputs: Outputs, when: SkipWhen | None, value: object, with_needs: bool) -> SkipRule:
    """Check a column's rule. value: in the form in which its function returns one; None for null everywhere."""
    if when is not None and accept_function(f"skip_when of {owner}", when, ["row"]):
        raise PipelineError(
            f"skip_when of {owner} must be a sync function, got {when!r}; it should only look at the row"
        )
    return SkipRule(when, with_needs, _cells("skip_value", owner, outputs, value))


def _keep_rule(
    owner: str, outputs: Outputs, attempts: int | None, on_failure: object, check_given: Check | None
) -> KeepRule:
    checked: CheckedValue | None = None
    if check_given is not None:
        checked = class_or_schema_check(owner, check_given)
        if checked is None:
            checked = cast("CheckedValue", check_given)
            if accept_function(f"check of {owner}", checked, ["value"]):
                raise PipelineError(
                    f"check of {owner} must be a sync function, got {checked!r}; it should only look at the value, "
                    "and what has to wait belongs into the column's own function"
                )
    if attempts is None:
        attempts = 1 if checked is None else _ATTEMPTS_WITH_CHECK
    return KeepRule(
        check.check_int(f"attempts of {owner}", attempts, minimum=1),
        None if on_failure is attrs.NOTHING else _cells("on_failure", owner, outputs, on_failure),
        checked,
    )


def _cells(parameter: str, owner: str, outputs: Outputs, value: object) -> tuple[Cell, ...]:
    """The cells of a value that a user gives in the place of a function's; None for null everywhere."""
    if value is None:
        return (None,) * len(outputs.columns)
    try:
        return outputs.keep(value)
    except MalformedOutputError as error:
        raise PipelineError(f"{parameter} of {owner} is {error.problem}; give {error.expected}") from error


def function_name(what: str, function: Callable[..., object], name: str | None) -> str:
    """The name given, or else the function's own."""
    found: object = name if name is not None else getattr(function, "__name__", "")
    if not isinstance(found, str) or not found or found == "<lambda>":
        raise PipelineError(f"a {what} needs a name, and {function!r} has none to go by; write name='...'")
    return found


def column_names(parameter: str, names: Iterable[str]) -> tuple[str, ...]:
    """The names given for `parameter`, checked. A string is refused, since its letters would be taken for names."""
    if isinstance(names, str):
        raise PipelineError(f"{parameter} must be a list of column names, got the string {names!r}; write [{names!r}]")
    return tuple(check.check_text(f"each of {parameter}", each) for each in names)


def accept_function(owner: str, function: Callable[..., object], arguments: Sequence[str], *, models: int = 0) -> bool:
    """Whether `function` is async. Raises `PipelineError` for one that cannot be called with `arguments`."""
    if not callable(function):
        raise PipelineError(f"{owner} must be made by a function, got {function!r}")
    looked_at = (function, type(function).__call__)  # The second is what runs if `function` is an object.
    if any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in looked_at):
        raise PipelineError(f"{owner} must be made by a function that returns, got {function!r}, which yields")
    is_async = any(inspect.iscoroutinefunction(each) for each in looked_at)
    if models and not is_async:
        raise PipelineError(
            f"{owner} calls a model and must be made by an async function, got {function!r}; write `async def`, "
            "and for a blocking client `await model.call(trio.to_thread.run_sync, ...)`"
        )
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        raise PipelineError(
            f"{owner} calls its function with {len(arguments)} arguments ({', '.join(arguments)}), "
            f"which it does not take: {error}"
        ) from error
    except ValueError:
        pass  # A builtin without a signature: what it takes shows when it is called.
    return is_async

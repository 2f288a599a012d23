"""Runs the tasks of a pipeline: one column runner per node of the graph, which makes the cells of a task.

A column runner reads what its function needs from the row group's buffer, calls the function, checks and keeps what it
returned, and returns the rows that it could not make. It raises if it made nothing; `classify_failure` says what that
means for the rows that needed it.

A column's own word, `TryAgain`, a check that refuses or malformed output, has the function called again at once, here
in the task, while the column has attempts left. Anything else that it raises ends the task, which may run again later;
that costs none of these attempts, and those that are spent stay spent. A column over many rows is made again as a
whole, since the values of its rows may belong together. The rows keep what one single call of the function returned:
the one that left the fewest of them without, the last of several.

An async function runs in the run's own thread. A sync one runs in a worker thread, so that it never holds up the run;
the correlation of its task is carried there. A nursery inside a function wraps what went wrong in an exception group:
one error leaves as itself, and a cancellation of the run is not mistaken for a failure that happened beside it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NoReturn, TypeAlias, cast

import attrs
import trio

from trio_sched._classify import judge_exception
from trio_sched._executor import QuotaExhaustedError, blamed_endpoint, settled_after
from trio_sched._pipeline.binding import BoundNode
from trio_sched._pipeline.checks import Refusal, is_refusal
from trio_sched._pipeline.columns import Column, RowSpan, SkipRule
from trio_sched._pipeline.errors import (
    AttemptsSpentError,
    CheckError,
    InputRowError,
    MalformedOutputError,
    ProcessorError,
    SkipRuleError,
    TryAgain,
    WaitTimeoutError,
)
from trio_sched._pipeline.models import ModelHandle
from trio_sched._pipeline.outputs import Cell, keep_cell, one_per_row
from trio_sched._pipeline.processors import Processor
from trio_sched._pipeline.sources import RowReader
from trio_sched._pipeline.store import PartStore, RowGroupBuffer
from trio_sched._request.endpoint import Answers
from trio_sched._request.leases import RequestAdmissionError
from trio_sched._resources.identity import ProviderModelKey, runtime_correlation
from trio_sched._resources.task import Task, TaskType
from trio_sched._scheduler.messages import RowDrop, RowFailure, RowFiltered
from trio_sched._scheduler.retry import Failure, FailureClassifier
from trio_sched._scheduler.worker import TaskRunner
from trio_sched._util import Blocking, lacks_open_files, leaves_of, single_error

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

__all__ = ["PipelineRunner", "RunContext", "awaited_call", "classify_failure", "classify_with"]

logger = logging.getLogger("trio_sched.run")

_PAUSE_WITHOUT_FILES_SECONDS = 1.0
"""Until a cell is made again that was in want of an open file: calls that end and parts that are written close some."""


@attrs.frozen(eq=False, kw_only=True)
class RunContext:
    """What all column runners of one run share.

    blocking: where sync functions run. active_rows: the indices, ascending, of the rows of an open row group that were
    neither rejected nor removed. seed: the run's, which columns from scratch get.
    """

    store: PartStore
    blocking: Blocking
    active_rows: Callable[[int], Sequence[int]]
    seed: int


class PipelineRunner:
    """Passes each task to the runner of its column. handles: by node, those of its models."""

    def __init__(
        self, nodes: Mapping[str, BoundNode], handles: Mapping[str, Sequence[ModelHandle]], context: RunContext
    ) -> None:
        self._runners = {name: _column_runner(node, handles[name], context) for name, node in nodes.items()}

    def run(self, task: Task) -> Awaitable[Sequence[RowDrop]]:
        """Make and keep the task's cells."""
        return self._runners[task.column].run(task)


def _column_runner(bound: BoundNode, handles: Sequence[ModelHandle], context: RunContext) -> TaskRunner:
    match bound.origin:
        case RowReader() as reader:
            return _InputRunner(reader, context)
        case Processor() as processor:
            return _ProcessorRunner(processor, bound.node.needs, context)
        case column:
            rule = bound.skip
            skipper = Skipper(column, rule, bound.skipped_with) if rule is not None else None
            runners: dict[TaskType, type[_CellRunner | _BatchRunner | _FromScratchRunner]] = {
                "cell": _CellRunner,
                "batch": _BatchRunner,
                "from_scratch": _FromScratchRunner,
            }
            return runners[column.task_type](column, handles, context, skipper)


class _FunctionRunner:
    """What the runners of a column's function have in common."""

    def __init__(
        self, column: Column, handles: Sequence[ModelHandle], context: RunContext, skipper: Skipper | None
    ) -> None:
        self._name = column.name
        self._needs = column.needs
        self._outputs = column.outputs
        self._keeping = column.keeping
        self._plainly = column.keeping.check is None and not column.outputs.as_mapping
        self._call = awaited_call(column.function, is_async=column.is_async, blocking=context.blocking)
        if handles:
            self._call = _minding_waits(self._call, column.name, handles)
        self._handles = tuple(handles)
        self._skipper = skipper
        self._context = context
        self._store = context.store

    def _fall_back(self, buffer: RowGroupBuffer, row_index: int) -> bool:
        """Keep `on_failure` for a row, if the column has one."""
        cells = self._keeping.on_failure
        if cells is None:
            return False
        buffer.put_all(self._outputs.columns, row_index, cells)
        buffer.mark_fallback(self._name, row_index)
        return True


class _CellRunner(_FunctionRunner):
    async def run(self, task: Task) -> Sequence[RowDrop]:
        row_index = task.row_index
        assert row_index is not None
        buffer = self._store.buffer(task.row_group)
        if self._skipper is not None and self._skipper.skips(buffer, row_index):
            return ()
        while True:
            row = buffer.row(row_index, self._needs)
            try:
                try:
                    value = await self._call(row, *self._handles)
                except BaseExceptionGroup as group:
                    _raise_as_one(group)
                if self._plainly:
                    buffer.put(self._name, row_index, keep_cell(self._name, value))
                else:
                    buffer.put_all(self._outputs.columns, row_index, self._keeping.keep(self._outputs, value))
                return ()
            except Exception as error:
                refusal = _refusal(error)
                if refusal is None:
                    raise
                if buffer.count_refusal(self._name, row_index) >= self._keeping.attempts:
                    if self._fall_back(buffer, row_index):
                        return ()
                    raise self._keeping.rejection(self._name, refusal)  # noqa: B904 - it has its cause
            await trio.lowlevel.checkpoint()


_Made: TypeAlias = tuple[Cell, ...] | Exception
"""What one call made of one row: its cells, or why there are none."""


class _RowsRunner(_FunctionRunner):
    """A function over many rows."""

    async def _make(
        self, buffer: RowGroupBuffer, row_indices: Sequence[int], argument: Callable[[], object]
    ) -> list[RowDrop]:
        """Have the function make the rows, until every one is kept or attempts are spent; the rows that are not kept.

        argument: makes what the function gets, anew for each call. Raises what says nothing about a single row.
        """
        best: list[_Made] = []
        fewest = len(row_indices)
        while True:
            made = await self._call_once(len(row_indices), argument())
            refused = sum(map(is_refusal, made))
            if refused <= fewest:
                best, fewest = made, refused
            if not refused or buffer.count_refusal(self._name, None) >= self._keeping.attempts:
                return self._keep_rows(buffer, row_indices, best)
            await trio.lowlevel.checkpoint()

    async def _call_once(self, count: int, argument: object) -> list[_Made]:
        try:
            try:
                made = await self._call(argument, *self._handles)
            except BaseExceptionGroup as group:
                _raise_as_one(group)
            results = one_per_row(self._name, made, count)
        except Exception as error:
            refusal = _refusal(error)
            if refusal is None:
                raise
            return [refusal] * count
        return list(map(self._cells, results))

    def _cells(self, result: object) -> _Made:
        """What becomes of one row's result. Raises an exception in its place that says nothing about its row."""
        if not isinstance(result, Exception):
            try:
                return self._keeping.keep(self._outputs, result)
            except (TryAgain, MalformedOutputError, CheckError) as error:
                return error
        refusal = _refusal(result)
        if refusal is None and classify_failure(result).kind in ("preserved", "unsettled"):
            raise result
        return result if refusal is None else refusal

    def _keep_rows(self, buffer: RowGroupBuffer, row_indices: Sequence[int], made: Sequence[_Made]) -> list[RowDrop]:
        failures: list[RowDrop] = []
        for row_index, each in zip(row_indices, made, strict=True):
            if not isinstance(each, Exception):
                buffer.put_all(self._outputs.columns, row_index, each)
            elif not isinstance(each, TryAgain | MalformedOutputError):
                failures.append(RowFailure(row_index, each))
            elif not self._fall_back(buffer, row_index):
                failures.append(RowFailure(row_index, self._keeping.rejection(self._name, each)))
        return failures


class _BatchRunner(_RowsRunner):
    async def run(self, task: Task) -> Sequence[RowDrop]:
        buffer = self._store.buffer(task.row_group)
        row_indices, failures = self._rows_to_make(buffer, self._context.active_rows(task.row_group))
        if not row_indices:
            return failures
        needs = self._needs
        drops = await self._make(buffer, row_indices, lambda: [buffer.row(index, needs) for index in row_indices])
        return [*failures, *drops]

    def _rows_to_make(
        self, buffer: RowGroupBuffer, active_rows: Sequence[int]
    ) -> tuple[Sequence[int], Sequence[RowFailure]]:
        if self._skipper is None:
            return active_rows, ()
        row_indices: list[int] = []
        failures: list[RowFailure] = []
        for row_index in active_rows:
            try:
                if not self._skipper.skips(buffer, row_index):
                    row_indices.append(row_index)
            except SkipRuleError as error:
                failures.append(RowFailure(row_index, error))
        return row_indices, failures


class _FromScratchRunner(_RowsRunner):
    async def run(self, task: Task) -> Sequence[RowDrop]:
        row_group = self._store.row_group(task.row_group)
        span = RowSpan(row_group.start, row_group.size, self._context.seed)
        return await self._make(self._store.buffer(task.row_group), range(row_group.size), lambda: span)


class _ProcessorRunner:
    """Has a processor look at the active rows. What fails in it fails the run."""

    def __init__(self, processor: Processor, columns: tuple[str, ...], context: RunContext) -> None:
        self._processor = processor
        self._columns = columns
        self._call = awaited_call(processor.function, is_async=processor.is_async, blocking=context.blocking)
        self._context = context

    async def run(self, task: Task) -> Sequence[RowDrop]:
        buffer = self._context.store.buffer(task.row_group)
        row_indices = self._context.active_rows(task.row_group)
        rows = [buffer.row(row_index, self._columns) for row_index in row_indices]
        try:
            try:
                made = await self._call(rows)
            except BaseExceptionGroup as group:
                _raise_as_one(group)
            changes = self._processor.changes(made, len(row_indices), self._columns)
        except Exception as error:
            raise ProcessorError(self._processor.stage, self._processor.name, task.row_group) from error
        filtered: list[RowFiltered] = []
        for row_index, cells in zip(row_indices, changes, strict=True):
            if cells is None:
                filtered.append(RowFiltered(row_index))
                buffer.filtered.add(row_index)
            else:
                buffer.put_all(tuple(cells), row_index, tuple(cells.values()))
        return filtered


class _InputRunner:
    """Keeps the rows that were read for a row group."""

    def __init__(self, reader: RowReader, context: RunContext) -> None:
        self._reader = reader
        self._store = context.store

    async def run(self, task: Task) -> Sequence[RowDrop]:
        buffer = self._store.buffer(task.row_group)
        start = self._store.row_group(task.row_group).start
        columns = self._reader.columns
        failures: list[RowFailure] = []
        for row_index, row in enumerate(self._reader.take(task.row_group)):
            try:
                buffer.put_all(columns, row_index, [keep_cell(column, row[column]) for column in columns])
            except MalformedOutputError as error:
                problem = f"its {error.column!r} is {error.problem}; give {error.expected}"
                failures.append(
                    RowFailure(row_index, InputRowError(self._reader.source, start + row_index + 1, problem))
                )
        return failures


class Skipper:
    """Skips cells of one column. sources: the nodes that it needs a column of, as far as they may be skipped."""

    def __init__(self, column: Column, rule: SkipRule, sources: tuple[str, ...]) -> None:
        self._column = column
        self._rule = rule
        self._sources = sources

    def skips(self, buffer: RowGroupBuffer, row_index: int) -> bool:
        """Skip the cell if that is due. Raises `SkipRuleError`."""
        if not buffer.is_skipped(self._sources, row_index) and not self._says_so(buffer, row_index):
            return False
        buffer.put_all(self._column.outputs.columns, row_index, self._rule.cells)
        buffer.mark_skipped(self._column.name, row_index)
        return True

    def _says_so(self, buffer: RowGroupBuffer, row_index: int) -> bool:
        if self._rule.when is None:
            return False
        try:
            return bool(self._rule.when(buffer.row(row_index, self._column.needs)))
        except Exception as error:
            raise SkipRuleError(self._column.name) from error


UserCall: TypeAlias = Callable[..., Awaitable[object]]


def awaited_call(function: Callable[..., object], *, is_async: bool, blocking: Blocking) -> UserCall:
    """`function` as the run calls it: itself if it is async, else through a worker thread."""
    if is_async:
        return function  # type: ignore[return-value]  # `accept_function` has seen that it is async

    async def call(*args: object) -> object:
        return await blocking(runtime_correlation.carried(function), *args)

    return call


def _minding_waits(call: UserCall, column: str, handles: Sequence[ModelHandle]) -> UserCall:
    """`call`, for which a timeout that ends while a model call waits is no failure of the row."""
    has_warned = False

    async def minding(*args: object) -> object:
        nonlocal has_warned
        try:
            return await call(*args)
        except Exception as error:
            # All handles share one executor.
            if handles[0].took_cut_short() and any(isinstance(each, trio.TooSlowError) for each in leaves_of(error)):
                waited = WaitTimeoutError(column)
                if not has_warned:
                    has_warned = True
                    logger.warning("%s", waited)
                raise waited from error
            raise

    return minding


def classify_with(
    answered: Callable[[ProviderModelKey], Answers], needed_by_all: AbstractSet[ProviderModelKey]
) -> FailureClassifier:
    """`classify_failure`, for a run: a failure in the block of a request counts against its row only where the endpoint
    answered another call since it asked to go out. answered: what an endpoint has answered so far.
    needed_by_all: the endpoints without which no row can be made, since their columns skip none.
    """

    def classify(error: Exception) -> Failure:
        failure = classify_failure(error)
        if failure.kind == "unsettled":
            return attrs.evolve(failure, admits_more=needed_by_all.isdisjoint(map(_refused_endpoint, leaves_of(error))))
        blamed = blamed_endpoint(error) if failure.kind == "retryable" else None
        if blamed is None or answered(blamed[0]).answered_since(blamed[1]):
            return failure
        return Failure("preserved", failure.reason, failure.retry_after_seconds)

    return classify


def _refused_endpoint(error: BaseException) -> ProviderModelKey | None:
    if isinstance(error, RequestAdmissionError):
        return error.decision.item.resource.provider_model_key
    return error.endpoint if isinstance(error, QuotaExhaustedError) else None


def _raise_as_one(group: BaseExceptionGroup[BaseException]) -> NoReturn:
    """Raise what a function's own nursery wrapped, as the one thing it is, where it is one."""
    cancelled, rest = group.split(trio.Cancelled)
    with single_error():
        if cancelled is not None and (rest is None or isinstance(rest, Exception)):
            # The failures beside a cancellation stay visible, as its cause.
            next(leaves_of(cancelled)).__cause__ = rest
            raise cancelled
        raise group
    raise AssertionError("unreachable")


def _refusal(error: Exception) -> Refusal | None:
    """The column's own word in what its function raised, or None.

    Of several errors that it raised together a `TryAgain` decides where the others may pass.
    """
    if isinstance(error, TryAgain | MalformedOutputError):
        return error
    if isinstance(error, ExceptionGroup):
        leaves = list(leaves_of(cast("ExceptionGroup[Exception]", error)))
        asked = [leaf for leaf in leaves if isinstance(leaf, TryAgain)]
        others = [leaf for leaf in leaves if isinstance(leaf, Exception) and not isinstance(leaf, TryAgain)]
        if asked and all(classify_failure(leaf).kind in ("retryable", "preserved") for leaf in others):
            return asked[0]
    return None


def classify_failure(error: Exception) -> Failure:
    """What a failure of a column means for the row that needed it.

    A rate limit, a local queue timeout or too many open files say nothing about the row; trouble of the transport or
    the server may pass, unless the executor has shown that it is the row's own. Where an endpoint is closed or does not
    answer, the row is not settled. Of several errors that a function raised together, the one that leaves the least
    hope decides.
    """
    if isinstance(error, ExceptionGroup):
        return _least_hopeful([classify_failure(each) for each in cast("ExceptionGroup[Exception]", error).exceptions])
    if isinstance(error, MalformedOutputError):
        return Failure("non_retryable", "malformed_output")
    if isinstance(error, AttemptsSpentError):
        return Failure("non_retryable", error.kind)
    if isinstance(error, TryAgain):
        return Failure("non_retryable", "try_again")
    if isinstance(error, CheckError):
        return Failure("non_retryable", "check")
    if isinstance(error, ProcessorError) and not lacks_open_files(error):
        return Failure("fatal", "processor")
    if isinstance(error, WaitTimeoutError):
        return Failure("preserved", "local_timeout")
    if isinstance(error, SkipRuleError):
        return Failure("non_retryable", "skip_rule")
    if isinstance(error, RequestAdmissionError):
        decision = error.decision
        if decision.reason == "queue_timeout":
            return Failure("preserved", "queue_timeout", decision.retry_after_seconds)
        if decision.reason in ("endpoint_closed", "endpoint_not_answering"):
            return Failure("unsettled", decision.reason)
        return Failure("non_retryable", decision.reason)
    if isinstance(error, QuotaExhaustedError):
        return Failure("unsettled", "endpoint_closed")
    if lacks_open_files(error):
        return Failure("preserved", "no_open_files", _PAUSE_WITHOUT_FILES_SECONDS)
    verdict = judge_exception(error)
    outcome = verdict.outcome
    is_access = outcome.blame == "access" and blamed_endpoint(error) is None
    if not verdict.retryable or is_access or settled_after(error) is not None:
        return Failure("non_retryable", verdict.exhausted or outcome.kind)
    if outcome.kind == "rate_limited":
        return Failure("preserved", "rate_limited", outcome.retry_after_seconds)
    return Failure("retryable", outcome.kind, outcome.retry_after_seconds)


def _least_hopeful(failures: list[Failure]) -> Failure:
    order = ("fatal", "unsettled", "non_retryable", "retryable", "preserved")
    return min(failures, key=lambda failure: (order.index(failure.kind), -(failure.retry_after_seconds or 0)))

"""The plain way to make a dataset: one row group after the other, one call at a time. What a run has to agree with."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import ParamSpec, TypeVar, cast

import trio_sched as ts
from trio_sched._pipeline.outputs import read_cell

P = ParamSpec("P")
T = TypeVar("T")

Row = dict[str, object]


class PlainHandle:
    """Stands in for a model handle and just calls."""

    def __init__(self, model_id: str) -> None:
        self.model_id = model_id

    async def call(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await function(*args, **kwargs)


async def run_sequentially(
    steps: Sequence[ts.PipelineStep],
    *,
    records: int,
    rows: Iterable[Mapping[str, object]] = (),
    seed: int = 0,
    buffer_size: int = 100,
) -> str:
    """The data hash of the dataset, made with nothing of trio_sched but the steps' own functions."""
    return rows_hash(await rows_sequentially(steps, records=records, rows=rows, seed=seed, buffer_size=buffer_size))


def rows_hash(rows: Iterable[Row]) -> str:
    """The data hash of these rows."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


async def rows_sequentially(
    steps: Sequence[ts.PipelineStep],
    *,
    records: int,
    rows: Iterable[Mapping[str, object]] = (),
    seed: int = 0,
    buffer_size: int = 100,
) -> list[Row]:
    """The rows of the dataset. A function that raises rejects its rows; nothing is tried twice."""
    given = list(rows)
    made: list[Row] = []
    total = len(given) or records
    for start in range(0, total, buffer_size):
        count = min(buffer_size, total - start)
        group = _RowGroup(given[start : start + count], count)
        made.extend(await group.make(steps, ts.RowSpan(start, count, seed)))
    return made


class _RowGroup:
    def __init__(self, given: Sequence[Mapping[str, object]], count: int) -> None:
        self.rows: dict[int, Row] = {index: dict(given[index]) if given else {} for index in range(count)}
        self.skipped: dict[int, set[str]] = {index: set() for index in range(count)}
        self.names = list(given[0]) if given else []

    async def make(self, steps: Sequence[ts.PipelineStep], span: ts.RowSpan) -> list[Row]:
        columns = [step for step in steps if isinstance(step, ts.Column)]
        processors = [step for step in steps if isinstance(step, ts.Processor)]
        await self._make_columns([each for each in columns if each.task_type == "from_scratch"], span)
        for processor in processors:
            if processor.stage == "pre-batch":
                await self._process(processor)
        await self._make_columns([each for each in columns if each.task_type != "from_scratch"], span)
        for processor in processors:
            if processor.stage == "post-batch":
                await self._process(processor)
        return [{name: row[name] for name in self.names} for row in self.rows.values()]

    async def _process(self, processor: ts.Processor) -> None:
        if not self.rows:
            return
        made = cast("Sequence[Row | None]", await processor([_copy(row) for row in self.rows.values()]))
        for index, changed in zip(list(self.rows), made, strict=True):
            if changed is None:
                del self.rows[index]
            else:
                self.rows[index] |= changed
        self.names += processor.outputs

    async def _make_columns(self, columns: Sequence[ts.Column], span: ts.RowSpan) -> None:
        waiting = list(columns)
        while waiting:
            column = next(each for each in waiting if set(each.needs) <= set(self.names))
            waiting.remove(column)
            await self._make_column(column, span)
            self.names += column.outputs.columns

    async def _make_column(self, column: ts.Column, span: ts.RowSpan) -> None:
        indices = [index for index in list(self.rows) if not self._leaves_out(column, index)]
        needed = [_needed(column, self.rows[index]) for index in indices]
        results: Sequence[object]
        if column.task_type == "from_scratch":
            made = cast("Sequence[object]", await _call(column, span))
            results = [made[index] for index in indices]
        elif column.task_type == "cell":
            results = [await _attempt(column, row) for row in needed]
        else:
            results = cast("Sequence[object]", await _call(column, needed)) if needed else []
        for index, result in zip(indices, results, strict=True):
            if isinstance(result, Exception):
                del self.rows[index]
            elif column.outputs.as_mapping:
                self.rows[index] |= {name: cast("Row", result).get(name) for name in column.outputs.columns}
            else:
                self.rows[index][column.name] = result

    def _leaves_out(self, column: ts.Column, index: int) -> bool:
        rule = column.skip
        if rule is None:
            return False
        if not (rule.with_needs and self.skipped[index].intersection(column.needs)):
            try:
                if rule.when is None or not rule.when(_needed(column, self.rows[index])):
                    return False
            except Exception:
                del self.rows[index]
                return True
        self.skipped[index].update(column.outputs.columns)
        self.rows[index].update(zip(column.outputs.columns, map(read_cell, rule.cells), strict=True))
        return True


def _needed(column: ts.Column, row: Row) -> Row:
    return _copy({name: row[name] for name in column.needs})


def _copy(row: Row) -> Row:
    return cast("Row", json.loads(json.dumps(row)))


async def _attempt(column: ts.Column, *args: object) -> object:
    try:
        return await _call(column, *args)
    except Exception as error:
        return error


async def _call(column: ts.Column, *args: object) -> object:
    handles = [PlainHandle(str(getattr(model, "model_id", model))) for model in column.models]
    result = column.function(*args, *handles)
    return await result if inspect.isawaitable(result) else result

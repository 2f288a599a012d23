"""The plain way to make a dataset: one row group after the other, one call at a time. What a run has to agree with."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import ParamSpec, TypeVar, cast

import trio_sched as ts

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
    columns: Sequence[ts.Column],
    *,
    records: int,
    rows: Iterable[Mapping[str, object]] = (),
    seed: int = 0,
    buffer_size: int = 100,
) -> str:
    """The data hash of the dataset, made with nothing of trio_sched but the columns' own functions."""
    made = await rows_sequentially(columns, records=records, rows=rows, seed=seed, buffer_size=buffer_size)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in made]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


async def rows_sequentially(
    columns: Sequence[ts.Column],
    *,
    records: int,
    rows: Iterable[Mapping[str, object]] = (),
    seed: int = 0,
    buffer_size: int = 100,
) -> list[Row]:
    """The rows of the dataset. A function that raises gives up its rows; nothing is tried twice."""
    given = list(rows)
    made: list[Row] = []
    total = len(given) or records
    for start in range(0, total, buffer_size):
        count = min(buffer_size, total - start)
        group = [dict(row) for row in given[start : start + count]] or [{} for _ in range(count)]
        made.extend(await _row_group(columns, group, ts.RowSpan(start, count, seed)))
    return made


async def _row_group(columns: Sequence[ts.Column], group: list[Row], span: ts.RowSpan) -> list[Row]:
    names = list(group[0])
    waiting = list(columns)
    while waiting:
        column = next(each for each in waiting if set(each.needs) <= set(names))
        waiting.remove(column)
        names += column.outputs.columns
        if column.task_type == "from_scratch":
            results = await _call(column, span)
            _keep(column, group, cast("Sequence[object]", results))
        elif column.task_type == "batch":
            results = await _call(column, [_needed(column, row) for row in group])
            _keep(column, group, cast("Sequence[object]", results))
        else:
            results = [await _attempt(column, _needed(column, row)) for row in group]
            _keep(column, group, results)
        group = [row for row in group if row]
    return [{name: row[name] for name in names} for row in group]


def _needed(column: ts.Column, row: Row) -> Row:
    return cast("Row", json.loads(json.dumps({name: row[name] for name in column.needs})))


def _keep(column: ts.Column, group: list[Row], results: Sequence[object]) -> None:
    for row, result in zip(group, results, strict=True):
        if isinstance(result, Exception):
            row.clear()
        elif column.outputs.as_mapping:
            row.update({name: cast("Row", result).get(name) for name in column.outputs.columns})
        else:
            row[column.name] = result


async def _attempt(column: ts.Column, *args: object) -> object:
    try:
        return await _call(column, *args)
    except Exception as error:
        return error


async def _call(column: ts.Column, *args: object) -> object:
    handles = [PlainHandle(str(getattr(model, "model_id", model))) for model in column.models]
    result = column.function(*args, *handles)
    return await result if inspect.isawaitable(result) else result

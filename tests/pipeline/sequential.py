"""The plain way to make a dataset: one row after the other, one call at a time. What a run has to agree with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import ParamSpec, TypeVar

from trio_sched._pipeline.columns import CellColumn, Column, FromScratchColumn, RowSpan

P = ParamSpec("P")
T = TypeVar("T")


class PlainHandle:
    """Stands in for a model handle and just calls."""

    def __init__(self, model_id: str) -> None:
        self.model_id = model_id

    async def call(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await function(*args, **kwargs)


async def run_sequentially(
    columns: Sequence[Column], *, records: int, rows: Iterable[Mapping[str, object]] = (), seed: int = 0
) -> str:
    """The data hash of the dataset, made with nothing of trio_sched but the columns' own functions."""
    given = list(rows)
    made: list[dict[str, object]] = [{} for _ in range(len(given) or records)]
    names: list[str] = list(given[0]) if given else []
    for row, source in zip(made, given, strict=False):
        row.update(source)
    waiting = list(columns)
    while waiting:
        column = next(each for each in waiting if not isinstance(each, CellColumn) or set(each.needs) <= set(names))
        waiting.remove(column)
        names.append(column.name)
        if isinstance(column, CellColumn):
            for row in made:
                handles = [PlainHandle(str(getattr(model, "model_id", model))) for model in column.models]
                row[column.name] = await column(json.loads(json.dumps({n: row[n] for n in column.needs})), *handles)
        elif isinstance(column, FromScratchColumn):
            for row, value in zip(made, await column(RowSpan(0, len(made), seed)), strict=True):
                row[column.name] = value
    lines = [json.dumps({name: row[name] for name in names}, ensure_ascii=False) + "\n" for row in made]
    return hashlib.sha256("".join(lines).encode()).hexdigest()

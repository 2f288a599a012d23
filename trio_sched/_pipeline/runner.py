"""Makes the cells of one task by calling the user's function, and keeps them in the row group's buffer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from trio_sched._pipeline.binding import BoundColumn
from trio_sched._pipeline.buffers import RowGroupBuffer
from trio_sched._pipeline.cells import MalformedOutputError, keep_cell
from trio_sched._pipeline.columns import CellColumn, FromScratchColumn, RowSpan
from trio_sched._pipeline.model_calls import ModelHandle
from trio_sched._pipeline.models import Model
from trio_sched._pipeline.sources import RowReader
from trio_sched._pipeline.store import PartStore
from trio_sched._resources.task import Task
from trio_sched._scheduler.reports import RowFailure

__all__ = ["PipelineRunner"]


class PipelineRunner:
    """Runs tasks of a bound pipeline; a `TaskRunner`."""

    def __init__(
        self,
        columns: Mapping[str, BoundColumn],
        handles: Mapping[Model, ModelHandle],
        store: PartStore,
        *,
        seed: int,
    ) -> None:
        self._makers = {name: column.maker for name, column in columns.items()}
        self._handles = {name: tuple(handles[model] for model in column.models) for name, column in columns.items()}
        self._store = store
        self._seed = seed

    async def run(self, task: Task) -> Sequence[RowFailure]:
        """Make and keep the task's cells."""
        column = self._makers[task.column]
        buffer = self._store.buffer(task.row_group)
        match column:
            case CellColumn():
                assert task.row_index is not None
                row = buffer.row(task.row_index, column.needs)
                value = await column.function(row, *self._handles[column.name])
                buffer.put(column.name, task.row_index, keep_cell(column.name, value))
                return ()
            case FromScratchColumn():
                return await self._run_from_scratch(column, task, buffer)
            case RowReader():
                return self._put_rows(column, task, buffer)

    async def _run_from_scratch(
        self, column: FromScratchColumn, task: Task, buffer: RowGroupBuffer
    ) -> Sequence[RowFailure]:
        row_group = self._store.row_group(task.row_group)
        made = await column.function(RowSpan(row_group.start, row_group.size, self._seed))
        if isinstance(made, str) or not isinstance(cast("object", made), Sequence):
            raise MalformedOutputError(column.name, f"a {type(made).__name__} instead of a sequence")
        if len(made) != row_group.size:
            raise MalformedOutputError(column.name, f"{len(made)} values for a span of {row_group.size} rows")
        failures: list[RowFailure] = []
        for row_index, value in enumerate(made):
            try:
                buffer.put(column.name, row_index, keep_cell(column.name, value))
            except MalformedOutputError as error:
                failures.append(RowFailure(row_index, error))
        return failures

    def _put_rows(self, reader: RowReader, task: Task, buffer: RowGroupBuffer) -> Sequence[RowFailure]:
        failures: list[RowFailure] = []
        for row_index, row in enumerate(reader.take(task.row_group)):
            try:
                for name, value in row.items():
                    buffer.put(name, row_index, keep_cell(name, value))
            except MalformedOutputError as error:
                failures.append(RowFailure(row_index, error))
        return failures

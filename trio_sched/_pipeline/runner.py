"""Hands each task to the maker of its column; what the scheduler calls a `TaskRunner`."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence

from trio_sched._pipeline.binding import BoundPipeline
from trio_sched._pipeline.makers import LivingRows, Surroundings, make_maker
from trio_sched._pipeline.model_calls import ModelHandle
from trio_sched._pipeline.store import PartStore
from trio_sched._resources.task import Task
from trio_sched._scheduler.reports import RowDrop
from trio_sched._util import Blocking

__all__ = ["PipelineRunner"]


class PipelineRunner:
    """Runs tasks of a bound pipeline. handles: by node, those of its models."""

    def __init__(
        self,
        pipeline: BoundPipeline,
        handles: Mapping[str, Sequence[ModelHandle]],
        store: PartStore,
        *,
        blocking: Blocking,
        living_rows: LivingRows,
        seed: int,
    ) -> None:
        around = Surroundings(store, blocking, living_rows, seed)
        self._makers = {name: make_maker(bound, handles[name], around) for name, bound in pipeline.nodes.items()}

    def run(self, task: Task) -> Awaitable[Sequence[RowDrop]]:
        """Make and keep the task's cells."""
        return self._makers[task.column].run(task)

"""What the dispatcher is told: every fact that may let it go on, over one channel, in the order it happened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import attrs
import trio

from trio_sched._resources.task import Task
from trio_sched._scheduler.row_groups import RowGroup

__all__ = [
    "AdmissionChanged",
    "NothingMoved",
    "PlanExhausted",
    "Report",
    "RowDrop",
    "RowFailure",
    "RowFiltered",
    "RowGroupAbandoned",
    "RowGroupDurable",
    "RowGroupOpened",
    "WorkerDone",
]


@attrs.frozen
class RowFailure:
    """One row that a task could not make, and why."""

    row_index: int
    error: Exception


@attrs.frozen
class RowFiltered:
    """One row that a task removed on purpose: dropped like any other, but no failure."""

    row_index: int


RowDrop: TypeAlias = RowFailure | RowFiltered


@attrs.define(eq=False)
class WorkerDone:
    """A worker has given its lease back.

    row_drops: single rows that the task did not make. error: what failed the whole task. stopped: its rows were given
    up while it ran, and it was cancelled for that.
    """

    task: Task
    row_drops: Sequence[RowDrop]
    error: Exception | None
    stopped: bool = False


@attrs.frozen(eq=False)
class RowGroupOpened:
    """A row group was admitted; `nursery` owns its workers, and setting `complete` lets it be written."""

    row_group: RowGroup
    nursery: trio.Nursery
    complete: trio.Event


@attrs.frozen
class RowGroupDurable:
    """A row group is on disk and all its workers are gone."""

    row_group: RowGroup


@attrs.frozen
class RowGroupAbandoned:
    """A row group was cancelled before it was complete; all its workers are gone, and nothing of it is written."""

    row_group: RowGroup


@attrs.frozen
class NothingMoved:
    """For as long as a run may go without any progress there has been none."""


@attrs.frozen
class PlanExhausted:
    """No row group will be admitted any more; there were `row_groups`, of which some may not have opened yet."""

    row_groups: int


@attrs.frozen
class AdmissionChanged:
    """Task admission may take what it refused: a limit was raised, or something was released."""


Report: TypeAlias = (
    WorkerDone | RowGroupOpened | RowGroupDurable | RowGroupAbandoned | PlanExhausted | AdmissionChanged | NothingMoved
)

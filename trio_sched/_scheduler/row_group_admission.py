"""Admits row groups under a hard cap and carries each from its opening to its place on disk.

Each admitted row group is a task of the run's nursery, with a nursery of its own for its workers. It waits until the
dispatcher says that it is complete, lets its last workers leave, has it written, and only then reports it durable and
frees its slot. The dispatcher therefore hears of every worker of a row group before it hears that the group is durable.
Cancelling a row group is cancelling its task: its workers end, and nothing of it is written.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import trio

from trio_sched import _validation as check
from trio_sched._scheduler.reports import PlanExhausted, Report, RowGroupDurable, RowGroupOpened
from trio_sched._scheduler.row_groups import RowGroup, RowGroupPlan, RowGroupStore

__all__ = ["RowGroupAdmission"]


class RowGroupAdmission:
    """Runs the plan's row groups, at most `max_concurrent_row_groups` at once."""

    def __init__(
        self,
        plan: RowGroupPlan,
        store: RowGroupStore,
        *,
        max_concurrent_row_groups: int,
        report: Callable[[Report], None],
        living_rows: Callable[[int], Sequence[int]],
    ) -> None:
        self._plan = plan
        self._store = store
        self._report = report
        self._living_rows = living_rows
        self._slots = trio.CapacityLimiter(
            check.check_int("max_concurrent_row_groups", max_concurrent_row_groups, minimum=1)
        )
        self.max_in_flight = 0

    @property
    def in_flight(self) -> int:
        """Row groups admitted and not yet durable."""
        return self._slots.borrowed_tokens

    @trio.lowlevel.enable_ki_protection
    async def run(self, nursery: trio.Nursery) -> None:
        """Start row groups in `nursery`, the run's, until the plan is exhausted.

        They live there and not in a nursery of this task, so that an error of the plan brings down the whole run in one
        step, and the dispatcher never meets a row group that is already gone. They open one after the other, so that
        their order is the plan's.
        """
        for admitted in itertools.count():
            slot = object()
            await self._slots.acquire_on_behalf_of(slot)
            row_group = await self._next_row_group()
            if row_group is None:
                self._slots.release_on_behalf_of(slot)
                self._report(PlanExhausted(admitted))
                return
            self.max_in_flight = max(self.max_in_flight, self.in_flight)
            await nursery.start(self._run_row_group, row_group, slot, name=f"row group {row_group.index}")

    @trio.lowlevel.disable_ki_protection
    async def _next_row_group(self) -> RowGroup | None:
        return await self._plan.next_row_group()

    @trio.lowlevel.enable_ki_protection
    async def _run_row_group(
        self, row_group: RowGroup, slot: object, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        complete = trio.Event()
        self._store.open(row_group)
        async with trio.open_nursery() as nursery:
            self._report(RowGroupOpened(row_group, nursery, complete))
            task_status.started()
            await complete.wait()
        await self._store.write(row_group, self._living_rows(row_group.index))
        self._slots.release_on_behalf_of(slot)
        self._report(RowGroupDurable(row_group))

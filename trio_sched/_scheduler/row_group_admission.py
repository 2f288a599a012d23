"""Admits row groups under a target and carries each from its opening to its place on disk.

Each admitted row group is a task of the run's nursery, with a nursery of its own for its workers. It waits until the
dispatcher says that it is complete, lets its last workers leave, has it written, and only then reports it durable and
frees its slot. The dispatcher therefore hears of every worker of a row group before it hears that the group is durable.
Cancelling the nursery of a row group abandons it: its workers end, nothing of it is written, and that is reported. One
that has nothing left to do and is not to be written yet gives its slot back and waits without.

The plan is asked for one row group at a time, when there is a slot for it, so a run holds no more of them than are in
flight and the one that waits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import trio

from trio_sched._scheduler.events import SchedulerEvents
from trio_sched._scheduler.reports import PlanExhausted, Report, RowGroupAbandoned, RowGroupDurable, RowGroupOpened
from trio_sched._scheduler.row_group_target import RowGroupBlockReason, RowGroupConfig, RowGroupTarget
from trio_sched._scheduler.row_groups import RowGroup, RowGroupPlan, RowGroupStore

__all__ = ["RowGroupAdmission"]


class RowGroupAdmission:
    """Runs the plan's row groups. max_in_flight: the most that were ever admitted at once."""

    def __init__(
        self,
        plan: RowGroupPlan,
        store: RowGroupStore,
        config: RowGroupConfig,
        *,
        events: SchedulerEvents,
        report: Callable[[Report], None],
        living_rows: Callable[[int], Sequence[int]],
    ) -> None:
        self._plan = plan
        self._store = store
        self._events = events
        self._report = report
        self._living_rows = living_rows
        self._max_admitted_rows = config.max_admitted_rows
        self.target: RowGroupTarget = RowGroupTarget(config)
        self._slots = trio.CapacityLimiter(self.target.value)
        self._admitting: trio.CancelScope | None = None
        self._is_stopped = False
        self._admitted_rows = 0
        self._holders: dict[int, tuple[object, int]] = {}
        """By row group: its slot, and its rows."""
        self._row_group_left = trio.Event()
        self._blocked: dict[RowGroupBlockReason, int] = {}
        self.max_in_flight: int = 0

    @property
    def in_flight(self) -> int:
        """Row groups that have a slot."""
        return self._slots.borrowed_tokens

    @property
    def blocked_reasons(self) -> Mapping[RowGroupBlockReason, int]:
        """How often a row group had to wait, and for what."""
        return MappingProxyType(self._blocked)

    def consider_growth(self, *, queued: int, has_free_capacity: bool) -> None:
        """Let an adaptive target grow if another row group could be put to use."""
        target = self.target
        if target.grow(in_flight=self.in_flight, queued=queued, has_free_capacity=has_free_capacity):
            self._slots.total_tokens = target.value
            self._events.row_group_target_changed(target.value)

    def stop_admitting(self) -> None:
        """Admit no further row group, and report how many were admitted."""
        self._is_stopped = True
        if self._admitting is not None:
            self._admitting.cancel()

    def give_slot_back(self, row_group: int) -> None:
        """A row group has nothing left to do; another may be admitted, although this one is not written."""
        holder = self._holders.pop(row_group, None)
        if holder is not None:
            slot, rows = holder
            self._slots.release_on_behalf_of(slot)
            self._admitted_rows -= rows
            self._row_group_left.set()

    @trio.lowlevel.enable_ki_protection
    async def run(self, nursery: trio.Nursery) -> None:
        """Start row groups in `nursery`, the run's, until the plan is exhausted.

        They live there and not in a nursery of this task, so that an error of the plan brings down the whole run in one
        step, and the dispatcher never meets a row group that is already gone. They open one after the other, so that
        their order is the plan's.
        """
        admitted = 0
        while not self._is_stopped:
            row_group, slot = None, object()
            with trio.CancelScope() as self._admitting:
                row_group = await self._next_admissible(slot)
            if row_group is None:
                break
            admitted += 1
            self._admitted_rows += row_group.size
            self.max_in_flight = max(self.max_in_flight, self.in_flight)
            await nursery.start(self._run_row_group, row_group, slot, name=f"row group {row_group.index}")
        self._report(PlanExhausted(admitted))

    async def _next_admissible(self, slot: object) -> RowGroup | None:
        """Wait for a slot, for the plan, and for room for the rows that it hands out."""
        try:
            self._slots.acquire_on_behalf_of_nowait(slot)
        except trio.WouldBlock:
            self._note_blocked(self.target.block_reason)
            await self._slots.acquire_on_behalf_of(slot)
        row_group = None
        try:
            row_group = await self._ask_plan()
            if row_group is not None and self._lacks_room_for(row_group):
                self._note_blocked("max_admitted_rows")
                while self._lacks_room_for(row_group):
                    self._row_group_left = trio.Event()
                    await self._row_group_left.wait()
        except BaseException:
            self._slots.release_on_behalf_of(slot)
            raise
        if row_group is None:
            self._slots.release_on_behalf_of(slot)
        return row_group

    def _lacks_room_for(self, row_group: RowGroup) -> bool:
        limit, held = self._max_admitted_rows, self._admitted_rows
        return limit is not None and held > 0 and held + row_group.size > limit

    def _note_blocked(self, reason: RowGroupBlockReason) -> None:
        self._blocked[reason] = self._blocked.get(reason, 0) + 1
        self._events.row_group_blocked(reason, in_flight=self.in_flight, admitted_rows=self._admitted_rows)

    @trio.lowlevel.disable_ki_protection
    async def _ask_plan(self) -> RowGroup | None:
        return await self._plan.next_row_group()

    @trio.lowlevel.enable_ki_protection
    async def _run_row_group(
        self, row_group: RowGroup, slot: object, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        complete = trio.Event()
        self._holders[row_group.index] = (slot, row_group.size)
        self._store.open(row_group)
        async with trio.open_nursery() as nursery:
            self._report(RowGroupOpened(row_group, nursery, complete))
            task_status.started()
            await complete.wait()
        if complete.is_set():
            await self._store.write(row_group, self._living_rows(row_group.index))
        self.give_slot_back(row_group.index)
        self._report(RowGroupDurable(row_group) if complete.is_set() else RowGroupAbandoned(row_group))

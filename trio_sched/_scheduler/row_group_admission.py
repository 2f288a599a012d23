"""Admits row groups under a target and carries each from its opening to its place on disk.

Each admitted row group is a task of the run's nursery, with a nursery of its own for its workers. It waits until the
scheduler's loop sets it complete, lets its last workers leave, has it written, and only then reports it durable and
frees its slot. The loop therefore hears of every worker of a row group before it hears that the group is durable.
Cancelling the nursery of a row group abandons it: its workers end, nothing of it is written, and that is reported. One
that has nothing left to do and is not to be written yet releases its slot and waits without.

The plan is asked for one row group at a time, when there is a slot for it, so a run holds no more of them than are in
flight and the one that waits.

The *target* says how many may be in flight: a fixed number, or one that starts low and grows. It grows by one when
another row group could be put to use: as many are open, nothing is queued, some capacity is free, and the newest row
group has shown what it brings. A task of it that ended shows that; where a row group begins with a call of a model,
being open is enough, since that call is what it brings first. Whatever prevents growth is named. The target never
shrinks: a run that once needed many row groups to fill its capacity will need them again, and shrinking would only
drain what is in flight. It follows local facts alone, never what a provider said: the tasks that may run are bounded by
the caps of their endpoints, so nothing is left unqueued for long unless an endpoint has room.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias

import attrs
import trio

from trio_sched import _validation as check
from trio_sched._errors import InvalidValueError
from trio_sched._scheduler.context import SchedulerContext
from trio_sched._scheduler.messages import (
    PlanExhausted,
    RowGroup,
    RowGroupAbandoned,
    RowGroupDurable,
    RowGroupOpened,
    RowGroupPlan,
    RowGroupStore,
)

__all__ = [
    "AdaptiveRowGroupTargetConfig",
    "RowGroupAdmission",
    "RowGroupBlockReason",
    "RowGroupConfig",
    "RowGroupTarget",
]

RowGroupBlockReason: TypeAlias = Literal["hard_cap", "target", "max_admitted_rows"]


@attrs.frozen
class AdaptiveRowGroupTargetConfig:
    """initial: the target at the start, in row groups."""

    initial: int = attrs.field(default=1, validator=check.positive_int)


@attrs.frozen
class RowGroupConfig:
    """max_concurrent: the hard cap on row groups in flight. adaptive: None admits up to that cap from the start.

    max_admitted_rows: a row group waits if with it more rows than this were in flight, unless it would be alone.
    """

    max_concurrent: int = attrs.field(default=3, validator=check.positive_int)
    adaptive: AdaptiveRowGroupTargetConfig | None = None
    max_admitted_rows: int | None = attrs.field(default=None, validator=check.optional_positive_int)

    def __attrs_post_init__(self) -> None:
        if self.adaptive is not None and self.adaptive.initial > self.max_concurrent:
            raise InvalidValueError(
                "AdaptiveRowGroupTargetConfig.initial",
                self.adaptive.initial,
                f"at most RowGroupConfig.max_concurrent, which is {self.max_concurrent}",
            )


class RowGroupTarget:
    """The target now, and whether it may grow. begins_with_calls: whether a root of each row group calls a model."""

    def __init__(self, config: RowGroupConfig, *, begins_with_calls: bool = False) -> None:
        self._hard_cap = config.max_concurrent
        self._begins_with_calls = begins_with_calls
        self.is_adaptive: bool = config.adaptive is not None
        self.value: int = config.max_concurrent if config.adaptive is None else config.adaptive.initial
        self._newest: int | None = None
        self._newest_has_shown = False

    @property
    def block_reason(self) -> RowGroupBlockReason:
        """What a row group waits for that finds the target reached."""
        return "target" if self.value < self._hard_cap else "hard_cap"

    def opened(self, row_group: int) -> None:
        """A row group was opened; it is the newest from now on."""
        self._newest = row_group
        self._newest_has_shown = self._begins_with_calls

    def task_ended(self, row_group: int) -> None:
        """A task of `row_group` ended."""
        if row_group == self._newest:
            self._newest_has_shown = True

    def grow(self, *, in_flight: int, queued: int, has_free_capacity: bool) -> bool:
        """Grow by one if another row group could be put to use; whether it did. in_flight: those that are open."""
        if self.value >= self._hard_cap or in_flight < self.value:
            return False
        if queued or not has_free_capacity or not self._newest_has_shown:
            return False
        self.value += 1
        return True


class RowGroupAdmission:
    """Runs the plan's row groups. max_in_flight: the most that were ever admitted at once."""

    def __init__(
        self,
        context: SchedulerContext,
        plan: RowGroupPlan,
        store: RowGroupStore,
        config: RowGroupConfig,
    ) -> None:
        self._events = context.events
        self._report = context.report
        self._tracker = context.tracker
        self._plan = plan
        self._store = store
        self._max_admitted_rows = config.max_admitted_rows
        self.target: RowGroupTarget = RowGroupTarget(config, begins_with_calls=_begins_with_calls(context))
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
        if target.grow(in_flight=len(self._holders), queued=queued, has_free_capacity=has_free_capacity):
            self._slots.total_tokens = target.value
            self._events.row_group_target_changed(target.value)

    def stop_admitting(self) -> None:
        """Admit no further row group, and report how many were admitted."""
        self._is_stopped = True
        if self._admitting is not None:
            self._admitting.cancel()

    def release_slot(self, row_group: int) -> None:
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
        complete, abandoned = trio.Event(), trio.Event()
        self._holders[row_group.index] = (slot, row_group.size)
        self._store.open(row_group)
        async with trio.open_nursery() as nursery:
            self._report(RowGroupOpened(row_group, nursery, complete, abandoned))
            task_status.started()
            await complete.wait()
        is_durable = complete.is_set() and not abandoned.is_set()
        if is_durable:
            await self._store.write(row_group, self._tracker.living_rows(row_group.index))
        self.release_slot(row_group.index)
        self._report(RowGroupDurable(row_group) if is_durable else RowGroupAbandoned(row_group))


def _begins_with_calls(context: SchedulerContext) -> bool:
    by_column = context.resolver.by_column
    roots = (by_column[root.column] for root in context.graph.roots if not root.ordered)
    return any(resolved.group.key.kind != "local" for resolved in roots)

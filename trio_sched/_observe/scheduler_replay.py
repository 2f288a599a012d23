"""The scheduler's state, rebuilt from its events alone.

    ready_enqueued ── queued ── worker_spawned ────────> (its lease stays)     task_lease_acquired ── held ──┐
                        └────── cancelled (withdrawn) ─> gone                  task_lease_released ── gone <─┘
    retry_deferred ── deferred ── salvage_redispatched ─> ready again

`scheduler_job_started` says what each column's tasks ask for and what the limits are; every other event only moves one
task. `snapshot` has the form of the snapshot in `scheduler_job_completed`, and after the last event it equals that one.

*Debt.* A grant says what its group borrowed; every release repays `min(debt, units)` of the same group and resource,
where units are all that the lease held, or only what it borrowed itself if the start of the run said so. Those are the
rules of bounded borrow, and under strict fair nothing is ever borrowed.

*Backlogs.* What queued tasks wait for is the same for all columns whose tasks ask for the same units, so they are
counted together: an event costs as much with 300 columns as with one. Columns of capped groups are counted apart, since
a cap holds them back where the others have room.

The order of two events that belong to different tasks does not matter, so both streams of a run can be merged by time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple, TypeVar, cast

import attrs

from trio_sched._events.records import JsonValue, SchedulerAdmissionEvent, SchedulerSample
from trio_sched._resources.task import SUBMISSION, SchedulerResourceKey

K = TypeVar("K")

__all__ = ["Backlog", "ColumnFacts", "DeferredTask", "SchedulerReplay", "TaskPlace"]


@attrs.frozen
class ColumnFacts:
    """One column as the start of its run reported it. resources: the units that each of its tasks holds.

    calls_models: its tasks belong to a group of kind `model` or `custom_model`.
    """

    task_type: str | None
    needs: tuple[str, ...]
    group: str
    calls_models: bool
    resources: Mapping[SchedulerResourceKey, int]


@attrs.frozen
class DeferredTask:
    """A failed task that will run again; `due` on the run's clock, in seconds, or None where that is unknown."""

    column: str
    row_group: int | None
    reason: str
    due: float | None


class TaskPlace(NamedTuple):
    """Where a task belongs, and since when it has been queued or run."""

    column: str
    row_group: int | None
    since: float


@attrs.define(eq=False)
class Backlog:
    """Queued tasks that ask for the same `resources`, of columns whose groups are all `capped`, or none of them.

    queued: how many there are, at all and by column. waited: nanoseconds so far in which they waited for a resource.
    """

    resources: Mapping[SchedulerResourceKey, int]
    capped: bool
    queued: int = 0
    by_column: dict[str, int] = attrs.field(factory=dict[str, int])
    waited: int = 0
    _most: list[tuple[int, str]] = attrs.field(factory=list[tuple[int, str]])
    """A heap of every count that a column had, most first; entries that are no longer true are dropped at the top."""

    def add(self, column: str, tasks: int) -> None:
        """So many more tasks of a column are queued."""
        self.queued += tasks
        _add(self.by_column, column, tasks)
        if len(self._most) > _STALE_ENTRIES + 2 * len(self.by_column):
            self._most = [(-queued, each) for each, queued in self.by_column.items()]
            heapify(self._most)
        elif column in self.by_column:
            heappush(self._most, (-self.by_column[column], column))

    def longest(self) -> tuple[str, int]:
        """The column with most tasks here, and how many; of equal ones the first by name."""
        while True:
            queued, column = self._most[0]
            if self.by_column.get(column) == -queued:
                return column, -queued
            heappop(self._most)


@attrs.define(eq=False)
class SchedulerReplay:
    """Feed it the events of one run in order with `apply`; read what it holds, and change nothing of that.

    queued: the queued tasks by id. leases: the running ones by lease id. refusals: why heads of the queue were refused
    when that was last reported, and how many were. capped_groups: those that were reported to be at a cap or in debt,
    with the reason, and were granted nothing since. row_groups: those admitted and not durable yet, with their sizes,
    as far as they were reported. deferred_by_cause: how many of `deferred`, by column and reason. changes: rises with
    every event that may have changed anything here.
    """

    columns: dict[str, ColumnFacts] = attrs.field(factory=dict[str, ColumnFacts], init=False)
    resource_limits: dict[SchedulerResourceKey, int] = attrs.field(factory=dict[SchedulerResourceKey, int], init=False)
    queued: dict[str, TaskPlace] = attrs.field(factory=dict[str, TaskPlace], init=False)
    leases: dict[int, TaskPlace] = attrs.field(factory=dict[int, TaskPlace], init=False)
    refusals: dict[str, int] = attrs.field(factory=dict[str, int], init=False)
    capped_groups: dict[str, str] = attrs.field(factory=dict[str, str], init=False)
    release_diagnostics: dict[str, int] = attrs.field(factory=dict[str, int], init=False)
    deferred: dict[str, DeferredTask] = attrs.field(factory=dict[str, DeferredTask], init=False)
    row_groups: dict[int, int] = attrs.field(factory=dict[int, int], init=False)
    queued_by_column: dict[str, int] = attrs.field(factory=dict[str, int], init=False)
    running_by_column: dict[str, int] = attrs.field(factory=dict[str, int], init=False)
    deferred_by_cause: dict[tuple[str, str], int] = attrs.field(factory=dict[tuple[str, str], int], init=False)
    debt: dict[tuple[str, SchedulerResourceKey], int] = attrs.field(
        factory=dict[tuple[str, SchedulerResourceKey], int], init=False
    )
    _borrowed: dict[int, Mapping[SchedulerResourceKey, int]] | None = attrs.field(default=None, init=False)
    """By lease, where a lease repays only what it borrowed itself."""

    changes: int = attrs.field(default=0, init=False)
    unfinished: tuple[int, str] | None = attrs.field(default=None, init=False)
    """Of a sample: the oldest row group with unfinished tasks, and a column of them."""
    _leased: dict[SchedulerResourceKey, int] = attrs.field(factory=dict[SchedulerResourceKey, int], init=False)
    _backlogs: dict[tuple[object, ...], Backlog] = attrs.field(factory=dict[tuple[object, ...], Backlog], init=False)
    """By what their tasks ask for, and whether their groups are capped."""
    _waiting: list[tuple[Backlog, SchedulerResourceKey | None]] = attrs.field(
        factory=list["tuple[Backlog, SchedulerResourceKey | None]"], init=False
    )
    _waiting_since: int = attrs.field(default=0, init=False)
    """What `changes` was when that was worked out: half of the events are of requests, and change nothing of it."""
    _backlog_of: dict[str, Backlog] = attrs.field(factory=dict[str, Backlog], init=False)
    _waited_before: dict[str, int] = attrs.field(factory=dict[str, int], init=False)
    """By column, what to add to its backlog's `waited`: what others showed that it was counted in, less what they had
    shown by then."""
    _members: dict[str, list[str]] = attrs.field(factory=dict[str, list[str]], init=False)
    """The columns of each group."""

    def apply(self, event: SchedulerAdmissionEvent) -> None:
        """Take in the next event."""
        if event.event_kind in _MOVES_NOTHING:
            return
        self.changes += 1
        correlation = event.captured_correlation
        column = correlation.task_column if correlation is not None else None
        task_id, lease_id = event.task_id, event.task_lease_id
        match event.event_kind:
            case "scheduler_job_started":
                self._start(event)
            case "row_group_admitted" if correlation is not None and correlation.row_group is not None:
                self.row_groups[correlation.row_group] = _int(event.diagnostics.get("size"))
            case "row_group_checkpointed" if correlation is not None and correlation.row_group is not None:
                self.row_groups.pop(correlation.row_group, None)
            case "ready_enqueued" if task_id is not None and column is not None:
                if task_id not in self.queued and correlation is not None:
                    self.queued[task_id] = TaskPlace(column, correlation.row_group, event.captured_at_monotonic)
                    self._queue(column, 1)
            case "task_lease_acquired" if lease_id is not None and column is not None and correlation is not None:
                place = TaskPlace(column, correlation.row_group, event.captured_at_monotonic)
                self._acquire(lease_id, place, event.diagnostics.get("borrowed"))
            case "worker_spawned" | "worker_spawn_failed" if (
                task_id is not None and "still_queued" not in event.diagnostics
            ):
                self._leave_queue(task_id)
            case "task_lease_released" if lease_id is not None:
                self._release(lease_id)
            case "cancelled" if task_id is None and correlation is not None and correlation.row_group is not None:
                self.row_groups.pop(correlation.row_group, None)
            case "admission_blocked":
                self.refusals = {reason: _int(n) for reason, n in event.diagnostics.items() if reason != "queued"}
            case "group_capped":
                group = str(event.diagnostics.get("group"))
                self.capped_groups[group] = event.reason_or_result or "unknown"
                self._regroup((group,))
            case "queue_drained":
                self.refusals = {}
                freed = tuple(self.capped_groups)
                self.capped_groups.clear()
                self._regroup(freed)
            case "release_diagnostic":
                self.release_diagnostics[event.reason_or_result or "unknown"] = _int(event.diagnostics.get("count"))
            case "cancelled" if task_id is not None and lease_id is None:
                self._leave_queue(task_id)
                self._reopen(task_id)
            case "retry_deferred" if task_id is not None and column is not None and correlation is not None:
                self._defer(task_id, column, correlation.row_group, event)
            case "salvage_redispatched" if task_id is not None:
                self._reopen(task_id)
            case _:
                pass

    def load(self, sample: SchedulerSample) -> None:
        """Take over the state of a sample. Of its tasks the counts are known, and the oldest of each column."""
        self.changes += 1
        if sample.refusals or not any(column.queued for column in sample.columns.values()):
            self.refusals = dict(sample.refusals)  # else those who are queued are about to be started
        changed = self.capped_groups.keys() ^ sample.capped.keys()
        self.capped_groups = dict(sample.capped)
        self._regroup(changed)
        self.leases.clear()
        self._leased.clear()
        self.running_by_column.clear()
        for column, now in sample.columns.items():
            self._queue(column, now.queued - self.queued_by_column.get(column, 0))
            if now.running:
                self.running_by_column[column] = now.running
                self._lease(column, now.running)
            if now.since is not None:
                self.leases[len(self.leases)] = TaskPlace(column, None, now.since)
        self.unfinished = sample.unfinished
        self.deferred = {
            f"{each.column} {each.reason}": DeferredTask(each.column, each.row_group, each.reason, each.due)
            for each in sample.deferred
        }
        self.deferred_by_cause = {(each.column, each.reason): each.tasks for each in sample.deferred}
        self.debt = {
            (group, resource): units for group, debts in sample.debt.items() for resource, units in debts.items()
        }
        self.release_diagnostics = dict(sample.release_diagnostics)

    def resources_of(self, column: str) -> Mapping[SchedulerResourceKey, int]:
        """What a task of `column` holds while it runs; one unit of `submission` where the start was not seen."""
        facts = self.columns.get(column)
        return _UNREPORTED if facts is None else facts.resources

    def leased_resources(self) -> Mapping[SchedulerResourceKey, int]:
        """Units held now, by resource."""
        return self._leased

    def backlogs(self) -> Sequence[tuple[Backlog, SchedulerResourceKey | None]]:
        """Those in which tasks are queued, each with what they wait for, as in `awaited`."""
        if self._waiting_since != self.changes:
            self._waiting = [(each, self.awaited(each)) for each in self._backlogs.values() if each.queued]
            self._waiting_since = self.changes
        return self._waiting

    def awaited(self, backlog: Backlog) -> SchedulerResourceKey | None:
        """The stage resource that the tasks of a backlog wait for, or None if order or policy holds them back.

        That is the most specific one that has no room for another of them. A place that came free stays so until the
        scheduler's next turn, when it is given away; meanwhile it is no policy that holds back all who are queued. So
        where want of room is all that was reported, it is also one that has room for some of them only.
        """
        full: SchedulerResourceKey | None = None
        short: SchedulerResourceKey | None = None
        for resource, amount in backlog.resources.items():
            limit = self.resource_limits.get(resource)
            if limit is None:
                continue
            leased = self._leased.get(resource, 0)
            if leased + amount > limit:
                full = resource
            elif leased + amount * backlog.queued > limit:
                short = resource
        if full is not None or backlog.capped or self.refusals.keys() != _WANT_OF_ROOM:
            return full
        return short

    def awaited_resource(self, column: str) -> SchedulerResourceKey | None:
        """The stage resource that the queued tasks of `column` wait for, as in `awaited`."""
        return self.awaited(self._backlog(column))

    def waited(self, column: str) -> int:
        """A clock: nanoseconds so far in which tasks of `column`, if any were queued, waited for a stage resource."""
        return self._waited_before.get(column, 0) + self._backlog(column).waited

    def holding_back(self, column: str) -> dict[str, int]:
        """What held back queued tasks although there was room, as last reported: heads of the queue by reason."""
        reasons = {reason: heads for reason, heads in self.refusals.items() if reason not in _WANT_OF_ROOM}
        capped = self.capped_groups.get(self._group(column))
        if capped is not None:
            reasons.setdefault(capped, 1)
        return reasons

    def snapshot(self) -> dict[str, JsonValue]:
        """The state now, in the form of the snapshots that events carry."""
        leased = self.leased_resources()
        limits = self.resource_limits
        return {
            "queued_total": sum(self.queued_by_column.values()),
            "queued_by_group": self._by_group(self.queued_by_column),
            "queued_resource_demand_by_group": self._resources_by_group(self.queued_by_column),
            "running_by_group": self._by_group(self.running_by_column),
            "resource_limits": dict(limits),
            "resources_available": {resource: limit - leased.get(resource, 0) for resource, limit in limits.items()},
            "leased_resources": {**leased},
            "leased_resources_by_group": self._resources_by_group(self.running_by_column),
            "active_leases_by_resource": self._active_leases(),
            "release_diagnostics": {**self.release_diagnostics},
            "policy_debt": {f"{group}|{resource}": debt for (group, resource), debt in self.debt.items()},
        }

    def _active_leases(self) -> dict[str, JsonValue]:
        active: dict[str, int] = {}
        for column, running in self.running_by_column.items():
            for resource in self.resources_of(column):
                _add(active, resource, running)
        return {**active}

    def _start(self, event: SchedulerAdmissionEvent) -> None:
        columns = event.diagnostics.get("columns")
        for column, reported in columns.items() if isinstance(columns, dict) else ():
            assert isinstance(reported, dict)
            needs = reported.get("needs")
            self.columns[column] = ColumnFacts(
                task_type=cast("str | None", reported.get("task_type")),
                needs=tuple(map(str, needs)) if isinstance(needs, list) else (),
                group=str(reported.get("group", column)),
                calls_models=reported.get("group_kind") in ("model", "custom_model"),
                resources=_amounts(reported.get("resources")),
            )
        self._borrowed = {} if event.diagnostics.get("repays_only_borrowed") else None
        self.resource_limits.update(_amounts((event.snapshot or {}).get("resource_limits")))
        self._members = {}
        for column, facts in self.columns.items():
            self._members.setdefault(facts.group, []).append(column)
        self._regroup(self._members)
        self._leased.clear()
        for column, running in self.running_by_column.items():
            self._lease(column, running)

    def _acquire(self, lease_id: int, place: TaskPlace, borrowed: JsonValue) -> None:
        self.leases[lease_id] = place
        _add(self.running_by_column, place.column, 1)
        self._lease(place.column, 1)
        group = self._group(place.column)
        if self.capped_groups and self.capped_groups.pop(group, None) is not None:
            self._regroup((group,))
        units_borrowed = _amounts(borrowed)
        if self._borrowed is not None:
            self._borrowed[lease_id] = units_borrowed
        for resource, units in units_borrowed.items():
            _add(self.debt, (group, resource), units)

    def _release(self, lease_id: int) -> None:
        place = self.leases.pop(lease_id, None)
        if place is None:
            return
        column = place.column
        _add(self.running_by_column, column, -1)
        self._lease(column, -1)
        group = self._group(column)
        repaid = self.resources_of(column) if self._borrowed is None else self._borrowed.pop(lease_id, {})
        for resource, units in repaid.items():
            debt = self.debt.get((group, resource), 0)
            if debt:
                _add(self.debt, (group, resource), -min(debt, units))

    def _lease(self, column: str, tasks: int) -> None:
        for resource, amount in self.resources_of(column).items():
            _add(self._leased, resource, amount * tasks)

    def _leave_queue(self, task_id: str) -> None:
        place = self.queued.pop(task_id, None)
        if place is not None:
            self._queue(place.column, -1)

    def _queue(self, column: str, tasks: int) -> None:
        _add(self.queued_by_column, column, tasks)
        self._backlog(column).add(column, tasks)

    def _backlog(self, column: str) -> Backlog:
        """The backlog that a column is counted in."""
        backlog = self._backlog_of.get(column)
        if backlog is None:
            resources, capped = self.resources_of(column), self._group(column) in self.capped_groups
            key = (capped, *resources.items())
            backlog = self._backlogs.get(key)
            if backlog is None:
                backlog = self._backlogs[key] = Backlog(resources, capped)
            self._backlog_of[column] = backlog
        return backlog

    def _regroup(self, groups: Iterable[str]) -> None:
        """What holds back the columns of these groups has changed: count each in the backlog where it belongs now."""
        for group in groups:
            for column in self._members.get(group, (group,)):
                before = self._backlog_of.pop(column, None)
                backlog = self._backlog(column)
                queued = self.queued_by_column.get(column, 0)
                if before is not None and before is not backlog:
                    moved = self._waited_before.get(column, 0) + before.waited - backlog.waited
                    self._waited_before[column] = moved
                    if queued:
                        before.add(column, -queued)
                        backlog.add(column, queued)

    def _defer(self, task_id: str, column: str, row_group: int | None, event: SchedulerAdmissionEvent) -> None:
        due = event.diagnostics.get("due_monotonic")
        self._reopen(task_id)
        deferred = DeferredTask(
            column, row_group, event.reason_or_result or "unknown", float(due) if isinstance(due, int | float) else None
        )
        self.deferred[task_id] = deferred
        _add(self.deferred_by_cause, (column, deferred.reason), 1)

    def _reopen(self, task_id: str) -> None:
        deferred = self.deferred.pop(task_id, None)
        if deferred is not None:
            _add(self.deferred_by_cause, (deferred.column, deferred.reason), -1)

    def _group(self, column: str) -> str:
        facts = self.columns.get(column)
        return column if facts is None else facts.group

    def _by_group(self, counts: Mapping[str, int]) -> dict[str, JsonValue]:
        by_group: dict[str, int] = {}
        for column, count in counts.items():
            _add(by_group, self._group(column), count)
        return {**by_group}

    def _resources_by_group(self, counts: Mapping[str, int]) -> dict[str, JsonValue]:
        by_group: dict[str, dict[str, JsonValue]] = {}
        for column, count in counts.items():
            held = by_group.setdefault(self._group(column), {})
            for resource, amount in self.resources_of(column).items():
                held[resource] = _int(held.get(resource)) + amount * count
        return {**by_group}


_MOVES_NOTHING: Final = frozenset({"dependency_ready", "selected", "task_completed", "scheduler_health_snapshot"})
"""Kinds that come often and move no task: `apply` has nothing to do for them."""

_WANT_OF_ROOM: Final = frozenset({"no_capacity"})
_STALE_ENTRIES: Final = 64
_UNREPORTED: Mapping[SchedulerResourceKey, int] = {SUBMISSION: 1}


def _add(counts: dict[K, int], key: K, amount: int) -> None:
    """Count, and forget what is back at zero."""
    count = counts.get(key, 0) + amount
    if count:
        counts[key] = count
    else:
        counts.pop(key, None)


def _amounts(facts: JsonValue) -> dict[SchedulerResourceKey, int]:
    return {resource: _int(amount) for resource, amount in facts.items()} if isinstance(facts, dict) else {}


def _int(value: JsonValue) -> int:
    return value if isinstance(value, int) else 0

"""What the loop leaves behind when it goes to sleep, and whether anything can still come of it.

Told on edges, never once per turn: a backlog that could not be admitted, whom it holds back, that it is gone, that
nothing is queued. While a backlog stays, the reasons are looked at again at most once in a while, since that means
asking about the head of every group.

A run must not hang. Where tasks are queued and nothing that is under way could ever let one run, it fails at once.
Everything else is watched by a task of its own, which costs the loop nothing: when for a configured time nothing was
reported or started, the run fails too, unless something is known to come: a deferred task, an admission policy that
said when to ask again, or the end of a cooldown of request admission. One task may make many model calls, so requests
that come and go are progress as well; they are looked at once in that time, so a run may go on for twice as long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import trio

from trio_sched._request.pressure import RequestPressureSnapshotProvider
from trio_sched._scheduler.events import SchedulerEvents
from trio_sched._scheduler.open_row_groups import OpenRowGroups
from trio_sched._scheduler.reports import NothingMoved, Report
from trio_sched._scheduler.retry import RetryBook
from trio_sched._scheduler.stall import (
    NoProgressError,
    SchedulerStalledError,
    StallExplanation,
    explain_stall,
)
from trio_sched._task.controller import TaskAdmissionController
from trio_sched._task.leases import TaskAdmissionBlockSummary, TaskAdmissionDenyReason
from trio_sched._task.queue import FairTaskQueue

__all__ = ["Standstill"]

_LOOK_AGAIN_SECONDS: Final = 1.0
"""How often the reasons of a lasting backlog are looked at for events, and a policy that names past times is asked."""
_GROUP_REASONS: Final[tuple[TaskAdmissionDenyReason, ...]] = ("group_cap", "borrow_debt")


class Standstill:
    """Watches for what does not move. think_again_at: when a policy said that it would judge anew, or None."""

    def __init__(
        self,
        queue: FairTaskQueue,
        admission: TaskAdmissionController,
        retries: RetryBook,
        events: SchedulerEvents,
        row_groups: OpenRowGroups,
        pressure: RequestPressureSnapshotProvider | None,
        no_progress_seconds: float | None,
    ) -> None:
        self._queue = queue
        self._admission = admission
        self._retries = retries
        self._events = events
        self._row_groups = row_groups
        self._pressure = pressure
        self._limit = no_progress_seconds
        self._had_backlog = False
        self._was_empty = False
        self._may_name_a_time = admission.names_times
        self._tells = events.wants("admission_blocked") or events.wants("group_capped")
        self._look_again_at = 0.0
        self._dominant: str | None = None
        self._capped: Mapping[str, str] = {}
        self._requests_moved = 0
        self.think_again_at: float | None = None
        self.last_progress = 0.0

    async def watch(self, report: Callable[[Report], None]) -> None:
        """Report whenever nothing has happened for as long as is allowed. Runs until it is cancelled."""
        if self._limit is None:
            return
        while True:
            due = self.last_progress + self._limit
            await trio.sleep_until(due)
            # What is due at the same moment, such as the end of a cooldown, is given its turn before it is judged.
            await trio.lowlevel.checkpoint()
            if self._have_requests_moved():
                self.last_progress = max(self.last_progress, due)
            elif self.last_progress + self._limit <= due:
                self.last_progress = trio.current_time()
                report(NothingMoved())

    def before_sleep(self, now: float) -> None:
        """Note what is left. Raises `SchedulerStalledError` for a backlog that nothing can ever move."""
        self.think_again_at = None
        queued = len(self._queue)
        if not queued:
            if self._had_backlog:
                self._had_backlog, self._dominant = False, None
                self._capped = {}
                self._events.queue_state("queue_drained")
            if not self._was_empty:
                self._was_empty = True
                self._events.queue_state("queue_empty")
            return
        is_new, self._had_backlog, self._was_empty = not self._had_backlog, True, False
        idle = not self._admission.view().leased_resources and not len(self._retries)
        tells = self._tells and (is_new or now >= self._look_again_at)
        if not (idle or tells or self._may_name_a_time):
            return
        summary = self._admission.explain_blocked(self._queue.view())
        self.think_again_at = summary.available_after
        if self.think_again_at is not None and self.think_again_at <= now:
            self.think_again_at = now + _LOOK_AGAIN_SECONDS  # It has just been asked: at once would be for ever.
        if tells:
            self._look_again_at = now + _LOOK_AGAIN_SECONDS
            self._tell(summary)
        if idle and summary.available_after is None:
            raise SchedulerStalledError(self._explain(now))

    def check(self, now: float) -> None:
        """Raise `NoProgressError` if nothing has happened for too long and nothing is known to come."""
        assert self._limit is not None
        if self._retries.next_due(now) is not None or self.think_again_at is not None or self._have_requests_moved():
            return
        cooldown_end = self._cooldown_end()
        if cooldown_end is None:
            raise NoProgressError(self._limit, self._explain(now))
        self.last_progress = cooldown_end

    def _have_requests_moved(self) -> bool:
        """Whether a request was queued, admitted or released since this was last asked."""
        if self._pressure is None:
            return False
        before = self._requests_moved
        self._requests_moved = sum(each.sequence for each in self._pressure.snapshots().values())
        return self._requests_moved != before

    def _cooldown_end(self) -> float | None:
        """When the last cooldown ends that requests wait for."""
        if self._pressure is None:
            return None
        seen = self._pressure.snapshots().values()
        return max((each.blocked_until_monotonic or 0.0 for each in seen if each.waiters > 0), default=0.0) or None

    def _explain(self, now: float) -> StallExplanation:
        return explain_stall(
            self._admission.explain_blocked(self._queue.view()),
            self._admission.leak_report(),
            self._retries.deferred(),
            open_row_groups=self._row_groups.listed(complete=False),
            writing_row_groups=self._row_groups.listed(complete=True),
            now=now,
        )

    def _tell(self, summary: TaskAdmissionBlockSummary) -> None:
        reasons = summary.dominant_denial_reasons
        dominant = next(iter(reasons), None)
        if dominant != self._dominant:
            self._dominant = dominant
            self._events.queue_state("admission_blocked", reasons, queued=len(self._queue))
        capped: dict[str, TaskAdmissionDenyReason] = {
            group: reason for reason in _GROUP_REASONS for group in summary.groups_by_reason.get(reason, ())
        }
        for group, reason in capped.items():
            if group not in self._capped:
                self._events.group_capped(group, reason)
        self._capped = capped

"""Why nothing moves, and what is done about it: a run must not hang.

*Stalled*: tasks are queued, none is eligible, and nothing that is under way could ever let one run. That is seen before
the loop sleeps, and the run fails at once with `SchedulerStalledError`. *No progress*: for a configured time nothing
was reported or started. A task of its own watches for that, which costs the loop nothing, and the run fails with
`NoProgressError`, unless something is known to come: a deferred task, an admission policy that said when to ask again,
an endpoint that does not answer, or the end of a cooldown of request admission. One task may make many model calls, so
requests that come and go are progress as well; they are looked at once in that time, so a run may go on for twice as
long.

Both errors carry one explanation, as values and as text: what is queued, who refused it, and who holds what it waits
for.

What a backlog is and how it goes is reported on edges, never once per turn: a backlog that could not be admitted, which
groups it holds back, that it is gone, that nothing is queued. While a backlog lasts, the reasons are looked at again at
most once in a while, since that means asking about the head of every group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import attrs
import trio

from trio_sched._errors import TrioSchedError
from trio_sched._resources.task import SchedulerResourceKey, stable_task_id
from trio_sched._scheduler.context import SchedulerContext
from trio_sched._scheduler.messages import NoProgress
from trio_sched._scheduler.open_row_groups import OpenRowGroups
from trio_sched._scheduler.worker import Workers
from trio_sched._task.controller import TaskAdmissionBlockSummary
from trio_sched._task.policies import TaskAdmissionDenyReason

__all__ = [
    "CapacityHolder",
    "NoProgressError",
    "SchedulerStalledError",
    "StallExplanation",
    "StallWatch",
    "WaitingTask",
]

_LOOK_AGAIN_SECONDS: Final = 1.0
"""How often the reasons of a lasting backlog are looked at for events, and a policy that names past times is asked."""
_GROUP_REASONS: Final[tuple[TaskAdmissionDenyReason, ...]] = ("group_cap", "borrow_debt")
_SHOWN: Final = 5
"""Entries of each list that the text names; the explanation itself holds all."""


@attrs.frozen
class CapacityHolder:
    """A task, by its id, the units it holds, and for how many seconds. is_running: else its lease was not released."""

    task_id: str
    resources: Mapping[SchedulerResourceKey, int]
    held_seconds: float
    is_running: bool = True

    def __str__(self) -> str:
        held = ", ".join(f"{amount} of {resource}" for resource, amount in self.resources.items())
        if not self.is_running:
            return f"{self.task_id} does not run, and its lease of {held} was not released"
        return f"{self.task_id} has run for {self.held_seconds:.0f} s and holds {held}"


@attrs.frozen
class WaitingTask:
    """A failed task that will run again in `due_in_seconds`, below 0 where it waits for the retry budget."""

    column: str
    row_group: int
    reason: str
    due_in_seconds: float

    def __str__(self) -> str:
        return f"{self.column} of row group {self.row_group} ({self.reason}) is due in {self.due_in_seconds:.0f} s"


@attrs.frozen
class StallExplanation:
    """queued: ready tasks that do not run. refusals: their heads by the reason for which task admission refuses them.

    refused_groups: who they are, by reason. holders: what runs, the longest first. waiting: what is deferred, the
    earliest first. open_row_groups: admitted and not complete. writing_row_groups: complete and not durable yet.
    """

    queued: int
    refusals: Mapping[TaskAdmissionDenyReason, int]
    refused_groups: Mapping[TaskAdmissionDenyReason, tuple[str, ...]]
    holders: tuple[CapacityHolder, ...]
    waiting: tuple[WaitingTask, ...]
    open_row_groups: tuple[int, ...]
    writing_row_groups: tuple[int, ...]

    def __str__(self) -> str:
        lines = [f"refused for {reason}: {', '.join(self.refused_groups.get(reason, ()))}" for reason in self.refusals]
        lines += _first("running", [each for each in self.holders if each.is_running])
        lines += _first("leaked", [each for each in self.holders if not each.is_running])
        lines += _first("deferred", self.waiting)
        lines += _first("being written", [f"row group {index}" for index in self.writing_row_groups])
        if not lines:
            lines.append(
                f"nothing is queued, running or deferred; row groups that are open: {list(self.open_row_groups)}; "
                "the source of rows has not handed out another"
            )
        return "\n".join(f"  {line}" for line in lines)


def _first(what: str, entries: Sequence[object]) -> list[str]:
    shown = [f"{what}: {entry}" for entry in entries[:_SHOWN]]
    if len(entries) > _SHOWN:
        shown.append(f"{what}: {len(entries) - _SHOWN} more")
    return shown


class SchedulerStalledError(TrioSchedError):
    """Tasks are queued, none is eligible, and nothing that could change that is under way."""

    def __init__(self, explanation: StallExplanation) -> None:
        self.explanation = explanation
        super().__init__(explanation)

    def __str__(self) -> str:
        why = ", ".join(f"{reason} ({count})" for reason, count in self.explanation.refusals.items())
        return (
            f"{self.explanation.queued} queued tasks can never run: {why}; "
            f"look at the admission policy and the resource limits\n{self.explanation}"
        )


class NoProgressError(TrioSchedError):
    """Nothing happened in a run for longer than `seconds`."""

    def __init__(self, seconds: float, explanation: StallExplanation) -> None:
        self.seconds = seconds
        self.explanation = explanation
        super().__init__(seconds, explanation)

    def __str__(self) -> str:
        return (
            f"no task has ended and none could be started for {self.seconds:g} s, with {self.explanation.queued} "
            f"queued; look at what runs, or allow more time with no_progress_seconds\n{self.explanation}"
        )


class StallWatch:
    """Watches for what does not move. think_again_at: when a policy said that it would judge anew, or None."""

    def __init__(
        self,
        context: SchedulerContext,
        row_groups: OpenRowGroups,
        workers: Workers,
        no_progress_seconds: float | None,
    ) -> None:
        self._queue = context.queue
        self._admission = context.admission
        self._retries = context.retries
        self._events = context.events
        self._report = context.report
        self._pressure = context.pressure
        self._row_groups = row_groups
        self._workers = workers
        self._limit = no_progress_seconds
        self._had_backlog = False
        self._was_empty = False
        self._may_name_a_time = context.admission.names_times
        self._reports_backlog = self._events.wants("admission_blocked") or self._events.wants("group_capped")
        self._look_again_at = 0.0
        self._dominant: str | None = None
        self._capped: Mapping[str, str] = {}
        self._requests_moved = 0
        self.think_again_at: float | None = None
        self.last_progress = 0.0

    async def watch(self) -> None:
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
                self._report(NoProgress())

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
        reports = self._reports_backlog and (is_new or now >= self._look_again_at)
        if not (idle or reports or self._may_name_a_time):
            return
        summary = self._admission.explain_blocked(self._queue.view())
        self.think_again_at = summary.available_after
        if self.think_again_at is not None and self.think_again_at <= now:
            self.think_again_at = now + _LOOK_AGAIN_SECONDS  # It was asked just now: to ask at once would never end.
        if reports:
            self._look_again_at = now + _LOOK_AGAIN_SECONDS
            self._report_backlog(summary)
        if idle and summary.available_after is None:
            raise SchedulerStalledError(self._explain(now))

    def check(self, now: float) -> None:
        """Raise `NoProgressError` if nothing has happened for too long and nothing is known to come."""
        assert self._limit is not None
        if self._retries.next_due(now) is not None or self.think_again_at is not None or self._have_requests_moved():
            return
        cooldown_end = now if self._waits_for_endpoint() else self._cooldown_end()
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

    def _waits_for_endpoint(self) -> bool:
        """Whether an endpoint does not answer: how long a run waits for one is bounded by request admission."""
        if self._pressure is None:
            return False
        return any(each.state == "not_answering" for each in self._pressure.global_snapshots().values())

    def _cooldown_end(self) -> float | None:
        """When the last cooldown ends that requests wait for."""
        if self._pressure is None:
            return None
        seen = self._pressure.snapshots().values()
        return max((each.blocked_until_monotonic or 0.0 for each in seen if each.waiters > 0), default=0.0) or None

    def _explain(self, now: float) -> StallExplanation:
        summary = self._admission.explain_blocked(self._queue.view())
        holders = sorted(self._admission.leak_report(), key=lambda lease: lease.held_since)
        running = set(map(stable_task_id, self._workers))
        return StallExplanation(
            queued=summary.queued_count,
            refusals=summary.dominant_denial_reasons,
            refused_groups=summary.groups_by_reason,
            holders=tuple(
                CapacityHolder(each.task_id, each.resources, now - each.held_since, each.task_id in running)
                for each in holders
            ),
            waiting=tuple(
                WaitingTask(each.task.column, each.task.row_group, each.reason, each.due - now)
                for each in self._retries.deferred()
            ),
            open_row_groups=self._row_groups.listed(complete=False),
            writing_row_groups=self._row_groups.listed(complete=True),
        )

    def _report_backlog(self, summary: TaskAdmissionBlockSummary) -> None:
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

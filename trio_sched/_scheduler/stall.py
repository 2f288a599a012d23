"""Why nothing moves: from what is queued, over who refused it, to who holds what it waits for.

Two errors end a run that cannot go on. `SchedulerStalledError` comes at once, where nothing that is under way could
ever change anything. `NoProgressError` comes after a configurable time in which nothing happened at all, for instance
because a generator never returns. Both carry the same explanation, as values and as text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from trio_sched._errors import TrioSchedError
from trio_sched._resources.task import SchedulerResourceKey
from trio_sched._scheduler.retry import Deferral
from trio_sched._task.leases import (
    LeakedTaskLease,
    TaskAdmissionBlockSummary,
    TaskAdmissionDenyReason,
)

__all__ = [
    "CapacityHolder",
    "NoProgressError",
    "SchedulerStalledError",
    "StallExplanation",
    "WaitingTask",
    "explain_stall",
]

_SHOWN = 5
"""Entries of each list that the text names; the explanation itself holds all."""


@attrs.frozen
class CapacityHolder:
    """A running task, by its id, the units it holds, and for how many seconds it has run."""

    task_id: str
    resources: Mapping[SchedulerResourceKey, int]
    held_seconds: float

    def __str__(self) -> str:
        held = ", ".join(f"{amount} of {resource}" for resource, amount in self.resources.items())
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
        lines += _first("running", self.holders)
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


def explain_stall(
    summary: TaskAdmissionBlockSummary,
    holders: Iterable[LeakedTaskLease],
    deferred: Iterable[Deferral],
    *,
    open_row_groups: Iterable[int],
    writing_row_groups: Iterable[int],
    now: float,
) -> StallExplanation:
    """Put the facts into one explanation. `now` is the run's clock."""
    return StallExplanation(
        queued=summary.queued_count,
        refusals=summary.dominant_denial_reasons,
        refused_groups=summary.groups_by_reason,
        holders=tuple(
            CapacityHolder(lease.task_id, lease.resources, now - lease.held_since)
            for lease in sorted(holders, key=lambda lease: lease.held_since)
        ),
        waiting=tuple(
            WaitingTask(each.task.column, each.task.row_group, each.reason, each.due - now) for each in deferred
        ),
        open_row_groups=tuple(open_row_groups),
        writing_row_groups=tuple(writing_row_groups),
    )


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

"""What a run of the scheduler came to."""

from __future__ import annotations

import attrs

from trio_sched._scheduler.drops import DropCause
from trio_sched._scheduler.health import EarlyStop

__all__ = ["SchedulerResult"]


@attrs.frozen(eq=False)
class SchedulerResult:
    """What a run came to.

    row_groups, rows: those that are durable. dropped_rows: given up in durable row groups because something failed, as
    drop_causes says. filtered_rows: removed there by a task on purpose. No row counts twice. cancelled: it was stopped
    by `request_cancel`. early_stop: why it stopped before its plan ended, as too many attempts failed.
    abandoned_row_groups: those that an early stop left unwritten; like those that were never begun, they can still be
    made by another run.
    """

    row_groups: int
    rows: int
    dropped_rows: int
    filtered_rows: int
    drop_causes: tuple[DropCause, ...]
    first_non_retryable_error: Exception | None
    cancelled: bool
    early_stop: EarlyStop | None = None
    abandoned_row_groups: int = 0

"""What a run ends with when a function cancels a nursery of the scheduler, which would otherwise lose rows in silence.

When the scope of that nursery is cancelled, whatever runs in it ends without an error, just as if nothing had been left
to do. A function can do that on purpose, since the nursery is the parent of the task that it runs in. It can also do it
by accident: a `Cancelled` that belongs to no scope around the function leaves its task as an error, and Trio then
cancels the nursery and takes the error for that cancellation. Such a `Cancelled` comes from a scope that an async
generator left open when it yielded, or was kept from an earlier cancellation and raised again.

The first `Cancelled` that leaves a task while the nursery is not cancelled, or of which that very task is the source,
therefore names the culprit. It proves nothing by itself, since the run may be cancelled from outside; it is looked at
only when a row group was cancelled and nobody around it was.
"""

from __future__ import annotations

import sys
from typing import Final, cast

import trio

from trio_sched._errors import TrioSchedError
from trio_sched._resources.task import Task

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

__all__ = ["ForeignCancellationError", "StrayCancellations"]

_NOT_OF_THE_FUNCTION: Final = {"contextlib", "outcome", "trio", "trio_sched"}
"""Packages whose frames are between a worker and the function that it calls."""


class ForeignCancellationError(TrioSchedError):
    """A nursery of the scheduler was cancelled by code that does not own it; its cause is the `Cancelled` that did so.

    row_group: whose nursery it was, None for that of all. column, row, line: where the cancellation came from, as far
    as that is known: the column, the row of the dataset counted from 0 (None for a whole row group), and the line of
    the function, as `file:number`.
    """

    def __init__(
        self, row_group: int | None, *, column: str | None = None, row: int | None = None, line: str | None = None
    ) -> None:
        self.row_group = row_group
        self.column = column
        self.row = row
        self.line = line
        super().__init__(row_group, column, row, line)

    def __str__(self) -> str:
        what = "the run" if self.row_group is None else f"row group {self.row_group}"
        who = "a function that ran in it"
        if self.column is not None:
            who = f"column {self.column!r}"
            who += f" in row {self.row}" if self.row is not None else ""
            who += f" ({self.line})" if self.line is not None else ""
        return (
            f"the nursery of {what} was cancelled by {who}, and its rows are not finished; a function may only cancel "
            "scopes and nurseries that it opened itself, must not yield inside one, and must not raise a kept Cancelled"
        )


class StrayCancellations:
    """By row group, the first `Cancelled` that may have cancelled its nursery."""

    def __init__(self) -> None:
        self._first: dict[int, tuple[Task, trio.Cancelled]] = {}

    def note(self, task: Task, error: BaseException) -> None:
        """`error` leaves the Trio task in which `task` runs, which is the current one."""
        current = trio.lowlevel.current_task()
        nursery = current.parent_nursery
        if not isinstance(error, trio.Cancelled) or nursery is None:
            return
        if not nursery.cancel_scope.cancel_called or error.source_task == repr(current):
            self._first.setdefault(task.row_group, (task, error))

    def error(self, row_group: int, start: int) -> ForeignCancellationError:
        """The error for a row group that was cancelled and that begins at row `start` of the dataset."""
        found = self._first.get(row_group)
        if found is None:
            return ForeignCancellationError(row_group)
        task, cancelled = found
        row = None if task.row_index is None else start + task.row_index
        error = ForeignCancellationError(row_group, column=task.column, row=row, line=_line_of_function(cancelled))
        error.__cause__ = cancelled
        return error


def _line_of_function(cancelled: trio.Cancelled) -> str | None:
    """The outermost line, on the way that it took, which is neither Trio's nor this package's."""
    # If it left the function in a group, it was raised elsewhere, and the rest of the group took that way.
    beside: object = cancelled.__cause__
    traceback = (cast("BaseException", beside) if isinstance(beside, BaseExceptionGroup) else cancelled).__traceback__
    while traceback is not None:
        module = str(traceback.tb_frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in _NOT_OF_THE_FUNCTION:
            return f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return None

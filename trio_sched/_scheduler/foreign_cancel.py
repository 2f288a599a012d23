"""What a run ends with when a function cancels a nursery of the scheduler, which would otherwise lose rows in silence.

A function can reach that nursery, as the parent of the task that it runs in. When its scope is cancelled, whatever runs
in it ends without an error, just as if nothing had been left to do.
"""

from __future__ import annotations

from trio_sched._errors import TrioSchedError

__all__ = ["ForeignCancellationError"]


class ForeignCancellationError(TrioSchedError):
    """A nursery of the scheduler was cancelled by code that does not own it. Attribute: `row_group`, None for all."""

    def __init__(self, row_group: int | None) -> None:
        self.row_group = row_group
        super().__init__(row_group)

    def __str__(self) -> str:
        what = "the run" if self.row_group is None else f"row group {self.row_group}"
        return (
            f"the nursery of {what} was cancelled by a function that ran in it, and its rows are not finished; "
            "a function may only cancel scopes and nurseries that it opened itself"
        )

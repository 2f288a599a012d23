"""Which rows were given up, and why: counted by column and error type, with the first error of each.

They are kept by row group until that is settled: what was given up in one that is never written can still be made.
"""

from __future__ import annotations

import attrs

__all__ = ["DropCause", "DropLedger"]


@attrs.define(eq=False)
class DropCause:
    """Why rows were given up: one per column and error type, with how many rows, and the first error itself."""

    column: str
    error_type: str
    rows: int
    first_error: Exception


@attrs.define(eq=False)
class _OpenDrops:
    """What was given up in one row group that is not settled."""

    filtered: int = 0
    causes: dict[tuple[str, str], DropCause] = attrs.field(factory=dict[tuple[str, str], DropCause])


@attrs.define(eq=False)
class DropLedger:
    """Counts each row of settled row groups once. filtered_rows: removed on purpose, and no failure."""

    dropped_rows: int = attrs.field(default=0, init=False)
    filtered_rows: int = attrs.field(default=0, init=False)
    first_non_retryable_error: Exception | None = attrs.field(default=None, init=False)
    _open: dict[int, _OpenDrops] = attrs.field(factory=dict[int, _OpenDrops], init=False)
    _causes: dict[tuple[str, str], DropCause] = attrs.field(factory=dict[tuple[str, str], DropCause], init=False)

    @property
    def causes(self) -> tuple[DropCause, ...]:
        """The causes, in the order in which their first row groups were settled."""
        return tuple(self._causes.values())

    def has_failed_row(self, row_group: int) -> bool:
        """Whether a row of an open row group was given up because something failed."""
        held = self._open.get(row_group)
        return held is not None and bool(held.causes)

    def note_non_retryable(self, error: Exception) -> None:
        """A failure that no further attempt could mend; the first one is kept."""
        if self.first_non_retryable_error is None:
            self.first_non_retryable_error = error

    def settle(self, row_group: int) -> int:
        """A row group is durable, so what was given up in it counts. How many of its rows were removed on purpose."""
        held = self._open.pop(row_group, None)
        if held is None:
            return 0
        self.filtered_rows += held.filtered
        for key, cause in held.causes.items():
            self.dropped_rows += cause.rows
            counted = self._causes.setdefault(key, cause)
            if counted is not cause:
                counted.rows += cause.rows
        return held.filtered

    def forget(self, row_group: int) -> None:
        """A row group is abandoned: nothing of it is settled."""
        self._open.pop(row_group, None)

    def count(self, column: str, row_group: int, error: Exception | None) -> None:
        """One more row was given up because of `error`, or with None removed on purpose."""
        held = self._open.setdefault(row_group, _OpenDrops())
        if error is None:
            held.filtered += 1
            return
        error_type = type(error).__name__
        cause = held.causes.setdefault((column, error_type), DropCause(column, error_type, 0, error))
        cause.rows += 1

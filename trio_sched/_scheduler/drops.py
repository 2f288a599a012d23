"""Which rows were given up, and why: counted by column and error type, with the first error of each."""

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
class DropLedger:
    """Counts each row once. filtered_rows: removed on purpose, and no failure."""

    dropped_rows: int = attrs.field(default=0, init=False)
    filtered_rows: int = attrs.field(default=0, init=False)
    first_non_retryable_error: Exception | None = attrs.field(default=None, init=False)
    _filtered: dict[int, int] = attrs.field(factory=dict[int, int], init=False)
    _causes: dict[tuple[str, str], DropCause] = attrs.field(factory=dict[tuple[str, str], DropCause], init=False)

    @property
    def causes(self) -> tuple[DropCause, ...]:
        """The causes in the order of their first rows."""
        return tuple(self._causes.values())

    def note_non_retryable(self, error: Exception) -> None:
        """A failure that no further attempt could mend; the first one is kept."""
        if self.first_non_retryable_error is None:
            self.first_non_retryable_error = error

    def take_filtered(self, row_group: int) -> int:
        """How many rows of a row group that has come to its end were removed on purpose; it is forgotten then."""
        return self._filtered.pop(row_group, 0)

    def count(self, column: str, row_group: int, error: Exception | None) -> None:
        """One more row was given up because of `error`, or with None removed on purpose."""
        if error is None:
            self.filtered_rows += 1
            self._filtered[row_group] = self._filtered.get(row_group, 0) + 1
            return
        self.dropped_rows += 1
        key = (column, type(error).__name__)
        cause = self._causes.get(key)
        if cause is None:
            self._causes[key] = DropCause(column, type(error).__name__, 1, error)
        else:
            cause.rows += 1

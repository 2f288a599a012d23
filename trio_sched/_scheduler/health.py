"""Whether a run goes well: how many of its rows and attempts failed, and what is done about it.

The *error rate* is judged over rows, in the order in which they began. A row that is still in flight counts as not
failed, so fast failures do not crowd out slow successes. Where among any `window` rows that began one after the other
the rejected ones reach a share, the run stops. Only rejected rows count: a failure that says nothing about its row
rejects none.

The *trouble share* counts attempts that ended in a preserved or a retryable failure, among the last `window` attempts;
when it is high a warning is logged, at most once in an interval. Neither says anything before a window is full, so a
short run is never stopped.
"""

from __future__ import annotations

import bisect
import logging
import math
from collections import deque
from typing import Final, Literal

import attrs

from trio_sched import _validation as check
from trio_sched._resources.task import Task
from trio_sched._scheduler.retry import FailureKind

__all__ = ["EarlyStop", "HealthConfig", "HealthMonitor", "StopReason"]

logger = logging.getLogger("trio_sched.scheduler")

StopReason = Literal["error_rate", "endpoint_not_answering", "endpoint_closed", "budget_spent", "no_progress"]
_MOST_REMEMBERED: Final = 4096
"""Failed rows, of which the first half is forgotten then."""


@attrs.frozen
class HealthConfig:
    """window: rows, and attempts, that shares are taken over. stop_error_rate: from 0 to 1, or None to never stop.

    degraded_share: trouble that is worth a warning. warning_interval_seconds: from one warning to the next.
    snapshot_interval_seconds: from one `scheduler_health_snapshot` to the next, while anything happens.
    """

    window: int = attrs.field(default=100, validator=check.positive_int)
    stop_error_rate: float | None = attrs.field(default=0.5, validator=check.optional_closed_unit_interval)
    degraded_share: float = attrs.field(default=0.5, validator=check.open_unit_interval)
    warning_interval_seconds: float = attrs.field(default=60.0, validator=check.positive_finite)
    snapshot_interval_seconds: float = attrs.field(default=10.0, validator=check.positive_finite)


@attrs.frozen
class EarlyStop:
    """Why a run stopped before its plan ended.

    explanation: in words that quote no data. last_error: what made it stop. It may quote data, so it is for the
    program, and in no file.
    """

    reason: StopReason
    explanation: str
    last_error: Exception | None = attrs.field(default=None, eq=False)

    def __str__(self) -> str:
        return self.explanation


class _RowFailures:
    """Which rows failed, in the order in which rows began.

    A window is a run of `window` rows that began one after the other; `most` of them may not fail. A row begins with
    the first task that is its own. Those of a row group of which a task for the whole row group fails one begin then,
    if they did not before.
    """

    __slots__ = ("_began", "_failed", "_full_at", "_most", "_orders", "_sizes", "_window")

    def __init__(self, window: int, most: int) -> None:
        self._window = window
        self._most = most
        self._began = 0
        self._sizes: dict[int, int] = {}
        self._orders: dict[int, dict[int, int]] = {}
        """By row group and row, the number under which a row began."""
        self._failed: list[int] = []
        """Numbers of failed rows, ascending."""
        self._full_at = math.inf
        """How many rows have to have begun for a window with too many failures to be full."""

    def open(self, row_group: int, size: int) -> None:
        """Rows of a row group may begin from now on."""
        self._sizes[row_group] = size

    def begin(self, row_group: int, row: int) -> int:
        """The number under which a row began, which is now unless it did before."""
        orders = self._orders.get(row_group)
        if orders is None:
            orders = self._orders[row_group] = {}
        order = orders.get(row)
        if order is None:
            order = orders[row] = self._began
            self._began += 1
        return order

    def forget(self, row_group: int) -> None:
        """No row of a row group can fail any more."""
        self._sizes.pop(row_group, None)
        self._orders.pop(row_group, None)

    def fail(self, row_group: int, row: int) -> bool:
        """A row failed; whether that fills a window."""
        failed, window, most = self._failed, self._window, self._most
        if row not in self._orders.get(row_group, ()):
            for each in range(self._sizes.get(row_group, 0)):
                self.begin(row_group, each)
        order = self.begin(row_group, row)
        at = bisect.bisect(failed, order)
        failed.insert(at, order)
        for first in range(max(0, at - most + 1), min(at, len(failed) - most) + 1):
            begins = max(0, failed[first + most - 1] - window + 1)
            if begins <= failed[first]:
                self._full_at = min(self._full_at, begins + window)
        if len(failed) > _MOST_REMEMBERED:
            del failed[: len(failed) // 2]
        return self._began >= self._full_at


class _SlidingShare:
    """The share of marked ones among the last `window`."""

    __slots__ = ("_last", "_marked", "_window")

    def __init__(self, window: int) -> None:
        self._window = window
        self._last: deque[bool] = deque()
        self._marked = 0

    def note(self, marked: bool) -> None:
        if not (marked or self._marked) and len(self._last) == self._window:
            return  # None of those remembered is marked, and so it stays.
        self._last.append(marked)
        self._marked += marked
        if len(self._last) > self._window:
            self._marked -= self._last.popleft()

    @property
    def full_share(self) -> float | None:
        """The share, or None before the window is full."""
        return self._marked / self._window if len(self._last) == self._window else None


class HealthMonitor:
    """Told of every row that begins or fails and every attempt that ends; says when to stop, and warns.

    attempts: those that ended, but for preserved failures.
    """

    def __init__(self, config: HealthConfig) -> None:
        self._config = config
        rate = config.stop_error_rate
        self._rows = None if rate is None else _RowFailures(config.window, max(1, math.ceil(rate * config.window)))
        self._fails_too_often = False
        self._trouble = _SlidingShare(config.window)
        self._warn_from = -math.inf
        self._snapshot_from = -math.inf
        self.attempts: int = 0

    @property
    def judged_until(self) -> int | None:
        """At how many `attempts` the rows that ended so far are judged; None: nothing stops."""
        return None if self._rows is None else self.attempts + self._config.window

    def opened(self, row_group: int, size: int) -> None:
        """A row group of `size` rows is open."""
        if self._rows is not None:
            self._rows.open(row_group, size)

    def began(self, task: Task) -> None:
        """A task is started, and its row with it, unless that began before."""
        if self._rows is not None and task.row_index is not None:
            self._rows.begin(task.row_group, task.row_index)

    def closed(self, row_group: int) -> None:
        """A row group is durable or abandoned."""
        if self._rows is not None:
            self._rows.forget(row_group)

    def rejected(self, row_group: int, row_index: int) -> None:
        """A row is rejected because it failed."""
        if self._rows is not None:
            self._fails_too_often |= self._rows.fail(row_group, row_index)

    def succeeded(self) -> None:
        """An attempt succeeded."""
        self.attempts += 1
        self._trouble.note(False)

    def failed(self, kind: FailureKind, column: str, reason: str, now: float) -> bool:
        """An attempt failed. Whether that is a reason to tell of trouble now; it is logged then."""
        if kind != "preserved":
            self.attempts += 1
        self._trouble.note(kind in ("preserved", "retryable"))
        share = self._trouble.full_share
        if share is None or share < self._config.degraded_share or now < self._warn_from:
            return False
        self._warn_from = now + self._config.warning_interval_seconds
        logger.warning(
            "%.0f %% of the last %d attempts were refused or failed for reasons that may pass (last: column %r, %s); "
            "they are tried again",
            share * 100,
            self._config.window,
            column,
            reason,
        )
        return True

    def early_stop(self, last_error: Exception | None = None) -> EarlyStop | None:
        """Why the run should stop now, after an attempt failed with `last_error`; or None."""
        if not self._fails_too_often:
            return None
        rate, window = self._config.stop_error_rate, self._config.window
        return EarlyStop("error_rate", f"{rate:.0%} or more of {window} rows in a row failed", last_error)

    def is_snapshot_due(self, now: float) -> bool:
        """Whether a health snapshot is due; asking counts as taking it."""
        if now < self._snapshot_from:
            return False
        self._snapshot_from = now + self._config.snapshot_interval_seconds
        return True

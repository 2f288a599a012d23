"""Whether a run goes well: how many of its recent attempts failed, and what is done about it.

Two shares are kept, each over the last `window` attempts. The *error rate* counts attempts that failed by other than a
preserved failure, among those that did not end in one; it stops the run when it is too high. The *trouble share* counts
attempts that ended in a preserved or a retryable failure, among all; when it is high a warning is logged, at most once
in an interval. A share says nothing before its window is full, so a short run is never stopped.
"""

from __future__ import annotations

import logging
import math
from collections import deque

import attrs

from trio_sched import _validation as check
from trio_sched._scheduler.retry import FailureKind

__all__ = ["EarlyStop", "HealthConfig", "HealthMonitor"]

logger = logging.getLogger("trio_sched.scheduler")


@attrs.frozen
class HealthConfig:
    """window: attempts that shares are taken over. stop_error_rate: from 0 to 1, or None to never stop.

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
    """Why a run stopped before its plan ended: of its last `attempts`, the share `error_rate` failed.

    last_error: what the last of them failed with. It may quote data, so it is for the program, and in no file.
    """

    error_rate: float
    attempts: int
    last_error: Exception | None = attrs.field(default=None, eq=False)

    def __str__(self) -> str:
        return f"{self.error_rate:.0%} of the last {self.attempts} attempts failed"


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
    """Told of every attempt that ended; says when to stop, and warns. attempts: those that the error rate counts."""

    def __init__(self, config: HealthConfig) -> None:
        self._config = config
        self._errors = _SlidingShare(config.window)
        self._trouble = _SlidingShare(config.window)
        self._warn_from = -math.inf
        self._snapshot_from = -math.inf
        self.attempts: int = 0

    @property
    def judged_until(self) -> int | None:
        """At how many `attempts` all that ended so far have left the window of the error rate; None: nothing stops."""
        return None if self._config.stop_error_rate is None else self.attempts + self._config.window

    def succeeded(self) -> None:
        """An attempt succeeded."""
        self.attempts += 1
        self._errors.note(False)
        self._trouble.note(False)

    def failed(self, kind: FailureKind, column: str, reason: str, now: float) -> bool:
        """An attempt failed. Whether that is a reason to tell of trouble now; it is logged then."""
        if kind != "preserved":
            self.attempts += 1
            self._errors.note(True)
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
        rate, limit = self._errors.full_share, self._config.stop_error_rate
        if rate is None or limit is None or rate < limit:
            return None
        return EarlyStop(rate, self._config.window, last_error)

    def is_snapshot_due(self, now: float) -> bool:
        """Whether a health snapshot is due; asking counts as taking it."""
        if now < self._snapshot_from:
            return False
        self._snapshot_from = now + self._config.snapshot_interval_seconds
        return True

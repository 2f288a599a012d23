"""How many retries a run may make, so that retries never become most of its load.

A token bucket, as in gRPC's bound on retries and Finagle's `RetryBudget`. A retry after a retryable failure takes one
token. Every first attempt puts a share of a token in, and so does passing time; the bucket starts full and never holds
more than `burst`. Over any stretch of `t` seconds with `n` first attempts the retries are therefore at most

    burst + share * n + per_second * t.

A retry that finds no token is not given up: it waits until there is one. Tasks that wait out a rate limit take none,
since request admission already bounds them.
"""

from __future__ import annotations

import attrs

from trio_sched import _validation as check

__all__ = ["RetryBudget", "RetryBudgetConfig"]

_ROUNDING = 1e-9
"""Sums of shares may fall short of a whole token by rounding alone."""


@attrs.frozen
class RetryBudgetConfig:
    """share: retries per first attempt. burst: retries at once, from a full bucket. per_second: retries by time."""

    share: float = attrs.field(default=0.2, validator=check.non_negative_finite)
    burst: int = attrs.field(default=100, validator=check.positive_int)
    per_second: float = attrs.field(default=10.0, validator=check.positive_finite)


class RetryBudget:
    """The tokens of one run. `now` is the run's clock in seconds and never goes back."""

    def __init__(self, config: RetryBudgetConfig) -> None:
        self._config = config
        self._tokens = float(config.burst)
        self._as_of = 0.0

    def first_attempts(self, count: int) -> None:
        """Credit first attempts."""
        self._tokens = min(self._config.burst, self._tokens + count * self._config.share)

    def try_take(self, now: float) -> bool:
        """Take a token if there is one."""
        self._refill(now)
        if self._tokens < 1 - _ROUNDING:
            return False
        self._tokens -= 1
        return True

    def next_token_at(self, now: float) -> float:
        """When there is a token, were there no more first attempts; at once if there is one."""
        self._refill(now)
        return now + max(0.0, 1 - self._tokens) / self._config.per_second

    def _refill(self, now: float) -> None:
        if now > self._as_of:
            self._tokens = min(self._config.burst, self._tokens + (now - self._as_of) * self._config.per_second)
            self._as_of = now

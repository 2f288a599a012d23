"""Limits of requests over time: a bucket of tokens that refills, and windows of a fixed length in a row."""

from __future__ import annotations

from collections.abc import Callable

import attrs

__all__ = ["FixedWindow", "TokenBucket"]


@attrs.define(eq=False)
class TokenBucket:
    """Tokens come back at `rate` per second up to `burst`; full at first, at time 0."""

    rate: float
    burst: int
    tokens: float = attrs.field(init=False)
    filled_at: float = attrs.field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self.tokens = self.burst

    def take(self, now: float) -> bool:
        """Take a token, if there is one."""
        self.tokens = min(self.burst, self.tokens + (now - self.filled_at) * self.rate)
        self.filled_at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@attrs.define(eq=False)
class FixedWindow:
    """At most `quota` requests in each window of `seconds`; the first window starts at time 0."""

    quota: int
    seconds: float
    taken: int = attrs.field(default=0, init=False)
    index: int = attrs.field(default=0, init=False)

    def has_room(self, now: float, used_seconds: Callable[[float], float]) -> bool:
        """Whether one more fits. used_seconds: how many seconds' worth others have used up to a time."""
        index = int(now // self.seconds)
        if index != self.index:
            self.index = index
            self.taken = 0
        by_others = used_seconds(now) - used_seconds(index * self.seconds)
        return self.taken + 1 + by_others * self.quota / self.seconds <= self.quota

    def take(self) -> None:
        """Count one request in; `has_room` has found room for it."""
        self.taken += 1

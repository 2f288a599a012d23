"""What a provider counts: calls at once, or calls in time. A gate also keeps the books of what it offered and gave."""

from __future__ import annotations

import math
from collections import deque
from typing import Protocol

from benchmarks.control.schedules import Schedule

__all__ = ["Concurrency", "FixedWindow", "Gate", "SlidingWindow", "TokenBucket"]


class Gate(Protocol):
    """Lets calls in, or refuses them."""

    @property
    def allowed(self) -> float:
        """How many calls at once may be in now; 0 is an outage."""
        ...

    def enter(self, now: float) -> bool:
        """Whether a call that arrives now is let in."""
        ...

    def leave(self, now: float) -> None:
        """A call that was let in is over."""
        ...

    def wait(self, now: float) -> float:
        """Seconds until a call would be let in, as an honest provider says after a refusal."""
        ...

    def used(self, now: float) -> float:
        """What was used until now: call-seconds within what was allowed, or calls where it counts calls."""
        ...

    def offered(self, start: float, end: float) -> float:
        """What could be used between two times, in the same unit."""
        ...


class Concurrency:
    """So many calls at once, along a schedule; 0 is an outage. `used` is the integral of min(in flight, allowed).

    `watch(level)`: from now on, `reached_at` becomes the time at which so many calls are in flight.
    """

    def __init__(self, schedule: Schedule | int) -> None:
        self.schedule = Schedule.constant(schedule) if isinstance(schedule, int) else schedule
        self.in_flight = 0
        self.allowed = self.schedule.steps[0][1]
        self.reached_at = math.inf
        self._used = 0.0
        self._since = 0.0
        self._step = 0
        self._watched = math.inf
        self._next_change = self._change_after(0)

    def watch(self, level: float, now: float) -> None:
        """Note when `level` calls are in flight, which may be now."""
        self.reached_at = now if self.in_flight >= level else math.inf
        self._watched = math.inf if self.in_flight >= level else level

    def enter(self, now: float) -> bool:
        """Let it in while there is room."""
        if now >= self._next_change:
            self._follow(now)
        in_flight = self.in_flight
        if in_flight >= self.allowed:
            return False
        self._used += (now - self._since) * in_flight
        self._since = now
        self.in_flight = in_flight = in_flight + 1
        if in_flight >= self._watched:
            self.reached_at, self._watched = now, math.inf
        return True

    def leave(self, now: float) -> None:
        """One place is free again."""
        if now >= self._next_change:
            self._follow(now)
        in_flight, allowed = self.in_flight, self.allowed
        self._used += (now - self._since) * min(in_flight, allowed)
        self._since = now
        self.in_flight = in_flight - 1

    def wait(self, now: float) -> float:
        """Nobody knows."""
        return 0.0

    def used(self, now: float) -> float:
        """Call-seconds within what was allowed."""
        self._follow(now)
        self._count(now)
        return self._used

    def offered(self, start: float, end: float) -> float:
        """Allowed calls times seconds."""
        return self.schedule.integral(start, end)

    def _follow(self, now: float) -> None:
        while now >= self._next_change:
            self._count(self._next_change)
            self._step += 1
            self.allowed = self.schedule.steps[self._step][1]
            self._next_change = self._change_after(self._step)

    def _count(self, now: float) -> None:
        self._used += (now - self._since) * min(self.in_flight, self.allowed)
        self._since = now

    def _change_after(self, step: int) -> float:
        steps = self.schedule.steps
        return steps[step + 1][0] if step + 1 < len(steps) else math.inf


class TokenBucket:
    """So many calls a second, however many are in flight: a bucket of `burst` tokens, `rate` more a second."""

    allowed: float = math.inf

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self._tokens = burst
        self._filled_at = 0.0
        self._used = 0

    def enter(self, now: float) -> bool:
        """Let it in while the bucket has a token."""
        tokens = min(self.burst, self._tokens + (now - self._filled_at) * self.rate)
        self._filled_at = now
        if tokens < 1:
            self._tokens = tokens
            return False
        self._tokens = tokens - 1
        self._used += 1
        return True

    def leave(self, now: float) -> None:
        """Nothing: only arrivals count."""

    def wait(self, now: float) -> float:
        """Until there is a token."""
        return (1 - self._tokens) / self.rate

    def used(self, now: float) -> float:
        """Calls."""
        return self._used

    def offered(self, start: float, end: float) -> float:
        """Calls at the rate; what the bucket saved up is not counted."""
        return self.rate * (end - start)


class FixedWindow:
    """`quota` calls in each window of `window` seconds, however many are in flight."""

    allowed: float = math.inf

    def __init__(self, quota: int, window: float) -> None:
        self.quota = quota
        self.window = window
        self._present = 0
        self._in_window = 0
        self._used = 0

    def enter(self, now: float) -> bool:
        """Let it in while the window has something left."""
        present = int(now // self.window)
        if present != self._present:
            self._present, self._in_window = present, 0
        if self._in_window >= self.quota:
            return False
        self._in_window += 1
        self._used += 1
        return True

    def leave(self, now: float) -> None:
        """Nothing: only arrivals count."""

    def wait(self, now: float) -> float:
        """Until the next window."""
        return (self._present + 1) * self.window - now

    def used(self, now: float) -> float:
        """Calls."""
        return self._used

    def offered(self, start: float, end: float) -> float:
        """Calls; both times are ends of windows."""
        return self.quota * (end - start) / self.window


class SlidingWindow:
    """At most `quota` calls in any `window` seconds, however many are in flight."""

    allowed: float = math.inf

    def __init__(self, quota: int, window: float) -> None:
        self.quota = quota
        self.window = window
        self._entered: deque[float] = deque()
        self._used = 0

    def enter(self, now: float) -> bool:
        """Let it in unless the last seconds had the whole quota."""
        entered = self._entered
        while entered and entered[0] <= now - self.window:
            entered.popleft()
        if len(entered) >= self.quota:
            return False
        entered.append(now)
        self._used += 1
        return True

    def leave(self, now: float) -> None:
        """Nothing: only arrivals count."""

    def wait(self, now: float) -> float:
        """Until the oldest call no longer counts."""
        return self._entered[0] + self.window - now

    def used(self, now: float) -> float:
        """Calls."""
        return self._used

    def offered(self, start: float, end: float) -> float:
        """Calls."""
        return self.quota * (end - start) / self.window

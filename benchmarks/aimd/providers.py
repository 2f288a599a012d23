"""Scripted providers: how many calls at once, how many a second, and when it fails for other reasons."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.aimd.simulator import Answer

__all__ = ["CallTime", "ConcurrencyProvider", "QuotaProvider", "RateProvider", "Schedule"]

REFUSAL_SECONDS: Final = 0.05
FAILURE_SECONDS: Final = 0.1


@dataclass(frozen=True)
class Schedule:
    """A value that changes at given times: (0, 8), (600, 24) is 8 until second 600, then 24."""

    steps: tuple[tuple[float, int], ...]

    def __post_init__(self) -> None:
        times = [since for since, _ in self.steps]
        assert times[:1] == [0], f"a schedule starts at 0: {self.steps}"
        assert times == sorted(set(times)), f"a schedule goes forward: {self.steps}"

    @classmethod
    def constant(cls, value: int) -> Schedule:
        """The same value for ever."""
        return cls(((0.0, value),))

    def at(self, moment: float) -> int:
        """The value that is in force."""
        return next(value for since, value in reversed(self.steps) if since <= moment)

    def integral(self, start: float, end: float) -> float:
        """Value times seconds between two times."""
        ends = [since for since, _ in self.steps[1:]] + [end]
        return sum(
            value * max(0.0, min(end, stop) - max(start, since))
            for (since, value), stop in zip(self.steps, ends, strict=True)
        )


@dataclass(frozen=True)
class CallTime:
    """How long a successful call takes: normally distributed, cut off at `shortest`."""

    mean: float = 1.0
    sigma: float = 0.3
    shortest: float = 0.05

    @property
    def residual(self) -> float:
        """How long a call that is in flight at some moment has still to run, on average; `shortest` is neglected."""
        return (self.mean**2 + self.sigma**2) / (2 * self.mean)

    def draw(self, rng: random.Random) -> float:
        """One call's time."""
        return max(self.shortest, rng.gauss(self.mean, self.sigma))


class ConcurrencyProvider:
    """Refuses above so many calls in flight.

    `retry_after` is the hint of its refusals, in turn: (20, None) asks for 20 seconds every other time. `storms` and
    `floods` are pairs of start and end: in a storm it answers everything with a failure that is no rate limit, in a
    flood it refuses everything.
    """

    def __init__(
        self,
        capacity: Schedule | int,
        *,
        call_time: CallTime | None = None,
        retry_after: Sequence[float | None] = (None,),
        storms: Sequence[tuple[float, float]] = (),
        floods: Sequence[tuple[float, float]] = (),
    ) -> None:
        self.capacity = Schedule.constant(capacity) if isinstance(capacity, int) else capacity
        self.call_time = call_time or CallTime()
        self.in_flight = 0
        self.refusals = 0
        self._retry_after = retry_after
        self._storms = storms
        self._floods = floods
        self._step = 0

    def answer(self, now: float, rng: random.Random) -> Answer:
        """Accept while there is room."""
        if any(start <= now < end for start, end in self._storms):
            return Answer("provider_failure", FAILURE_SECONDS)
        steps = self.capacity.steps
        while self._step + 1 < len(steps) and steps[self._step + 1][0] <= now:
            self._step += 1
        flooded = any(start <= now < end for start, end in self._floods)
        if flooded or self.in_flight >= steps[self._step][1]:
            hint = self._retry_after[self.refusals % len(self._retry_after)]
            self.refusals += 1
            return Answer("rate_limited", REFUSAL_SECONDS, hint)
        self.in_flight += 1
        return Answer("success", self.call_time.draw(rng))

    def finished(self, answer: Answer, now: float) -> None:
        """A successful call gives its place back."""
        if answer.kind == "success":
            self.in_flight -= 1
            assert self.in_flight >= 0, "a call ends once"


class RateProvider:
    """Takes so many calls a second, however many are in flight: a bucket of `burst` tokens, `rate` more a second."""

    def __init__(self, rate: float, burst: float, *, call_time: CallTime | None = None) -> None:
        self.rate = rate
        self.burst = burst
        self.call_time = call_time or CallTime()
        self._tokens = burst
        self._filled_at = 0.0

    def answer(self, now: float, rng: random.Random) -> Answer:
        """Accept while the bucket has a token."""
        self._tokens = min(self.burst, self._tokens + (now - self._filled_at) * self.rate)
        self._filled_at = now
        if self._tokens < 1:
            return Answer("rate_limited", REFUSAL_SECONDS)
        self._tokens -= 1
        return Answer("success", self.call_time.draw(rng))

    def finished(self, answer: Answer, now: float) -> None:
        """Nothing: only arrivals count."""


class QuotaProvider:
    """Takes `quota` calls in each window of `window` seconds and refuses the others, however many are in flight."""

    def __init__(self, quota: int, window: float, *, call_time: CallTime | None = None) -> None:
        self.quota = quota
        self.window = window
        self.call_time = call_time or CallTime()
        self._present = 0
        self._used = 0

    def answer(self, now: float, rng: random.Random) -> Answer:
        """Accept while the window has something left."""
        present = int(now // self.window)
        if present != self._present:
            self._present, self._used = present, 0
        if self._used >= self.quota:
            return Answer("rate_limited", REFUSAL_SECONDS)
        self._used += 1
        return Answer("success", self.call_time.draw(rng))

    def finished(self, answer: Answer, now: float) -> None:
        """Nothing: only arrivals count."""

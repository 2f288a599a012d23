"""A client and a world for the tests of family 7."""

from __future__ import annotations

from benchmarks.control.call_times import Normal
from benchmarks.control.simulator import Answer, Client
from benchmarks.control.told import Told

EXACT = Normal(1.0, spread=0.0)
"""Every call takes a second."""


class FixedClient:
    """Keeps `limit` calls in flight whatever the answers are."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.answers: list[tuple[float, Answer]] = []
        self._in_flight = 0

    def grant(self, now: float) -> int | None:
        if self._in_flight >= self.limit:
            return None
        self._in_flight += 1
        return 0

    def release(self, ticket: int, answer: Answer, now: float) -> None:
        self._in_flight -= 1
        self.answers.append((now, answer))

    def wake(self, now: float) -> None:
        pass

    def next_wake(self) -> float | None:
        return None


def at_the_level(told: Told) -> Client:
    return FixedClient(told.level)


def at_the_cap(told: Told) -> Client:
    return FixedClient(told.cap)

"""What a provider allows over time: constant, in steps, to and fro, or at random."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Schedule", "drift", "phases"]


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


def phases(values: Sequence[int], shortest: float, longest: float, until: float, rng: random.Random) -> Schedule:
    """The values in turn, each for between `shortest` and `longest` seconds, drawn from `rng`."""
    steps: list[tuple[float, int]] = []
    moment = 0.0
    while moment < until:
        steps.append((moment, values[len(steps) % len(values)]))
        moment += rng.uniform(shortest, longest)
    return Schedule(tuple(steps))


def drift(low: int, high: int, step: int, every: float, until: float, rng: random.Random) -> Schedule:
    """A random walk between two bounds: every so many seconds by at most `step`, starting in the middle."""
    value = (low + high) // 2
    steps: list[tuple[float, int]] = []
    moment = 0.0
    while moment < until:
        steps.append((moment, value))
        value = min(high, max(low, value + rng.randint(-step, step)))
        moment += every
    return Schedule(tuple(steps))

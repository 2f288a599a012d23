"""Somebody else's program, which does not adapt: it comes and goes."""

from __future__ import annotations

import random
from typing import Final

from benchmarks.control.simulator import Answer

__all__ = ["BurstyNeighbour"]

SHORTEST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 0.75


class BurstyNeighbour:
    """Somebody else's program: `limit` calls at once while it is on, none while it is off.

    After a refusal it makes a short random pause. On and off stretches are exponentially distributed with the
    mean `mean_stretch` and drawn in advance from `seed`.
    """

    def __init__(self, limit: int, *, mean_stretch: float, until: float, seed: int) -> None:
        self._size = limit
        self._in_flight = 0
        self._on = False
        self._paused_until = 0.0
        self._rng = random.Random(seed)
        self._all_toggles: list[float] = []
        moment = 0.0
        while moment < until:
            moment += self._rng.expovariate(1 / mean_stretch)
            self._all_toggles.append(moment)
        self._toggles = self._all_toggles[::-1]

    @property
    def limit(self) -> int:
        """What it has in flight if the provider lets it."""
        return self._size if self._on else 0

    def on_seconds(self, start: float, end: float) -> float:
        """How long it is on between two times."""
        edges = [*self._all_toggles, end]
        return sum(max(0.0, min(end, off) - max(start, on)) for on, off in zip(edges[::2], edges[1::2], strict=False))

    def grant(self, now: float) -> int | None:
        """A ticket while it is on, has room and does not pause."""
        if not self._on or self._in_flight >= self._size or now < self._paused_until:
            return None
        self._in_flight += 1
        return 0

    def release(self, ticket: int, answer: Answer, now: float) -> None:
        """One more place; a refusal starts a pause."""
        self._in_flight -= 1
        if answer.refused:
            self._paused_until = now + self._rng.uniform(SHORTEST_PAUSE, LONGEST_PAUSE)

    def wake(self, now: float) -> None:
        """A pause ended, or a stretch."""
        while self._toggles and self._toggles[-1] <= now:
            self._toggles.pop()
            self._on = not self._on
        if self._paused_until <= now:
            self._paused_until = 0.0

    def next_wake(self) -> float | None:
        """The end of the pause or of the stretch, whichever is first."""
        toggle = self._toggles[-1] if self._toggles else None
        if self._paused_until == 0:
            return toggle
        return self._paused_until if toggle is None else min(self._paused_until, toggle)

"""The adaptive connections of inspect_ai (UK AI Security Institute), as its documentation describes them.

Reimplemented from https://inspect.aisi.org.uk/models-concurrency.html; the behaviour is theirs, the code is not.

- It starts at 20 and stays between 4 and the cap. A round is as many answers as the limit, at least 4, to calls that
  were not refused before. Until something is refused each round doubles the limit, from then on it adds 5 %.
- A refusal cuts the limit by a fifth, at most once in 15 s, or for as long as the provider asks if that is longer.
  Rounds do not count in that time, and each refusal starts the round again.
- Above 10 the limit is a multiple of 5: a cut is rounded down, growth up.
- Failures of the server and timeouts cut nothing; their calls do not count for a round.
- A refused call keeps its connection while it waits. The SDK beneath tries it twice more, then inspect waits for 3 s,
  doubled each time up to half an hour, and tries again, without end.
"""

from __future__ import annotations

import random
from typing import Final

from benchmarks.control.retrying import RetryingClient, sdk_pause
from benchmarks.control.simulator import Answer, Client
from benchmarks.control.told import Told

__all__ = ["InspectClient", "inspect_connections"]

START: Final = 20
LEAST: Final = 4
LEAST_ROUND: Final = 4
DECREASE: Final = 0.8
GROWTH: Final = 0.05
COOLDOWN: Final = 15.0
SDK_ATTEMPTS: Final = 3
FIRST_PAUSE: Final = 3.0
LONGEST_PAUSE: Final = 1800.0
COARSE_ABOVE: Final = 10
COARSE: Final = 5


class InspectClient(RetryingClient):
    """Its limit, and its way to try again."""

    def __init__(self, cap: int, seed: int) -> None:
        self._least = min(LEAST, cap)
        self._cap = cap
        super().__init__(max(self._least, min(START, cap)))
        self._rng = random.Random(seed)
        self._answered = 0
        self._doubles = True
        self._cooling_until = 0.0

    def pause(self, attempts: int, answer: Answer, now: float) -> float | None:
        """Cut the limit if that is due; then the pause of the SDK, or that of inspect after each third attempt."""
        if answer.status in {429, 529}:
            self._refused(answer, now)
        rounds, within = divmod(attempts - 1, SDK_ATTEMPTS)
        if within < SDK_ATTEMPTS - 1:
            return sdk_pause(within, answer, self._rng.random())
        return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(rounds, 10)) + self._rng.random()

    def answered(self, attempts: int, now: float) -> None:
        """A call that was not refused counts for the round."""
        if attempts > 1 or now < self._cooling_until:
            return
        self._answered += 1
        if self._answered < max(self.limit, LEAST_ROUND):
            return
        self._answered = 0
        if self._doubles:
            self.limit = min(self._cap, 2 * self.limit)
        else:
            self.limit = min(self._cap, _coarse(self.limit + max(1, round(GROWTH * self.limit)), COARSE - 1))

    def _refused(self, answer: Answer, now: float) -> None:
        self._answered = 0
        self._doubles = False
        if now < self._cooling_until:
            return
        self._cooling_until = now + max(COOLDOWN, answer.hint or 0.0)
        self.limit = max(self._least, _coarse(int(DECREASE * self.limit), 0))


def _coarse(limit: int, up: int) -> int:
    return limit if limit < COARSE_ABOVE else (limit + up) // COARSE * COARSE


def inspect_connections(told: Told) -> Client:
    """A client with its defaults, and the cap as its maximum."""
    return InspectClient(told.cap, told.seed)

"""A client whose refused calls sleep and try again in their own place, as the retries of an SDK do.

What holds a place of the client's limit is a call, from its first attempt until it is answered or given up, also while
it sleeps between two attempts. Subclasses say how long it sleeps and what they learn.
"""

from __future__ import annotations

import heapq

from benchmarks.control.simulator import Answer

__all__ = ["RetryingClient", "is_retried", "sdk_pause"]

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 8.0
LONGEST_HINT = 60.0


def is_retried(answer: Answer) -> bool:
    """What SDKs try again: refusals, failures of the server, and what was not answered in time."""
    return answer.refused or answer.kind == "provider_timeout" or answer.status >= 500


def sdk_pause(retries: int, answer: Answer, random: float) -> float:
    """Seconds that the OpenAI SDK sleeps after so many retries; `random` is between 0 and 1.

    Half a second, doubled each time up to 8 s, less up to a quarter; or what the provider asks for, up to a minute.
    """
    if answer.hint is not None and 0 < answer.hint <= LONGEST_HINT:
        return answer.hint
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(retries, 10)) * (1 - random / 4)


class RetryingClient:
    """Calls hold a place while they sleep. A ticket is the number of attempts that its call made before.

    lost: calls that were given up.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.lost = 0
        self._calls = 0
        self._sleeping: list[tuple[float, int, int]] = []
        self._slept = 0

    def pause(self, attempts: int, answer: Answer, now: float) -> float | None:
        """Seconds to sleep after the last of so many attempts, or None to give the call up."""
        raise NotImplementedError

    def answered(self, attempts: int, now: float) -> None:
        """A call got its answer with the last of so many attempts."""

    def grant(self, now: float) -> int | None:
        """A call that has slept enough, or a new one while there is a place."""
        if self._sleeping and self._sleeping[0][0] <= now:
            return heapq.heappop(self._sleeping)[2]
        if self._calls >= self.limit:
            return None
        self._calls += 1
        return 0

    def release(self, ticket: int, answer: Answer, now: float) -> None:
        """The call is over, or sleeps."""
        attempts = ticket + 1
        if is_retried(answer):
            pause = self.pause(attempts, answer, now)
            if pause is not None:
                self._slept += 1
                heapq.heappush(self._sleeping, (now + pause, self._slept, attempts))
                return
            self.lost += 1
        elif answer.kind == "success":
            self.answered(attempts, now)
        self._calls -= 1

    def wake(self, now: float) -> None:
        """Nothing to do: whoever has slept enough is granted."""

    def next_wake(self) -> float | None:
        """When the next call has slept enough."""
        return self._sleeping[0][0] if self._sleeping else None

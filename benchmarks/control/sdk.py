"""A fixed number of calls at once and the retries of the OpenAI SDK: what most programs do.

As many calls as the cap says, and nothing is learned. A refused call keeps its place while the SDK sleeps, and after
the SDK's last retry it is lost.
"""

from __future__ import annotations

import random

from benchmarks.control.retrying import RetryingClient, sdk_pause
from benchmarks.control.simulator import Answer, Client
from benchmarks.control.told import ClientFactory, Told

__all__ = ["SdkClient", "sdk"]


class SdkClient(RetryingClient):
    """So many calls at once, each tried again `retries` times."""

    def __init__(self, limit: int, retries: int, seed: int) -> None:
        super().__init__(limit)
        self._retries = retries
        self._rng = random.Random(seed)

    def pause(self, attempts: int, answer: Answer, now: float) -> float | None:
        """As long as the SDK sleeps."""
        return None if attempts > self._retries else sdk_pause(attempts - 1, answer, self._rng.random())


def sdk(retries: int) -> ClientFactory:
    """Clients with so many retries; the SDK's default is 2."""

    def client(told: Told) -> Client:
        return SdkClient(told.cap, retries, told.seed)

    return client

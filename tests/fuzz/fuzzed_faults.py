"""What goes wrong in a fuzzed run: faults that follow from the seed and from whom they meet, not from the schedule.

Every call of a function has a key, and the key a script of faults, each met once. Of the failures that spend a salvage
round there are never more than a row survives, so a row is rejected only where its column says so. Rate limits are
not bounded that way: however many there are, they may not cost a row. An endpoint also has bursts, stretches of time in
which it refuses everybody, and may run out of quota for good.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Final, Literal, TypeAlias

import attrs
import trio

__all__ = ["Burst", "Endpoint", "FaultBook", "RateLimitError", "ServerError", "SpentQuotaError"]

Fault: TypeAlias = Literal["limited", "hinted", "overloaded", "server", "timeout", "too_slow", "hang", "hang_fails"]

SALVAGE_ROUNDS: Final = 2
"""Of `RetryConfig`: more failures that may pass than this would cost the row."""

_PRESERVED: Final[tuple[Fault, ...]] = ("limited", "hinted", "overloaded", "hang")
_RETRYABLE: Final[tuple[Fault, ...]] = ("server", "timeout", "too_slow", "hang_fails")
_LONGEST_HANG: Final = 900.0
"""Seconds; well below the half hour in which nothing may happen."""


class FaultError(Exception):
    """Looks like the error of an SDK. headers: of the response."""

    def __init__(self, **headers: str) -> None:
        super().__init__()
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class RateLimitError(FaultError):
    status_code = 429


class OverloadedError(FaultError):
    status_code = 503


class ServerError(FaultError):
    status_code = 500


class APITimeoutError(FaultError):
    pass


class SpentQuotaError(FaultError):
    status_code = 429
    code = "insufficient_quota"


@attrs.frozen
class Burst:
    """From `start` to `end`, in seconds of the run's clock, everybody is refused. hint: seconds, or None for none."""

    start: float
    end: float
    hint: float | None


@attrs.frozen
class Endpoint:
    """What befalls a whole endpoint. quota: calls until it refuses for good, or None."""

    bursts: tuple[Burst, ...] = ()
    quota: int | None = None


class FaultBook:
    """The faults of one dataset, over all attempts at it. share: of the keys that meet any. `share=0`: nothing ever."""

    def __init__(self, seed: int, share: float) -> None:
        self._seed = seed
        self._share = share
        self._scripts: dict[str, list[Fault]] = {}
        self._calls: dict[str, int] = {}
        self._answered: dict[Endpoint, int] = {}

    @property
    def is_off(self) -> bool:
        """Whether this is the book of a plain sequential run, in which time does not pass."""
        return self._share == 0

    async def pass_time(self, key: str) -> None:
        """Take as long as this call of `key` takes."""
        if self.is_off:
            return
        number = self._calls[key] = self._calls.get(key, 0) + 1
        rng = random.Random(f"{self._seed} {key} {number}")
        match rng.randrange(4):
            case 0:
                pass
            case 1:
                for _ in range(rng.randrange(4)):
                    await trio.lowlevel.checkpoint()
            case _:
                await trio.sleep(rng.choice((0, 0.001, 0.5, 1, 3, 20)) * rng.choice((1, rng.random())))

    async def meet(self, key: str) -> None:
        """Meet the next fault of `key`, if there is one left."""
        fault = self._next(key)
        if fault in ("hang", "hang_fails"):
            await trio.sleep(random.Random(f"{self._seed} {key} hang").uniform(30, _LONGEST_HANG))
        _raise(fault)

    def meet_now(self, key: str) -> None:
        """The same, for a function that cannot wait."""
        _raise(self._next(key))

    async def call(self, endpoint: Endpoint, key: str, answer: Callable[[], Awaitable[object]]) -> object:
        """One outbound attempt for `key`."""
        if not self.is_off:
            await self.pass_time(key)
            answered = self._answered[endpoint] = self._answered.get(endpoint, 0) + 1
            if endpoint.quota is not None and answered > endpoint.quota:
                raise SpentQuotaError
            now = trio.current_time()
            for burst in endpoint.bursts:
                if burst.start <= now < burst.end:
                    raise RateLimitError() if burst.hint is None else RateLimitError(retry_after=str(burst.hint))
            await self.meet(key)
        return await answer()

    def _next(self, key: str) -> Fault | None:
        if self.is_off:
            return None
        script = self._scripts.get(key)
        if script is None:
            script = self._scripts[key] = self._write(random.Random(f"{self._seed} {key}"))
        return script.pop() if script else None

    def _write(self, rng: random.Random) -> list[Fault]:
        if rng.random() >= self._share:
            return []
        script = rng.choices(_PRESERVED, k=rng.choice((0, 1, 2, 8)))
        script += rng.choices(_RETRYABLE, k=rng.randint(0, SALVAGE_ROUNDS))
        rng.shuffle(script)
        return script


def _raise(fault: Fault | None) -> None:
    match fault:
        case "limited":
            raise RateLimitError
        case "hinted":
            raise RateLimitError(retry_after_ms="2500")
        case "overloaded":
            raise OverloadedError(retry_after="7")
        case "server" | "hang_fails":
            raise ServerError
        case "timeout":
            raise APITimeoutError
        case "too_slow":
            raise trio.TooSlowError
        case "hang" | None:
            pass

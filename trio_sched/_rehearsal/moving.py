"""Limits that move within a phase: a concurrency limit that drifts, and a neighbour that takes a part of every limit.

Both are functions of the seconds since the phase started and of a key that is made of the script's seed and the phase's
name. So nothing is kept, and it does not matter who looks, or how often. What is random is a row of coins, one for each
step or stretch of time: the first of them fall the same way however many are tossed after them.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import attrs

from trio_sched import _validation as check

__all__ = ["Drift", "Neighbour", "heads", "long_enough"]

_SHORTEST_SECONDS = 0.01


def heads(key: str, tosses: int) -> int:
    """How many of the first `tosses` coins of `key` show heads."""
    row = hashlib.shake_128(key.encode("utf-8", "surrogatepass")).digest((tosses + 7) // 8)
    return (int.from_bytes(row, "big") >> (-tosses % 8)).bit_count()


def long_enough(instance: object, attribute: attrs.Attribute[float], value: object) -> None:
    """Attrs validator: seconds that are long enough to be counted, since time is cut into stretches of them."""
    check.check_finite(
        f"{type(instance).__name__}.{attribute.name}",
        value,
        expected=f"a finite number of at least {_SHORTEST_SECONDS}",
        accept=lambda number: number >= _SHORTEST_SECONDS,
    )


@attrs.frozen(kw_only=True)
class Drift:
    """How a concurrency limit moves between the phase's `max_in_flight`, where it starts, and `to`.

    step, seconds: it moves by `step` every `seconds`, which are at least 0.01.
    shape: `linear` moves straight to the other bound and back, over and over; `walk` moves up or down, as a coin falls,
    and turns back at the bounds.
    """

    to: int = attrs.field(validator=check.positive_int)
    step: int = attrs.field(default=1, validator=check.positive_int)
    seconds: float = attrs.field(default=1.0, validator=long_enough)
    shape: Literal["linear", "walk"] = attrs.field(default="linear", validator=check.one_of("linear", "walk"))

    def level(self, start: int, elapsed: float, key: str) -> int:
        """Where the limit is after `elapsed` seconds, if it was `start` at first; `start` differs from `to`."""
        steps = int(elapsed // self.seconds)
        if self.shape == "walk":
            steps = 2 * heads(key, steps) - steps
        span = abs(self.to - start)
        # Folded at both bounds: what would lead out leads back in.
        moved = self.step * steps % (2 * span)
        moved = min(moved, 2 * span - moved)
        return start + moved if self.to > start else start - moved


@attrs.frozen(kw_only=True)
class Neighbour:
    """Another client of the same provider, which takes a part of every limit for a while, and then leaves it again.

    share: its part, from 0 to 1, of the requests in flight (rounded down) and of the rates.
    stretch_seconds: time is cut into stretches of this length, at least 0.01, and a coin decides for each of them
    whether the neighbour is there.
    """

    share: float = attrs.field(default=0.5, validator=check.closed_unit_interval)
    stretch_seconds: float = attrs.field(default=10.0, validator=long_enough)

    def is_there(self, elapsed: float, key: str) -> bool:
        """Whether it is there after `elapsed` seconds."""
        before = int(elapsed // self.stretch_seconds)
        return heads(key, before + 1) > heads(key, before)

    def used_seconds(self, elapsed: float, key: str) -> float:
        """How many seconds' worth of a rate it has used after `elapsed` seconds."""
        before, rest = divmod(elapsed, self.stretch_seconds)
        there = heads(key, int(before)) * self.stretch_seconds
        return self.share * (there + rest if self.is_there(elapsed, key) else there)

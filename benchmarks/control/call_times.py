"""How long calls take."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

__all__ = ["CallTime", "LongTail", "Normal"]


class CallTime(Protocol):
    """A distribution of seconds."""

    @property
    def mean(self) -> float:
        """The mean, in seconds."""
        ...

    def draw(self, rng: random.Random) -> float:
        """One call's time."""
        ...


@dataclass(frozen=True)
class Normal:
    """Normally distributed, with a standard deviation of `spread` times the mean, and never below a tenth of it."""

    mean: float = 1.0
    spread: float = 0.3

    def draw(self, rng: random.Random) -> float:
        """One call's time."""
        return max(self.mean / 10, rng.gauss(self.mean, self.spread * self.mean))


@dataclass(frozen=True)
class LongTail:
    """Log-normal between two bounds: half of the calls take less than `median`, a few take very long."""

    median: float
    sigma: float = 1.0
    shortest: float = 1.0
    longest: float = 120.0

    @property
    def mean(self) -> float:
        """The mean within the bounds."""
        mu, sigma, normal = math.log(self.median), self.sigma, NormalDist()
        low, high = ((math.log(bound) - mu) / sigma for bound in (self.shortest, self.longest))
        within = math.exp(mu + sigma**2 / 2) * (normal.cdf(high - sigma) - normal.cdf(low - sigma))
        return self.shortest * normal.cdf(low) + within + self.longest * (1 - normal.cdf(high))

    def draw(self, rng: random.Random) -> float:
        """One call's time."""
        return min(self.longest, max(self.shortest, rng.lognormvariate(math.log(self.median), self.sigma)))

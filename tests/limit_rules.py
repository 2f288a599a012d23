"""Every limit rule, for tests that hold whatever the rule is, and a rule of which nothing can be believed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any, Final

from trio_sched._request.limit import Grant, LimitChoice, LimitFactory, LimitTransition, RequestLimit, RequestSample

__all__ = ["RULES", "RULE_NAMES", "HostileLimit", "hostile"]


class HostileLimit:
    """Begins as it should. Then it returns what is no limit, no time, no grant and no transition, and raises.

    Its limit, ceiling and times stay until the next call of a method, like those of a rule that means what it says.
    Some have no `set_effective_max`.
    """

    def __init__(self, effective_max: int, now: float, *, seed: int) -> None:
        self._rng = random.Random(seed)
        self._max = effective_max
        self._limit: object = effective_max
        self._until: object = None
        self._deadline: object = None
        self._ceiling: object = None
        self._begun = False
        if self._rng.random() < 0.7:
            self.set_effective_max: Callable[[int], object] = self._change_max

    @property
    def current_limit(self) -> Any:
        return self._read(self._limit)

    @property
    def blocked_until(self) -> Any:
        return self._read(self._until)

    @property
    def ceiling(self) -> Any:
        return self._ceiling

    @property
    def epoch(self) -> Any:
        return self._read(self._rng.choice((1, -1, "late")), odds=0.1)

    def next_deadline(self) -> Any:
        return self._read(self._deadline)

    def granted(self, now: float, in_flight: int) -> Any:
        self._turn(now)
        return self._rng.choice((Grant(3, in_flight, 1), Grant(0, -1, 10**6, trial=True), None, (1, 2, 3)))

    def ended(self, now: float, grant: Grant, sample: RequestSample) -> Any:
        self._turn(now)
        return self._said()

    def advance(self, now: float) -> Any:
        self._turn(now)
        return self._said()

    def _change_max(self, effective_max: int) -> object:
        self._max = effective_max
        if self._rng.random() < 0.5:
            self._turn(0.0)
        return self._said()

    def _turn(self, now: float) -> None:
        rng, most = self._rng, self._max
        self._begun = True
        self._ceiling = rng.choice((None, 3, "high"))
        if rng.random() < 0.6:
            self._limit = rng.choice((1, most, rng.randint(1, most), 0, -1, most + 1, 10**9, True, 2.5, math.nan, "3"))
        if rng.random() < 0.5:
            self._until = rng.choice(
                (None, None, now - 1.0, now, now + 0.5, now + 3.0, math.nan, math.inf, -math.inf, "soon")
            )
        if rng.random() < 0.5:
            self._deadline = rng.choice((None, self._until, now - 5.0, now, now + 0.25, math.nan, math.inf, "soon"))
        self._read(None)

    def _said(self) -> object:
        right = LimitTransition("increased", 1, 2)
        wrong: Any = LimitTransition("expanded", -1, 10**6)  # type: ignore[arg-type]  # what no checker keeps out
        return self._rng.choice(((), (), None, 7, [right], [wrong], [right, "up"], "decreased"))

    def _read(self, value: object, *, odds: float = 0.03) -> object:
        if self._begun and self._rng.random() < odds:
            raise RuntimeError("a rule that raises")
        return value


def hostile(seed: int) -> LimitFactory:
    """A factory of hostile rules, the same ones for the same seed."""
    seeds = random.Random(seed)

    def make(effective_max: int, now: float) -> RequestLimit:
        return HostileLimit(effective_max, now, seed=seeds.randrange(2**32))

    return make


RULE_NAMES: Final = ("evidence", "aimd", "fixed", "hostile")
RULES: Final[dict[str, Callable[[int], LimitChoice]]] = {
    "evidence": lambda seed: "evidence",
    "aimd": lambda seed: "aimd",
    "fixed": lambda seed: "fixed",
    "hostile": hostile,
}
"""By name; of a seed, which only the hostile rule needs."""

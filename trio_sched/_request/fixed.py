"""A limit that stays where it is, for whoever knows what the provider allows.

Refusals lower nothing and stop nobody; a refused call yields to the others, as under every rule. Only when a whole
level of calls in a row was refused, at least three, with nothing accepted in between, does everything pause: for the
provider's hint, or else for a pause that doubles with each further row, so that an outage is not asked without end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from trio_sched import _validation as check
from trio_sched._backoff import doubled
from trio_sched._request.limit import Grant, LimitTransition, RequestSample

__all__ = ["FixedLimit"]

FEWEST_IN_A_ROW: Final = 3
FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 5.0
"""Both in seconds, as in `evidence.py`."""


class FixedLimit:
    """The effective maximum, or a lower `level`, for ever. now: unused, so that the class is a factory of rules."""

    __slots__ = ("_level", "_pauses", "_refused_in_a_row", "blocked_until", "effective_max")

    def __init__(self, effective_max: int, now: float = 0.0, *, level: int | None = None) -> None:
        check.check_int("FixedLimit.effective_max", effective_max, minimum=1)
        if level is not None:
            check.check_int("FixedLimit.level", level, minimum=1)
        self._level = level
        self._refused_in_a_row = 0
        self._pauses = 0
        self.effective_max: int = effective_max
        self.blocked_until: float | None = None

    def __repr__(self) -> str:
        return f"<FixedLimit {self.current_limit}, blocked until {self.blocked_until}>"

    @property
    def current_limit(self) -> int:
        """The level, or the effective maximum where that is lower."""
        return self.effective_max if self._level is None else min(self._level, self.effective_max)

    def granted(self, now: float, in_flight: int) -> Grant:
        """A call goes out."""
        return Grant(0, in_flight, self.current_limit)

    def ended(self, now: float, grant: Grant, sample: RequestSample) -> Sequence[LimitTransition]:
        """A call is over; a level of refusals in a row pauses everything."""
        if sample.outcome == "success":
            self._refused_in_a_row = self._pauses = 0
        elif sample.refused:
            self._refused_in_a_row += 1
            if self._refused_in_a_row >= max(self.current_limit, FEWEST_IN_A_ROW):
                self._refused_in_a_row = 0
                self._pauses += 1
                pause = sample.hint or doubled(FIRST_PAUSE, LONGEST_PAUSE, failures=self._pauses)
                self.blocked_until = max(now + pause, self.blocked_until or now)
        return ()

    def advance(self, now: float) -> Sequence[LimitTransition]:
        """Let time pass until `now`: a pause may be over."""
        if self.blocked_until is not None and now >= self.blocked_until:
            self.blocked_until = None
        return ()

    def next_deadline(self) -> float | None:
        """The end of a pause."""
        return self.blocked_until

    def set_effective_max(self, effective_max: int) -> Sequence[LimitTransition]:
        """The cap changed, and the limit with it where it was at the cap."""
        previous = self.current_limit
        self.effective_max = effective_max
        current = self.current_limit
        if current == previous:
            return ()
        return (LimitTransition("increased" if current > previous else "decreased", previous, current),)

"""A limit that stays where it is, for whoever knows what the provider allows.

Refusals lower nothing and stop nobody; a refused call yields to the others, as under every rule. Only when a whole
level of calls in a row was refused, at least three, or a call with nothing else in flight, does everything stop. Then
it is as under `evidence.py`: for a moment at first, after which a single trial call goes; if that is refused too, for
the provider's hint or a pause that doubles, whichever is longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from trio_sched import _validation as check
from trio_sched._request.limit import Grant, LimitTransition, RequestSample
from trio_sched._util import doubled

__all__ = ["FixedLimit"]

FEWEST_IN_A_ROW: Final = 3
FIRST_PAUSE: Final = 0.25
SECOND_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 5.0
"""All in seconds, as in `evidence.py`."""


class FixedLimit:
    """The effective maximum, or a lower `level`, for ever. now: unused, so that the class is a factory of rules."""

    __slots__ = ("_is_trial_due", "_level", "_refused_in_a_row", "_stops", "blocked_until", "effective_max")

    def __init__(self, effective_max: int, now: float = 0.0, *, level: int | None = None) -> None:
        check.check_int("FixedLimit.effective_max", effective_max, minimum=1)
        if level is not None:
            check.check_int("FixedLimit.level", level, minimum=1)
        self._level = level
        self._refused_in_a_row = 0
        self._stops = 0
        self._is_trial_due = False
        self.effective_max: int = effective_max
        self.blocked_until: float | None = None

    def __repr__(self) -> str:
        return f"<FixedLimit {self.current_limit}, blocked until {self.blocked_until}>"

    @property
    def current_limit(self) -> int:
        """The level, or the effective maximum where that is lower."""
        return self.effective_max if self._level is None else min(self._level, self.effective_max)

    def granted(self, now: float, in_flight: int) -> Grant:
        """A call goes out. If it is the trial, nothing else goes out for as long as the pause was."""
        if not self._is_trial_due:
            return Grant(0, in_flight, self.current_limit)
        self._is_trial_due = False
        self.blocked_until = now + self._pause()
        return Grant(0, in_flight, self.current_limit, trial=True)

    def ended(self, now: float, grant: Grant, sample: RequestSample) -> Sequence[LimitTransition]:
        """A call is over. A stop neither ends nor gets shorter for one that went out before it."""
        if sample.outcome == "success":
            if self._refused_in_a_row and (grant.trial or self.blocked_until is None):
                self._refused_in_a_row = self._stops = 0
                self._is_trial_due, self.blocked_until = False, None
        elif sample.refused:
            self._refused_in_a_row += 1
            in_a_row = max(self.current_limit, FEWEST_IN_A_ROW)
            if grant.trial or sample.in_flight == 0 or (not self._stops and self._refused_in_a_row >= in_a_row):
                self._stops += 1
                waits = sample.hint or 0.0 if self._stops > 1 else 0.0
                until = now + max(waits, self._pause())
                self._is_trial_due, self.blocked_until = True, max(until, self.blocked_until or until)
        elif grant.trial and self.blocked_until is not None:
            self._is_trial_due = True
        return ()

    def advance(self, now: float) -> Sequence[LimitTransition]:
        """Let time pass until `now`: a stop may be over."""
        if self.blocked_until is not None and now >= self.blocked_until:
            self.blocked_until = None
        return ()

    def next_deadline(self) -> float | None:
        """The end of a stop."""
        return self.blocked_until

    def set_effective_max(self, effective_max: int) -> Sequence[LimitTransition]:
        """The cap changed, and the limit with it where it was at the cap."""
        previous = self.current_limit
        self.effective_max = effective_max
        current = self.current_limit
        if current == previous:
            return ()
        return (LimitTransition("increased" if current > previous else "decreased", previous, current),)

    def _pause(self) -> float:
        """How long the latest stop lasts where the provider names no longer time."""
        return FIRST_PAUSE if self._stops < 2 else doubled(SECOND_PAUSE, LONGEST_PAUSE, failures=self._stops - 1)

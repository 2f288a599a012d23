"""CUBIC (RFC 9438), with calls in flight as the window, answers as acknowledgements and refusals as losses.

Slow start from 10 until the first refusal, then the cubic function of the time since the latest decrease, or Reno's
line where that is higher. One decrease for each window: a refusal of a call that went out before the latest decrease
changes nothing. When nothing is in flight any more, the next call waits for a time-out of 1 s, doubled each time up to
60 s (RFC 6298), and slow start begins again. A refused call is sent again like any other; hints mean nothing to it.
"""

from __future__ import annotations

import math
from typing import Final

from benchmarks.control.simulator import Answer, Client
from benchmarks.control.told import Told

__all__ = ["CubicClient", "cubic"]

C: Final = 0.4
BETA: Final = 0.7
RENO: Final = 3 * (1 - BETA) / (1 + BETA)
INITIAL_WINDOW: Final = 10.0
FIRST_TIMEOUT: Final = 1.0
LONGEST_TIMEOUT: Final = 60.0
SMOOTHING: Final = 0.125


class CubicClient:
    """The window, and the calls in it. A ticket is the time at which its call went out."""

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._window = min(float(cap), INITIAL_WINDOW)
        self._slow_start_until = math.inf
        self._peak = 0.0
        self._decreased_at = -math.inf
        self._origin = 0.0
        self._reno = 0.0
        self._round_trip = 0.0
        self._in_flight = 0
        self._blocked_until: float | None = None
        self._timeout = FIRST_TIMEOUT

    @property
    def limit(self) -> int:
        """The window in whole calls."""
        return int(self._window)

    def grant(self, now: float) -> float | None:
        """The time, while there is room in the window."""
        if self._in_flight >= int(self._window) or self._blocked_until is not None:
            return None
        self._in_flight += 1
        return now

    def release(self, ticket: float, answer: Answer, now: float) -> None:
        """An acknowledgement, a loss, or neither."""
        self._in_flight -= 1
        if answer.kind == "success":
            self._acknowledged(now - ticket, now)
        elif answer.refused or answer.kind == "provider_timeout":
            self._lost(ticket, now)

    def wake(self, now: float) -> None:
        """The time-out is over."""
        self._blocked_until = None

    def next_wake(self) -> float | None:
        """The end of the time-out."""
        return self._blocked_until

    def _acknowledged(self, seconds: float, now: float) -> None:
        self._round_trip += (seconds - self._round_trip) * (SMOOTHING if self._round_trip else 1.0)
        self._timeout = FIRST_TIMEOUT
        window = self._window
        if window < self._slow_start_until:
            self._window = min(float(self._cap), window + 1)
            return
        ahead = now + self._round_trip - self._decreased_at - self._origin
        target = min(max(C * ahead**3 + self._peak, window), 1.5 * window)
        # As fast as the decrease is repaid; from the peak on as fast as Reno.
        self._reno += (RENO if self._reno < self._peak else 1.0) / window
        self._window = min(float(self._cap), max(window + (target - window) / window, self._reno))

    def _lost(self, sent_at: float, now: float) -> None:
        if sent_at >= self._decreased_at:
            window = self._window
            # Fast convergence: who is lower than last time leaves room for others.
            self._peak = window * (1 + BETA) / 2 if window < self._peak else window
            self._window = self._slow_start_until = self._reno = max(1.0, BETA * window)
            self._origin = max(0.0, (self._peak - self._window) / C) ** (1 / 3)
            self._decreased_at = now
        if self._in_flight == 0:
            self._blocked_until = now + self._timeout
            self._timeout = min(LONGEST_TIMEOUT, 2 * self._timeout)
            self._slow_start_until = max(2.0, self._slow_start_until)
            self._window = 1.0


def cubic(told: Told) -> Client:
    """A client whose window ends at the cap."""
    return CubicClient(told.cap)

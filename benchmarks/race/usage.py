"""How much of what a provider allowed was used; pure, and the standard library alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.race.script import Script

__all__ = ["SETTLING_ROUND_TRIPS", "Usage", "usage"]

SETTLING_ROUND_TRIPS = 10
"""A client may take this many to find its way."""


@dataclass(frozen=True)
class Usage:
    """Call seconds that were allowed in the measured span, and those of them that were used."""

    span_seconds: float
    allowed_call_seconds: float
    used_call_seconds: float

    @property
    def utilisation(self) -> float:
        """The used share; nothing, where the span is empty."""
        return self.used_call_seconds / self.allowed_call_seconds if self.allowed_call_seconds else 0.0


def usage(script: Script, changes: Sequence[tuple[float, int]], last_answer: float) -> Usage:
    """The integral of min(in flight, allowed) beside that of allowed, from the tenth round trip to the last but one.

    changes: seconds since the first call, and how many calls were in flight from then on, in the order of time.
    last_answer: when the last call was answered, in the same seconds.
    """
    start = SETTLING_ROUND_TRIPS * script.call_seconds
    end = last_answer - script.call_seconds
    allowed = used = 0.0
    pieces = script.steps_between(start, end)
    for first, last, permits in pieces:
        allowed += permits * (last - first)
    for place, (at, in_flight) in enumerate(changes):
        until = changes[place + 1][0] if place + 1 < len(changes) else last_answer
        for first, last, permits in pieces:
            used += min(in_flight, permits) * max(0.0, min(until, last) - max(at, first))
    return Usage(max(0.0, end - start), allowed, used)

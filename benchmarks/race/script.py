"""What the provider of a race does, as plain values; the standard library alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Phase", "Script"]


@dataclass(frozen=True)
class Phase:
    """`allowed` calls at once for `seconds`; the last phase of a script lasts until the end whatever it says."""

    seconds: float
    allowed: int


@dataclass(frozen=True)
class Script:
    """A provider that refuses above a number of calls at once.

    call_seconds: how long it works on a call. hint_seconds: the `retry-after` of a refusal, which it sends at once.
    phases: what it allows, from the first call on.
    """

    call_seconds: float
    hint_seconds: float
    phases: Sequence[Phase]

    def allowed_after(self, seconds: float) -> int:
        """How many calls at once it allows that long after the first one."""
        for phase in self.phases[:-1]:
            seconds -= phase.seconds
            if seconds < 0:
                return phase.allowed
        return self.phases[-1].allowed

    def steps_between(self, start: float, end: float) -> list[tuple[float, float, int]]:
        """The pieces of that span in which what is allowed stays the same: start, end, allowed."""
        pieces: list[tuple[float, float, int]] = []
        began = 0.0
        for place, phase in enumerate(self.phases):
            over = end if place == len(self.phases) - 1 else began + phase.seconds
            first, last = max(start, began), min(end, over)
            if first < last:
                pieces.append((first, last, phase.allowed))
            began = over
        return pieces

    def to_json(self) -> dict[str, Any]:
        """As the provider takes it, and as an artifact holds it."""
        return {
            "call_seconds": self.call_seconds,
            "hint_seconds": self.hint_seconds,
            "phases": [[phase.seconds, phase.allowed] for phase in self.phases],
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Script:
        """Back from that."""
        phases = tuple(Phase(seconds, allowed) for seconds, allowed in document["phases"])
        return cls(document["call_seconds"], document["hint_seconds"], phases)

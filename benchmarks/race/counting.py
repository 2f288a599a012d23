"""What a provider counts while one client is at it; time is passed in, and the standard library is enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.race.script import Script
from benchmarks.race.usage import usage

__all__ = ["Counter", "Figures", "share_below"]


@dataclass(frozen=True)
class Figures:
    """One client at the provider.

    attempts: requests that arrived. refused: those answered with 429. answered, abandoned: those that were accepted,
    and answered, or given up by the client before. rows_finished: rows whose second call was answered.
    span_seconds: what utilisation was measured over. busy_seconds: from the first request to the last answer, or until
    the client was ended. late_seconds: how much later than due 99 of 100 answers left at most, and processor_share:
    how busy the provider was; both tell whether it was the provider that was slow.
    """

    attempts: int
    refused: int
    answered: int
    abandoned: int
    rows_finished: int
    utilisation: float
    span_seconds: float
    busy_seconds: float
    late_seconds: float
    processor_share: float

    def to_json(self) -> dict[str, Any]:
        """As it is sent to the harness."""
        return asdict(self)


class Counter:
    """Admits and counts the calls of one client."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.in_flight = 0
        self._first: float | None = None
        self._last_answer = 0.0
        self._refused = self._answered = self._abandoned = self._attempts = 0
        self._changes: list[tuple[float, int]] = []
        self._late: list[float] = []
        self._rows: set[int] = set()

    def admits(self, now: float) -> bool:
        """Whether a call that arrives at `now`, in seconds, is accepted. One that is not is over with that."""
        if self._first is None:
            self._first = now
        self._attempts += 1
        if self.in_flight >= self.script.allowed_after(now - self._first):
            self._refused += 1
            return False
        self._change(now, +1)
        return True

    def answers(self, now: float, due: float, finished_row: int | None) -> None:
        """A call is answered; `finished_row` where that was the last one of a row."""
        self._change(now, -1)
        self._answered += 1
        self._last_answer = now
        self._late.append(now - due)
        if finished_row is not None:
            self._rows.add(finished_row)

    def abandons(self, now: float) -> None:
        """The client has gone away from a call."""
        self._change(now, -1)
        self._abandoned += 1

    def figures(self, processor_seconds: float, until: float | None = None) -> Figures:
        """What it comes to; `processor_seconds` is what the provider took since the counter was made.

        until: when the client was ended, where it did not come to its end; otherwise the last answer is the end.
        """
        first = self._first or 0.0
        busy = max(0.0, (self._last_answer if until is None else until) - first) if self._attempts else 0.0
        found = usage(self.script, self._changes, busy)
        return Figures(
            attempts=self._attempts,
            refused=self._refused,
            answered=self._answered,
            abandoned=self._abandoned,
            rows_finished=len(self._rows),
            utilisation=found.utilisation,
            span_seconds=found.span_seconds,
            busy_seconds=busy,
            late_seconds=share_below(self._late, 0.99),
            processor_share=processor_seconds / busy if busy else 0.0,
        )

    def _change(self, now: float, by: int) -> None:
        assert self._first is not None, "the first call begins the clock"
        self.in_flight += by
        self._changes.append((now - self._first, self.in_flight))


def share_below(values: Sequence[float], share: float) -> float:
    """The smallest value that this share of the values does not exceed; 0 where there are none."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)] if ordered else 0.0

"""Sums and levels over the time of a run, in a bounded number of equal bins.

When a run outgrows its bins, neighbours are joined and every bin becomes twice as wide: memory is bounded by the number
of series, and no sum loses anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

__all__ = ["TimeBins"]

_MAX_BINS: Final = 160
_FIRST_WIDTH_SECONDS: Final = 0.125


@attrs.define
class _Level:
    value: float
    since: float


class TimeBins:
    """Series by name. Times are seconds of the run's clock, and begin with the first that is mentioned."""

    def __init__(self) -> None:
        self.started_at: float | None = None
        self.ended_at = 0.0
        self.width = _FIRST_WIDTH_SECONDS
        self._sums: dict[str, list[float]] = {}
        self._levels: dict[str, _Level] = {}

    def reach(self, at: float) -> None:
        """The run got at least to `at`."""
        if self.started_at is None:
            self.started_at = self.ended_at = at
        self.ended_at = max(self.ended_at, at)

    def add(self, series: str, at: float, amount: float) -> None:
        """Something happened `amount` times at `at`."""
        self.reach(at)
        sums = self._series(series, at)
        sums[self._index(at)] += amount

    def _spread(self, series: str, since: float, until: float, level: float) -> None:
        """Something was at `level` from `since` to `until`."""
        if until <= since or self.started_at is None:
            return
        sums = self._series(series, until)
        since = max(since, self.started_at)
        for index in range(self._index(since), self._index(until) + 1):
            begin = self.started_at + index * self.width
            sums[index] += level * max(0.0, min(until, begin + self.width) - max(since, begin))

    def set_level(self, series: str, at: float, value: float, *, before: float | None = None) -> None:
        """Something is at `value` from `at` on. before: what it was until it is told first; None: the same."""
        self.reach(at)
        level = self._levels.get(series)
        if level is None:
            start = at if self.started_at is None else self.started_at
            level = self._levels[series] = _Level(value if before is None else before, start)
        if level.value != value:
            self._spread(series, level.since, at, level.value)
            level.value, level.since = value, at

    def close(self) -> None:
        """Take the levels up to the end."""
        for series, level in self._levels.items():
            self._spread(series, level.since, self.ended_at, level.value)
            level.since = self.ended_at

    def times(self) -> tuple[float, ...]:
        """The beginning of each bin, in seconds since the start."""
        if self.started_at is None or self.ended_at <= self.started_at:
            return ()
        whole = self._index(self.ended_at)
        rest = self.ended_at > self.started_at + whole * self.width
        return tuple(index * self.width for index in range(whole + rest))

    def per_second(self, series: str) -> Sequence[float]:
        """The mean of each bin: what was summed, by the bin's length, which is shorter for the last one."""
        length = self.ended_at - self.started_at if self.started_at is not None else 0.0
        return [
            value / min(self.width, length - time)
            for value, time in zip(self.counts(series), self.times(), strict=True)
        ]

    def counts(self, series: str) -> Sequence[float]:
        """What was summed in each bin."""
        bins = len(self.times())
        sums = self._sums.get(series, [])
        values = [sums[index] if index < len(sums) else 0.0 for index in range(bins)]
        if values and len(sums) > bins:
            # What happened at the very end, on the edge of a bin, belongs to the last one.
            values[-1] += sums[bins]
        return values

    def total(self, series: str) -> float:
        """Everything that was summed."""
        return sum(self._sums.get(series, ()))

    def _index(self, at: float) -> int:
        assert self.started_at is not None
        return max(0, int((at - self.started_at) / self.width))

    def _series(self, series: str, at: float) -> list[float]:
        while self._index(at) >= _MAX_BINS:
            self.width *= 2
            for name, sums in self._sums.items():
                self._sums[name] = [sum(sums[index : index + 2]) for index in range(0, len(sums), 2)]
        sums = self._sums.setdefault(series, [])
        sums.extend([0.0] * (self._index(at) + 1 - len(sums)))
        return sums

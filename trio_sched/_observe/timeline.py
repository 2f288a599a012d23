"""A run's time in a bounded number of equal bins: sums and levels by series, and what limited the run, when.

When a run outgrows its bins, neighbours are joined and every bin becomes twice as wide: memory is bounded by the number
of series, and no sum loses anything. All sums are whole numbers, so nothing is rounded either.

A `ProgressBook` divides the wall time of a run among the layers. Time is handed over in one piece after the other, each
with its limit, so every instant is counted once. An open piece (see `layers.py`) is kept back until it is decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Final

import attrs

from trio_sched._observe.layers import LAYERS, Layer, Limit, WaitBreakdown, seconds

__all__ = ["LimitTime", "ProgressBook", "ProgressStretch", "TimeBins"]

_LIMIT_BINS: Final = 240
_FIRST_LIMIT_WIDTH: Final = 1_000_000


@attrs.define
class _Level:
    value: int
    since: int


@attrs.define(eq=False)
class TimeBins:
    """Series by name. Times are nanoseconds of the run's clock, and begin with the first that is mentioned.

    width: of a bin, in nanoseconds. most: so many bins at the most.
    """

    width: int = 125_000_000
    most: int = 160
    started_at: int | None = None
    ended_at: int = 0
    _sums: dict[str, list[int]] = attrs.field(factory=dict[str, list[int]], init=False)
    _levels: dict[str, _Level] = attrs.field(factory=dict[str, _Level], init=False)

    def reach(self, at: int) -> None:
        """The run got at least to `at`."""
        if self.started_at is None:
            self.started_at = self.ended_at = at
        elif at > self.ended_at:
            self.ended_at = at

    def add(self, series: str, at: int, amount: int) -> None:
        """Something happened `amount` times at `at`."""
        self.reach(at)
        index = self._fit(at)
        self._series(series, index)[index] += amount

    def spread(self, series: str, since: int, until: int, level: int = 1) -> None:
        """Something was at `level` from `since` to `until`."""
        self.reach(since)
        self.reach(until)
        assert self.started_at is not None
        since = max(since, self.started_at)
        if until <= since:
            return
        last = self._fit(until - 1)
        sums = self._series(series, last)
        for index in range((since - self.started_at) // self.width, last + 1):
            end = min(until, self.started_at + (index + 1) * self.width)
            sums[index] += level * (end - since)
            since = end

    def divide(self, series: str, since: int, until: int, amount: int) -> None:
        """Something happened `amount` times, evenly from `since` to `until`."""
        self.reach(since)
        if until <= since:
            self.add(series, until, amount)
            return
        self.reach(until)
        last = self._fit(until - 1)
        sums = self._series(series, last)
        assert self.started_at is not None
        length, counted = until - since, 0
        for index in range((since - self.started_at) // self.width, last + 1):
            end = min(until, self.started_at + (index + 1) * self.width)
            so_far = amount * (end - since) // length
            sums[index] += so_far - counted
            counted = so_far

    def set_level(self, series: str, at: int, value: int, *, before: int | None = None) -> None:
        """Something is at `value` from `at` on. before: what it was until then, if it is set first; None: the same."""
        self.reach(at)
        level = self._levels.get(series)
        if level is None:
            assert self.started_at is not None
            level = self._levels[series] = _Level(value if before is None else before, self.started_at)
        if level.value != value:
            self.spread(series, level.since, at, level.value)
            level.value, level.since = value, at

    def close(self) -> None:
        """Take the levels up to the end."""
        for series, level in self._levels.items():
            self.spread(series, level.since, self.ended_at, level.value)
            level.since = self.ended_at

    def edges(self) -> list[int]:
        """Where each bin begins, in nanoseconds since the start, and where the last one ends; none without time."""
        length = self.ended_at - self.started_at if self.started_at is not None else 0
        return [*range(0, length, self.width), length] if length else []

    def times(self) -> list[float]:
        """Where each bin begins, in seconds since the start."""
        return [seconds(edge) for edge in self.edges()[:-1]]

    def sums(self, series: str) -> Sequence[int]:
        """What was summed in each bin: counts of what was added, levels times nanoseconds of what was spread."""
        bins = max(0, len(self.edges()) - 1)
        sums = self._sums.get(series, [])
        values = [*sums[:bins], *[0] * (bins - len(sums))]
        if values and len(sums) > bins:
            # What happened at the very end, on the edge of a bin, belongs to the last one.
            values[-1] += sums[bins]
        return values

    def per_second(self, series: str) -> Sequence[float]:
        """How often something happened, by the bin's length, which is shorter for the last one."""
        return [count / seconds(length) for count, length in zip(self.sums(series), self._lengths(), strict=True)]

    def means(self, series: str) -> Sequence[float]:
        """The mean level of each bin."""
        return [level / length for level, length in zip(self.sums(series), self._lengths(), strict=True)]

    def total(self, series: str) -> int:
        """Everything that was summed."""
        return sum(self._sums.get(series, ()))

    def _lengths(self) -> list[int]:
        edges = self.edges()
        return [end - begin for begin, end in pairwise(edges)]

    def _fit(self, at: int) -> int:
        """The bin of `at`, after the bins became as wide as that takes."""
        assert self.started_at is not None
        while (at - self.started_at) // self.width >= self.most:
            self.width *= 2
            for name, sums in self._sums.items():
                self._sums[name] = [sum(sums[index : index + 2]) for index in range(0, len(sums), 2)]
        return max(0, at - self.started_at) // self.width

    def _series(self, series: str, index: int) -> list[int]:
        """The sums of a series, as far as the bin `index`."""
        sums = self._sums.setdefault(series, [])
        if index >= len(sums):
            sums.extend([0] * (index + 1 - len(sums)))
        return sums


@attrs.frozen
class ProgressStretch:
    """A part of the run, on its clock in seconds, and what limited it how long."""

    started_at: float
    ended_at: float
    limited_by: WaitBreakdown


@attrs.frozen
class LimitTime:
    """How long one layer limited at one place: a request resource, stage resource or column, or None for no one."""

    layer: Layer
    where: str | None
    nanoseconds: int


@attrs.define(eq=False)
class ProgressBook:
    """Divides the time from `start` (nanoseconds) on.

    until: the end of the time that was handed over, in nanoseconds.
    """

    start: int
    until: int = attrs.field(init=False)
    _bins: TimeBins = attrs.field(init=False)
    _by_limit: dict[Limit, int] = attrs.field(factory=dict[Limit, int], init=False)
    _open: int = attrs.field(default=0, init=False)
    _limit: Limit | None = attrs.field(default=None, init=False)
    """That of the last piece, which began at `_since`; the next may have the same, and is then summed with it."""
    _since: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.until = self.start
        self._bins = TimeBins(_FIRST_LIMIT_WIDTH, _LIMIT_BINS, self.start, self.start)

    def spend(self, until: int, limit: Limit | None) -> None:
        """The time up to `until` was limited so; with None it is open."""
        if limit is None:
            self._sum_up()
            self._open += until - self.until
        elif limit is not self._limit:
            self._sum_up()
            # What was under way ended in nothing that anybody waited for.
            self.decide("completion")
            self._limit, self._since = limit, self.until
        self.until = until

    def decide(self, layer: Layer) -> None:
        """The open piece before now, if there is one, was limited by `layer`."""
        if self._open:
            self._sum(self.until - self._open, self.until, Limit(layer))
            self._open = 0

    def times(self, *, open_as: Layer) -> tuple[WaitBreakdown, tuple[LimitTime, ...], tuple[ProgressStretch, ...]]:
        """The whole, by place (most first), and the time bins. A piece that is open still is shown as `open_as`."""
        self._sum_up()
        book = self if not self._open else deepcopy(self)
        book.decide(open_as)
        bins = book._bins
        edges = [seconds(book.start + edge) for edge in bins.edges()]
        divided = zip(*(bins.sums(layer) for layer in LAYERS), strict=True)
        stretches = tuple(
            ProgressStretch(begin, end, WaitBreakdown(*times))
            for (begin, end), times in zip(pairwise(edges), divided, strict=True)
        )
        by_limit = sorted(book._by_limit.items(), key=lambda entry: (-entry[1], entry[0].layer, entry[0].where or ""))
        places = tuple(LimitTime(limit.layer, limit.where, time) for limit, time in by_limit)
        return WaitBreakdown(*map(bins.total, LAYERS)), places, stretches

    def _sum_up(self) -> None:
        if self._limit is not None:
            self._sum(self._since, self.until, self._limit)
            self._limit = None

    def _sum(self, since: int, until: int, limit: Limit) -> None:
        if until > since:
            self._by_limit[limit] = self._by_limit.get(limit, 0) + until - since
            self._bins.spread(limit.layer, since, until)

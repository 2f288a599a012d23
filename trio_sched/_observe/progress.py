"""What limited a run, when: its wall time, cut into stretches and divided among the layers.

Time is handed over in one piece after the other, each with its limit, so every instant is counted once. An open piece
(see `limiting.py`) is kept back until it is decided. The timeline has a bounded number of equal stretches: when it
would outgrow them, neighbours are joined, so memory does not grow with the run, and the times stay exact.
"""

from __future__ import annotations

from typing import Final

import attrs

from trio_sched._observe.limiting import Limit
from trio_sched._observe.waits import LAYERS, Layer, WaitBreakdown, seconds

__all__ = ["LimitTime", "ProgressBook", "ProgressStretch"]

_MAX_STRETCHES: Final = 240
_FIRST_WIDTH: Final = 1_000_000
_POSITION: Final = {layer: position for position, layer in enumerate(LAYERS)}


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
    """Divides the time from `start` (nanoseconds) on."""

    start: int
    _until: int = attrs.field(init=False)
    _width: int = attrs.field(default=_FIRST_WIDTH, init=False)
    _stretches: list[list[int]] = attrs.field(factory=list[list[int]], init=False)
    _by_limit: dict[Limit, int] = attrs.field(factory=dict[Limit, int], init=False)
    _open: int = attrs.field(default=0, init=False)
    _limit: Limit | None = attrs.field(default=None, init=False)
    """That of the last piece, which began at `_since`; the next may have the same, and is then put down with it."""
    _since: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._until = self.start

    @property
    def until(self) -> int:
        """The end of the time that was handed over, in nanoseconds."""
        return self._until

    def spend(self, until: int, limit: Limit | None) -> None:
        """The time up to `until` was limited so; with None it is open."""
        if limit is None:
            self._put_down()
            self._open += until - self._until
        elif limit is not self._limit:
            self._put_down()
            # What was under way ended in nothing that anybody waited for.
            self.decide("completion")
            self._limit, self._since = limit, self._until
        self._until = until

    def decide(self, layer: Layer) -> None:
        """The open piece before now, if there is one, was limited by `layer`."""
        if self._open:
            self._put(self._until - self._open, self._until, Limit(layer))
            self._open = 0

    def times(self, *, open_as: Layer) -> tuple[WaitBreakdown, tuple[LimitTime, ...], tuple[ProgressStretch, ...]]:
        """The whole, by place (most first), and the timeline. A piece that is open still is shown as `open_as`."""
        self._put_down()
        book = self if not self._open else self._copy()
        book.decide(open_as)
        stretches = tuple(
            ProgressStretch(
                seconds(book.start + index * book._width),
                seconds(min(book._until, book.start + (index + 1) * book._width)),
                WaitBreakdown(*times),
            )
            for index, times in enumerate(book._stretches)
        )
        whole = [sum(column) for column in zip(*book._stretches, strict=True)] if book._stretches else []
        by_limit = sorted(book._by_limit.items(), key=lambda entry: (-entry[1], entry[0].layer, entry[0].where or ""))
        places = tuple(LimitTime(limit.layer, limit.where, time) for limit, time in by_limit)
        return WaitBreakdown(*whole), places, stretches

    def _copy(self) -> ProgressBook:
        copy = ProgressBook(self.start)
        copy._until, copy._width, copy._open = self._until, self._width, self._open
        copy._stretches = [list(times) for times in self._stretches]
        copy._by_limit = dict(self._by_limit)
        return copy

    def _put_down(self) -> None:
        if self._limit is not None:
            self._put(self._since, self._until, self._limit)
            self._limit = None

    def _put(self, since: int, until: int, limit: Limit) -> None:
        if until == since:
            return
        self._by_limit[limit] = self._by_limit.get(limit, 0) + until - since
        position = _POSITION[limit.layer]
        while until - self.start > self._width * _MAX_STRETCHES:
            self._widen()
        index = (since - self.start) // self._width
        while since < until:
            end = min(until, self.start + (index + 1) * self._width)
            while len(self._stretches) <= index:
                self._stretches.append([0] * len(LAYERS))
            self._stretches[index][position] += end - since
            since, index = end, index + 1

    def _widen(self) -> None:
        pairs = self._stretches
        self._stretches = [
            [sum(times) for times in zip(*pairs[index : index + 2], strict=True)] for index in range(0, len(pairs), 2)
        ]
        self._width *= 2

"""Weighted fair order between groups: start-time fair queueing with one task, or one request, as the unit of service.

*Tags.* Every group with backlog has a tag, the virtual time at which its next unit of service may start. The group with
the smallest tag is first; among equal tags, the one that has waited longest since it last came to its tag. Serving a
group moves virtual time to the start of that service and its tag on by 1/weight:

    start = max(tag, virtual time);  virtual time = start;  tag = start + 1/weight

While two groups both have backlog and are both eligible, neither can be served while the other's tag is smaller, so
their services, each divided by its weight, never differ by more than 1/w_a + 1/w_b (Goyal, Vin and Cheng, *Start-time
Fair Queueing*, SIGCOMM 1996, theorem 1, with packets of length one).

*No credit.* A group that is passed over keeps its tag while virtual time moves on, and `max` lifts it when it is
served: it comes back as an equal, with one turn owed and not a burst. The order does not need the lift any earlier,
because whoever was passed over is before all others already.

*Memory.* A group that runs out of backlog is remembered only while its tag lies ahead of virtual time; forgetting it
sooner would let a group that always has exactly one item be first every time. The remembered are never more than the
groups with backlog and a constant: beyond that those nearest to virtual time, who could gain least, are forgotten.
When no group has backlog, everything is.

*Precision.* A tag is kept as base + n/weight, so adding up does not add up rounding. When virtual time has become large
all tags are moved down by it, so that groups with tiny weights do not take the precision away from the others.

*Lanes.* A group stands in one lane at a time, any hashable; each lane is a heap with lazy deletion. Lanes let an owner
look only at groups that can matter to it. Tags and turns are comparable across lanes.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator
from typing import Generic, TypeAlias, TypeVar

__all__ = ["FairOrder", "Rank"]

K = TypeVar("K", bound=Hashable)

Rank: TypeAlias = tuple[float, int]

_IDLE_ALLOWANCE = 64
_REBASE_ABOVE = float(2**32)


class _Group(Generic[K]):
    """Invariant: tag == base + served / weight. `entry` is the one live entry in a lane, None without backlog."""

    __slots__ = ("base", "entry", "key", "lane", "served", "tag", "weight")

    def __init__(self, key: K, tag: float) -> None:
        self.key = key
        self.tag = tag
        self.base = tag
        self.served = 0
        self.weight = 1.0
        self.entry: tuple[float, int, _Group[K]] | None = None
        self.lane: Hashable = None


class _Lane(Generic[K]):
    """Invariant: `live` counts the entries of `heap` that are their group's entry."""

    __slots__ = ("heap", "live")

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, _Group[K]]] = []
        self.live = 0

    def add(self, entry: tuple[float, int, _Group[K]]) -> None:
        heapq.heappush(self.heap, entry)
        self.live += 1

    def drop_one(self) -> None:
        """An entry has gone stale; sweep when most have."""
        self.live -= 1
        if len(self.heap) > 2 * self.live + 16:
            self.heap = [entry for entry in self.heap if entry[2].entry is entry]
            heapq.heapify(self.heap)

    def first(self) -> tuple[float, int, _Group[K]] | None:
        heap = self.heap
        while heap:
            entry = heap[0]
            if entry[2].entry is entry:
                return entry
            heapq.heappop(heap)
        return None

    def walk(self) -> Iterator[tuple[float, int, _Group[K]]]:
        """The live entries in order, without changing the heap: its parents come before their children."""
        heap = self.heap
        if not heap:
            return
        frontier = [(heap[0][0], heap[0][1], 0)]
        while frontier:
            _, _, index = heapq.heappop(frontier)
            entry = heap[index]
            for child in (2 * index + 1, 2 * index + 2):
                if child < len(heap):
                    heapq.heappush(frontier, (heap[child][0], heap[child][1], child))
            if entry[2].entry is entry:
                yield entry


class FairOrder(Generic[K]):
    """Who is next among groups. It knows no items and no eligibility; it is told who has backlog and who was served."""

    def __init__(self) -> None:
        self._groups: dict[K, _Group[K]] = {}
        self._idle: dict[K, _Group[K]] = {}
        self._lanes: dict[Hashable, _Lane[K]] = {}
        self._turn = 0
        self._virtual_time = 0.0
        self._served_since_rebase = 0

    def __len__(self) -> int:
        return len(self._groups)

    def __contains__(self, key: K) -> bool:
        return key in self._groups

    @property
    def virtual_time(self) -> float:
        """The start of the last service, on a scale that may be moved."""
        return self._virtual_time

    @property
    def remembered(self) -> int:
        """How many groups without backlog are remembered."""
        return len(self._idle)

    def activate(self, key: K, lane: Hashable = None) -> None:
        """The group has backlog now. Does nothing if it had some."""
        if key in self._groups:
            return
        group = self._idle.pop(key, None)
        if group is None or group.tag < self._virtual_time:
            group = _Group(key, self._virtual_time)
        self._groups[key] = group
        self._enter(group, lane)

    def deactivate(self, key: K) -> None:
        """The group has no backlog any more."""
        group = self._groups.pop(key)
        self._leave(group)
        if not self._groups:
            self._idle.clear()
            self._lanes.clear()
            self._virtual_time = 0.0
            return
        if group.tag > self._virtual_time:
            self._idle[key] = group
            self._bound_memory()

    def move(self, key: K, lane: Hashable) -> None:
        """Put the group into another lane, with the tag and the turn it has."""
        group = self._groups[key]
        if group.lane == lane:
            return
        assert group.entry is not None
        _, turn, _ = group.entry
        self._leave(group)
        self._enter(group, lane, turn)

    def lane(self, key: K) -> Hashable:
        """The lane of a group with backlog."""
        return self._groups[key].lane

    def serve(self, key: K, weight: float) -> None:
        """Charge the group one unit of service at `weight`, a positive number with a finite reciprocal."""
        group = self._groups[key]
        start = group.tag
        if start < self._virtual_time or weight != group.weight:
            start = max(start, self._virtual_time)
            group.base = start
            group.served = 0
            group.weight = weight
        group.served += 1
        group.tag = group.base + group.served / weight
        self._virtual_time = start
        lane = group.lane
        self._leave(group)
        self._enter(group, lane)
        self._served_since_rebase += 1
        if start > _REBASE_ABOVE and self._served_since_rebase > len(self._groups) + len(self._idle):
            self._rebase()

    def head(self, lane: Hashable = None) -> K | None:
        """The first group of a lane."""
        standing = self._lanes.get(lane)
        entry = None if standing is None else standing.first()
        return None if entry is None else entry[2].key

    def rank(self, key: K) -> Rank:
        """Where a group with backlog stands; smaller is earlier, across lanes."""
        entry = self._groups[key].entry
        assert entry is not None
        return entry[0], entry[1]

    def ranked(self, *lanes: Hashable) -> Iterator[K]:
        """The groups of these lanes, or of all, in fair order; computed as far as it is read, and changing nothing."""
        walks = [self._lanes[lane].walk() for lane in (lanes or tuple(self._lanes)) if lane in self._lanes]
        for entry in walks[0] if len(walks) == 1 else heapq.merge(*walks, key=_rank_of):
            yield entry[2].key

    def _enter(self, group: _Group[K], lane: Hashable, turn: int | None = None) -> None:
        if turn is None:
            self._turn += 1
            turn = self._turn
        standing = self._lanes.get(lane)
        if standing is None:
            standing = self._lanes[lane] = _Lane()
        group.lane = lane
        group.entry = (group.tag, turn, group)
        standing.add(group.entry)

    def _leave(self, group: _Group[K]) -> None:
        group.entry = None
        standing = self._lanes[group.lane]
        standing.drop_one()
        if not standing.live:
            del self._lanes[group.lane]

    def _bound_memory(self) -> None:
        allowed = len(self._groups) + _IDLE_ALLOWANCE
        if len(self._idle) <= allowed:
            return
        ahead = [group for group in self._idle.values() if group.tag > self._virtual_time]
        ahead.sort(key=lambda group: group.tag, reverse=True)
        self._idle = {group.key: group for group in ahead[: allowed // 2]}

    def _rebase(self) -> None:
        offset, self._virtual_time, self._served_since_rebase = self._virtual_time, 0.0, 0
        for group in (*self._groups.values(), *self._idle.values()):
            group.tag -= offset
            group.base = group.tag
            group.served = 0
        for standing in self._lanes.values():
            renewed: list[tuple[float, int, _Group[K]]] = []
            for entry in standing.heap:
                group = entry[2]
                if group.entry is entry:
                    group.entry = (group.tag, entry[1], group)
                    renewed.append(group.entry)
            standing.heap = renewed
            heapq.heapify(renewed)


def _rank_of(entry: tuple[float, int, object]) -> Rank:
    return entry[0], entry[1]

"""Weighted fair order of groups: start-time fair queueing, one unit of service per serve.

Every active group has a *tag*, the virtual time at which its next unit of service is due. Virtual time is the start of
the latest service. Serving a group of weight w:

    start = max(tag, virtual time);  virtual time = start;  tag = start + 1/w

The order of groups is (tag, turn), where `turn` numbers activations and services, so equals take turns, first come
first. Whoever serves only the first *eligible* group in this order keeps every eligible group's due time, max(tag,
virtual time), within [virtual time, virtual time + 1/w]: for any two groups over any stretch in which both stay active
and eligible, service divided by weight differs by at most 1/w_a + 1/w_b.

Nothing earns credit. A group that is skipped keeps its place in front, but its tag counts as no less than virtual time
when it is served, so it returns as an equal. A group that goes idle keeps its tag while that lies ahead of virtual time
(else it would gain a unit by coming back), and is forgotten afterwards; when nobody is active all is forgotten. At most
about two idle groups per active one are remembered, the nearest tags being forgotten first. After such an early
forgetting a group that is not remembered enters as if it had just been served, but no later than the latest tag
forgotten: so a crowd of groups that come and go cannot starve one that stays.

Groups stand in *lanes*, each with a first of its own, so that groups which share a fate can be skipped together.
Lanes are heaps of (tag, turn, group) with lazy deletion: an entry counts only while it is its group's own, the top of a
heap always counts, and a heap is rebuilt when more than half of it does not.

Floats stay exact enough for any weights side by side: a tag is base + services/weight rather than a running sum, and
when virtual time has grown so large beside 1/w that a unit would be lost in it, virtual time is subtracted from all
tags. With weights within a factor of 2**32 of each other that happens once in billions of services.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from typing import Any, Final, Generic, TypeAlias, TypeVar

import attrs

__all__ = ["FairOrder", "FairOrderStatistics"]

K = TypeVar("K", bound=Hashable)

_UNIT_RESOLUTION: Final = 2.0**32
_LARGEST_START: Final = 2.0**900
_SPARE_IDLE: Final = 16
_SPARE_STALE: Final = 8


@attrs.frozen
class FairOrderStatistics:
    """Size of a `FairOrder`. `entries` counts heap entries, those that no longer count included."""

    active: int
    idle: int
    lanes: int
    entries: int
    virtual_time: float


class FairGroup(Generic[K]):
    """A group that is remembered. tag = base + services / weight; `entry` holds the tag, and no other entry counts.

    latest_start: from later starts on, a unit would be lost in virtual time.
    """

    __slots__ = ("base", "entry", "key", "lane", "latest_start", "services", "weight")

    entry: FairPlace[K]
    lane: FairLane[K]
    base: float
    services: int

    def __init__(self, key: K, tag: float) -> None:
        self.key: K = key
        self.set_base(tag)
        self.set_weight(1.0)

    def set_base(self, tag: float) -> None:
        self.base = tag
        self.services = 0

    def forget(self) -> None:
        """Let go of the entry, which holds the group and would keep it until the garbage collector comes."""
        self.entry = _NOWHERE

    def set_weight(self, weight: float) -> None:
        self.weight: float = weight
        self.latest_start: float = min(_UNIT_RESOLUTION / weight, _LARGEST_START)


FairPlace: TypeAlias = tuple[float, int, FairGroup[K]]
"""Place of an active group: tag, turn, group. A group that moves gets a new one."""

_NOWHERE: Final[FairPlace[Any]] = (math.inf, 0, FairGroup(None, math.inf))


class FairLane(Generic[K]):
    """A heap of entries of which `live` count; the top, the place of the lane's first group, always does."""

    __slots__ = ("heap", "live", "name")

    def __init__(self, name: Hashable) -> None:
        self.name: Hashable = name
        self.live: int = 0
        self.heap: list[FairPlace[K]] = []

    def add(self, group: FairGroup[K], tag: float, turn: int) -> None:
        group.lane = self
        group.entry = (tag, turn, group)
        heappush(self.heap, group.entry)
        self.live += 1

    def remove(self, group: FairGroup[K]) -> None:
        tag, turn, _ = entry = group.entry
        group.entry = (tag, turn, group)
        self.live -= 1
        if self.heap[0] is entry:
            heappop(self.heap)
        self.drop_stale()

    def drop_stale(self) -> None:
        heap = self.heap
        if len(heap) > 2 * self.live + _SPARE_STALE:
            heap[:] = self.entries()
            heapify(heap)
        while heap and heap[0][2].entry is not heap[0]:
            heappop(heap)

    def entries(self) -> list[FairPlace[K]]:
        return [entry for entry in self.heap if entry[2].entry is entry]

    def subtract(self, start: float) -> None:
        """Shift every tag by `start`; those below come to 0, where virtual time will be."""
        entries = self.entries()
        self.heap.clear()
        for tag, turn, group in entries:
            group.set_base(max(tag - start, 0.0))
            group.entry = (group.base, turn, group)
            self.heap.append(group.entry)
        heapify(self.heap)


class FairOrder(Generic[K]):
    """Orders the groups that have backlog. It knows keys and weights, never the items.

    shifts: how often virtual time was subtracted from all tags.
    """

    __slots__ = ("_active", "_forgotten", "_idle", "_idle_lane", "_lanes", "_turn", "_virtual_time", "shifts")

    def __init__(self) -> None:
        self._active: dict[K, FairGroup[K]] = {}
        self._lanes: dict[Hashable, FairLane[K]] = {}
        self._turn = 0
        self.shifts: int = 0
        self._virtual_time = 0.0
        self._forgotten = 0.0
        self._idle: dict[K, FairGroup[K]] = {}
        self._idle_lane: FairLane[K] = FairLane(None)

    def __len__(self) -> int:
        return len(self._active)

    def __contains__(self, key: K) -> bool:
        return key in self._active

    def activate(self, key: K, lane: Hashable = None, *, weight: float = 1.0) -> None:
        """`key` has backlog from now on. `weight` is what it will be served with first, as far as is known."""
        assert key not in self._active
        now = self._virtual_time
        group = self._idle.pop(key, None)
        if group is not None:
            self._idle_lane.remove(group)
            tag = group.entry[0]
            if tag < now:
                tag = now
                group.set_base(now)
        else:
            tag = now if self._forgotten <= now else min(self._forgotten, now + 1 / weight)
            group = FairGroup(key, tag)
        self._active[key] = group
        self._turn += 1
        self._lane(lane).add(group, tag, self._turn)

    def deactivate(self, key: K) -> None:
        """`key` has no backlog any more."""
        group = self._active.pop(key)
        self._leave_lane(group)
        tag, turn, _ = group.entry
        if not self._active:
            self._virtual_time = math.inf  # Nobody is left to be compared with, so all is forgotten.
        if tag > self._virtual_time:
            self._idle[key] = group
            self._idle_lane.add(group, tag, turn)
        else:
            group.forget()
        self._trim_idle()
        if not self._active:
            self._virtual_time = self._forgotten = 0.0

    def move(self, key: K, lane: Hashable) -> None:
        """Stand in `lane` from now on, in the same place of the order. The lane lasts while anybody stands there."""
        group = self._active[key]
        if group.lane.name != lane:
            self._leave_lane(group)
            tag, turn, _ = group.entry
            self._lane(lane).add(group, tag, turn)

    def serve(self, key: K, weight: float) -> None:
        """Charge `key` one unit of service at `weight`."""
        group = self._active[key]
        entry = group.entry
        start = entry[0]
        if start < self._virtual_time:
            start = self._virtual_time
            group.set_base(start)
        if weight != group.weight:
            group.set_base(start)
            group.set_weight(weight)
        if start > group.latest_start:
            self._subtract(start)
            entry, start = group.entry, 0.0
        self._virtual_time = start
        services = group.services = group.services + 1
        turn = self._turn = self._turn + 1
        group.entry = new = (group.base + services / weight, turn, group)
        lane = group.lane
        heap = lane.heap
        if heap[0] is entry:
            heapreplace(heap, new)
            first = heap[0]
            if first is new or first[2].entry is first:
                return
        else:
            heappush(heap, new)
        lane.drop_stale()

    def head(self, lane: Hashable = None) -> K | None:
        """First of a lane, or None if nobody stands there."""
        found = self._lanes.get(lane)
        return None if found is None else found.heap[0][2].key

    def rank(self, key: K) -> tuple[float, int]:
        """Place of an active group in the order; comparable across lanes, valid until the next change."""
        tag, turn, _ = self._active[key].entry
        return tag, turn

    def ranked(self, *lanes: Hashable) -> Iterator[K]:
        """The groups of these lanes, or of all, in fair order; lazily, changing nothing."""
        heaps = [self._lanes[name].heap for name in lanes or self._lanes if name in self._lanes]
        if not heaps:
            return
        first = heaps[0][0] if len(heaps) == 1 else min([heap[0] for heap in heaps])
        yield first[2].key  # which is mostly all that is asked for
        entries = heaps[0].copy() if len(heaps) == 1 else [entry for heap in heaps for entry in heap]
        heapify(entries)
        while entries:
            entry = heappop(entries)
            if entry[2].entry is entry and entry is not first:
                yield entry[2].key

    def statistics(self) -> FairOrderStatistics:
        """How much is remembered."""
        entries = sum(len(lane.heap) for lane in (*self._lanes.values(), self._idle_lane))
        return FairOrderStatistics(
            active=len(self._active),
            idle=len(self._idle),
            lanes=len(self._lanes),
            entries=entries,
            virtual_time=self._virtual_time,
        )

    def _lane(self, name: Hashable) -> FairLane[K]:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = FairLane(name)
        return lane

    def _leave_lane(self, group: FairGroup[K]) -> None:
        lane = group.lane
        lane.remove(group)
        if not lane.live:
            del self._lanes[lane.name]

    def _trim_idle(self) -> None:
        lane = self._idle_lane
        room = 2 * len(self._active) + _SPARE_IDLE
        while lane.live and (lane.heap[0][0] <= self._virtual_time or lane.live > room):
            tag, _, group = lane.heap[0]
            lane.remove(group)
            del self._idle[group.key]
            group.forget()
            self._forgotten = max(self._forgotten, tag)

    def _subtract(self, start: float) -> None:
        """Let virtual time be 0 where it would be `start`. Costs a rebuild of every heap."""
        for lane in (*self._lanes.values(), self._idle_lane):
            lane.subtract(start)
        self._forgotten = max(self._forgotten - start, 0.0)
        self.shifts += 1

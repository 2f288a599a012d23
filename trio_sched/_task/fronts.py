"""Which class of heads is to be examined next, without looking at those that cannot have become eligible.

A class stands in one of several *fronts*:

- the *open* one, where every class starts that is not held back;
- that of a *resource* of which its heads were found to lack units. It is passed over until units of that resource may
  have come free; then it is *stirred*, and stays so until none is free;
- a *held* one, of the classes that the policy lets run only while no entitled head competes with them, by what they
  compete for. When an entitled head was found that competes for it, the whole front is refused. Else its first class
  is asked about, and if that is refused then all are, as they have the same competitors.

So a class that may be eligible stands in the open front, in a stirred one, or in a held one that is not refused, and
whoever looks for the first eligible head looks only there.

A front is a heap of classes by the place of their first head. That place only moves back by itself, as heads are served
or leave, so it is corrected when a class comes to the top. When a head that comes before all others of its class joins
it, the class is entered again; an entry with another place than the class's own is out of date. When the fair order
has shifted its tags all places are looked up anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final, Protocol, TypeAlias

import trio

from trio_sched._fair import FairPlace
from trio_sched._resources.task import SchedulerResourceKey
from trio_sched._task.heads import HeadBucket, HeadClass, QueuedGroup, Verdict

__all__ = ["Examiner", "FoundHead", "Fronts"]

Place: TypeAlias = FairPlace[QueuedGroup]
Ask: TypeAlias = Callable[[QueuedGroup], bool]

_SPARE_STALE: Final = 8


class Examiner(Protocol):
    """The index of heads, which knows what is free and what is refused."""

    def lacks(self, bucket: HeadBucket, /) -> SchedulerResourceKey | None:
        """A resource of which too little is free for the heads of `bucket`, or None."""
        ...

    @property
    def epoch(self) -> int:
        """Of which `HeadBucket.seen` tells."""
        ...

    @property
    def is_decided(self) -> bool:
        """Whether a verdict is all that matters."""
        ...

    @property
    def lone_verdict(self) -> Verdict | None:
        """What is said of a head that competes with nobody, if that is known."""
        ...

    def is_lone(self, bucket: HeadBucket, /) -> bool:
        """Whether the heads of `bucket` are one, and it competes with nobody."""
        ...

    def settle(self, bucket: HeadBucket, /) -> bool:
        """Look again how the groups of `bucket` stand; whether any stands differently."""
        ...

    def restand(self, group: QueuedGroup, /) -> bool:
        """Look again how a group stands; whether it stands differently than its class, which it then has left."""
        ...

    def verdict(self, examined: HeadClass, /) -> Verdict:
        """Whether the heads of a class that has room may run."""
        ...


class _Front:
    __slots__ = ("classes", "heap", "limiter", "name")

    def __init__(
        self,
        name: SchedulerResourceKey | tuple[SchedulerResourceKey, ...] | None,
        limiter: trio.CapacityLimiter | None = None,
    ) -> None:
        self.name = name
        self.limiter = limiter
        self.classes = 0
        self.heap: list[tuple[Place, int, HeadClass]] = []

    def push(self, entered: HeadClass, place: Place) -> None:
        entered.place = place
        heap = self.heap
        heappush(heap, (place, id(entered), entered))
        if len(heap) > 2 * self.classes + _SPARE_STALE:
            heap[:] = {entry for entry in heap if entry[2].front is self and entry[2].place is entry[0]}
            heapify(heap)

    def look_up(self) -> None:
        """Enter every class where its first head stands."""
        standing = {entry[2] for entry in self.heap if entry[2].front is self}
        for entered in standing:
            entered.place = entered.lane.heap[0]
        self.heap[:] = [(entered.lane.heap[0], id(entered), entered) for entered in standing]
        heapify(self.heap)

    def first_place(self) -> Place | None:
        """That of the class at the top, or None if there is none; an entry that is out of date is put right before."""
        heap = self.heap
        while heap:
            place, _, entered = heap[0]
            if entered.place is not place or entered.front is not self:
                heappop(heap)
                continue
            now = entered.lane.heap[0]
            if now is place:
                return place
            entered.place = now
            entry = (now, id(entered), entered)
            heapreplace(heap, entry)
            if heap[0] is entry:
                return now
        return None


FoundHead: TypeAlias = tuple[Place, QueuedGroup, HeadClass, Verdict]
"""An eligible head: the place of its group in fair order, its group, its class, and what was said of that."""


class Fronts:
    """The classes of all heads, each in its front. held: the held fronts, by what their classes compete for."""

    __slots__ = ("_open", "_parked", "_stirred", "held")

    def __init__(self) -> None:
        self._open = _Front(None)
        self.held: dict[tuple[SchedulerResourceKey, ...], _Front] = {}
        self._stirred: dict[SchedulerResourceKey, _Front] = {}
        self._parked: dict[SchedulerResourceKey, _Front] = {}

    def join(self, changed: HeadClass) -> None:
        """`changed` has one more head, or is new."""
        place = changed.lane.heap[0]
        front = changed.front
        if front is None:
            self._enter(changed, self._held_front(changed) if changed.kind == "unentitled" else self._open, place)
            return
        assert isinstance(front, _Front)
        assert changed.place is not None
        if place < changed.place:
            front.push(changed, place)

    def leave(self, ended: HeadClass) -> None:
        """`ended` has no head any more."""
        self._take_out(ended)
        ended.front = ended.place = None

    def stir(self, resources: Iterable[SchedulerResourceKey]) -> None:
        """Units of these may have come free."""
        parked = self._parked
        if parked:
            for resource in resources:
                front = parked.get(resource)
                if front is not None:
                    self._stirred[resource] = front

    def stir_all(self) -> None:
        """Units of any resource may have come free."""
        self._stirred.update(self._parked)

    def look_up(self) -> None:
        """All tags were shifted."""
        for front in (self._open, *self.held.values(), *self._parked.values()):
            front.look_up()

    def awake(self, limits: Mapping[SchedulerResourceKey, int]) -> list[_Front]:
        """The fronts that are not held and may have an eligible head; those whose units are used up are calmed."""
        awake: list[_Front] = []
        if self._stirred:
            for resource, front in tuple(self._stirred.items()):
                limiter = front.limiter
                if limiter is not None and limiter.borrowed_tokens < limits[resource]:
                    awake.append(front)
                else:
                    del self._stirred[resource]
        if awake or self._open.classes:
            # A class that is found to stand differently may come to be open, also while another is judged.
            awake.append(self._open)
        return awake

    def first_with_held(self, examiner: Examiner, ask: Ask, found: FoundHead | None) -> FoundHead | None:
        """The first eligible head in fair order, if that of the fronts that are awake is `found`; see `first_of`."""
        for front in tuple(self.held.values()):
            if found is None or not _competes(found[2], front):
                found = self.first_of([front], examiner, ask, found) or found
        return found

    def first_of(self, fronts: list[_Front], examiner: Examiner, ask: Ask, found: FoundHead | None) -> FoundHead | None:
        """The first eligible head in these fronts that comes before what was found.

        `ask` says whether the head of a group is eligible, unless the examiner decides that for every class.
        """
        is_decided = examiner.is_decided
        aside: list[tuple[_Front, HeadClass, Place]] | None = None
        place: Place | None
        examined: HeadClass | None
        restood: QueuedGroup | None = None
        lone_verdict = examiner.lone_verdict
        try:
            while True:
                place = None if found is None else found[0]
                examined, examined_front = None, self._open
                for front in fronts:
                    if front.heap:
                        first_place = front.first_place()
                        if first_place is not None and (place is None or first_place < place):
                            examined, examined_front, place = front.heap[0][2], front, first_place
                if examined is None or place is None:
                    return None
                bucket = examined.bucket
                resource = bucket.lacks if bucket.seen == examiner.epoch else examiner.lacks(bucket)
                if resource is None:
                    group = place[2].key
                    # How it stands is not looked at then; where a front is held, that would matter to others.
                    if bucket.count == 1 and lone_verdict is not None and not self.held and examiner.is_lone(bucket):
                        return place, group, examined, lone_verdict
                    if bucket.unsettled and examiner.settle(bucket):
                        continue
                    if group is not restood and examiner.restand(group):
                        restood = group
                        continue
                    kind = examined.kind
                    verdict: Verdict
                    if kind == "entitled":
                        verdict = "entitled"
                    elif is_decided or kind == "unentitled":
                        verdict = examiner.verdict(examined)
                        if kind == "unentitled" and verdict == "refused":
                            if examined_front.name == bucket.request.competed_for:
                                return None
                            self._move(examined, self._held_front(examined), place)
                            continue
                    else:
                        verdict = "allowed"
                    if verdict != "refused" and (is_decided or ask(group)):
                        return place, group, examined, verdict
                elif resource != examined_front.name:
                    self._move(examined, self._parked_front(resource, bucket), place)
                    continue
                heappop(examined_front.heap)
                if aside is None:
                    aside = []
                aside.append((examined_front, examined, place))
        finally:
            if aside is not None:
                for front, examined, place in aside:
                    front.push(examined, place)

    def _parked_front(self, resource: SchedulerResourceKey, lacking: HeadBucket) -> _Front:
        front = self._parked.get(resource)
        if front is None:
            limiter = next(limiter for wanted, limiter, _ in lacking.wants if wanted == resource)
            front = self._parked[resource] = _Front(resource, limiter)
        return front

    def _held_front(self, held: HeadClass) -> _Front:
        competed_for = held.bucket.request.competed_for
        front = self.held.get(competed_for)
        if front is None:
            front = self.held[competed_for] = _Front(competed_for)
        return front

    def _move(self, moved: HeadClass, front: _Front, place: Place) -> None:
        self._take_out(moved)
        self._enter(moved, front, place)

    def _enter(self, entered: HeadClass, front: _Front, place: Place) -> None:
        entered.front = front
        front.classes += 1
        front.push(entered, place)

    def _take_out(self, taken: HeadClass) -> None:
        front = taken.front
        assert isinstance(front, _Front)
        front.classes -= 1
        if not front.classes:
            if isinstance(front.name, str):
                del self._parked[front.name]
                self._stirred.pop(front.name, None)
            elif front.name is not None:
                del self.held[front.name]


def _competes(found: HeadClass, front: _Front) -> bool:
    """Whether a head that was found eligible is entitled, and asks for what the classes of a held front compete for."""
    amounts = found.bucket.request.amounts
    return (
        found.kind == "entitled"
        and isinstance(front.name, tuple)
        and any(resource in amounts for resource in front.name)
    )

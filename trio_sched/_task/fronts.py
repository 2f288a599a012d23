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
it, the class is entered again; an entry with another place than the class's own is out of date.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final, NamedTuple, Protocol, TypeAlias

from trio_sched._fair import FairOrder, FairPlace
from trio_sched._resources.task import SchedulerResourceKey, TaskGroupKey
from trio_sched._task.heads import HeadBucket, HeadClass

__all__ = ["Examiner", "Fronts"]

Place: TypeAlias = FairPlace[TaskGroupKey]
Ask: TypeAlias = Callable[[TaskGroupKey], bool]

_SPARE_STALE: Final = 8


class Examiner(Protocol):
    """The index of heads, which knows what is free and what is refused."""

    def lacks(self, bucket: HeadBucket, /) -> SchedulerResourceKey | None:
        """A resource of which too little is free for the heads of `bucket`, or None."""
        ...

    def has_free(self, resource: SchedulerResourceKey, /) -> bool:
        """Whether any unit of `resource` is free."""
        ...

    def settle(self, bucket: HeadBucket, /) -> None:
        """Look again how the groups of `bucket` stand."""
        ...

    def refuses(self, examined: HeadClass, /) -> bool:
        """Whether entitled heads compete with a class that is held back by them."""
        ...


class _Front:
    __slots__ = ("classes", "heap", "name")

    def __init__(self, name: SchedulerResourceKey | tuple[SchedulerResourceKey, ...] | None) -> None:
        self.name = name
        self.classes = 0
        self.heap: list[tuple[Place, int, HeadClass]] = []

    def push(self, entered: HeadClass, place: Place) -> None:
        entered.place = place
        heap = self.heap
        heappush(heap, (place, id(entered), entered))
        if len(heap) > 2 * self.classes + _SPARE_STALE:
            heap[:] = [entry for entry in heap if entry[2].front is self and entry[2].place is entry[0]]
            heapify(heap)

    def first(self, order: FairOrder[TaskGroupKey]) -> HeadClass | None:
        heap = self.heap
        while heap:
            place, _, entered = heap[0]
            if entered.place is not place or entered.front is not self:
                heappop(heap)
                continue
            now = order.first(entered)
            if now is place:
                return entered
            assert now is not None
            entered.place = now
            heapreplace(heap, (now, id(entered), entered))
        return None


class _Found(NamedTuple):
    place: Place
    head_class: HeadClass


class Fronts:
    """The classes of all heads, each in its front. `parked`: the fronts of resources."""

    __slots__ = ("_held", "_open", "_order", "_stirred", "parked")

    def __init__(self, order: FairOrder[TaskGroupKey]) -> None:
        self._order = order
        self._open = _Front(None)
        self._held: dict[tuple[SchedulerResourceKey, ...], _Front] = {}
        self._stirred: dict[SchedulerResourceKey, _Front] = {}
        self.parked: dict[SchedulerResourceKey, _Front] = {}

    def join(self, changed: HeadClass) -> None:
        """`changed` has one more head, or is new."""
        place = self._order.first(changed)
        assert place is not None
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
        for resource in resources:
            front = self.parked.get(resource)
            if front is not None:
                self._stirred[resource] = front

    def stir_all(self) -> None:
        """Units of any resource may have come free."""
        self._stirred.update(self.parked)

    def first(self, examiner: Examiner, ask: Ask, asks_about_entitled: bool) -> TaskGroupKey | None:
        """The group of the first eligible head in fair order. `ask` says whether the head of a group is eligible."""
        found = self._first_of([self._open, *self._stirred.values()], examiner, ask, None, asks_about_entitled)
        for front in tuple(self._held.values()) if self._held else ():
            if found is None or not _competes(found.head_class, front):
                found = self._first_of([front], examiner, ask, found, asks_about_entitled) or found
        return None if found is None else found.place[2].key

    def _first_of(
        self, fronts: list[_Front], examiner: Examiner, ask: Ask, found: _Found | None, asks_about_entitled: bool
    ) -> _Found | None:
        """The first eligible head in these fronts that comes before what was found."""
        order = self._order
        aside: list[tuple[_Front, HeadClass, Place]] = []
        try:
            while True:
                examined: HeadClass | None = None
                place: Place | None = None if found is None else found.place
                examined_front = self._open
                for front in fronts:
                    candidate = front.first(order)
                    if candidate is not None and (place is None or front.heap[0][0] < place):
                        examined, examined_front, place = candidate, front, front.heap[0][0]
                if examined is None or place is None:
                    return None
                resource = examiner.lacks(examined.bucket)
                if resource is None:
                    if examined.bucket.unsettled:
                        examiner.settle(examined.bucket)
                        continue
                    if examined.kind == "unentitled" and examiner.refuses(examined):
                        if examined_front.name == examined.bucket.request.competed_for:
                            return None
                        self._move(examined, self._held_front(examined), place)
                        continue
                    if (examined.kind == "entitled" and not asks_about_entitled) or ask(place[2].key):
                        return _Found(place, examined)
                elif resource != examined_front.name:
                    self._move(examined, self._parked_front(resource), place)
                    continue
                elif not examiner.has_free(resource):
                    del self._stirred[resource]
                    fronts.remove(examined_front)
                    continue
                heappop(examined_front.heap)
                aside.append((examined_front, examined, place))
        finally:
            for front, examined, place in aside:
                front.push(examined, place)

    def _parked_front(self, resource: SchedulerResourceKey) -> _Front:
        front = self.parked.get(resource)
        if front is None:
            front = self.parked[resource] = _Front(resource)
        return front

    def _held_front(self, held: HeadClass) -> _Front:
        competed_for = held.bucket.request.competed_for
        front = self._held.get(competed_for)
        if front is None:
            front = self._held[competed_for] = _Front(competed_for)
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
                del self.parked[front.name]
                self._stirred.pop(front.name, None)
            elif front.name is not None:
                del self._held[front.name]


def _competes(found: HeadClass, front: _Front) -> bool:
    """Whether a head that was found eligible is entitled, and asks for what the classes of a held front compete for."""
    amounts = found.bucket.request.amounts
    return (
        found.kind == "entitled"
        and isinstance(front.name, tuple)
        and any(resource in amounts for resource in front.name)
    )

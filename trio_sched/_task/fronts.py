"""Which class of heads is to be examined next, without looking at those that cannot have become eligible.

A class stands in one of several *fronts*: the open one, or that of a resource of which its heads were found to lack
units. The front of a resource is passed over until units of that resource may have come free; then it is *stirred*, and
stays so until none is free. Hence a class whose units are free stands in the open front or in a stirred one, and
whoever looks for the first eligible head looks there only.

A front is a heap of classes by the place of their first head. That place only moves back by itself, as heads are served
or leave, so it is corrected when a class comes to the top. When a head that comes before all others of its class joins
it, the class is entered again; an entry with another place than the class's own is out of date.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final, TypeAlias

from trio_sched._fair import FairOrder, FairPlace
from trio_sched._resources.task import SchedulableTask, SchedulerResourceKey, TaskGroupKey
from trio_sched._task.heads import HeadBucket, HeadClass

__all__ = ["Fronts"]

Place: TypeAlias = FairPlace[TaskGroupKey]

_SPARE_STALE: Final = 8


class _Front:
    __slots__ = ("classes", "heap", "resource")

    def __init__(self, resource: SchedulerResourceKey | None) -> None:
        self.resource = resource
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


class Fronts:
    """The classes of all heads, each in its front. `parked`: the fronts of resources."""

    __slots__ = ("_open", "_order", "_stirred", "parked")

    def __init__(self, order: FairOrder[TaskGroupKey]) -> None:
        self._order = order
        self._open = _Front(None)
        self.parked: dict[SchedulerResourceKey, _Front] = {}
        self._stirred: dict[SchedulerResourceKey, _Front] = {}

    def join(self, changed: HeadClass) -> None:
        """`changed` has one more head, or is new."""
        place = self._order.first(changed)
        assert place is not None
        front = changed.front
        if front is None:
            front = changed.front = self._open
            front.classes += 1
        assert isinstance(front, _Front)
        if changed.place is None or place < changed.place:
            front.push(changed, place)

    def leave(self, ended: HeadClass) -> None:
        """`ended` has no head any more."""
        self._take_out(ended)
        ended.front = ended.place = None

    def stir(self, resource: SchedulerResourceKey) -> None:
        """Units of `resource` may have come free."""
        front = self.parked.get(resource)
        if front is not None:
            self._stirred[resource] = front

    def stir_all(self) -> None:
        """Units of any resource may have come free."""
        self._stirred.update(self.parked)

    def first(
        self,
        lacks: Callable[[HeadBucket], SchedulerResourceKey | None],
        has_free: Callable[[SchedulerResourceKey], bool],
        refuses: Callable[[HeadClass], bool],
        ask: Callable[[TaskGroupKey], SchedulableTask | None],
    ) -> SchedulableTask | None:
        """What `ask` returns, if not None, for the first group in fair order whose head lacks nothing.

        Heads of a class that is refused are not asked about.
        """
        order = self._order
        fronts = [self._open]
        if self._stirred:
            fronts.extend(self._stirred.values())
        aside: list[tuple[_Front, HeadClass, Place]] = []
        try:
            while True:
                examined: HeadClass | None = None
                examined_front = self._open
                place: Place | None = None
                for front in fronts:
                    candidate = front.first(order)
                    if candidate is not None and (place is None or front.heap[0][0] < place):
                        examined, examined_front, place = candidate, front, front.heap[0][0]
                if examined is None or place is None:
                    return None
                resource = lacks(examined.bucket)
                if resource is None:
                    if not (examined.may_be_refused and refuses(examined)):
                        item = ask(place[2].key)
                        if item is not None:
                            return item
                elif resource != examined_front.resource:
                    self._park(examined, place, resource)
                    continue
                elif not has_free(resource):
                    del self._stirred[resource]
                    fronts.remove(examined_front)
                    continue
                heappop(examined_front.heap)
                aside.append((examined_front, examined, place))
        finally:
            for front, examined, place in aside:
                front.push(examined, place)

    def _park(self, parked: HeadClass, place: Place, resource: SchedulerResourceKey) -> None:
        self._take_out(parked)
        front = self.parked.get(resource)
        if front is None:
            front = self.parked[resource] = _Front(resource)
        parked.front = front
        front.classes += 1
        front.push(parked, place)

    def _take_out(self, taken: HeadClass) -> None:
        front = taken.front
        assert isinstance(front, _Front)
        front.classes -= 1
        if not front.classes and front.resource is not None:
            del self.parked[front.resource]
            self._stirred.pop(front.resource, None)

"""The heads of the ready queue, classed so that one answer serves many groups.

Whether a head is eligible depends on what it asks for, on what its group already has, and on the state that all heads
share. Heads that ask for the same and stand the same have one *class* and get the same answer at any one instant: the
queue examines only the first of each class, and a policy sums over classes instead of groups. Heads that ask for the
same, and have the same claim to reserved units, make a *bucket*: one look at the free units settles all of it.

A `StandingSource` (the admission controller) says how a group stands, and tells the index which groups may have come to
stand differently. Classes are brought up to date when they are next looked at, so a change costs nothing by itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Final, Protocol

import trio

from trio_sched._fair import FairOrder
from trio_sched._resources.task import SchedulableTask, SchedulerResourceKey, SchedulerResourceRequest, TaskGroupKey

__all__ = ["HeadBucket", "HeadClass", "HeadIndex", "QueuedGroup", "StandingSource", "exact_weight"]

_WEIGHT_UNITS: Final = 1 << 1074


@lru_cache(maxsize=1024)
def exact_weight(weight: float) -> int:
    """`weight` as a multiple of the smallest float, so that sums of weights are exact and can be undone."""
    numerator, denominator = weight.as_integer_ratio()
    return numerator * (_WEIGHT_UNITS // denominator)


class StandingSource(Protocol):
    """Says what eligibility depends on. All its answers are a function of its own state at `version`."""

    @property
    def policy(self) -> object:
        """Whose standings these are."""
        ...

    @property
    def claims(self) -> object:
        """Whose reservations `claim` tells of."""
        ...

    @property
    def version(self) -> int:
        """Differs after every change that may alter an answer."""
        ...

    def standing(self, head: SchedulableTask) -> Hashable:
        """What the answer to `head` depends on besides its request and the shared state: its group's own state."""
        ...

    def claim(self, head: SchedulableTask) -> Hashable:
        """The reservation made for `head`, or None."""
        ...

    def has_room(
        self,
        amounts: Mapping[SchedulerResourceKey, int],
        claim: Hashable,
        heads: Mapping[TaskGroupKey, SchedulableTask],
    ) -> bool:
        """Whether `amounts` are free to a head that has `claim`. Only reservations for one of `heads` count."""
        ...

    def watch(self, index: HeadIndex) -> None:
        """From now on call `index.standing_changed(group)` whenever that group may stand differently."""
        ...


class QueuedGroup:
    """A group with backlog: its items in order of arrival, the first again as `head`, and what they ask for."""

    __slots__ = ("demand", "exact_weight", "head", "head_class", "items", "key")

    def __init__(self, head: SchedulableTask) -> None:
        self.key = head.group.key
        self.items: OrderedDict[str, SchedulableTask] = OrderedDict()
        self.head = head
        self.demand: dict[SchedulerResourceKey, int] = {}
        self.head_class: HeadClass | None = None
        self.exact_weight = 0


class HeadBucket:
    """Heads that ask for `request` and have `claim`. `exact_weight` is the sum over their groups."""

    __slots__ = ("claim", "classes", "count", "exact_weight", "request")

    def __init__(self, request: SchedulerResourceRequest, claim: Hashable) -> None:
        self.request = request
        self.claim = claim
        self.count = 0
        self.exact_weight = 0
        self.classes: dict[Hashable, HeadClass] = {}


class HeadClass:
    """Heads of one bucket that stand the same, and by `aspect` are the same to whoever asks. Names their lane."""

    __slots__ = ("aspect", "bucket", "count", "standing")

    def __init__(self, bucket: HeadBucket, standing: Hashable, aspect: Hashable) -> None:
        self.bucket = bucket
        self.standing = standing
        self.aspect = aspect
        self.count = 0


class HeadAspect(Protocol):
    """What, besides standing, tells heads apart for whoever asks."""

    def __call__(self, head: SchedulableTask, /) -> Hashable:
        """Heads of one class give equal aspects."""
        ...


class HeadIndex:
    """The classes of all heads, for one source at a time. `memo` is a policy's to fill; any change empties it."""

    __slots__ = (
        "__weakref__",
        "_aspect",
        "_buckets",
        "_changed",
        "_fitting",
        "_groups",
        "_heads",
        "_order",
        "_seen",
        "_version",
        "memo",
        "source",
    )

    def __init__(
        self,
        groups: Mapping[TaskGroupKey, QueuedGroup],
        heads: Mapping[TaskGroupKey, SchedulableTask],
        order: FairOrder[TaskGroupKey],
    ) -> None:
        self._groups = groups
        self._heads = heads
        self._order = order
        self._buckets: dict[tuple[SchedulerResourceRequest, Hashable], HeadBucket] = {}
        self._changed: set[TaskGroupKey] = set()
        self._version = 0
        self._seen: tuple[int, int] | None = None
        self._fitting: Sequence[HeadBucket] = ()
        self._aspect: HeadAspect | None = None
        self.source: StandingSource | None = None
        self.memo: object | None = None

    @trio.lowlevel.enable_ki_protection
    def bind(self, source: StandingSource, aspect: HeadAspect) -> None:
        """Class heads by how they stand with `source`, and by `aspect`."""
        if source is not self.source:
            source.watch(self)
        self.source = source
        self._aspect = aspect
        self._seen = None
        self._changed.update(self._groups)

    def standing_changed(self, group: TaskGroupKey) -> None:
        """`group` may stand differently; look again before its class is next used."""
        if group in self._groups:
            self._changed.add(group)

    def head_changed(self, group: QueuedGroup) -> None:
        """`group` has another head."""
        self._changed.add(group.key)

    def remove(self, group: QueuedGroup) -> None:
        """`group` has no head any more."""
        self._changed.discard(group.key)
        self._leave(group)

    def class_of(self, item: SchedulableTask) -> HeadClass | None:
        """The class of `item`, or None if it heads no group."""
        group = self._groups.get(item.group.key)
        if group is None or group.head is not item:
            return None
        self.refresh()
        return group.head_class

    def fitting(self) -> Sequence[HeadBucket]:
        """The buckets whose heads find the units that they ask for free."""
        self.refresh()
        source = self.source
        assert source is not None
        seen = (self._version, source.version)
        if seen != self._seen:
            self._fitting = [
                bucket
                for bucket in self._buckets.values()
                if source.has_room(bucket.request.amounts, bucket.claim, self._heads)
            ]
            self.memo = None
            self._seen = seen
        return self._fitting

    def buckets(self) -> Collection[HeadBucket]:
        """All buckets."""
        self.refresh()
        return self._buckets.values()

    def first(self, bucket: HeadBucket) -> SchedulableTask:
        """The head of `bucket` that is first in fair order."""
        order = self._order
        heads = (order.head(each) for each in bucket.classes.values())
        return self._groups[min((key for key in heads if key is not None), key=order.rank)].head

    def precedes(self, group: TaskGroupKey, other: TaskGroupKey) -> bool:
        """Whether `group`, which has a head, is before `other` in fair order, or `other` has none."""
        order = self._order
        return other not in order or order.rank(group) < order.rank(other)

    def refresh(self) -> None:
        """Bring the classes up to date. Asks the source, and changes nothing that can be seen from outside."""
        source, aspect, changed = self.source, self._aspect, self._changed
        if not changed or source is None or aspect is None:
            return
        for key in tuple(changed):
            group = self._groups[key]
            head = group.head
            self._place(group, source.claim(head), source.standing(head), aspect(head))

    @trio.lowlevel.enable_ki_protection
    def _place(self, group: QueuedGroup, claim: Hashable, standing: Hashable, aspect: Hashable) -> None:
        head, old = group.head, group.head_class
        weight = exact_weight(head.group.weight)
        if (
            old is None
            or old.standing != standing
            or old.aspect != aspect
            or old.bucket.claim is not claim
            or old.bucket.request != head.resource_request
            or group.exact_weight != weight
        ):
            self._leave(group)
            bucket_key = (head.resource_request, claim)
            bucket = self._buckets.get(bucket_key)
            if bucket is None:
                bucket = self._buckets[bucket_key] = HeadBucket(head.resource_request, claim)
            class_key = (standing, aspect)
            found = bucket.classes.get(class_key)
            if found is None:
                found = bucket.classes[class_key] = HeadClass(bucket, standing, aspect)
            found.count += 1
            bucket.count += 1
            bucket.exact_weight += weight
            group.exact_weight = weight
            group.head_class = found
            self._order.move(group.key, found)
            self._version += 1
        self._changed.discard(group.key)

    def _leave(self, group: QueuedGroup) -> None:
        old = group.head_class
        if old is None:
            return
        bucket = old.bucket
        old.count -= 1
        bucket.count -= 1
        bucket.exact_weight -= group.exact_weight
        if not old.count:
            del bucket.classes[old.standing, old.aspect]
        if not bucket.count:
            del self._buckets[bucket.request, bucket.claim]
        group.head_class = None
        self._version += 1

"""The classes that heads are in, their buckets, and the fronts that the classes stand in, kept in step.

A class lasts while a head is in it, a bucket while it has a class. Every change of membership is made here.
"""

from __future__ import annotations

from collections.abc import Hashable

import trio

from trio_sched._fair import FairOrder
from trio_sched._resources.task import SchedulerResourceKey, SchedulerResourceRequest
from trio_sched._task.fronts import Fronts
from trio_sched._task.heads import HeadBucket, HeadClass, QueuedGroup, StandingSource, exact_weight, gathers

__all__ = ["HeadClasses"]


class HeadClasses:
    """Which group's head is in which class.

    by_resource: the buckets that ask for a resource. gathering: those whose units may come free one at a time. unsure:
    how many classes are not entitled by their kind. version: rises with every change.
    """

    __slots__ = ("_buckets", "_fronts", "_order", "by_resource", "gathering", "unsure", "version")

    def __init__(self, order: FairOrder[QueuedGroup], fronts: Fronts) -> None:
        self._order = order
        self._fronts = fronts
        self._buckets: dict[tuple[SchedulerResourceRequest, Hashable], HeadBucket] = {}
        self.by_resource: dict[SchedulerResourceKey, dict[HeadBucket, None]] = {}
        self.gathering: dict[HeadBucket, None] = {}
        self.unsure = 0
        self.version = 0

    @trio.lowlevel.enable_ki_protection
    def enter(
        self, group: QueuedGroup, claim: Hashable, standing: Hashable, aspect: Hashable, source: StandingSource
    ) -> None:
        """Put the head of `group` where it belongs, out of where it was."""
        head = group.head
        bucket = self._bucket(head.resource_request, claim, source)
        found = self._class(bucket, standing, aspect, source)
        found.count += 1
        bucket.count += 1
        self.leave(group)
        group.spec = head.group
        group.exact_weight = exact_weight(head.group.weight)
        bucket.exact_weight += group.exact_weight
        self._join(group, found)

    @trio.lowlevel.enable_ki_protection
    def stand(self, group: QueuedGroup, old: HeadClass, standing: Hashable, source: StandingSource) -> None:
        """The group stands differently than `old`, its class, and is otherwise as it was."""
        found = self._class(old.bucket, standing, old.aspect, source)
        found.count += 1
        self._join(group, found)
        self._leave_class(old)

    @trio.lowlevel.enable_ki_protection
    def leave(self, group: QueuedGroup) -> None:
        """The group has no head any more, or not in its class."""
        old = group.head_class
        if old is None:
            return
        bucket = old.bucket
        bucket.unsettled.discard(group)
        group.head_class = None
        self._leave_class(old)
        bucket.count -= 1
        bucket.exact_weight -= group.exact_weight
        if not bucket.count:
            del self._buckets[bucket.request, bucket.claim]
            self.gathering.pop(bucket, None)
            for resource in bucket.request.amounts:
                buckets = self.by_resource[resource]
                del buckets[bucket]
                if not buckets:
                    del self.by_resource[resource]
        self.version += 1

    def _join(self, group: QueuedGroup, found: HeadClass) -> None:
        group.head_class = found
        found.lane = self._order.move(group, found)
        self._fronts.join(found)
        self.version += 1

    def _leave_class(self, old: HeadClass) -> None:
        old.count -= 1
        if not old.count:
            del old.lane  # The lane is named after the class, so each would keep the other.
            del old.bucket.classes[old.standing, old.aspect]
            self.unsure -= old.kind != "entitled"
            self._fronts.leave(old)

    def _bucket(self, request: SchedulerResourceRequest, claim: Hashable, source: StandingSource) -> HeadBucket:
        bucket = self._buckets.get((request, claim))
        if bucket is None:
            bucket = self._buckets[request, claim] = HeadBucket(request, claim, source.limiters)
            for resource in request.amounts:
                self.by_resource.setdefault(resource, {})[bucket] = None
            if gathers(request):
                self.gathering[bucket] = None
        return bucket

    def _class(self, bucket: HeadBucket, standing: Hashable, aspect: Hashable, source: StandingSource) -> HeadClass:
        found = bucket.classes.get((standing, aspect))
        if found is None:
            found = bucket.classes[standing, aspect] = HeadClass(bucket, standing, aspect, source.kind(standing))
            self.unsure += found.kind != "entitled"
        return found

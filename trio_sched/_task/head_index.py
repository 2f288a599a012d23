"""The index of the ready queue's heads, for one source of standings at a time.

The source says which groups may have come to stand differently, and of which resources units may have come free. Such a
change only makes a note. The index is brought up to date when it is next looked at, and how groups stand only where it
matters: in buckets that have room. A group that is served and released over and over, in a stage that is full, then
stays in the class that it has whenever anybody asks.

A group that was granted something stands worse than before, and nobody is told: the first group of a class is looked at
again whenever the class is examined, and of the others nothing is said until they come first. A group that gave
something back may stand better, so it is noted; one that was not entitled is looked at even where there is no room, as
nobody else might ever look at its bucket.

Of a head that competes with nobody the source may know the verdict however it stands. Then nobody looks, unless there
are held fronts, which would have to know whether it is entitled; the class it has may be out of date meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import TypeAlias

import trio

from trio_sched._fair import FairOrder
from trio_sched._resources.task import SchedulableTask, SchedulerResourceKey, TaskGroupKey
from trio_sched._task.fronts import Fronts
from trio_sched._task.head_classes import HeadClasses
from trio_sched._task.heads import (
    HeadBucket,
    HeadClass,
    QueuedGroup,
    StandingSource,
    Verdict,
    exact_weight,
    gathers,
)

__all__ = ["HeadIndex"]

Aspect: TypeAlias = Callable[[SchedulableTask], Hashable]


class HeadIndex:
    """Classes and buckets of all heads.

    groups: those that have heads. queue_version: rises with every change of the queue. memo: the policy's. epoch: rises
    with every change of the heads, or of the source, since it was last looked at. gathering_heads: how many heads ask
    for units that may come free one at a time. claims: the source's. is_decided: whether the source alone answers.
    lone_verdict: what it says of a head that competes with nobody, if that is known.
    """

    __slots__ = (
        "__weakref__",
        "_aspect",
        "_changed",
        "_classes",
        "_fronts",
        "_heads",
        "_order",
        "_seen_shifts",
        "_seen_source_version",
        "_seen_version",
        "_sure",
        "claims",
        "epoch",
        "gathering_heads",
        "groups",
        "is_decided",
        "lone_verdict",
        "memo",
        "queue_version",
        "source",
    )

    def __init__(
        self,
        groups: Mapping[TaskGroupKey, QueuedGroup],
        heads: Mapping[TaskGroupKey, SchedulableTask],
        order: FairOrder[QueuedGroup],
    ) -> None:
        self.groups: Mapping[TaskGroupKey, QueuedGroup] = groups
        self._heads = heads
        self._order = order
        self._fronts = Fronts()
        self._classes = HeadClasses(order, self._fronts)
        self._changed: set[QueuedGroup] = set()
        self.claims: Collection[object] = ()
        self.is_decided: bool = False
        self._seen_version: int = -1
        self._seen_source_version: int = -1
        self._seen_shifts = 0
        self.lone_verdict: Verdict | None = None
        self._sure: tuple[SchedulableTask, int, int, Verdict] | None = None
        self.epoch: int = 0
        self._aspect: Aspect | None = None
        self.source: StandingSource | None = None
        self.memo: object | None = None
        self.gathering_heads: int = 0
        self.queue_version: int = 0

    # What the queue and the source tell

    @trio.lowlevel.enable_ki_protection
    def bind(self, source: StandingSource, aspect: Aspect | None) -> None:
        """Class heads by how they stand with `source`, and by `aspect`, if its answer is not the only one."""
        claims, decides = source.claims, source.decides
        source.watch(self)
        for group in self.groups.values():
            self._classes.leave(group)
        self._changed.update(self.groups.values())
        self._seen_version = self._seen_source_version = -1
        self._aspect = aspect
        self.source = source
        self.claims = claims
        self.is_decided = aspect is None and decides
        self.lone_verdict = source.lone_verdict if self.is_decided else None
        self.memo = None
        self._sure = None

    def changed(self, group: TaskGroupKey | None, freed: Iterable[SchedulerResourceKey]) -> None:
        """`group` may stand differently now, and more of what is `freed` may be free to somebody."""
        if freed:
            self._fronts.stir(freed)
        if group is None or not (self._classes.unsure or self.claims):
            return  # Who is entitled and gives something back stays so.
        found = self.groups.get(group)
        if found is not None:
            known = found.head_class
            if known is None or known.kind == "unentitled" or self.claims:
                self._changed.add(found)
            elif known.kind == "depends":
                known.bucket.unsettled.add(found)

    def claim_changed(self, group: TaskGroupKey) -> None:
        """The head of `group` has a claim now, or none any more, so what is free to others may differ as well."""
        self._fronts.stir_all()
        found = self.groups.get(group)
        if found is not None:
            self._changed.add(found)

    def head_changed(self, group: QueuedGroup) -> None:
        """`group` has another head, which differs in more than its task or may have lost a claim.

        Need not be told where the source alone decides, nobody has a claim, and request and spec are the old head's.
        """
        request = group.head.resource_request
        self._changed.add(group)
        if request is not group.request:
            group.request = request
            is_gathering = gathers(request)
            self.gathering_heads += is_gathering - group.gathers
            group.gathers = is_gathering

    def remove(self, group: QueuedGroup) -> None:
        """`group` has no head any more."""
        self.gathering_heads -= group.gathers
        self._changed.discard(group)
        self._classes.leave(group)

    # What selection and policies ask

    @trio.lowlevel.enable_ki_protection
    def first_eligible(self, ask: Callable[[QueuedGroup], bool]) -> SchedulableTask | None:
        """The first head in fair order that lacks nothing and that `ask` agrees to; one of each class is asked about.

        Where the source alone answers, and knows of every class whether it is refused, `ask` is not needed.
        """
        source, fronts = self.source, self._fronts
        assert source is not None
        if not source.is_open:
            return None
        if self._changed or self.claims or self._order.shifts != self._seen_shifts:
            self._catch_up()
            if self._order.shifts != self._seen_shifts:
                fronts.look_up()
                self._seen_shifts = self._order.shifts
            if self.claims:
                fronts.stir_all()
        awake, held = fronts.awake(source.limits), fronts.held
        if not awake and not held:
            return None
        version, classes_version = source.version, self._classes.version
        if version != self._seen_source_version or classes_version != self._seen_version:
            self.epoch += 1
            self._seen_version, self._seen_source_version = classes_version, version
        found = fronts.first_of(awake, self, ask, None) if awake else None
        if held:
            found = fronts.first_with_held(self, ask, found)
        if found is None:
            return None
        item = found[1].head
        if self.is_decided and not self.claims:
            self._sure = item, version, self._classes.version, found[3]
        return item

    def verdict_on(self, item: SchedulableTask, source: StandingSource) -> Verdict | None:
        """What is known of `item`, if it was the latest to be found eligible and nothing has changed at `source`."""
        if self._sure is None:
            return None
        found, version, classes_version, verdict = self._sure
        if found is not item or version != source.version or self.source is not source:
            return None
        if verdict != "entitled" and (self._changed or classes_version != self._classes.version):
            return "allowed"  # It has room, and newcomers may have changed the rest.
        return verdict

    def is_lone(self, bucket: HeadBucket) -> bool:
        """Whether the heads of `bucket` are one, and it competes with nobody. The index is up to date."""
        version = self._classes.version
        if bucket.alone_seen != version:
            bucket.alone_seen = version
            bucket.is_alone = all(self.is_alone(resource) for resource in bucket.request.competed_for)
        return bucket.is_alone

    def restand(self, group: QueuedGroup) -> bool:
        """Look again how a group stands; whether it stands differently than its class, which it then has left."""
        known, source = group.head_class, self.source
        assert known is not None
        assert source is not None
        standing = source.standing(group.head, source.view)
        if standing is known.standing or standing == known.standing:
            return False
        self._classes.stand(group, known, standing, source)
        return True

    def shows(self, source: object) -> bool:
        """Whether heads are classed by how they stand with `source`."""
        return source is self.source

    def lacks(self, bucket: HeadBucket) -> SchedulerResourceKey | None:
        """A resource of which too little is free for the heads of `bucket`, or None. The index is up to date."""
        if bucket.seen != self.epoch:
            source = self.source
            assert source is not None
            if self.claims:
                bucket.lacks = source.lacking(bucket.request, bucket.claim, self._heads)
            else:
                bucket.lacks = None
                limits = source.limits
                for resource, limiter, amount in bucket.wants:
                    if limiter is None or limiter.borrowed_tokens + amount > limits[resource]:
                        bucket.lacks = resource
                        break
            bucket.seen = self.epoch
        return bucket.lacks

    def verdict(self, examined: HeadClass) -> Verdict:
        """Whether the heads of a class that has room may run."""
        assert self.source is not None
        return self.source.verdict(examined.bucket.request, examined.standing, self)

    def weight(self, resource: SchedulerResourceKey) -> int:
        """Exact weight of all groups whose heads ask for `resource`, with room or without."""
        buckets = self._classes.by_resource.get(resource, ())
        if len(buckets) == 1:
            return next(iter(buckets)).exact_weight
        return sum(bucket.exact_weight for bucket in buckets)

    def is_alone(self, resource: SchedulerResourceKey) -> bool:
        """Whether at most one head asks for `resource`."""
        buckets = self._classes.by_resource.get(resource, ())
        return len(buckets) < 2 and (not buckets or next(iter(buckets)).count < 2)

    def is_head_with_room(self, item: SchedulableTask) -> bool:
        """Whether `item` heads its group and lacks nothing."""
        group = self.groups.get(item.group.key)
        if group is None or group.head is not item:
            return False
        self._catch_up()
        assert group.head_class is not None
        bucket = group.head_class.bucket
        return (bucket.lacks if bucket.seen == self.epoch else self.lacks(bucket)) is None

    def with_room(self, resource: SchedulerResourceKey) -> Sequence[HeadBucket]:
        """The buckets that ask for `resource`, and all of whose units are free."""
        self._catch_up()
        found = [bucket for bucket in self._classes.by_resource.get(resource, ()) if self.lacks(bucket) is None]
        for bucket in found:
            if bucket.unsettled:
                self.settle(bucket)
            for each in tuple(bucket.classes.values()):
                # Who leaves comes first in another class, or after one that was looked at.
                while each.count and self.restand(each.lane.heap[0][2].key):
                    pass
        return found

    def settle(self, bucket: HeadBucket) -> bool:
        """Look again how the unsettled groups of `bucket` stand; whether any stands differently."""
        moved = False
        for group in tuple(bucket.unsettled):
            if self.restand(group):
                moved = True
            bucket.unsettled.discard(group)
        return moved

    def gathering(self) -> Iterable[HeadBucket]:
        """The buckets whose units may come free one at a time."""
        self._catch_up()
        return self._classes.gathering

    def first_of(self, bucket: HeadBucket) -> SchedulableTask:
        """The head of `bucket` that is first in fair order."""
        order = self._order
        heads = (order.head(each) for each in bucket.classes.values())
        return min((group for group in heads if group is not None), key=order.rank).head

    def in_order(self, heads: Iterable[SchedulableTask]) -> list[SchedulableTask]:
        """These heads in fair order."""
        return sorted(heads, key=lambda head: self._order.rank(self.groups[head.group.key]))

    def precedes(self, group: TaskGroupKey, other: TaskGroupKey) -> bool:
        """Whether `group`, which has a head, is before `other` in fair order, or `other` has none."""
        groups, order = self.groups, self._order
        return other not in groups or order.rank(groups[group]) < order.rank(groups[other])

    # Inside

    def _catch_up(self) -> None:
        source = self.source
        assert source is not None
        if self._changed:
            aspect = self._aspect
            has_claims = bool(self.claims)
            for group in tuple(self._changed):
                head = group.head
                claim = source.claim(head) if has_claims else None
                self._place(group, claim, source.standing(head, source.view), None if aspect is None else aspect(head))
        if self._classes.version != self._seen_version or source.version != self._seen_source_version:
            self.epoch += 1
            self._seen_version, self._seen_source_version = self._classes.version, source.version

    @trio.lowlevel.enable_ki_protection
    def _place(self, group: QueuedGroup, claim: Hashable, standing: Hashable, aspect: Hashable) -> None:
        head, known = group.head, group.head_class
        request, spec = head.resource_request, head.group
        if (
            known is None
            or known.standing != standing
            or known.aspect != aspect
            or known.bucket.claim is not claim
            or (request is not known.bucket.request and request != known.bucket.request)
            or (spec is not group.spec and exact_weight(spec.weight) != group.exact_weight)
        ):
            assert self.source is not None
            self._classes.enter(group, claim, standing, aspect, self.source)
        else:
            known.bucket.unsettled.discard(group)
            group.spec = spec
        self._changed.discard(group)

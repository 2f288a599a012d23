"""What the index of heads consists of: classes of heads that get the same answer.

Whether a head is eligible depends on what it asks for, on what its group already has, and on the state that all heads
share. Heads that ask for the same and stand the same have one *class* and get the same answer at any one instant: the
queue examines only the first of each class, and a policy sums over classes instead of groups. Heads that ask for the
same, and have the same claim to reserved units, make a *bucket*: one look at the free units settles all of it.

A `StandingSource`, the admission controller, says how a group stands and what is free.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Literal, Protocol

import trio

from trio_sched._fair import FairLane, FairPlace
from trio_sched._resources.task import (
    SchedulableTask,
    SchedulerResourceKey,
    SchedulerResourceRequest,
    TaskGroupKey,
    TaskGroupSpec,
)
from trio_sched._task.leases import TaskAdmissionView

__all__ = [
    "ClassedHeads",
    "HeadBucket",
    "HeadClass",
    "QueuedGroup",
    "StandingKind",
    "StandingSource",
    "StandingWatcher",
    "Verdict",
    "exact_weight",
    "gathers",
]

_WEIGHT_UNITS: Final = 1 << 1074

StandingKind = Literal["entitled", "unentitled", "depends"]
"""Entitled heads are never refused. Unentitled ones are refused if, and only if, an entitled head asks for a resource
that they compete for. Of all others it depends."""

Verdict = Literal["entitled", "uncharged", "alone", "allowed", "refused"]
"""Whether heads of one class may run now: by their own right, whoever comes; as heads and units are now, with nothing
to be owed; as nobody competes with them, however they stand; else perhaps; or not."""


@lru_cache(maxsize=1024)
def exact_weight(weight: float) -> int:
    """`weight` as a multiple of the smallest float, so that sums of weights are exact and can be undone."""
    numerator, denominator = weight.as_integer_ratio()
    return numerator * (_WEIGHT_UNITS // denominator)


@lru_cache(maxsize=1024)
def gathers(request: SchedulerResourceRequest) -> bool:
    """Whether units for `request` may come free one at a time: several of one resource, or of several competed for."""
    return len(request.competed_for) > 1 or max(request.amounts.values()) > 1


class StandingWatcher(Protocol):
    """Takes note of a change at a `StandingSource`; acts on it only when it is next asked something itself."""

    def changed(self, group: TaskGroupKey | None, freed: Iterable[SchedulerResourceKey]) -> None:
        """`group` may stand differently now, and more of what is `freed` may be free to somebody."""
        ...

    def claim_changed(self, group: TaskGroupKey) -> None:
        """The head of `group` has a claim now, or none any more, so what is free to others may differ as well."""
        ...


class StandingSource(Protocol):
    """Says what eligibility depends on. All its answers are a function of its own state at `version`."""

    @property
    def policy(self) -> object:
        """Whose standings these are."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether anything is granted at all."""
        ...

    @property
    def claims(self) -> Collection[object]:
        """The groups that have a claim, always in the same object. While there are any, what is free to whom may change
        with every change.
        """
        ...

    @property
    def limiters(self) -> Mapping[SchedulerResourceKey, trio.CapacityLimiter]:
        """Who lends the units of every resource; they are never exchanged."""
        ...

    @property
    def limits(self) -> Mapping[SchedulerResourceKey, int]:
        """How many units each of them lends, always in the same object."""
        ...

    @property
    def version(self) -> int:
        """Differs after every change that may alter an answer."""
        ...

    @property
    def view(self) -> TaskAdmissionView:
        """The live view of its state, always the same object."""
        ...

    def standing(self, head: SchedulableTask, view: TaskAdmissionView, /) -> Hashable:
        """What the answer to `head` depends on besides its request and the shared state: its group's own state."""
        ...

    def claim(self, head: SchedulableTask) -> Hashable:
        """The reservation made for `head`, or None."""
        ...

    def lacking(
        self,
        request: SchedulerResourceRequest,
        claim: Hashable,
        heads: Mapping[TaskGroupKey, SchedulableTask],
    ) -> SchedulerResourceKey | None:
        """A resource of which too little is free for `request`, or None. Only reservations for one of `heads` count."""
        ...

    @property
    def decides(self) -> bool:
        """Whether `kind` and `verdict` are known. If not, every kind is `depends`."""
        ...

    def kind(self, standing: Hashable) -> StandingKind:
        """Of which kind a standing is."""
        ...

    @property
    def lone_verdict(self) -> Verdict | None:
        """What is said of a head that competes with nobody, where that does not depend on how it stands."""
        ...

    def verdict(self, request: SchedulerResourceRequest, standing: Hashable, heads: ClassedHeads) -> Verdict:
        """Whether heads that have room may run, if they ask and stand like that."""
        ...

    def watch(self, watcher: StandingWatcher) -> None:
        """From now on tell `watcher` of changes, for as long as it lives.

        It is told of a group that holds or owes more only while there are claims, or if the source does not decide.
        """
        ...


class ClassedHeads(Protocol):
    """What a policy sees of an index of heads. `memo` is the policy's own; whatever it keeps there is of one epoch."""

    memo: object | None

    @property
    def epoch(self) -> int:
        """Rises with every change of the heads, or of the source, since it was last looked at."""
        ...

    def is_alone(self, resource: SchedulerResourceKey) -> bool:
        """Whether at most one head asks for `resource`."""
        ...

    def weight(self, resource: SchedulerResourceKey) -> int:
        """Exact weight of all groups whose heads ask for `resource`, with room or without."""
        ...

    def with_room(self, resource: SchedulerResourceKey) -> Sequence[HeadBucket]:
        """The buckets that ask for `resource`, and all of whose units are free."""
        ...


class QueuedGroup:
    """A group with backlog: its items in order of arrival, the first again as `head`, and what they ask for. It may
    outlive its backlog, and then begins anew.

    head_class, and with it spec and exact_weight, may lag behind the head until the index is next looked at. request is
    the one of which `gathers` tells. common: what every item so far has asked for, the same object each time; once they
    differ None, and the sums are kept.
    """

    __slots__ = (
        "_demand",
        "common",
        "exact_weight",
        "gathers",
        "head",
        "head_class",
        "items",
        "key",
        "request",
        "spec",
    )

    common: SchedulerResourceRequest | None
    head: SchedulableTask

    def __init__(self, key: TaskGroupKey) -> None:
        self.key: TaskGroupKey = key
        self.items: OrderedDict[str, SchedulableTask] = OrderedDict()
        self._demand: dict[SchedulerResourceKey, int] = {}
        self.head_class: HeadClass | None = None
        self.exact_weight: int = 0
        self.spec: TaskGroupSpec | None = None
        self.request: SchedulerResourceRequest | None = None
        self.gathers: bool = False

    def begin(self, head: SchedulableTask) -> None:
        """There is backlog from now on."""
        self.head = head
        self.common = head.resource_request
        self._demand.clear()
        self.request = None
        self.gathers = False

    @property
    def demand(self) -> Mapping[SchedulerResourceKey, int]:
        """Units that all its items together ask for."""
        if self.common is None:
            return MappingProxyType(self._demand)
        queued = len(self.items)
        return MappingProxyType({resource: amount * queued for resource, amount in self.common.amounts.items()})

    def add_demand(self, request: SchedulerResourceRequest) -> None:
        """An item that is about to be queued asks for this, which is not what all the others ask for."""
        if self.common is not None:
            self._demand.update(self.demand)
            self.common = None
        for resource, amount in request.amounts.items():
            self._demand[resource] = self._demand.get(resource, 0) + amount

    def remove_demand(self, request: SchedulerResourceRequest) -> None:
        """An item that asked for this was taken out."""
        for resource, amount in request.amounts.items():
            rest = self._demand[resource] - amount
            if rest:
                self._demand[resource] = rest
            else:
                del self._demand[resource]


class HeadBucket:
    """Heads that ask for `request` and have `claim`. `exact_weight` is the sum over their groups.

    wants: what is asked for, each with its limiter. lacks: a resource of which too little is free, or None; as of
    `seen`, an epoch of the index. is_alone: whether its one head competes with nobody; as of `alone_seen`, a version of
    the classes. unsettled: the groups that may have come to stand differently than their class.
    """

    __slots__ = (
        "alone_seen",
        "claim",
        "classes",
        "count",
        "exact_weight",
        "is_alone",
        "lacks",
        "request",
        "seen",
        "unsettled",
        "wants",
    )

    def __init__(
        self,
        request: SchedulerResourceRequest,
        claim: Hashable,
        limiters: Mapping[SchedulerResourceKey, trio.CapacityLimiter],
    ) -> None:
        self.request: SchedulerResourceRequest = request
        self.wants: list[tuple[SchedulerResourceKey, trio.CapacityLimiter | None, int]] = [
            (resource, limiters.get(resource), amount) for resource, amount in request.amounts.items()
        ]
        self.claim: Hashable = claim
        self.count: int = 0
        self.exact_weight: int = 0
        self.classes: dict[tuple[Hashable, Hashable], HeadClass] = {}
        self.lacks: SchedulerResourceKey | None = None
        self.seen: int = 0
        self.is_alone: bool = False
        self.alone_seen: int = -1
        self.unsettled: set[QueuedGroup] = set()


class HeadClass:
    """Heads of one bucket that stand the same, and by `aspect` are the same to whoever asks. Names their lane.

    lane: where its heads stand in fair order, while it has any. front, place: where the class stands among all, see
    `_task/fronts.py`.
    """

    __slots__ = ("aspect", "bucket", "count", "front", "kind", "lane", "place", "standing")

    lane: FairLane[QueuedGroup]

    def __init__(self, bucket: HeadBucket, standing: Hashable, aspect: Hashable, kind: StandingKind) -> None:
        self.bucket: HeadBucket = bucket
        self.kind: StandingKind = kind
        self.standing: Hashable = standing
        self.aspect: Hashable = aspect
        self.count: int = 0
        self.front: object | None = None
        self.place: FairPlace[QueuedGroup] | None = None

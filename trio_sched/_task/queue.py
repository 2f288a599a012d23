"""The ready queue: which ready task is next, fairly.

Tasks wait in groups, first in, first out. The first task of a group is its *head*, and only heads can be selected.
`FairOrder` says which group is next: every group gets service in proportion to its weight.

`select_next` asks about one head after the other, in fair order, until one is eligible. A head that is refused is
skipped: it keeps its place, and earns no credit. Selecting changes nothing. `commit` takes the selected task out, and
charges its group one unit of service at the weight of that task. A selection is stale when its task is no longer the
head of its group, and only then.

Asking about every head would be slow where hundreds of groups wait for a resource that is used up. So the heads stand
in *lanes*, one for each distinct resource request. There are few of these, however many groups there are. Where the
eligibility can tell that a request does not fit now (see `Eligibility`), its whole lane is skipped after one look.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar, cast, overload, runtime_checkable

import attrs
import trio

from trio_sched._errors import InvalidTypeError
from trio_sched._fair import FairOrder
from trio_sched._resources.task import (
    SchedulableTask,
    SchedulerResourceKey,
    SchedulerResourceRequest,
    TaskGroupKey,
    TaskGroupSpec,
)

__all__ = [
    "Eligibility",
    "FairTaskQueue",
    "HeadsByRequest",
    "Lane",
    "LiveMapping",
    "QueueSelection",
    "QueueView",
    "QueuedGroup",
    "QueuedGroups",
    "exact_weight",
    "heads_of",
    "heads_with",
]

IsEligible: TypeAlias = "Callable[[SchedulableTask, QueueView], bool]"

K = TypeVar("K")
V = TypeVar("V")
S = TypeVar("S")
D = TypeVar("D")

_ABSENT: Final = object()
_WEIGHT_UNITS: Final = 1 << 1074


@lru_cache(maxsize=1024)
def exact_weight(weight: float) -> int:
    """`weight` as a multiple of the smallest positive float, so that sums of weights are exact."""
    numerator, denominator = weight.as_integer_ratio()
    return numerator * (_WEIGHT_UNITS // denominator)


@runtime_checkable
class Eligibility(Protocol):
    """An eligibility that can be asked about many heads in one state.

    `select_next` takes any callable. If it is the `is_eligible` method of an object that satisfies this protocol, such
    as a `TaskAdmissionController` or an object that wraps one, the other two methods are used, and choose alike.
    """

    def is_eligible(self, item: SchedulableTask, queue_view: QueueView) -> bool:
        """Whether `item` may run now. Changes nothing."""
        ...

    def fits(self, request: SchedulerResourceRequest) -> bool:
        """False only if no head that asks for `request` is eligible now."""
        ...

    def allows(self, queue_view: QueueView) -> Callable[[SchedulableTask], bool]:
        """`is_eligible` as a function of heads whose requests fit. It is good for as long as nothing changes."""
        ...


def _check_tasks(items: Iterable[object]) -> None:
    for item in items:
        if not isinstance(item, SchedulableTask):
            raise InvalidTypeError("an item to enqueue", item, "a SchedulableTask")


def _ask(is_eligible: IsEligible, queue_view: QueueView, head: SchedulableTask) -> bool:
    return is_eligible(head, queue_view)


class QueuedGroup:
    """A group with queued tasks. demand: the units that they ask for in all."""

    __slots__ = ("demand", "head", "items", "key")

    def __init__(self, key: TaskGroupKey, head: SchedulableTask) -> None:
        self.key: TaskGroupKey = key
        self.head: SchedulableTask = head
        # A plain dict would search past all that were taken from its front to find its first item.
        self.items: OrderedDict[str, SchedulableTask] = OrderedDict()
        self.demand: dict[SchedulerResourceKey, int] = {}

    def add(self, item: SchedulableTask) -> None:
        """Queue `item` behind the others."""
        self.items[item.task_id] = item
        demand = self.demand
        for resource, amount in item.resource_request.amounts.items():
            demand[resource] = demand.get(resource, 0) + amount

    def remove(self, item: SchedulableTask) -> None:
        """Take `item` out; it may remain the head for a moment."""
        del self.items[item.task_id]
        demand = self.demand
        for resource, amount in item.resource_request.amounts.items():
            rest = demand[resource] - amount
            if rest:
                demand[resource] = rest
            else:
                del demand[resource]


class Lane:
    """The groups whose heads ask for `request`. weight: the exact sum of their heads' weights."""

    __slots__ = ("groups", "request", "weight")

    def __init__(self, request: SchedulerResourceRequest) -> None:
        self.request = request
        self.groups: dict[QueuedGroup, None] = {}
        self.weight = 0


class HeadsByRequest:
    """All heads in their lanes.

    lanes_of: for each resource, the lanes whose request names it. multi_unit_lanes: those whose request names several
    units of one resource, or several resources that it competes for.
    """

    def __init__(self, groups: Iterable[QueuedGroup] = ()) -> None:
        self.lanes: dict[SchedulerResourceRequest, Lane] = {}
        self.lanes_of: dict[SchedulerResourceKey, dict[Lane, None]] = {}
        self.multi_unit_lanes: dict[Lane, None] = {}
        for group in groups:
            self.add(group)

    def add(self, group: QueuedGroup) -> SchedulerResourceRequest:
        """Put the group into the lane of its head, and return the request that names the lane."""
        request = group.head.resource_request
        lane = self.lanes.get(request)
        if lane is None:
            lane = self.lanes[request] = Lane(request)
            for resource in request.amounts:
                self.lanes_of.setdefault(resource, {})[lane] = None
            if len(request.competed_for) > 1 or max(request.amounts.values()) > 1:
                self.multi_unit_lanes[lane] = None
        lane.groups[group] = None
        lane.weight += exact_weight(group.head.group.weight)
        return lane.request

    def remove(self, group: QueuedGroup, head: SchedulableTask) -> None:
        """Take the group, which stands where `head` put it, out of its lane."""
        lane = self.lanes[head.resource_request]
        del lane.groups[group]
        lane.weight -= exact_weight(head.group.weight)
        if not lane.groups:
            del self.lanes[lane.request]
            self.multi_unit_lanes.pop(lane, None)
            for resource in lane.request.amounts:
                del self.lanes_of[resource][lane]
                if not self.lanes_of[resource]:
                    del self.lanes_of[resource]


class QueuedGroups:
    """The state of a queue, for the parts of this package: its groups, their heads in lanes, and the fair order.

    by_key: the groups that have queued tasks. by_task: of each queued task's id the group. version: rises with every
    change.
    """

    def __init__(self) -> None:
        self.by_key: dict[TaskGroupKey, QueuedGroup] = {}
        self.by_task: dict[str, QueuedGroup] = {}
        self.order: FairOrder[TaskGroupKey] = FairOrder()
        self.heads: HeadsByRequest = HeadsByRequest()
        self.version: int = 0

    def rank(self, group: QueuedGroup) -> tuple[float, int]:
        """The place of a group with queued tasks in fair order, smaller is earlier. Valid until the next change."""
        return self.order.rank(group.key)


class LiveMapping(Mapping[K, V], Generic[K, V, S]):
    """What `read` makes of each value of a mapping that somebody else keeps. Zeros are absent if `omit_zero`.

    It shows the present, costs nothing until it is read, and copies nothing.
    """

    __slots__ = ("_kept", "_omit_zero", "_read")

    def __init__(self, kept: Mapping[K, S], read: Callable[[S], V], *, omit_zero: bool = False) -> None:
        self._kept = kept
        self._read = read
        self._omit_zero = omit_zero

    def __getitem__(self, key: K) -> V:
        value = self._read(self._kept[key])
        if self._omit_zero and not value:
            raise KeyError(key)
        return value

    @overload
    def get(self, key: K, default: None = None, /) -> V | None: ...
    @overload
    def get(self, key: K, default: V, /) -> V: ...
    @overload
    def get(self, key: K, default: D, /) -> V | D: ...
    def get(self, key: K, default: Any = None, /) -> Any:
        """As of any mapping, but without raising inside for a key that is absent, as most groups are."""
        kept = self._kept.get(key, _ABSENT)
        if kept is _ABSENT:
            return default
        value = self._read(cast("S", kept))
        return default if self._omit_zero and not value else value

    def __iter__(self) -> Iterator[K]:
        if self._omit_zero:
            return (key for key, value in self._kept.items() if self._read(value))
        return iter(self._kept)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(dict(self))


@attrs.frozen
class QueueView:
    """Who is queued, by group, and what each group's head asks for. Facts without judgement.

    A view that a queue hands out is live and read-only: it costs nothing, and shows every later change. `snapshot()`
    freezes it. The mappings inside its mappings are of the instant at which they were asked for. Only a live view has
    `groups`, the state of the queue that it shows.
    """

    queued_total: int
    queued_by_group: Mapping[TaskGroupKey, int]
    queued_resource_demand_by_group: Mapping[TaskGroupKey, Mapping[SchedulerResourceKey, int]]
    first_candidate_resources_by_group: Mapping[TaskGroupKey, Mapping[SchedulerResourceKey, int]]
    first_candidate_tasks_by_group: Mapping[TaskGroupKey, SchedulableTask]
    first_candidate_group_specs_by_group: Mapping[TaskGroupKey, TaskGroupSpec]
    queued_peer_demand_by_resource: Mapping[SchedulerResourceKey, int]
    groups: QueuedGroups | None = attrs.field(default=None, eq=False, repr=False)

    def snapshot(self) -> QueueView:
        """This view at this instant; later changes do not show in it."""
        return QueueView(
            self.queued_total,
            MappingProxyType(dict(self.queued_by_group)),
            MappingProxyType(
                {key: MappingProxyType(dict(demand)) for key, demand in self.queued_resource_demand_by_group.items()}
            ),
            MappingProxyType(dict(self.first_candidate_resources_by_group)),
            MappingProxyType(dict(self.first_candidate_tasks_by_group)),
            MappingProxyType(dict(self.first_candidate_group_specs_by_group)),
            MappingProxyType(dict(self.queued_peer_demand_by_resource)),
        )


def heads_of(view: QueueView) -> HeadsByRequest:
    """The heads that `view` shows, in their lanes."""
    return HeadsByRequest(_shown_by(view)) if view.groups is None else view.groups.heads


def heads_with(view: QueueView, item: SchedulableTask) -> HeadsByRequest:
    """The heads that `view` shows, in their lanes, with `item` as the head of its group, and last."""
    others = _shown_by(view) if view.groups is None else view.groups.by_key.values()
    key = item.group.key
    return HeadsByRequest([*(group for group in others if group.key != key), QueuedGroup(key, item)])


def _shown_by(view: QueueView) -> Iterator[QueuedGroup]:
    """The groups of a frozen view. One that was made by hand may leave out tasks and specs."""
    tasks, specs = view.first_candidate_tasks_by_group, view.first_candidate_group_specs_by_group
    for key, amounts in view.first_candidate_resources_by_group.items():
        head = tasks.get(key)
        if head is None:
            spec = specs.get(key, TaskGroupSpec(key))
            head = SchedulableTask("", None, spec, SchedulerResourceRequest(amounts))
        yield QueuedGroup(key, head)


class _TotalDemand(Mapping[SchedulerResourceKey, int]):
    """The units that all queued tasks ask for, summed when somebody looks."""

    __slots__ = ("_groups",)

    def __init__(self, groups: Mapping[TaskGroupKey, QueuedGroup]) -> None:
        self._groups = groups

    def _sums(self) -> dict[SchedulerResourceKey, int]:
        sums: dict[SchedulerResourceKey, int] = {}
        for group in self._groups.values():
            for resource, amount in group.demand.items():
                sums[resource] = sums.get(resource, 0) + amount
        return sums

    def __getitem__(self, key: SchedulerResourceKey) -> int:
        return self._sums()[key]

    def __iter__(self) -> Iterator[SchedulerResourceKey]:
        return iter(self._sums())

    def __len__(self) -> int:
        return len(self._sums())

    def __repr__(self) -> str:
        return repr(self._sums())


@attrs.frozen
class QueueSelection:
    """The item that is next, at the queue's `sequence_version`. It stays good while the item is its group's head."""

    item: SchedulableTask
    queue_view: QueueView
    sequence_version: int


class FairTaskQueue:
    """Ready tasks in weighted fair order over their groups. Synchronous; belongs to one task."""

    def __init__(self) -> None:
        self._groups = QueuedGroups()
        self._asked: tuple[IsEligible, Eligibility | None] | None = None
        groups = self._groups.by_key
        self._view = QueueView(
            queued_total=0,
            queued_by_group=LiveMapping(groups, lambda group: len(group.items)),
            queued_resource_demand_by_group=LiveMapping(groups, lambda group: MappingProxyType(group.demand)),
            first_candidate_resources_by_group=LiveMapping(groups, lambda group: group.head.resource_request.amounts),
            first_candidate_tasks_by_group=LiveMapping(groups, lambda group: group.head),
            first_candidate_group_specs_by_group=LiveMapping(groups, lambda group: group.head.group),
            queued_peer_demand_by_resource=_TotalDemand(groups),
            groups=self._groups,
        )

    def __len__(self) -> int:
        return len(self._groups.by_task)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._groups.by_task

    def __repr__(self) -> str:
        return f"<FairTaskQueue: {len(self._groups.by_task)} tasks in {len(self._groups.by_key)} groups>"

    @trio.lowlevel.enable_ki_protection
    def enqueue(self, items: Iterable[SchedulableTask]) -> tuple[str, ...]:
        """Queue those items whose ids are not queued; return their ids.

        Raises InvalidTypeError, and queues nothing, if any of them is no `SchedulableTask`.
        """
        groups, accepted = self._groups, list[str]()
        items = tuple(items)
        _check_tasks(items)
        for item in items:
            task_id, key = item.task_id, item.group.key
            if task_id in groups.by_task:
                continue
            group = groups.by_key.get(key)
            if group is None:
                group = groups.by_key[key] = QueuedGroup(key, item)
                groups.order.activate(key, groups.heads.add(group), weight=item.group.weight)
            group.add(item)
            groups.by_task[task_id] = group
            accepted.append(task_id)
        if accepted:
            self._changed()
        return tuple(accepted)

    def select_next(self, is_eligible: IsEligible) -> QueueSelection | None:
        """The first head in fair order that is eligible, or None. Changes nothing."""
        groups, view, eligibility = self._groups, self._view, self._eligibility(is_eligible)
        lanes = groups.heads.lanes
        requests = list(lanes if eligibility is None else filter(eligibility.fits, lanes))
        if not requests:
            return None
        allows = partial(_ask, is_eligible, view) if eligibility is None else eligibility.allows(view)
        for key in groups.order.ranked(*requests):
            head = groups.by_key[key].head
            if allows(head):
                return QueueSelection(head, view, groups.version)
        return None

    @trio.lowlevel.enable_ki_protection
    def commit(self, selection: QueueSelection) -> SchedulableTask | None:
        """Take the selected item out and charge its group; None if it is no longer its group's head."""
        item = selection.item
        group = self._groups.by_task.get(item.task_id)
        if group is None or group.head is not item:
            return None
        self._groups.order.serve(group.key, item.group.weight)
        self._remove(group, item)
        return item

    @trio.lowlevel.enable_ki_protection
    def discard(self, task_id: str) -> bool:
        """Take the item out without charging its group; whether it was queued."""
        group = self._groups.by_task.get(task_id)
        if group is None:
            return False
        self._remove(group, group.items[task_id])
        return True

    def discard_where(self, predicate: Callable[[SchedulableTask], bool]) -> tuple[str, ...]:
        """Discard every item that `predicate` holds for; return their ids."""
        queued = self._groups.by_task.items()
        chosen = tuple(task_id for task_id, group in queued if predicate(group.items[task_id]))
        return tuple(task_id for task_id in chosen if self.discard(task_id))

    def view(self) -> QueueView:
        """The live view: always the same object, always the present state."""
        return self._view

    def _eligibility(self, is_eligible: IsEligible) -> Eligibility | None:
        """The owner of `is_eligible`, if it can be asked about many heads. Mostly the same as last time."""
        if self._asked is None or self._asked[0] != is_eligible:
            owner = getattr(is_eligible, "__self__", None)
            known = isinstance(owner, Eligibility) and is_eligible == owner.is_eligible
            self._asked = is_eligible, owner if known else None
        return self._asked[1]

    def _remove(self, group: QueuedGroup, item: SchedulableTask) -> None:
        groups = self._groups
        del groups.by_task[item.task_id]
        group.remove(item)
        if not group.items:
            groups.heads.remove(group, item)
            groups.order.deactivate(group.key)
            del groups.by_key[group.key]
        elif item is group.head:
            head = group.head = next(iter(group.items.values()))
            # Most groups ask for the same with every task, under the same spec, and stay where they are.
            if head.resource_request is not item.resource_request or head.group is not item.group:
                groups.heads.remove(group, item)
                groups.order.move(group.key, groups.heads.add(group))
        self._changed()

    def _changed(self) -> None:
        self._groups.version += 1
        object.__setattr__(self._view, "queued_total", len(self._groups.by_task))  # frozen to whoever holds it

"""Who competes with whom for what: the common ground of both policies.

Both judge a group against its *peers*: the other groups whose heads ask for a resource that the item competes for, and
find their own units free now. A peer is *entitled* if it could run by its own right, whoever else is queued. Only an
entitled peer holds anybody back, so whenever somebody is held back there is somebody else who may run: two groups that
are both beyond their right never block each other.

An entitled item is allowed. Any other is refused a resource that an entitled peer competes for; otherwise it is up to
the policy. As entitlement is a matter of a group's standing, all heads of one class (`_task/heads.py`) have the same.
On a live view the field of competitors is therefore summed over classes, once for every state of queue and ledger; on
any other view it is gathered from the heads that the view shows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Final, Generic, TypeVar, cast

from trio_sched._resources.task import (
    SchedulableTask,
    SchedulerResourceKey,
    SchedulerResourceRequest,
    TaskGroupSpec,
)
from trio_sched._task.heads import ClassedHeads, StandingKind, Verdict, exact_weight
from trio_sched._task.leases import TaskAdmissionView
from trio_sched._task.queue_view import QueueView
from trio_sched._task.reservations import has_room_in

__all__ = ["ClassedCompetition", "Competition", "PeerPolicy"]

S = TypeVar("S", bound=Hashable)

_ALONE: Final = (0, 1)


class Competition(ABC, Generic[S]):
    """Who competes for which resource, in one state of queue and ledger."""

    __slots__ = ("_contested", "_field", "admission_view", "policy")

    def __init__(self, policy: PeerPolicy[S], admission_view: TaskAdmissionView) -> None:
        self.policy: PeerPolicy[S] = policy
        self.admission_view: TaskAdmissionView = admission_view
        self._field: dict[SchedulerResourceKey, tuple[int, int]] = {}
        self._contested: dict[SchedulerResourceKey, bool] = {}

    def field(self, resource: SchedulerResourceKey) -> tuple[int, int]:
        """Exact weight and number of the groups that compete for `resource`; of one alone the weight is not told."""
        found = self._field.get(resource)
        if found is None:
            found = self._field[resource] = self._sum(resource)
        return found

    def is_contested(self, resource: SchedulerResourceKey) -> bool:
        """Whether an entitled head asks for `resource`. To a group that is not entitled itself, that is a peer's.

        Where only one head asks for it the answer is no: nobody is its own peer.
        """
        found = self._contested.get(resource)
        if found is None:
            found = self._contested[resource] = self._has_entitled(resource)
        return found

    def is_contested_for(self, request: SchedulerResourceRequest) -> bool:
        """Whether any resource that `request` competes for is contested."""
        return any(self.is_contested(resource) for resource in request.competed_for)

    def is_surely_within_share(self, resource: SchedulerResourceKey, units: int, weight: float) -> bool:
        """Whether `units` are within the share of a group of that weight, whoever of those queued competes with it.

        A look at totals. False only means that it cannot be told so soon.
        """
        return False

    def clear(self) -> None:
        """Forget what was found: the state is another."""
        self._field.clear()
        self._contested.clear()

    @abstractmethod
    def _sum(self, resource: SchedulerResourceKey) -> tuple[int, int]: ...

    @abstractmethod
    def _has_entitled(self, resource: SchedulerResourceKey) -> bool: ...


class ClassedCompetition(Competition[S]):
    """Read from the classes of heads of a live view."""

    __slots__ = ("_heads", "epoch")

    def __init__(self, policy: PeerPolicy[S], admission_view: TaskAdmissionView, heads: ClassedHeads) -> None:
        super().__init__(policy, admission_view)
        self._heads = heads
        self.epoch: int = heads.epoch

    def is_alone(self, request: SchedulerResourceRequest) -> bool:
        """Whether at most one head asks for anything that `request` competes for."""
        return all(self._heads.is_alone(resource) for resource in request.competed_for)

    def field(self, resource: SchedulerResourceKey) -> tuple[int, int]:
        return _ALONE if self._heads.is_alone(resource) else super().field(resource)

    def is_contested(self, resource: SchedulerResourceKey) -> bool:
        return not self._heads.is_alone(resource) and super().is_contested(resource)

    def is_surely_within_share(self, resource: SchedulerResourceKey, units: int, weight: float) -> bool:
        own = exact_weight(weight)
        # Who competes alone has one imagined equal peer.
        most = max(self._heads.weight(resource), 2 * own)
        return units * most <= self.admission_view.resource_limits[resource] * own

    def _sum(self, resource: SchedulerResourceKey) -> tuple[int, int]:
        weight = groups = 0
        for bucket in self._heads.with_room(resource):
            weight += bucket.exact_weight
            groups += bucket.count
        return weight, groups

    def _has_entitled(self, resource: SchedulerResourceKey) -> bool:
        is_entitled = self.policy.is_entitled
        for bucket in self._heads.with_room(resource):
            for each in bucket.classes.values():
                # An index knows standings as hashables only. Its source's policy is this one, so they are this one's.
                if each.kind == "entitled" or (
                    each.kind == "depends" and is_entitled(cast("S", each.standing), bucket.request, self)
                ):
                    return True
        return False


class _ListedCompetition(Competition[S]):
    __slots__ = ("_heads",)

    def __init__(
        self, policy: PeerPolicy[S], admission_view: TaskAdmissionView, heads: Sequence[SchedulableTask]
    ) -> None:
        super().__init__(policy, admission_view)
        self._heads = heads

    def _sum(self, resource: SchedulerResourceKey) -> tuple[int, int]:
        weights = [exact_weight(head.group.weight) for head in self._heads if resource in head.resource_request.amounts]
        return sum(weights), len(weights)

    def _has_entitled(self, resource: SchedulerResourceKey) -> bool:
        policy, view = self.policy, self.admission_view
        return any(
            resource in head.resource_request.amounts
            and policy.is_entitled(policy.standing(head, view), head.resource_request, self)
            for head in self._heads
        )


class PeerPolicy(ABC, Generic[S]):
    """What both policies share: how a group stands, and who its competitors are."""

    @abstractmethod
    def standing(self, item: SchedulableTask, admission_view: TaskAdmissionView) -> S:
        """All that entitlement and verdict depend on besides the request and the competition."""

    @abstractmethod
    def is_entitled(self, standing: S, request: SchedulerResourceRequest, competition: Competition[S]) -> bool:
        """Whether a head that stands and asks like that may run whoever else is queued."""

    @abstractmethod
    def kind(self, standing: S) -> StandingKind:
        """Whether such a standing alone decides who is entitled."""

    @property
    @abstractmethod
    def lone_verdict(self) -> Verdict | None:
        """What is said of an item that competes with nobody, where that does not depend on how its group stands."""

    @abstractmethod
    def verdict(self, standing: S, request: SchedulerResourceRequest, competition: ClassedCompetition[S]) -> Verdict:
        """Whether heads that stand and ask like that, and have room, may run. Not asked of a kind that is entitled."""

    def class_verdict(
        self, request: SchedulerResourceRequest, standing: S, heads: ClassedHeads, admission_view: TaskAdmissionView
    ) -> Verdict:
        """Whether the heads of a class that has room may run."""
        return self.verdict(standing, request, self._among_classes(heads, admission_view))

    def competition(
        self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
    ) -> Competition[S]:
        """Who competes now, with `item` as head of its group."""
        index = queue_view.heads
        if index is not None:
            source = admission_view.source
            is_shown = source is not None and index.shows(source) and source.policy is self
            if is_shown and index.is_head_with_room(item):
                return self._among_classes(index, admission_view)
        return _ListedCompetition(self, admission_view, _heads_with_room(item, queue_view, admission_view))

    def _among_classes(self, heads: ClassedHeads, admission_view: TaskAdmissionView) -> ClassedCompetition[S]:
        known = heads.memo
        if not isinstance(known, ClassedCompetition):
            found: ClassedCompetition[S] = ClassedCompetition(self, admission_view, heads)
            heads.memo = found
            return found
        found = cast("ClassedCompetition[S]", known)
        if found.epoch != heads.epoch:
            found.clear()
            found.epoch = heads.epoch
        return found


def _heads_with_room(
    item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
) -> list[SchedulableTask]:
    """`item`, and of all other groups the heads whose units are free. A view made by hand may leave out the tasks."""
    own_group = item.group.key
    heads = [item]
    tasks = queue_view.first_candidate_tasks_by_group
    specs = queue_view.first_candidate_group_specs_by_group
    for group, amounts in queue_view.first_candidate_resources_by_group.items():
        if group != own_group:
            head = tasks.get(group)
            if head is None:
                spec = specs.get(group, TaskGroupSpec(group))
                head = SchedulableTask("", None, spec, SchedulerResourceRequest(amounts))
            if has_room_in(admission_view, head, tasks):
                heads.append(head)
    return heads

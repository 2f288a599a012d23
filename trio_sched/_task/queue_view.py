"""What the ready queue looks like: facts without judgement, for policies, events and people."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import attrs

from trio_sched._fast_constructor import fast_constructor
from trio_sched._resources.task import SchedulableTask, SchedulerResourceKey, TaskGroupKey, TaskGroupSpec
from trio_sched._task.head_index import HeadIndex

__all__ = ["QueueSelection", "QueueView", "make_selection"]


@attrs.frozen
class QueueView:
    """Who is queued, by group, and what each group's head asks for.

    A view that a queue hands out is live and read-only: it costs nothing and shows every later change. `snapshot()`
    freezes it. The mappings inside its mappings are of the instant at which they were asked for. Only a live view has
    `heads`, the queue's index through which a policy sums over few classes instead of many groups.
    """

    queued_total: int
    queued_by_group: Mapping[TaskGroupKey, int]
    queued_resource_demand_by_group: Mapping[TaskGroupKey, Mapping[SchedulerResourceKey, int]]
    first_candidate_resources_by_group: Mapping[TaskGroupKey, Mapping[SchedulerResourceKey, int]]
    first_candidate_tasks_by_group: Mapping[TaskGroupKey, SchedulableTask]
    first_candidate_group_specs_by_group: Mapping[TaskGroupKey, TaskGroupSpec]
    queued_peer_demand_by_resource: Mapping[SchedulerResourceKey, int]
    heads: HeadIndex | None = attrs.field(default=None, eq=False, repr=False)

    def snapshot(self) -> QueueView:
        """This view at this instant; later changes do not show in it."""
        return QueueView(
            self.queued_total,
            MappingProxyType(dict(self.queued_by_group)),
            MappingProxyType(
                {
                    group: MappingProxyType(dict(demand))
                    for group, demand in self.queued_resource_demand_by_group.items()
                }
            ),
            MappingProxyType(dict(self.first_candidate_resources_by_group)),
            MappingProxyType(dict(self.first_candidate_tasks_by_group)),
            MappingProxyType(dict(self.first_candidate_group_specs_by_group)),
            MappingProxyType(dict(self.queued_peer_demand_by_resource)),
        )


@attrs.frozen(weakref_slot=False)
class QueueSelection:
    """The item that is next, at the queue's `sequence_version`. It stays good while the item is its group's head."""

    item: SchedulableTask
    queue_view: QueueView
    sequence_version: int


make_selection = fast_constructor(QueueSelection)
"""Makes one where it is made for every task."""

"""The most of each of the scheduler's own capacities that was ever in use at once, for the capacity plan."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

import attrs

from trio_sched._resources.task import SchedulerResourceKey, TaskGroupKey

__all__ = ["CapacityPeaks"]

K = TypeVar("K", bound=Hashable)


@attrs.define(eq=False)
class CapacityPeaks:
    """queued: tasks by group. leased: units by resource."""

    queued: dict[TaskGroupKey, int] = attrs.field(factory=dict[TaskGroupKey, int], init=False)
    leased: dict[SchedulerResourceKey, int] = attrs.field(factory=dict[SchedulerResourceKey, int], init=False)

    def note_queued(self, groups: Iterable[TaskGroupKey], counts: Mapping[TaskGroupKey, int]) -> None:
        """These groups have more in the queue than before."""
        _keep_highest(self.queued, groups, counts)

    def note_leased(
        self, resources: Iterable[SchedulerResourceKey], counts: Mapping[SchedulerResourceKey, int]
    ) -> None:
        """More of these resources is leased than before."""
        _keep_highest(self.leased, resources, counts)


def _keep_highest(peaks: dict[K, int], keys: Iterable[K], counts: Mapping[K, int]) -> None:
    for key in keys:
        count = counts.get(key, 0)
        if count > peaks.get(key, 0):
            peaks[key] = count

"""How the ready queue learns that many heads share one fate.

`FairTaskQueue.select_next` takes any callable. If that is the `is_eligible` method of an object that satisfies
`LaneEligibility`, the queue keeps its heads in classes and examines only the first of each; any other callable is asked
about one head after the other, in fair order. Both find the same item.

An object that wraps a controller's eligibility, to prefer some heads over others, satisfies the protocol by returning
the controller's `standings` and, as `aspect`, whatever its own answer depends on. Of heads with the same request and
aspect it must not prefer those whose groups hold or owe more: no queue is told of a group that comes to stand worse.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol, runtime_checkable

from trio_sched._resources.task import SchedulableTask
from trio_sched._task.heads import StandingSource
from trio_sched._task.queue_view import QueueView

__all__ = ["LaneEligibility", "no_aspect"]


def no_aspect(head: SchedulableTask) -> Hashable:
    """The `aspect` of a controller itself: nothing but standing tells heads apart, and no entitled head is refused."""
    return None


@runtime_checkable
class LaneEligibility(Protocol):
    """Eligibility whose answers are shared by heads of equal request, claim, standing and aspect."""

    @property
    def standings(self) -> StandingSource | None:
        """Who says how groups stand; None if answers are shared by nobody."""
        ...

    def aspect(self, head: SchedulableTask) -> Hashable:
        """All about `head` that the owner's own answer depends on; it must not change while `head` is queued."""
        ...

    def is_eligible(self, item: SchedulableTask, queue_view: QueueView) -> bool:
        """Whether `item` may run now. Changes nothing. Never true where the controller sees no room or refuses."""
        ...

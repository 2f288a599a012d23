"""Both streams of a run as one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from trio_sched._events.request import RequestAdmissionEvent
from trio_sched._events.scheduler import SchedulerAdmissionEvent

__all__ = ["AdmissionEvent", "merged_by_time"]

AdmissionEvent: TypeAlias = SchedulerAdmissionEvent | RequestAdmissionEvent


def merged_by_time(
    scheduler_events: Iterable[SchedulerAdmissionEvent], request_events: Iterable[RequestAdmissionEvent]
) -> Iterator[AdmissionEvent]:
    """The events of both, read one at a time. Of two events of one instant the scheduler's comes first."""
    # By hand: heapq.merge takes four times as long.
    scheduler, request = iter(scheduler_events), iter(request_events)
    one, other = next(scheduler, None), next(request, None)
    while one is not None and other is not None:
        if one.captured_at_monotonic <= other.captured_at_monotonic:
            yield one
            one = next(scheduler, None)
        else:
            yield other
            other = next(request, None)
    if one is not None:
        yield one
        yield from scheduler
    if other is not None:
        yield other
        yield from request

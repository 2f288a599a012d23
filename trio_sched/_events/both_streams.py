"""Both streams of a run as one."""

from __future__ import annotations

import heapq
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
    streams: tuple[Iterable[AdmissionEvent], ...] = (scheduler_events, request_events)
    return heapq.merge(*streams, key=lambda event: event.captured_at_monotonic)

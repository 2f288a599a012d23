"""Where a queued request sleeps until it is decided: the one place that talks to Trio's scheduler directly.

A waiter is woken by whoever decided it, with the decision already on it, so nothing can be lost between the two. If it
is cancelled first, `abandon` runs at that moment, before any other task: the waiter is out of the queue before anybody
else is considered. If it was decided first, a cancellation comes too late, and it returns normally.

*One after another.* Trio runs whatever is ready in one batch, and from its lease to its socket a client takes some
fifteen steps. If many waiters woke in one batch, their steps would take turns: no request leaves before nearly all of
them do, so their answers come together too, and the leases that these free are granted in one batch again. Each permit
would then idle for as long as the client needs for all the calls, once in each call. So a waiter with a lease is woken
by the one before it, when that runs. The requests leave one by one, the answers come one by one, and the client is free
when one does. With 24 calls of 0.3 s at once over the SDK, 0.97 of the limit is in flight at the provider, not 0.87
(`benchmarks/race`). Refusals cost no work, so refused waiters wake at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import trio

from trio_sched._request.leases import RequestAdmissionLease
from trio_sched._request.queue import RequestWaiter

__all__ = ["Parking"]


class Parking:
    """Where the waiters of one controller sleep. abandon: takes a cancelled waiter out of the queue."""

    __slots__ = ("_abandon", "_line", "_waking")

    def __init__(self, abandon: Callable[[RequestWaiter], None]) -> None:
        self._abandon = abandon
        # The tasks to wake, and whether one is awake that has not run yet: it wakes the next, so none is left behind.
        self._line: deque[trio.lowlevel.Task] = deque()
        self._waking = False

    async def park(self, waiter: RequestWaiter) -> None:
        """Sleep until `wake`; if cancelled before there is a decision, abandon the waiter and raise."""

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            if waiter.decision is not None:
                return trio.lowlevel.Abort.FAILED
            self._abandon(waiter)
            return trio.lowlevel.Abort.SUCCEEDED

        waiter.task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)
        if isinstance(waiter.decision, RequestAdmissionLease):
            self._wake_next()

    def wake(self, waiters: Iterable[RequestWaiter]) -> None:
        """Wake decided waiters; one that is not asleep yet will see its decision before it falls asleep."""
        for waiter in waiters:
            if waiter.task is None:
                continue
            if isinstance(waiter.decision, RequestAdmissionLease):
                self._line.append(waiter.task)
            else:
                trio.lowlevel.reschedule(waiter.task)
        if not self._waking:
            self._wake_next()

    def _wake_next(self) -> None:
        self._waking = bool(self._line)
        if self._line:
            trio.lowlevel.reschedule(self._line.popleft())

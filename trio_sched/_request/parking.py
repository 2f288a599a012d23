"""Where a queued request sleeps until it is decided: the one place that talks to Trio's scheduler directly.

A waiter is woken by whoever decided it, with the decision already on it, so nothing can be lost between the two. If it
is cancelled first, `abandon` runs at that moment, before any other task: the waiter is out of the queue before anybody
else is considered. If it was decided first, a cancellation in the same tick comes too late, and it returns normally.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from trio_sched._request.queue import RequestWaiter

__all__ = ["park", "wake"]


async def park(waiter: RequestWaiter, abandon: Callable[[RequestWaiter], None]) -> None:
    """Sleep until `wake`; on cancellation call `abandon`, then raise."""

    def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
        abandon(waiter)
        return trio.lowlevel.Abort.SUCCEEDED

    waiter.task = trio.lowlevel.current_task()
    await trio.lowlevel.wait_task_rescheduled(abort)


def wake(waiter: RequestWaiter) -> None:
    """Wake a decided waiter; one that is not asleep yet will see its decision before it falls asleep."""
    if waiter.task is not None:
        trio.lowlevel.reschedule(waiter.task)

"""The one task of an open controller: it judges what releases report, and it keeps time.

It sleeps until a report arrives or the next deadline comes. While nothing is due it arms no timer.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from trio_sched._request.adaptation import Ring

__all__ = ["supervise"]


async def supervise(
    reports: trio.MemoryReceiveChannel[Ring | None],
    next_deadline: Callable[[], float],
    judge: Callable[[Ring, float], None],
    advance: Callable[[float], None],
) -> None:
    """Run until cancelled. A report of None says that somebody else set an earlier deadline."""
    while True:
        deadline = next_deadline()
        ring: Ring | None = None
        if deadline == math.inf:
            ring = await reports.receive()
        else:
            with trio.move_on_at(deadline):
                ring = await reports.receive()
        now = trio.current_time()
        if ring is None:
            advance(now)
        else:
            judge(ring, now)

"""The Trio side of the core: carries out what an operation leaves to do, and keeps the one task that judges and waits.

Whoever has changed the core calls `carry_out`. Reports go to the task, or are judged at once where there is none;
waiters are woken with their decisions already on them; the task is told of an earlier deadline; and last, when the
change is complete, events are delivered.

The task sleeps until a report arrives or the next deadline comes. While nothing is due it arms no timer.
"""

from __future__ import annotations

import math
from contextlib import AbstractAsyncContextManager

import trio

from trio_sched._clock import run_clock
from trio_sched._events.sinks import RequestEventStream
from trio_sched._request.adaptation import Ring
from trio_sched._request.core import RequestAdmissionCore
from trio_sched._request.parking import wake
from trio_sched._unwrap import single_error

__all__ = ["RequestSupervisor"]


class RequestSupervisor:
    """Serves one core. Opened and closed once; before and after that, `carry_out` judges where it is called.

    A report of None says that somebody else set an earlier deadline. `_armed`: the deadline that the task sleeps for,
    or minus infinity while it is at work and will look by itself.
    """

    def __init__(self, core: RequestAdmissionCore, stream: RequestEventStream) -> None:
        self._core = core
        self._tellers = stream.tellers
        self._delivering = False
        self._nursery_manager: AbstractAsyncContextManager[trio.Nursery, bool | None] | None = None
        self._nursery: trio.Nursery | None = None
        self._reports: trio.MemorySendChannel[Ring | None] | None = None
        self._unread: trio.MemoryReceiveChannel[Ring | None] | None = None
        self._armed = math.inf

    @property
    def was_opened(self) -> bool:
        """Whether it is open, or was."""
        return self._nursery_manager is not None

    @property
    def is_open(self) -> bool:
        """Whether the task is there, without which nobody can wait."""
        return self._reports is not None

    async def open(self) -> None:
        """Start the task. `close` has to follow in the same task, as with a nursery. Does not checkpoint."""
        self._nursery_manager = trio.open_nursery()
        self._nursery = await self._nursery_manager.__aenter__()
        self._reports, self._unread = trio.open_memory_channel[Ring | None](math.inf)
        self._nursery.start_soon(self._supervise, self._unread, name="trio_sched request supervisor")

    async def close(self) -> None:
        """Refuse whoever waits, end the task, and judge what it has not come to. Raises what the task raised."""
        self._reports = None
        self._core.shutdown(run_clock())
        try:
            self.carry_out()
        finally:
            # Whatever a sink raised on the way here: an open nursery would break everything around it.
            await self._end_task()

    def carry_out(self) -> None:
        """Carry out what the core left to do."""
        core, reports = self._core, self._reports
        while core.rings:
            ring = core.rings.popleft()
            if reports is None:
                core.judge(ring, run_clock())
            else:
                reports.send_nowait(ring)
        if core.woken:
            woken, core.woken = core.woken, []
            for waiter in woken:
                wake(waiter)
        if reports is not None and core.next_deadline() < self._armed:
            self._armed = core.next_deadline()
            reports.send_nowait(None)
        if core.journal.pending and not self._delivering:
            self._deliver()

    @trio.lowlevel.disable_ki_protection
    def _deliver(self) -> None:
        """Hand events to the sink, in order even if the sink causes more of them."""
        pending, tellers = self._core.journal.pending, self._tellers
        self._delivering = True
        try:
            while pending:
                parts = pending.popleft()
                tellers[parts[0]](parts)
        finally:
            self._delivering = False

    async def _supervise(self, reports: trio.MemoryReceiveChannel[Ring | None]) -> None:
        """Run until cancelled."""
        while True:
            self._armed = deadline = self._core.next_deadline()
            ring: Ring | None = None
            if deadline == math.inf:
                ring = await reports.receive()
            else:
                with trio.move_on_at(deadline):
                    ring = await reports.receive()
            self._act(ring, trio.current_time())

    @trio.lowlevel.enable_ki_protection
    def _act(self, ring: Ring | None, now: float) -> None:
        """Judge a report, or let the time pass that is over."""
        self._armed = -math.inf
        if ring is None:
            self._core.advance(now)
        else:
            self._core.judge(ring, now)
        self.carry_out()

    async def _end_task(self) -> None:
        assert self._nursery_manager is not None
        assert self._nursery is not None
        assert self._unread is not None
        self._nursery.cancel_scope.shield = True
        self._nursery.cancel_scope.cancel()
        try:
            # The nursery never sees the error of a block, so it has nothing to wrap; what it raises is its own.
            with single_error():
                await self._nursery_manager.__aexit__(None, None, None)
        finally:
            now = run_clock()
            while self._unread.statistics().current_buffer_used:
                ring = self._unread.receive_nowait()
                if ring is not None:
                    self._core.judge(ring, now)
            self.carry_out()

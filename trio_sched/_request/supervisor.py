"""The Trio side of the core: carries out what an operation leaves to do, and runs the one task that changes limits.

Whoever has changed the core calls `carry_out`. Updates go to the task, or are applied at once where there is none;
waiters are woken with their decisions already on them; the task hears of an earlier deadline; and last, when the change
is complete, events are delivered.

The task sleeps until an update arrives or the next deadline comes. While nothing is due it arms no timer.

*It outlives those it serves.* A cancellation from outside, Ctrl-C included, reaches this task before it reaches a
caller who waits inside a shielded scope, and only this task ends a stop. So when it is cancelled, it goes on behind a
shield of its own. The stops that are in force run their course. After the last of them, the next stop refuses everybody
with `shutdown`: a shield may delay the end by the current hint, and no longer. Only `close` ends the task, and Ctrl-C
that strikes a sink in it: then everybody is refused at once.

*Where waiters sleep.* `Parking` is the one place that talks to Trio's scheduler directly. A waiter is woken with its
decision already on it, so nothing can be lost between the two. If it is cancelled first, it is out of the queue at that
moment, before any other task runs. If it was decided first, a cancellation comes too late, and it returns normally.

*One after another.* Trio runs whatever is ready in one batch, and from its lease to its socket a client takes a dozen
or more steps. If many waiters wake in one batch, their steps take turns: no request leaves before nearly all of them
do, so their answers come together too, and the leases that these free are granted in one batch again. In each round
every permit idles for as long as the client needs for all the calls. So a waiter with a lease is woken by the one
before it, when that runs: the first request is at the provider while the last waiter still sleeps. In single runs of
`benchmarks/race`, with 24 calls of 0.3 s at once over the SDK, some 0.96 of the limit was in flight at the provider and
not 0.87. In a program whose batches take long, that would keep permits idle instead, so nobody sleeps on its lease for
longer than `PATIENCE` and two batches. A refused waiter holds no permit, so it wakes at once, and a caller that finds
room does not sleep at all.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Final

import trio

from trio_sched._events.sinks import RequestEventStream
from trio_sched._request.core import RequestAdmissionCore
from trio_sched._request.leases import RequestAdmissionLease
from trio_sched._request.limit_updates import LimitUpdate
from trio_sched._request.queue import RequestWaiter
from trio_sched._util import run_clock, single_error

__all__ = ["PATIENCE", "Parking", "RequestSupervisor"]

PATIENCE: Final = 0.02
"""Seconds for which a waiter with a lease may be left asleep, so that those before it get ahead."""


class Parking:
    """Where the waiters of one controller sleep. abandon: takes a cancelled waiter out of the queue.

    While anybody with a lease sleeps, in `_line` and in the order of the grants, somebody is awake who has not run yet.
    """

    __slots__ = ("_abandon", "_line", "_somebody_wakes")

    def __init__(self, abandon: Callable[[RequestWaiter], None]) -> None:
        self._abandon = abandon
        self._line: deque[tuple[float, trio.lowlevel.Task]] = deque()
        self._somebody_wakes = False

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
            decision, task = waiter.decision, waiter.task
            if task is None:
                continue
            if isinstance(decision, RequestAdmissionLease):
                self._line.append((decision.acquired_at, task))
            else:
                trio.lowlevel.reschedule(task)
        if not self._somebody_wakes:
            self._wake_next()

    def _wake_next(self) -> None:
        line = self._line
        self._somebody_wakes = bool(line)
        if line:
            trio.lowlevel.reschedule(line.popleft()[1])
        if line:
            too_long = trio.current_time() - PATIENCE
            while line and line[0][0] <= too_long:
                trio.lowlevel.reschedule(line.popleft()[1])


class RequestSupervisor:
    """Serves one core. Opened and closed once; before and after that, `carry_out` applies updates where it is called.

    None in the channel says that somebody else set an earlier deadline. `_armed`: the deadline that the task sleeps
    for, or minus infinity while it is at work and will look by itself.
    """

    def __init__(self, core: RequestAdmissionCore, stream: RequestEventStream, parking: Parking) -> None:
        self._core = core
        self._parking = parking
        self._handlers = stream.handlers
        self._delivering = False
        self._nursery_manager: AbstractAsyncContextManager[trio.Nursery, bool | None] | None = None
        self._nursery: trio.Nursery | None = None
        self._task_scope = trio.CancelScope()
        self._updates: trio.MemorySendChannel[LimitUpdate | None] | None = None
        self._unread: trio.MemoryReceiveChannel[LimitUpdate | None] | None = None
        self._armed = math.inf

    @property
    def was_opened(self) -> bool:
        """Whether it is open, or was."""
        return self._nursery_manager is not None

    @property
    def is_open(self) -> bool:
        """Whether the task is there, without which nobody can wait."""
        return self._updates is not None

    async def open(self) -> None:
        """Start the task. `close` has to follow in the same task, as with a nursery. Does not checkpoint."""
        self._nursery_manager = trio.open_nursery()
        self._nursery = await self._nursery_manager.__aenter__()
        self._updates, self._unread = trio.open_memory_channel[LimitUpdate | None](math.inf)
        self._nursery.start_soon(self._supervise, self._unread, name="trio_sched request supervisor")

    async def close(self) -> None:
        """Refuse whoever waits, end the task, and apply what it has not come to. Raises what the task raised."""
        self._updates = None
        self._core.shutdown(run_clock())
        try:
            self.carry_out()
        finally:
            # Whatever a sink raised on the way here: an open nursery would break everything around it.
            await self._end_task()

    def carry_out(self) -> None:
        """Carry out what the core left to do."""
        core, updates = self._core, self._updates
        while core.updates:
            update = core.updates.popleft()
            if updates is None:
                core.apply(update, run_clock())
            else:
                updates.send_nowait(update)
        if core.woken:
            woken, core.woken = core.woken, []
            self._parking.wake(woken)
        if updates is not None and core.next_deadline() < self._armed:
            self._armed = core.next_deadline()
            updates.send_nowait(None)
        if core.events.pending and not self._delivering:
            self._deliver()

    @trio.lowlevel.disable_ki_protection
    def _deliver(self) -> None:
        """Hand events to the sink, in order even if the sink causes more of them."""
        pending, handlers = self._core.events.pending, self._handlers
        self._delivering = True
        try:
            while pending:
                event = pending.popleft()
                handle = handlers.get(event.event_kind)
                if handle is not None:
                    handle(event)
        finally:
            self._delivering = False

    @trio.lowlevel.enable_ki_protection
    async def _supervise(self, updates: trio.MemoryReceiveChannel[LimitUpdate | None]) -> None:
        """Run until `close`. Whatever else ends it, Ctrl-C inside a sink for one, leaves nobody waiting."""
        try:
            await self._serve_until_closed(updates)
        except trio.Cancelled:
            raise
        except BaseException:
            self._updates = None
            self._core.shutdown(trio.current_time())
            self.carry_out()
            raise

    async def _serve_until_closed(self, updates: trio.MemoryReceiveChannel[LimitUpdate | None]) -> None:
        try:
            while True:
                await self._serve(updates, math.inf)
        except trio.Cancelled:
            # Only `close` may end this task, and it cancels the scope that no shield holds off.
            with self._task_scope:
                self._task_scope.shield = True
                last_stop = self._core.last_stop()
                while trio.current_time() < last_stop:
                    await self._serve(updates, last_stop)
                while self._core.last_stop() == -math.inf:
                    await self._serve(updates, math.inf)
                self._core.shutdown(trio.current_time())
                self.carry_out()
                while True:
                    await self._serve(updates, math.inf)
            raise

    async def _serve(self, updates: trio.MemoryReceiveChannel[LimitUpdate | None], until: float) -> None:
        """Wait for one update or deadline, at most until `until`, and act on it."""
        self._armed = self._core.next_deadline()
        update: LimitUpdate | None = None
        deadline = min(self._armed, until)
        if deadline == math.inf:
            update = await updates.receive()
        else:
            with trio.move_on_at(deadline):
                update = await updates.receive()
        self._armed = -math.inf
        now = trio.current_time()
        if update is None:
            self._core.advance(now)
        else:
            self._core.apply(update, now)
        self.carry_out()

    async def _end_task(self) -> None:
        assert self._nursery_manager is not None
        assert self._nursery is not None
        assert self._unread is not None
        self._nursery.cancel_scope.shield = True
        self._nursery.cancel_scope.cancel()
        self._task_scope.cancel()
        try:
            # The nursery never sees the error of a block, so it has nothing to wrap; what it raises is its own.
            with single_error():
                await self._nursery_manager.__aexit__(None, None, None)
        finally:
            now = run_clock()
            while self._unread.statistics().current_buffer_used:
                update = self._unread.receive_nowait()
                if update is not None:
                    self._core.apply(update, now)
            self.carry_out()

"""Delivery: how an event reaches whoever wants it, without ever touching the run.

An `EventStream` stands between an owner of state and its sinks. It knows which kinds they want (asked once, when the
stream is made), numbers the events it delivers, and contains the failures of each sink: the first is logged, all are
counted, none reaches the owner. Several sinks are given together as a `FanOutEventSink`. An owner asks `kind in
stream.wanted` before it builds an event, so an event that nobody wants costs one set lookup. Owners deliver after their
state change is complete, never inside one.

A sink is any object with `emit_scheduler_event` or `emit_request_event`. It may also have
`accepts_scheduler_event(kind)` or `accepts_request_event(kind)`; without it the sink gets every kind.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from itertools import count
from typing import Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

import attrs
import trio

from trio_sched._events.request import REQUEST_EVENT_KINDS, RequestAdmissionEvent
from trio_sched._events.scheduler import SCHEDULER_EVENT_KINDS, SchedulerAdmissionEvent

__all__ = [
    "AnyAdmissionEventSink",
    "EventStream",
    "FanOutEventSink",
    "InMemoryAdmissionEventSink",
    "RequestAdmissionEventSink",
    "SchedulerAdmissionEventSink",
    "request_event_stream",
    "scheduler_event_stream",
]

logger = logging.getLogger("trio_sched.events")

E = TypeVar("E", SchedulerAdmissionEvent, RequestAdmissionEvent)


@runtime_checkable
class SchedulerAdmissionEventSink(Protocol):
    """Receives scheduler events, synchronously and in order."""

    def emit_scheduler_event(self, event: SchedulerAdmissionEvent, /) -> None:
        """Take one event. Must not block."""
        ...


@runtime_checkable
class RequestAdmissionEventSink(Protocol):
    """Receives request events, synchronously and in order."""

    def emit_request_event(self, event: RequestAdmissionEvent, /) -> None:
        """Take one event. Must not block."""
        ...


AnyAdmissionEventSink: TypeAlias = SchedulerAdmissionEventSink | RequestAdmissionEventSink


@attrs.define(eq=False)
class EventListener(Generic[E]):
    """One sink as one stream sees it: how it takes an event, which kinds it wants, how often it failed."""

    emit: Callable[[E], None]
    wanted: frozenset[str]
    failures: int = 0


class EventStream(Generic[E]):
    """Numbered, failure-proof delivery of one stream to the sinks that want it."""

    __slots__ = ("_by_kind", "_listeners", "next_sequence", "wanted")

    next_sequence: Callable[[], int]
    """Gives the number for the next event of this stream, from 1."""

    def __init__(self, listeners: Iterable[EventListener[E]]) -> None:
        self._listeners: tuple[EventListener[E], ...] = tuple(listeners)
        self._by_kind: dict[str, list[EventListener[E]]] = {}
        self.next_sequence = count(1).__next__
        for listener in self._listeners:
            for kind in listener.wanted:
                self._by_kind.setdefault(kind, []).append(listener)
        self.wanted: frozenset[str] = frozenset(self._by_kind)

    @property
    def failures(self) -> int:
        """How many events a sink failed to take."""
        return sum(listener.failures for listener in self._listeners)

    @trio.lowlevel.disable_ki_protection
    def deliver(self, event: E) -> None:
        """Hand `event` to every sink that wants it; an exception of a sink is counted, and its first one logged.

        A sink may be interrupted with Ctrl-C, also where its caller may not.
        """
        for listener in self._by_kind.get(event.event_kind, ()):
            try:
                listener.emit(event)
            except Exception:
                listener.failures += 1
                if listener.failures == 1:
                    logger.exception("An admission event sink failed; its further failures are counted, not logged")


def scheduler_event_stream(sink: SchedulerAdmissionEventSink | None) -> EventStream[SchedulerAdmissionEvent]:
    """A stream to `sink`, or to nobody; to the members of a `FanOutEventSink` directly."""
    return EventStream(
        EventListener(each.emit_scheduler_event, _wanted(each, "accepts_scheduler_event", SCHEDULER_EVENT_KINDS))
        for each in _members(sink)
        if isinstance(each, SchedulerAdmissionEventSink)
    )


def request_event_stream(sink: RequestAdmissionEventSink | None) -> EventStream[RequestAdmissionEvent]:
    """A stream to `sink`, or to nobody; to the members of a `FanOutEventSink` directly."""
    return EventStream(
        EventListener(each.emit_request_event, _wanted(each, "accepts_request_event", REQUEST_EVENT_KINDS))
        for each in _members(sink)
        if isinstance(each, RequestAdmissionEventSink)
    )


class FanOutEventSink:
    """Both streams to several sinks, each with its own interest and its own failures."""

    def __init__(self, *sinks: AnyAdmissionEventSink) -> None:
        self.sinks: tuple[AnyAdmissionEventSink, ...] = tuple(member for sink in sinks for member in _members(sink))
        self._scheduler = scheduler_event_stream(self)
        self._request = request_event_stream(self)

    def accepts_scheduler_event(self, kind: str) -> bool:
        """Whether any of the sinks wants the kind."""
        return kind in self._scheduler.wanted

    def accepts_request_event(self, kind: str) -> bool:
        """Whether any of the sinks wants the kind."""
        return kind in self._request.wanted

    def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
        """Hand the event to every sink that wants it."""
        self._scheduler.deliver(event)

    def emit_request_event(self, event: RequestAdmissionEvent) -> None:
        """Hand the event to every sink that wants it."""
        self._request.deliver(event)


def _members(sink: AnyAdmissionEventSink | None) -> tuple[AnyAdmissionEventSink, ...]:
    if sink is None:
        return ()
    return sink.sinks if isinstance(sink, FanOutEventSink) else (sink,)


def _wanted(sink: object, method: str, kinds: Iterable[str]) -> frozenset[str]:
    accepts: Callable[[str], bool] | None = getattr(sink, method, None)
    return frozenset(kinds if accepts is None else [kind for kind in kinds if accepts(kind)])


class InMemoryAdmissionEventSink:
    """Keeps both streams in lists: for tests, and for short runs."""

    def __init__(self) -> None:
        self.scheduler_events: list[SchedulerAdmissionEvent] = []
        self.request_events: list[RequestAdmissionEvent] = []

    def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
        """Keep one scheduler event."""
        self.scheduler_events.append(event)

    def emit_request_event(self, event: RequestAdmissionEvent) -> None:
        """Keep one request event."""
        self.request_events.append(event)

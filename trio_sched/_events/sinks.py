"""Delivery: how an event reaches whoever wants it, without ever touching the run.

An `EventStream` stands between an owner of state and its sinks. It knows which kinds they want (asked once, when the
stream is made), numbers the events it delivers, and contains the failures of each sink: the first is logged, all are
counted, none reaches the owner. Several sinks are given together as a `FanOutEventSink`. An owner asks `kind in
stream.tellers` before it builds an event, so an event that nobody wants costs one lookup. Owners deliver after their
state change is complete, never inside one.

A sink is any object with `emit_scheduler_event` or `emit_request_event`. It may also have
`accepts_scheduler_event(kind)` or `accepts_request_event(kind)`; without it the sink gets every kind.

*Parts.* An owner tells an event as its parts, and the event itself is made once, for the sinks that want one. The event
files want none: they are given the parts, by `take_scheduler_parts` and `take_request_parts`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

import attrs
import trio

from trio_sched._events.request import (
    REQUEST_EVENT_KINDS,
    RequestAdmissionEvent,
    RequestEventParts,
    parts_of_request_event,
    request_event_of,
)
from trio_sched._events.scheduler import (
    SCHEDULER_EVENT_KINDS,
    SchedulerAdmissionEvent,
    SchedulerEventParts,
    parts_of_scheduler_event,
    scheduler_event_of,
)

__all__ = [
    "AnyAdmissionEventSink",
    "EventStream",
    "FanOutEventSink",
    "InMemoryAdmissionEventSink",
    "RequestAdmissionEventSink",
    "RequestEventStream",
    "SchedulerAdmissionEventSink",
    "SchedulerEventStream",
    "request_event_stream",
    "scheduler_event_stream",
]

logger = logging.getLogger("trio_sched.events")

E = TypeVar("E", SchedulerAdmissionEvent, RequestAdmissionEvent)
P = TypeVar("P", SchedulerEventParts, RequestEventParts)


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
class EventListener(Generic[E, P]):
    """One sink as one stream sees it: which kinds it wants, how it takes an event, how it takes the parts of one, if
    it does, and how often it failed.
    """

    wanted: frozenset[str]
    emit: Callable[[E], None]
    take: Callable[[P], None] | None = None
    failures: int = 0

    @trio.lowlevel.disable_ki_protection
    def hand_parts(self, parts: P) -> None:
        """Give a sink that takes parts those of an event that it wants."""
        assert self.take is not None
        try:
            self.take(parts)
        except Exception as error:
            self.failed(error)

    def failed(self, error: Exception) -> None:
        """Count an exception of the sink, and log the first."""
        self.failures += 1
        if self.failures == 1:
            logger.error("An admission event sink failed; its further failures are counted, not logged", exc_info=error)


class EventStream(Generic[E, P]):
    """Numbered, failure-proof delivery of one stream to the sinks that want it.

    tellers: by kind, what hands an event of that kind, told by its parts, to every sink that wants it; a kind that
    nobody wants has none. An exception of a sink is counted, and its first one logged; a sink may be interrupted with
    Ctrl-C, also where the event's owner may not. next_sequence: gives the number for the next event, from 1.
    """

    __slots__ = ("_listeners", "next_sequence", "tellers")

    def __init__(self, listeners: Iterable[EventListener[E, P]], event_of: Callable[[P], E]) -> None:
        self._listeners: tuple[EventListener[E, P], ...] = tuple(listeners)
        self.next_sequence: Callable[[], int] = count(1).__next__
        self.tellers: Mapping[str, Callable[[P], None]] = {
            kind: _teller([each for each in self._listeners if kind in each.wanted], event_of)
            for kind in sorted(frozenset[str]().union(*(each.wanted for each in self._listeners)))
        }

    @property
    def failures(self) -> int:
        """How many events a sink failed to take."""
        return sum(listener.failures for listener in self._listeners)


def _teller(listeners: Sequence[EventListener[E, P]], event_of: Callable[[P], E]) -> Callable[[P], None]:
    if len(listeners) == 1 and listeners[0].take is not None:
        return listeners[0].hand_parts
    return partial(_tell_several, listeners, event_of)


@trio.lowlevel.disable_ki_protection
def _tell_several(listeners: Sequence[EventListener[E, P]], event_of: Callable[[P], E], parts: P) -> None:
    event: E | None = None
    for listener in listeners:
        if listener.take is not None:
            listener.hand_parts(parts)
        else:
            event = event_of(parts) if event is None else event
            try:
                listener.emit(event)
            except Exception as error:
                listener.failed(error)


SchedulerEventStream: TypeAlias = EventStream[SchedulerAdmissionEvent, SchedulerEventParts]
RequestEventStream: TypeAlias = EventStream[RequestAdmissionEvent, RequestEventParts]


def scheduler_event_stream(sink: SchedulerAdmissionEventSink | None) -> SchedulerEventStream:
    """A stream to `sink`, or to nobody; to the members of a `FanOutEventSink` directly."""
    return EventStream(
        [
            EventListener[SchedulerAdmissionEvent, SchedulerEventParts](
                _wanted(each, "accepts_scheduler_event", SCHEDULER_EVENT_KINDS),
                each.emit_scheduler_event,
                getattr(each, "take_scheduler_parts", None),
            )
            for each in _members(sink)
            if isinstance(each, SchedulerAdmissionEventSink)
        ],
        scheduler_event_of,
    )


def request_event_stream(sink: RequestAdmissionEventSink | None) -> RequestEventStream:
    """A stream to `sink`, or to nobody; to the members of a `FanOutEventSink` directly."""
    return EventStream(
        [
            EventListener[RequestAdmissionEvent, RequestEventParts](
                _wanted(each, "accepts_request_event", REQUEST_EVENT_KINDS),
                each.emit_request_event,
                getattr(each, "take_request_parts", None),
            )
            for each in _members(sink)
            if isinstance(each, RequestAdmissionEventSink)
        ],
        request_event_of,
    )


class FanOutEventSink:
    """Both streams to several sinks, each with its own interest and its own failures."""

    def __init__(self, *sinks: AnyAdmissionEventSink) -> None:
        self.sinks: tuple[AnyAdmissionEventSink, ...] = tuple(member for sink in sinks for member in _members(sink))
        self._scheduler = scheduler_event_stream(self)
        self._request = request_event_stream(self)

    def accepts_scheduler_event(self, kind: str) -> bool:
        """Whether any of the sinks wants the kind."""
        return kind in self._scheduler.tellers

    def accepts_request_event(self, kind: str) -> bool:
        """Whether any of the sinks wants the kind."""
        return kind in self._request.tellers

    def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
        """Hand the event to every sink that wants it."""
        tell = self._scheduler.tellers.get(event.event_kind)
        if tell is not None:
            tell(parts_of_scheduler_event(event))

    def emit_request_event(self, event: RequestAdmissionEvent) -> None:
        """Hand the event to every sink that wants it."""
        tell = self._request.tellers.get(event.event_kind)
        if tell is not None:
            tell(parts_of_request_event(event))


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

"""Delivery: how an event reaches whoever wants it, without ever touching the run.

An `EventStream` connects an owner of state with its sinks. It knows which kinds they want (asked once, when the
stream is made), numbers the events it delivers, and contains the failures of each sink: the first is logged, all are
counted, none reaches the owner. Several sinks are given together as a `FanOutEventSink`. An owner looks up the handler
of a kind before it builds an event, so an event that nobody wants costs one lookup. Owners deliver after their state
change is complete, never inside one.

A sink is any object with `emit_scheduler_event` or `emit_request_event`. It may also have
`accepts_scheduler_event(kind)` or `accepts_request_event(kind)`; without it the sink gets every kind.

*Subscriptions.* `subscribe_request_admission_events` adds a sink to the request stream of every controller of the
process, those that exist and those that are made later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from threading import Lock
from typing import Final, Generic, Protocol, TypeAlias, TypeVar, runtime_checkable
from weakref import WeakSet

import attrs
import trio

from trio_sched._events.records import (
    REQUEST_EVENT_KINDS,
    SCHEDULER_EVENT_KINDS,
    RequestAdmissionEvent,
    SchedulerAdmissionEvent,
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
    "subscribe_request_admission_events",
    "subscribed_request_event_stream",
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
    """One sink as one stream sees it: which kinds it wants, how it takes an event, and how often it failed."""

    wanted: frozenset[str]
    emit: Callable[[E], None]
    failures: int = 0

    @trio.lowlevel.disable_ki_protection
    def handle(self, event: E) -> None:
        """Give the sink an event that it wants. Its exceptions are counted, and the first is logged."""
        try:
            self.emit(event)
        except Exception as error:
            self.failures += 1
            if self.failures == 1:
                message = "An admission event sink failed; its further failures are counted, not logged"
                logger.error(message, exc_info=error)


class EventStream(Generic[E]):
    """Numbered, failure-proof delivery of one stream to the sinks that want it.

    handlers: by kind, what hands an event of that kind to every sink that wants it; a kind that nobody wants has none.
    A sink may be interrupted with Ctrl-C, also where the event's owner may not. next_sequence: gives the number for the
    next event, from 1.
    """

    __slots__ = ("__weakref__", "_listeners", "handlers", "next_sequence")

    def __init__(self, listeners: Iterable[EventListener[E]]) -> None:
        self._listeners: tuple[EventListener[E], ...] = ()
        self.next_sequence: Callable[[], int] = count(1).__next__
        self.handlers: dict[str, Callable[[E], None]] = {}
        self.set_listeners(listeners)

    @property
    def failures(self) -> int:
        """How many events a sink failed to take."""
        return sum(listener.failures for listener in self._listeners)

    @property
    def listeners(self) -> tuple[EventListener[E], ...]:
        """Whom it delivers to."""
        return self._listeners

    def set_listeners(self, listeners: Iterable[EventListener[E]]) -> None:
        """Deliver to these from now on. Owners keep `handlers`, so it is changed where it is."""
        self._listeners = tuple(listeners)
        kinds = frozenset[str]().union(*(each.wanted for each in self._listeners))
        for kind in self.handlers.keys() - kinds:
            del self.handlers[kind]
        for kind in sorted(kinds):
            wanting = [each for each in self._listeners if kind in each.wanted]
            self.handlers[kind] = wanting[0].handle if len(wanting) == 1 else partial(_hand_to_all, wanting)


def _hand_to_all(listeners: Sequence[EventListener[E]], event: E) -> None:
    for listener in listeners:
        listener.handle(event)


SchedulerEventStream: TypeAlias = EventStream[SchedulerAdmissionEvent]
RequestEventStream: TypeAlias = EventStream[RequestAdmissionEvent]


def scheduler_event_stream(sink: SchedulerAdmissionEventSink | None) -> SchedulerEventStream:
    """A stream to `sink`, or to nobody; to the members of a `FanOutEventSink` directly."""
    return EventStream(
        [
            EventListener[SchedulerAdmissionEvent](
                _wanted(each, "accepts_scheduler_event", SCHEDULER_EVENT_KINDS), each.emit_scheduler_event
            )
            for each in _members(sink)
            if isinstance(each, SchedulerAdmissionEventSink)
        ]
    )


def request_event_stream(sink: RequestAdmissionEventSink | None) -> RequestEventStream:
    """A stream to `sink`, or to nobody; to the members of a `FanOutEventSink` directly."""
    return EventStream(_request_listeners(sink))


def _request_listeners(sink: AnyAdmissionEventSink | None) -> list[EventListener[RequestAdmissionEvent]]:
    return [
        EventListener[RequestAdmissionEvent](
            _wanted(each, "accepts_request_event", REQUEST_EVENT_KINDS), each.emit_request_event
        )
        for each in _members(sink)
        if isinstance(each, RequestAdmissionEventSink)
    ]


class _Subscriptions:
    """The request streams of this process, and who listens to all of them. For any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._streams: WeakSet[RequestEventStream] = WeakSet()
        self._subscribed: list[EventListener[RequestAdmissionEvent]] = []

    def open_stream(self, sink: RequestAdmissionEventSink | None) -> RequestEventStream:
        """A stream to `sink` and to all subscribers."""
        with self._lock:
            stream = EventStream([*_request_listeners(sink), *self._subscribed])
            self._streams.add(stream)
        return stream

    def add(self, listeners: Sequence[EventListener[RequestAdmissionEvent]]) -> None:
        """Deliver every stream to these too."""
        with self._lock:
            self._subscribed += listeners
            for stream in self._streams:
                stream.set_listeners([*stream.listeners, *listeners])

    def remove(self, listeners: Sequence[EventListener[RequestAdmissionEvent]]) -> None:
        """Deliver nothing to these any more."""
        with self._lock:
            self._subscribed = [each for each in self._subscribed if each not in listeners]
            for stream in self._streams:
                stream.set_listeners([each for each in stream.listeners if each not in listeners])


_subscriptions: Final = _Subscriptions()


def subscribed_request_event_stream(sink: RequestAdmissionEventSink | None) -> RequestEventStream:
    """A stream to `sink`, and to whoever subscribes to the request events of this process."""
    return _subscriptions.open_stream(sink)


@contextmanager
def subscribe_request_admission_events(sink: RequestAdmissionEventSink) -> Generator[None, None, None]:
    """Give `sink` the request events of every controller in this process while the block runs.

    Each controller numbers its events by itself, and delivers them in its own thread. A sink that raises is logged once
    and counted, as any other.
    """
    listeners = _request_listeners(sink)
    _subscriptions.add(listeners)
    try:
        yield
    finally:
        _subscriptions.remove(listeners)


class FanOutEventSink:
    """Both streams to several sinks, each with its own interest and its own failures."""

    def __init__(self, *sinks: AnyAdmissionEventSink) -> None:
        self.sinks: tuple[AnyAdmissionEventSink, ...] = tuple(member for sink in sinks for member in _members(sink))
        self._scheduler = scheduler_event_stream(self)
        self._request = request_event_stream(self)

    def accepts_scheduler_event(self, kind: str) -> bool:
        """Whether any of the sinks wants the kind."""
        return kind in self._scheduler.handlers

    def accepts_request_event(self, kind: str) -> bool:
        """Whether any of the sinks wants the kind."""
        return kind in self._request.handlers

    def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
        """Hand the event to every sink that wants it."""
        handle = self._scheduler.handlers.get(event.event_kind)
        if handle is not None:
            handle(event)

    def emit_request_event(self, event: RequestAdmissionEvent) -> None:
        """Hand the event to every sink that wants it."""
        handle = self._request.handlers.get(event.event_kind)
        if handle is not None:
            handle(event)


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

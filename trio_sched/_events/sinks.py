"""Delivery: how an event reaches whoever wants it, without ever touching the run.

An `EventStream` stands between an owner of state and one sink. It knows which kinds the sink wants (asked once, when
the stream is made), numbers the events it delivers, and contains the sink's failures: the first is logged, all are
counted, none reaches the owner. An owner asks `kind in stream.wanted` before it builds an event, so an event that
nobody wants costs one set lookup. Owners deliver after their state change is complete, never inside one.

A sink is any object with `emit_scheduler_event` or `emit_request_event`. It may also have
`accepts_scheduler_event(kind)` or `accepts_request_event(kind)`; without it the sink gets every kind.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar, runtime_checkable

import trio

from trio_sched._events.request import REQUEST_EVENT_KINDS, RequestAdmissionEvent
from trio_sched._events.scheduler import SCHEDULER_EVENT_KINDS, SchedulerAdmissionEvent

__all__ = [
    "EventStream",
    "FanOutEventSink",
    "InMemoryAdmissionEventSink",
    "RequestAdmissionEventSink",
    "SchedulerAdmissionEventSink",
    "request_event_stream",
    "scheduler_event_stream",
]

logger = logging.getLogger("trio_sched.events")

E = TypeVar("E")


@runtime_checkable
class SchedulerAdmissionEventSink(Protocol):
    """Receives scheduler events, synchronously and in order."""

    def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
        """Take one event. Must not block."""
        ...


@runtime_checkable
class RequestAdmissionEventSink(Protocol):
    """Receives request events, synchronously and in order."""

    def emit_request_event(self, event: RequestAdmissionEvent) -> None:
        """Take one event. Must not block."""
        ...


class EventStream(Generic[E]):
    """Numbered, failure-proof delivery of one stream to one sink."""

    __slots__ = ("_emit", "_sequence", "failures", "wanted")

    def __init__(self, emit: Callable[[E], None] | None, wanted: Iterable[str]) -> None:
        self._emit = emit
        self._sequence = 0
        self.wanted: frozenset[str] = frozenset(wanted) if emit is not None else frozenset()
        self.failures: int = 0

    def next_sequence(self) -> int:
        """The number for the next event of this stream, from 1."""
        self._sequence += 1
        return self._sequence

    @trio.lowlevel.disable_ki_protection
    def deliver(self, event: E) -> None:
        """Hand `event` to the sink; an exception of the sink is counted, and the first one logged.

        A sink may be interrupted with Ctrl-C, also where its caller may not.
        """
        if self._emit is None:
            return
        try:
            self._emit(event)
        except Exception:
            self.failures += 1
            if self.failures == 1:
                logger.exception("An admission event sink failed; its further failures are counted, not logged")


def _wanted(sink: object, method: str, kinds: Iterable[str]) -> list[str]:
    accepts: Callable[[str], bool] | None = getattr(sink, method, None)
    return list(kinds) if accepts is None else [kind for kind in kinds if accepts(kind)]


def scheduler_event_stream(sink: SchedulerAdmissionEventSink | None) -> EventStream[SchedulerAdmissionEvent]:
    """A stream to `sink`, or to nobody."""
    if sink is None:
        return EventStream(None, ())
    return EventStream(sink.emit_scheduler_event, _wanted(sink, "accepts_scheduler_event", SCHEDULER_EVENT_KINDS))


def request_event_stream(sink: RequestAdmissionEventSink | None) -> EventStream[RequestAdmissionEvent]:
    """A stream to `sink`, or to nobody."""
    if sink is None:
        return EventStream(None, ())
    return EventStream(sink.emit_request_event, _wanted(sink, "accepts_request_event", REQUEST_EVENT_KINDS))


class FanOutEventSink:
    """Both streams to several sinks, each with its own interest and its own failures."""

    def __init__(self, *sinks: SchedulerAdmissionEventSink | RequestAdmissionEventSink) -> None:
        self._scheduler = _by_kind(
            scheduler_event_stream(sink) for sink in sinks if isinstance(sink, SchedulerAdmissionEventSink)
        )
        self._request = _by_kind(
            request_event_stream(sink) for sink in sinks if isinstance(sink, RequestAdmissionEventSink)
        )

    def accepts_scheduler_event(self, kind: str) -> bool:
        """Whether any of the sinks wants the kind."""
        return kind in self._scheduler

    def accepts_request_event(self, kind: str) -> bool:
        """Whether any of the sinks wants the kind."""
        return kind in self._request

    def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
        """Hand the event to every sink that wants it."""
        for stream in self._scheduler.get(event.event_kind, ()):
            stream.deliver(event)

    def emit_request_event(self, event: RequestAdmissionEvent) -> None:
        """Hand the event to every sink that wants it."""
        for stream in self._request.get(event.event_kind, ()):
            stream.deliver(event)


def _by_kind(streams: Iterable[EventStream[E]]) -> dict[str, list[EventStream[E]]]:
    """Who wants what, so that an event meets nobody who does not want it."""
    wanting: dict[str, list[EventStream[E]]] = {}
    for stream in streams:
        for kind in stream.wanted:
            wanting.setdefault(kind, []).append(stream)
    return wanting


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

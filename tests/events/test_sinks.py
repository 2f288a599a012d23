"""Delivery: interest is asked once, failures stay with the sink, numbers have no gaps."""

from __future__ import annotations

import logging

import pytest

from trio_sched._events.records import SCHEDULER_EVENT_KINDS, RequestAdmissionEvent, SchedulerAdmissionEvent
from trio_sched._events.sinks import (
    FanOutEventSink,
    InMemoryAdmissionEventSink,
    SchedulerEventStream,
    request_event_stream,
    scheduler_event_stream,
    subscribe_request_admission_events,
)
from trio_sched.lowlevel import AdaptiveRequestAdmissionController


def event(sequence: int) -> SchedulerAdmissionEvent:
    return SchedulerAdmissionEvent("selected", 1.0, sequence)


class OnlySelected(InMemoryAdmissionEventSink):
    def accepts_scheduler_event(self, kind: str) -> bool:
        return kind == "selected"

    def accepts_request_event(self, kind: str) -> bool:
        return False


def emit(stream: SchedulerEventStream, event: SchedulerAdmissionEvent) -> None:
    stream.handlers[event.event_kind](event)


class Failing:
    def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
        raise RuntimeError("sink is broken")


def test_nobody_listening_wants_nothing() -> None:
    assert not scheduler_event_stream(None).handlers
    assert not request_event_stream(None).handlers


def test_interest_is_declared_by_the_sink() -> None:
    assert scheduler_event_stream(InMemoryAdmissionEventSink()).handlers.keys() == set(SCHEDULER_EVENT_KINDS)
    assert scheduler_event_stream(OnlySelected()).handlers.keys() == {"selected"}
    assert not request_event_stream(OnlySelected()).handlers


def test_a_failing_sink_is_logged_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    stream = scheduler_event_stream(Failing())
    with caplog.at_level(logging.ERROR, logger="trio_sched.events"):
        for _ in range(3):
            emit(stream, event(stream.next_sequence()))
    assert stream.failures == 3
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info is not None


def test_an_interrupt_is_not_a_failure_of_the_sink() -> None:
    class Interrupted:
        def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        emit(scheduler_event_stream(Interrupted()), event(1))


def test_fan_out_isolates_and_filters() -> None:
    everything, some = InMemoryAdmissionEventSink(), OnlySelected()
    fan_out = FanOutEventSink(Failing(), everything, some)
    assert fan_out.accepts_scheduler_event("worker_spawned")
    assert fan_out.accepts_request_event("request_lease_acquired")
    fan_out.emit_scheduler_event(event(1))
    fan_out.emit_scheduler_event(SchedulerAdmissionEvent("worker_spawned", 1.0, 2))
    assert [each.sequence for each in everything.scheduler_events] == [1, 2]
    assert [each.sequence for each in some.scheduler_events] == [1]
    assert not FanOutEventSink(some).accepts_scheduler_event("worker_spawned")
    assert not FanOutEventSink(some).accepts_request_event("request_lease_acquired")


def test_several_sinks_share_one_event() -> None:
    one, other = InMemoryAdmissionEventSink(), InMemoryAdmissionEventSink()
    stream = scheduler_event_stream(FanOutEventSink(one, other))
    emitted = event(1)
    emit(stream, emitted)
    assert one.scheduler_events[0] is other.scheduler_events[0] is emitted


def register(controller: AdaptiveRequestAdmissionController, alias: str) -> None:
    controller.register(provider_name="provider", model_id="model", alias=alias, max_parallel_requests=1)


def names(events: list[RequestAdmissionEvent]) -> list[tuple[object, int]]:
    return [(event.diagnostics["alias"], event.sequence) for event in events]


async def test_a_subscriber_gets_the_request_events_of_every_controller_while_it_is_subscribed() -> None:
    subscribed, own = InMemoryAdmissionEventSink(), InMemoryAdmissionEventSink()
    before, with_sink = AdaptiveRequestAdmissionController(), AdaptiveRequestAdmissionController(event_sink=own)
    register(before, "unheard")
    with subscribe_request_admission_events(subscribed):
        register(before, "a")
        register(with_sink, "b")
        register(AdaptiveRequestAdmissionController(), "c")
    register(before, "unheard again")
    register(with_sink, "d")
    assert names(subscribed.request_events) == [("a", 1), ("b", 1), ("c", 1)]
    assert names(own.request_events) == [("b", 1), ("d", 2)]


async def test_a_subscriber_may_want_some_kinds_and_may_fail() -> None:
    class FailingToo:
        def emit_request_event(self, event: RequestAdmissionEvent) -> None:
            raise RuntimeError("sink is broken")

    nothing = OnlySelected()
    controller = AdaptiveRequestAdmissionController()
    with subscribe_request_admission_events(FailingToo()), subscribe_request_admission_events(nothing):
        register(controller, "a")
    assert nothing.request_events == []

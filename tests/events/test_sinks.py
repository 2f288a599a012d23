"""Delivery: interest is asked once, failures stay with the sink, numbers have no gaps."""

from __future__ import annotations

import logging

import pytest

from trio_sched._events.scheduler import SCHEDULER_EVENT_KINDS, SchedulerAdmissionEvent
from trio_sched._events.sinks import (
    FanOutEventSink,
    InMemoryAdmissionEventSink,
    request_event_stream,
    scheduler_event_stream,
)


def event(sequence: int) -> SchedulerAdmissionEvent:
    return SchedulerAdmissionEvent("selected", 1.0, sequence)


class OnlySelected(InMemoryAdmissionEventSink):
    def accepts_scheduler_event(self, kind: str) -> bool:
        return kind == "selected"

    def accepts_request_event(self, kind: str) -> bool:
        return False


class Failing:
    def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
        raise RuntimeError("sink is broken")


def test_nobody_listening_wants_nothing() -> None:
    assert scheduler_event_stream(None).wanted == frozenset()
    assert request_event_stream(None).wanted == frozenset()


def test_interest_is_declared_by_the_sink() -> None:
    assert scheduler_event_stream(InMemoryAdmissionEventSink()).wanted == set(SCHEDULER_EVENT_KINDS)
    assert scheduler_event_stream(OnlySelected()).wanted == {"selected"}
    assert request_event_stream(OnlySelected()).wanted == frozenset()


def test_a_failing_sink_is_logged_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    stream = scheduler_event_stream(Failing())
    with caplog.at_level(logging.ERROR, logger="trio_sched.events"):
        for _ in range(3):
            stream.deliver(event(stream.next_sequence()))
    assert stream.failures == 3
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info is not None


def test_an_interrupt_is_not_a_failure_of_the_sink() -> None:
    class Interrupted:
        def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scheduler_event_stream(Interrupted()).deliver(event(1))


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

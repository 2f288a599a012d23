"""Delivery: interest is asked once, failures stay with the sink, numbers have no gaps."""

from __future__ import annotations

import logging

import pytest

from trio_sched._events.scheduler import (
    SCHEDULER_EVENT_KINDS,
    SchedulerAdmissionEvent,
    SchedulerEventParts,
    SchedulerEventSubject,
    parts_of_scheduler_event,
)
from trio_sched._events.sinks import (
    FanOutEventSink,
    InMemoryAdmissionEventSink,
    SchedulerEventStream,
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


def tell(stream: SchedulerEventStream, parts: SchedulerEventParts) -> None:
    stream.tellers[parts[0]](parts)


class Failing:
    def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
        raise RuntimeError("sink is broken")


def test_nobody_listening_wants_nothing() -> None:
    assert not scheduler_event_stream(None).tellers
    assert not request_event_stream(None).tellers


def test_interest_is_declared_by_the_sink() -> None:
    assert scheduler_event_stream(InMemoryAdmissionEventSink()).tellers.keys() == set(SCHEDULER_EVENT_KINDS)
    assert scheduler_event_stream(OnlySelected()).tellers.keys() == {"selected"}
    assert not request_event_stream(OnlySelected()).tellers


def test_a_failing_sink_is_logged_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    stream = scheduler_event_stream(Failing())
    with caplog.at_level(logging.ERROR, logger="trio_sched.events"):
        for _ in range(3):
            tell(stream, parts_of_scheduler_event(event(stream.next_sequence())))
    assert stream.failures == 3
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info is not None


def test_an_interrupt_is_not_a_failure_of_the_sink() -> None:
    class Interrupted:
        def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tell(scheduler_event_stream(Interrupted()), parts_of_scheduler_event(event(1)))


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


class TakingParts(OnlySelected):
    """A sink that has no need of an event that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[SchedulerEventParts] = []

    def take_scheduler_parts(self, parts: SchedulerEventParts) -> None:
        self.taken.append(parts)


def test_who_takes_parts_gets_them_as_they_were_told_and_the_others_share_one_event() -> None:
    taking, one, other = TakingParts(), InMemoryAdmissionEventSink(), InMemoryAdmissionEventSink()
    stream = scheduler_event_stream(FanOutEventSink(one, taking, other))
    subject = SchedulerEventSubject(task_id="0:1:cell:a")
    told: SchedulerEventParts = ("selected", 1.0, 1, subject, None, None, None)
    tell(stream, told)
    tell(stream, ("worker_spawned", 2.0, 2, subject, None, None, {"a": 1}))
    assert taking.taken == [told]
    assert taking.scheduler_events == []
    assert one.scheduler_events == [
        SchedulerAdmissionEvent("selected", 1.0, 1, task_id="0:1:cell:a"),
        SchedulerAdmissionEvent("worker_spawned", 2.0, 2, task_id="0:1:cell:a", diagnostics={"a": 1}),
    ]
    assert all(mine is yours for mine, yours in zip(one.scheduler_events, other.scheduler_events, strict=True))


def test_events_without_diagnostics_do_not_share_them() -> None:
    sink = InMemoryAdmissionEventSink()
    stream = scheduler_event_stream(sink)
    for sequence in (1, 2):
        tell(stream, ("selected", 1.0, sequence, SchedulerEventSubject(), None, None, None))
    first, second = sink.scheduler_events
    assert first.diagnostics == second.diagnostics == {}
    assert first.diagnostics is not second.diagnostics


def test_a_sink_that_fails_to_take_parts_is_alone_with_it() -> None:
    class FailingToTake(TakingParts):
        def take_scheduler_parts(self, parts: SchedulerEventParts) -> None:
            raise RuntimeError("sink is broken")

    everything, taking = InMemoryAdmissionEventSink(), TakingParts()
    stream = scheduler_event_stream(FanOutEventSink(FailingToTake(), taking, everything))
    tell(stream, parts_of_scheduler_event(event(1)))
    assert (stream.failures, len(taking.taken), len(everything.scheduler_events)) == (1, 1, 1)


def test_a_fan_out_that_is_handed_an_event_hands_on_an_equal_one() -> None:
    taking, everything = TakingParts(), InMemoryAdmissionEventSink()
    told = SchedulerAdmissionEvent("selected", 1.0, 7, None, "a", "a@1", 3, "submission", "why", {"b": 1}, {"c": 2})
    FanOutEventSink(taking, everything).emit_scheduler_event(told)
    assert everything.scheduler_events == [told]
    assert [parts[:3] for parts in taking.taken] == [("selected", 1.0, 7)]
    FanOutEventSink(taking).emit_scheduler_event(SchedulerAdmissionEvent("worker_spawned", 1.0, 8))
    assert len(taking.taken) == 1

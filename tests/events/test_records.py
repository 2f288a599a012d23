"""Both streams as one: nothing is missing, each stays in its order, and of one instant the scheduler's come first."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from trio_sched._events.records import AdmissionEvent, RequestAdmissionEvent, SchedulerAdmissionEvent, merged_by_time

times = st.lists(st.integers(0, 5).map(float), max_size=8).map(sorted)


def scheduler_stream(times: list[float]) -> list[SchedulerAdmissionEvent]:
    return [SchedulerAdmissionEvent("selected", time, number) for number, time in enumerate(times)]


def request_stream(times: list[float]) -> list[RequestAdmissionEvent]:
    return [RequestAdmissionEvent("request_wait_started", time, number) for number, time in enumerate(times)]


@given(times, times)
def test_they_are_merged_by_time(of_scheduler: list[float], of_requests: list[float]) -> None:
    scheduler, request = scheduler_stream(of_scheduler), request_stream(of_requests)
    everything: list[AdmissionEvent] = [*scheduler, *request]
    assert list(merged_by_time(scheduler, request)) == sorted(everything, key=lambda event: event.captured_at_monotonic)


def test_they_are_read_one_at_a_time() -> None:
    read: list[float] = []

    def reading() -> Iterator[SchedulerAdmissionEvent]:
        for event in scheduler_stream([1.0, 2.0, 3.0]):
            read.append(event.captured_at_monotonic)
            yield event

    merged = merged_by_time(reading(), request_stream([1.5]))
    assert read == []
    next(merged)
    assert read == [1.0]
    next(merged)
    assert read == [1.0, 2.0]

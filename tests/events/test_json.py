"""Every event reads back equal to what was written."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sched._events.jsonl import event_line, read_event
from trio_sched._events.records import (
    JsonValue,
    RequestAdmissionEvent,
    RequestAdmissionEventKind,
    SchedulerAdmissionEvent,
    SchedulerAdmissionEventKind,
)
from trio_sched._resources.identity import RequestDomain, RequestResourceKey, RuntimeCorrelation
from trio_sched._resources.request import RequestPressureSnapshot

names = st.text(min_size=1, max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 10**6)
json_values: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | numbers | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
facts = st.dictionaries(names, json_values, max_size=3)
correlations = st.builds(
    RuntimeCorrelation, names, st.none() | counts, st.none() | names, *[st.none() | names for _ in range(4)]
)
resources = st.builds(RequestResourceKey, names, names, st.sampled_from(RequestDomain))
snapshots = st.builds(
    RequestPressureSnapshot,
    captured_at=numbers,
    sequence=counts,
    resource=resources,
    effective_max=counts,
    current_limit=counts,
    in_flight_count=counts,
    active_lease_count=counts,
    waiters=counts,
    blocked_until_monotonic=st.none() | numbers,
    cooldown_remaining_seconds=numbers,
    rate_limit_ceiling=st.none() | counts,
    consecutive_rate_limits=counts,
    last_outcome=st.none() | names,
    leak_diagnostics=st.dictionaries(names, counts, max_size=2),
)


@given(
    st.builds(
        SchedulerAdmissionEvent,
        event_kind=st.sampled_from(get_args(SchedulerAdmissionEventKind)),
        captured_at_monotonic=numbers,
        sequence=counts,
        captured_correlation=st.none() | correlations,
        task_id=st.none() | names,
        task_execution_id=st.none() | names,
        task_lease_id=st.none() | counts,
        scheduler_resource_key=st.none() | names,
        reason_or_result=st.none() | names,
        snapshot=st.none() | facts,
        diagnostics=facts,
    )
)
def test_scheduler_events_come_back_equal(event: SchedulerAdmissionEvent) -> None:
    line = event_line(event)
    assert line.count("\n") == 1
    assert read_event(line, SchedulerAdmissionEvent) == event


@given(
    st.builds(
        RequestAdmissionEvent,
        event_kind=st.sampled_from(get_args(RequestAdmissionEventKind)),
        captured_at_monotonic=numbers,
        sequence=counts,
        captured_correlation=st.none() | correlations,
        request_attempt_id=st.none() | names,
        request_lease_id=st.none() | counts,
        request_resource_key=st.none() | resources,
        request_group_key=st.none() | resources,
        reason_or_outcome=st.none() | names,
        pressure_snapshot=st.none() | snapshots,
        diagnostics=facts,
    )
)
def test_request_events_come_back_equal(event: RequestAdmissionEvent) -> None:
    line = event_line(event)
    assert line.count("\n") == 1
    assert read_event(line, RequestAdmissionEvent) == event


def test_a_line_that_is_no_event_is_refused() -> None:
    with pytest.raises(ValueError, match="its fields are not those of a SchedulerAdmissionEvent"):
        read_event('{"event_kind": "selected"}', SchedulerAdmissionEvent)
    line = event_line(SchedulerAdmissionEvent("selected", 1.0, 1)).replace('"sequence"', '"sequenz"')
    with pytest.raises(ValueError, match="its fields are not those of a SchedulerAdmissionEvent"):
        read_event(line, SchedulerAdmissionEvent)
    line = event_line(SchedulerAdmissionEvent("selected", 1.0, 1)).replace('"selected"', '"elected"')
    with pytest.raises(ValueError, match="its fields are not those of a SchedulerAdmissionEvent"):
        read_event(line, SchedulerAdmissionEvent)


def test_a_line_of_an_earlier_release_leaves_out_what_is_none_or_empty() -> None:
    line = (
        '{"event_kind":"request_lease_released","captured_at_monotonic":8200.000000000001,"sequence":9,'
        '"captured_correlation":{"run_id":"r","row_group":0},"request_lease_id":4,'
        '"request_resource_key":{"provider_name":"p","model_id":"m","domain":"chat"},'
        '"pressure_snapshot":{"captured_at":8200.000000000001,"sequence":7,"resource":{"provider_name":"p",'
        '"model_id":"m","domain":"chat"},"effective_max":4,"current_limit":2,"in_flight_count":1,'
        '"active_lease_count":1,"waiters":0,"cooldown_remaining_seconds":0.0,"consecutive_rate_limits":0}}'
    )
    key = RequestResourceKey("p", "m", RequestDomain.CHAT)
    assert read_event(line, RequestAdmissionEvent) == RequestAdmissionEvent(
        "request_lease_released",
        8200.000000000001,
        9,
        RuntimeCorrelation("r", 0),
        request_lease_id=4,
        request_resource_key=key,
        pressure_snapshot=RequestPressureSnapshot(8200.000000000001, 7, key, 4, 2, 1, 1, 0),
    )


@pytest.mark.parametrize("time", ["7", "7.0", '"7.0"'])
def test_a_line_that_another_program_wrote_is_judged_by_cattrs(time: str) -> None:
    line = f' {{"sequence":1,"captured_at_monotonic":{time},"event_kind":"selected","task_id":null}}\n'
    event = read_event(line, SchedulerAdmissionEvent)
    assert event == SchedulerAdmissionEvent("selected", 7.0, 1)
    assert type(event.captured_at_monotonic) is float


def test_two_events_in_a_line_are_none() -> None:
    line = event_line(SchedulerAdmissionEvent("selected", 1.0, 1))
    with pytest.raises(ValueError, match="it is no JSON"):
        read_event(line.rstrip() + line, SchedulerAdmissionEvent)


@pytest.mark.parametrize("broken", ['"row_group":0', '"run_id":"r","nobody":1'])
def test_a_correlation_with_other_fields_is_none(broken: str) -> None:
    line = f'{{"event_kind":"selected","captured_at_monotonic":1.0,"sequence":1,"captured_correlation":{{{broken}}}}}'
    with pytest.raises(ValueError, match="its fields are not those of a SchedulerAdmissionEvent"):
        read_event(line, SchedulerAdmissionEvent)


def test_bytes_that_are_no_text_are_no_event() -> None:
    line = event_line(SchedulerAdmissionEvent("selected", 1.0, 1, task_id="x")).encode().replace(b"x", b"\xff")
    with pytest.raises(ValueError):
        read_event(line, SchedulerAdmissionEvent)


@pytest.mark.parametrize("line", ["", "[1]", "null", '"selected"', "{"])
def test_json_that_is_no_object_is_no_event(line: str) -> None:
    with pytest.raises(ValueError):
        read_event(line, SchedulerAdmissionEvent)

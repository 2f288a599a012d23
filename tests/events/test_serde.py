"""Every event reads back equal to what was written."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sched._events.json_value import JsonValue
from trio_sched._events.request import RequestAdmissionEvent, RequestAdmissionEventKind
from trio_sched._events.scheduler import SchedulerAdmissionEvent, SchedulerAdmissionEventKind
from trio_sched._events.serde import event_line, read_event
from trio_sched._resources.identity import RequestDomain, RequestResourceKey, RuntimeCorrelation
from trio_sched._resources.request import RequestPressureSnapshot

names = st.text(min_size=1, max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 10**6)
json_values: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | st.text(max_size=5),
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


def test_what_is_missing_or_empty_is_left_out_of_the_line() -> None:
    line = event_line(SchedulerAdmissionEvent("selected", 1.0, 1))
    assert line == '{"event_kind":"selected","captured_at_monotonic":1.0,"sequence":1}\n'


@pytest.mark.parametrize("time", ["7", "7.0", '"7.0"'])
def test_a_line_that_another_program_wrote_is_judged_by_cattrs(time: str) -> None:
    line = f' {{"sequence":1,"captured_at_monotonic":{time},"event_kind":"selected","task_id":null}}\n'
    event = read_event(line, SchedulerAdmissionEvent)
    assert event == SchedulerAdmissionEvent("selected", 7.0, 1)
    assert type(event.captured_at_monotonic) is float


def test_two_events_in_a_line_are_none() -> None:
    line = event_line(SchedulerAdmissionEvent("selected", 1.0, 1))
    with pytest.raises(ValueError, match=r"^an event is one JSON object and nothing else$"):
        read_event(line.rstrip() + line, SchedulerAdmissionEvent)


@pytest.mark.parametrize("broken", ['"row_group":0', '"run_id":"r","nobody":1'])
def test_a_correlation_with_other_fields_is_none(broken: str) -> None:
    line = f'{{"event_kind":"selected","captured_at_monotonic":1.0,"sequence":1,"captured_correlation":{{{broken}}}}}'
    with pytest.raises(ValueError, match="its fields are not those of a SchedulerAdmissionEvent"):
        read_event(line, SchedulerAdmissionEvent)


@pytest.mark.parametrize("name", ["current_limit", "in_flight_count", "waiters"])
def test_a_pressure_snapshot_that_counts_in_text_is_none(name: str) -> None:
    """The trace writes these as they are."""
    resource = RequestResourceKey("openai", "gpt", RequestDomain.CHAT)
    snapshot = RequestPressureSnapshot(1.0, 1, resource, 9, 77, 77, 9, 77, None, 0.0, None, 0, None, {})
    event = RequestAdmissionEvent("request_lease_acquired", 1.0, 1, pressure_snapshot=snapshot)
    line = event_line(event)
    assert read_event(line, RequestAdmissionEvent) == event
    broken = line.replace(f'"{name}":77', f'"{name}":"7\\",7"').replace(f'"{name}": 77', f'"{name}": "7\\",7"')
    assert broken != line
    with pytest.raises(ValueError, match=f"{name} of a pressure snapshot must be an int"):
        read_event(broken, RequestAdmissionEvent)


def test_bytes_that_are_no_text_are_no_event() -> None:
    line = event_line(SchedulerAdmissionEvent("selected", 1.0, 1, task_id="x")).encode().replace(b"x", b"\xff")
    with pytest.raises(ValueError):
        read_event(line, SchedulerAdmissionEvent)


@pytest.mark.parametrize("line", ["", "[1]", "null", '"selected"', "{"])
def test_json_that_is_no_object_is_no_event(line: str) -> None:
    with pytest.raises(ValueError):
        read_event(line, SchedulerAdmissionEvent)

"""The request stage's event stream: one frozen event per transition of a request resource, waiter or lease."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

import attrs

from trio_sched._events.json_value import JsonValue
from trio_sched._fast_constructor import fast_constructor
from trio_sched._resources.identity import RequestResourceKey, RuntimeCorrelation
from trio_sched._resources.request import RequestPressureSnapshot

__all__ = [
    "REQUEST_EVENT_KINDS",
    "RequestAdmissionEvent",
    "RequestAdmissionEventKind",
    "RequestEventParts",
    "RequestEventSubject",
    "make_request_event",
    "parts_of_request_event",
    "request_event_of",
]

RequestAdmissionEventKind = Literal[
    "request_resource_registered",
    "request_effective_cap_changed",
    "request_queue_formed",
    "request_wait_started",
    "request_wait_completed",
    "request_wait_timeout",
    "request_wait_cancelled",
    "request_acquire_denied",
    "request_lease_acquired",
    "model_request_started",
    "model_request_completed",
    "request_queue_drained",
    "request_rate_limited",
    "request_limit_decreased",
    "request_limit_increased",
    "request_soft_ceiling_recovered",
    "request_fully_recovered",
    "request_outage_started",
    "request_trial_started",
    "request_outage_ended",
    "request_lease_released",
    "request_release_diagnostic",
]
REQUEST_EVENT_KINDS: Final[tuple[RequestAdmissionEventKind, ...]] = get_args(RequestAdmissionEventKind)


@attrs.frozen(weakref_slot=False)
class RequestAdmissionEvent:
    """Something that happened to a request resource, at `captured_at_monotonic` on the run's clock (seconds).

    `sequence` rises by one per delivered event of this stream. `diagnostics` holds JSON values only.
    """

    event_kind: RequestAdmissionEventKind
    captured_at_monotonic: float
    sequence: int
    captured_correlation: RuntimeCorrelation | None = None
    request_attempt_id: str | None = None
    request_lease_id: int | None = None
    request_resource_key: RequestResourceKey | None = None
    request_group_key: RequestResourceKey | None = None
    reason_or_outcome: str | None = None
    pressure_snapshot: RequestPressureSnapshot | None = None
    diagnostics: dict[str, JsonValue] = attrs.field(factory=dict[str, JsonValue])


@attrs.define(eq=False, weakref_slot=False)
class RequestEventSubject:
    """Whom events are about: the fields that all events of one lease, or of one request before it, have in common.

    text: these fields as JSON, as part of an event's object; kept by whoever made it first.
    """

    captured_correlation: RuntimeCorrelation | None = None
    request_attempt_id: str | None = None
    request_lease_id: int | None = None
    request_resource_key: RequestResourceKey | None = None
    request_group_key: RequestResourceKey | None = None
    text: str = attrs.field(default="", init=False)


RequestEventParts: TypeAlias = tuple[
    RequestAdmissionEventKind,
    float,
    int,
    RequestEventSubject,
    str | None,
    RequestPressureSnapshot | None,
    dict[str, JsonValue] | None,
]
"""An event as its owner tells it: the fields in order, those of the subject as one, None for no diagnostics."""

make_request_event = fast_constructor(RequestAdmissionEvent)
"""Makes one where millions are read."""


def request_event_of(parts: RequestEventParts) -> RequestAdmissionEvent:
    """The event of these parts."""
    kind, at, sequence, subject, outcome, snapshot, diagnostics = parts
    return make_request_event(
        kind,
        at,
        sequence,
        subject.captured_correlation,
        subject.request_attempt_id,
        subject.request_lease_id,
        subject.request_resource_key,
        subject.request_group_key,
        outcome,
        snapshot,
        {} if diagnostics is None else diagnostics,
    )


def parts_of_request_event(event: RequestAdmissionEvent) -> RequestEventParts:
    """The parts of an event, with a subject of its own."""
    subject = RequestEventSubject(
        event.captured_correlation,
        event.request_attempt_id,
        event.request_lease_id,
        event.request_resource_key,
        event.request_group_key,
    )
    return (
        event.event_kind,
        event.captured_at_monotonic,
        event.sequence,
        subject,
        event.reason_or_outcome,
        event.pressure_snapshot,
        event.diagnostics,
    )

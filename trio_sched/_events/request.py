"""The request stage's event stream: one frozen event per transition of a request resource, waiter or lease."""

from __future__ import annotations

from typing import Final, Literal, get_args

import attrs

from trio_sched._events.json_value import JsonValue
from trio_sched._fast_constructor import fast_constructor
from trio_sched._resources.correlation import RuntimeCorrelation
from trio_sched._resources.identity import RequestResourceKey
from trio_sched._resources.pressure import RequestPressureSnapshot

__all__ = ["REQUEST_EVENT_KINDS", "RequestAdmissionEvent", "RequestAdmissionEventKind", "make_request_event"]

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


make_request_event = fast_constructor(RequestAdmissionEvent)
"""Makes one where it is made for every transition."""

"""What request admission is asked, how an attempt ended, and what its pressure was at one instant.

There is one item per concrete outbound attempt and one outcome when it is over. Pressure snapshots are read-only;
taking one changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, cast, get_args

import attrs

from trio_sched import _validation as check
from trio_sched._errors import shown
from trio_sched._resources.identity import ProviderModelKey, RequestDomain, RequestResourceKey, RuntimeCorrelation

__all__ = [
    "OUTCOME_KINDS",
    "Blame",
    "EndpointStateName",
    "ProviderModelPressureSnapshot",
    "RequestAdmissionItem",
    "RequestEventContext",
    "RequestGroupSpec",
    "RequestOutcomeKind",
    "RequestPressureSnapshot",
    "RequestReleaseOutcome",
]

RequestOutcomeKind = Literal[
    "success",
    "rate_limited",
    "provider_failure",
    "provider_timeout",
    "local_cancelled",
    "local_timeout",
    "unexpected_exception",
]
EndpointStateName = Literal["answering", "not_answering", "closed"]
OUTCOME_KINDS: Final[frozenset[str]] = frozenset(get_args(RequestOutcomeKind))
_OVERLOAD_STATUSES: Final = (503, 529)
_ACCESS_STATUSES: Final = (401, 403, 404, 498)
_PASSING_CLIENT_STATUSES: Final = (408, 409, 425, 499)
_LASTING_SERVER_STATUSES: Final = (501, 505)

Blame = Literal["nobody", "pace", "endpoint", "access", "row"]
"""Whose failure it is. nobody's: there was none, or it says nothing about row and endpoint, as a cancellation. The
provider's pace: it had no room. The endpoint's: it did not answer. Access to it: key, model or quota are refused. The
row's own: the provider answered that this request is wrong, or its own code failed."""

_BLAMES: Final[Mapping[str, Blame]] = {
    "success": "nobody",
    "rate_limited": "pace",
    "provider_failure": "endpoint",
    "provider_timeout": "endpoint",
    "local_cancelled": "nobody",
    "local_timeout": "endpoint",
    "unexpected_exception": "row",
}


@attrs.frozen
class RequestGroupSpec:
    """Fair-order group of a request. Its key is the request resource itself; the weight is that of the item served."""

    key: RequestResourceKey
    weight: float = attrs.field(default=1.0, validator=check.weight)


@attrs.frozen
class RequestEventContext:
    """Who asks, for events: captured when the attempt is made, never used for a decision."""

    captured_correlation: RuntimeCorrelation | None = None
    task_execution_id: str | None = None
    request_attempt_id: str | None = None


@attrs.frozen
class RequestAdmissionItem:
    """One outbound attempt that asks to go out.

    queue_wait_timeout_seconds: longest wait in the queue; 0 grants at once or refuses; None takes the config's default.
    not_before: of a call that the provider refused, when it wants to see that call again, in seconds on the run's
    clock. Until then the call lets everybody else who waits for the resource go first, and goes when nobody does.
    """

    resource: RequestResourceKey
    group: RequestGroupSpec
    queue_wait_timeout_seconds: float | None = attrs.field(default=None, validator=check.optional_non_negative_finite)
    event_context: RequestEventContext | None = None
    not_before: float | None = attrs.field(default=None, validator=check.optional_finite)


def _blame_by_kind_and_status(outcome: RequestReleaseOutcome) -> Blame:
    kind, status = outcome.kind, outcome.provider_status
    if kind == "provider_failure" and status is not None and status not in _PASSING_CLIENT_STATUSES:
        if status in _OVERLOAD_STATUSES:
            return "pace"
        if status in _ACCESS_STATUSES:
            return "access"
        if status < 500 or status in _LASTING_SERVER_STATUSES:
            return "row"
    return _BLAMES.get(kind, "row") if isinstance(cast("object", kind), str) else "row"


@attrs.frozen
class RequestReleaseOutcome:
    """How an attempt ended. Building one never raises, so it is safe in a `finally`.

    retry_after_seconds: the provider's hint; a hint that is negative, NaN, infinite or no number becomes None, and an
    unknown kind becomes `unexpected_exception`; `diagnostics` says so. provider_status: the HTTP status, if any.
    blame: whose failure it is, by default what kind and status say.
    """

    kind: RequestOutcomeKind
    retry_after_seconds: float | None = None
    provider_status: int | None = None
    diagnostics: Mapping[str, object] = attrs.field(factory=dict[str, object])
    blame: Blame = attrs.field(default=attrs.Factory(_blame_by_kind_and_status, takes_self=True), kw_only=True)

    @property
    def refused(self) -> bool:
        """Whether the provider had no room: a rate limit, or a failure with HTTP 503 or 529."""
        return self.kind == "rate_limited" or (
            self.kind == "provider_failure" and self.provider_status in _OVERLOAD_STATUSES
        )

    def __attrs_post_init__(self) -> None:
        notes: dict[str, object] = {}
        kind = cast("object", self.kind)
        if not isinstance(kind, str) or kind not in OUTCOME_KINDS:
            notes["invalid_kind"] = shown(kind)
            object.__setattr__(self, "kind", "unexpected_exception")
        if self.retry_after_seconds is not None and not _usable_hint(self.retry_after_seconds):
            notes["invalid_retry_after_seconds"] = shown(self.retry_after_seconds)
            object.__setattr__(self, "retry_after_seconds", None)
        if notes:
            object.__setattr__(self, "diagnostics", {**self.diagnostics, **notes})


def _usable_hint(hint: object) -> bool:
    if not isinstance(hint, int | float) or isinstance(hint, bool):
        return False
    return check.is_finite(hint) and hint >= 0


@attrs.frozen
class RequestPressureSnapshot:
    """One request resource at `captured_at` (the run's clock, seconds). `sequence` counts its state changes.

    The defaults are those of a resource that nothing has stopped yet.
    """

    captured_at: float
    sequence: int
    resource: RequestResourceKey
    effective_max: int
    current_limit: int
    in_flight_count: int
    active_lease_count: int
    waiters: int
    blocked_until_monotonic: float | None = None
    cooldown_remaining_seconds: float = 0.0
    rate_limit_ceiling: int | None = None
    consecutive_rate_limits: int = 0
    last_outcome: str | None = None
    leak_diagnostics: Mapping[str, int] = attrs.field(factory=dict[str, int])


@attrs.frozen
class ProviderModelPressureSnapshot:
    """One endpoint at `captured_at`. `domains` maps each domain to its requests in flight.

    state: `answering`; `not_answering` while one trial call goes out at a time; `closed` once nothing goes out any
    more. state_reason: why it is not answering. unanswered_since: when the first call ended that was not answered after
    the last one that was, on the run's clock; None where the last one was answered.
    """

    captured_at: float
    sequence: int
    provider_model: ProviderModelKey
    static_cap: int
    aggregate_in_flight: int
    aggregate_active_lease_count: int
    aliases: tuple[str, ...]
    raw_caps: Mapping[str, int]
    domains: Mapping[RequestDomain, int]
    state: EndpointStateName = "answering"
    state_reason: str | None = None
    unanswered_since: float | None = None

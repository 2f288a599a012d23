"""What an admission decision is: a lease, or a denial that says why and until when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import attrs

from trio_sched._errors import TrioSchedError
from trio_sched._request.limit import Grant
from trio_sched._resources.identity import RequestResourceKey, RuntimeCorrelation
from trio_sched._resources.request import RequestAdmissionItem, RequestPressureSnapshot

__all__ = [
    "LeakedRequestLease",
    "RequestAdmissionDecision",
    "RequestAdmissionDenied",
    "RequestAdmissionError",
    "RequestAdmissionLease",
    "RequestDenialReason",
]

RequestDenialReason = Literal[
    "no_capacity",
    "cooldown",
    "retry_hint",
    "queue_timeout",
    "queued_waiters_ahead",
    "cancellation",
    "shutdown",
    "hard_policy_denial",
    "endpoint_not_answering",
    "endpoint_closed",
]

_NO_GRANT: Final = Grant(0, 0, 0)


@attrs.frozen
class RequestAdmissionLease:
    """The right to make one outbound attempt, to be released exactly once with its outcome.

    lease_id is unique within its controller, whose generation is `controller_generation`. current_adaptive_limit is the
    limit that was in force, grant what the limit's rule remembers of this call. holder is the name of the Trio task
    that asked, captured_correlation the execution it belongs to.
    """

    lease_id: int
    item: RequestAdmissionItem
    acquired_at: float
    current_adaptive_limit: int
    effective_max: int
    controller_generation: int
    grant: Grant = _NO_GRANT
    holder: str | None = None
    captured_correlation: RuntimeCorrelation | None = None


@attrs.frozen
class RequestAdmissionDenied:
    """Why no lease was given, and where it can be known, when asking again makes sense.

    available_after_monotonic is on the run's clock, retry_after_seconds counts from the denial.
    """

    item: RequestAdmissionItem
    reason: RequestDenialReason
    retry_after_seconds: float | None = None
    available_after_monotonic: float | None = None
    snapshot: RequestPressureSnapshot | None = None
    diagnostics: Mapping[str, object] = attrs.field(factory=dict[str, object])


RequestAdmissionDecision: TypeAlias = RequestAdmissionLease | RequestAdmissionDenied


class RequestAdmissionError(TrioSchedError):
    """A blocking acquire ended without a lease. `decision` is the denial."""

    def __init__(self, decision: RequestAdmissionDenied) -> None:
        super().__init__(decision)
        self.decision = decision

    def __str__(self) -> str:
        text = f"no request lease for {self.decision.item.resource}: {self.decision.reason}"
        explanation = self.decision.diagnostics.get("explanation")
        return text if explanation is None else f"{text} ({explanation})"


@attrs.frozen
class LeakedRequestLease:
    """A lease that is still held, and by whom."""

    lease_id: int
    resource: RequestResourceKey
    held_since: float
    holder: str | None
    task_execution_id: str | None
    request_attempt_id: str | None
    captured_correlation: RuntimeCorrelation | None

    @classmethod
    def of(cls, lease: RequestAdmissionLease) -> LeakedRequestLease:
        """Describe `lease`."""
        context = lease.item.event_context
        correlation = lease.captured_correlation
        execution = None if context is None else context.task_execution_id
        if execution is None and correlation is not None:
            execution = correlation.task_execution_id
        return cls(
            lease_id=lease.lease_id,
            resource=lease.item.resource,
            held_since=lease.acquired_at,
            holder=lease.holder,
            task_execution_id=execution,
            request_attempt_id=None if context is None else context.request_attempt_id,
            captured_correlation=correlation,
        )

    def __str__(self) -> str:
        known = [
            f"{name} {value}"
            for name, value in (
                ("task", self.holder),
                ("task execution", self.task_execution_id),
                ("attempt", self.request_attempt_id),
            )
            if value is not None
        ]
        return f"lease {self.lease_id} on {self.resource} held by {', '.join(known) or 'an unnamed caller'}"

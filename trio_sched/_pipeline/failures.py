"""What a failed model call means for the row that needed it, in the words of the scheduler."""

from __future__ import annotations

from trio_sched._classify import judge_exception
from trio_sched._request.leases import RequestAdmissionError
from trio_sched._scheduler.retry import Failure

__all__ = ["classify_failure"]


def classify_failure(error: Exception) -> Failure:
    """A rate limit or a local queue timeout says nothing about the row; transport and server trouble may pass."""
    if isinstance(error, RequestAdmissionError):
        decision = error.decision
        kind = "preserved" if decision.reason == "queue_timeout" else "non_retryable"
        return Failure(kind, decision.reason, decision.retry_after_seconds)
    verdict = judge_exception(error)
    outcome = verdict.outcome
    if not verdict.retryable:
        return Failure("non_retryable", verdict.exhausted or outcome.kind)
    kind = "preserved" if outcome.kind == "rate_limited" else "retryable"
    return Failure(kind, outcome.kind, outcome.retry_after_seconds)

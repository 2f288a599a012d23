"""What a failed model call means for the row that needed it, in the words of the scheduler."""

from __future__ import annotations

from trio_sched._classify import judge_exception
from trio_sched._executor import QuotaExhaustedError
from trio_sched._request.leases import RequestAdmissionError
from trio_sched._scheduler.retry import Failure

__all__ = ["classify_failure"]


def classify_failure(error: Exception) -> Failure:
    """A rate limit or a local queue timeout says nothing about the row; transport and server trouble may pass.

    A used-up quota will not: its endpoint is closed, and the rows that still need it are given up, saying so.
    """
    if isinstance(error, RequestAdmissionError):
        decision = error.decision
        if decision.reason == "queue_timeout":
            return Failure("preserved", "queue_timeout", decision.retry_after_seconds)
        return Failure("non_retryable", decision.reason)
    if isinstance(error, QuotaExhaustedError):
        return Failure("non_retryable", "quota_exhausted")
    verdict = judge_exception(error)
    outcome = verdict.outcome
    if not verdict.retryable:
        return Failure("non_retryable", verdict.exhausted or outcome.kind)
    if outcome.kind == "rate_limited":
        return Failure("preserved", "rate_limited", outcome.retry_after_seconds)
    return Failure("retryable", outcome.kind, outcome.retry_after_seconds)

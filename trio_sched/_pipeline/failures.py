"""What a failure of a column means for the row that needed it, in the words of the scheduler."""

from __future__ import annotations

import sys
from typing import cast

from trio_sched._classify import judge_exception
from trio_sched._executor import QuotaExhaustedError
from trio_sched._pipeline.cells import MalformedOutputError
from trio_sched._pipeline.processors import ProcessorError
from trio_sched._pipeline.skipping import SkipRuleError
from trio_sched._request.leases import RequestAdmissionError
from trio_sched._scheduler.retry import Failure

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

__all__ = ["classify_failure"]


def classify_failure(error: Exception) -> Failure:
    """A rate limit or a local queue timeout says nothing about the row; transport and server trouble may pass.

    A used-up quota will not: its endpoint is closed, and the rows that still need it are given up, saying so. Of
    several errors that a function raised together, the one that leaves the least hope decides.
    """
    if isinstance(error, ExceptionGroup):
        return _least_hopeful([classify_failure(each) for each in cast("ExceptionGroup[Exception]", error).exceptions])
    if isinstance(error, MalformedOutputError):
        return Failure("non_retryable", "malformed_output")
    if isinstance(error, ProcessorError):
        return Failure("fatal", "processor")
    if isinstance(error, SkipRuleError):
        return Failure("non_retryable", "skip_rule")
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


def _least_hopeful(failures: list[Failure]) -> Failure:
    order = ("fatal", "non_retryable", "retryable", "preserved")
    return min(failures, key=lambda failure: (order.index(failure.kind), -(failure.retry_after_seconds or 0)))

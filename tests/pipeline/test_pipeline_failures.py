"""What each failure of a column means for its row, in the scheduler's words."""

from __future__ import annotations

import sys

import pytest

import trio_sched as ts
from trio_sched._pipeline.runner import classify_failure
from trio_sched.lowlevel import (
    Failure,
    ProviderModelKey,
    RequestAdmissionDenied,
    RequestAdmissionItem,
    RequestDomain,
    RequestGroupSpec,
    RequestResourceKey,
)

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

RESOURCE = RequestResourceKey("p", "m", RequestDomain.CHAT)
ITEM = RequestAdmissionItem(RESOURCE, RequestGroupSpec(RESOURCE))


class StatusError(Exception):
    def __init__(self, status_code: int) -> None:
        super().__init__(status_code)
        self.status_code = status_code


def queue_timeout(retry_after_seconds: float | None = None) -> ts.RequestAdmissionError:
    return ts.RequestAdmissionError(RequestAdmissionDenied(ITEM, "queue_timeout", retry_after_seconds))


FAILURES: list[tuple[Exception, Failure]] = [
    (queue_timeout(3.0), Failure("preserved", "queue_timeout", 3.0)),
    (ts.RequestAdmissionError(RequestAdmissionDenied(ITEM, "shutdown")), Failure("non_retryable", "shutdown")),
    (
        ts.QuotaExhaustedError(ProviderModelKey("p", "m"), "insufficient_quota", LookupError()),
        Failure("unsettled", "endpoint_closed"),
    ),
    (StatusError(429), Failure("preserved", "rate_limited")),
    (StatusError(503), Failure("retryable", "provider_failure")),
    (StatusError(404), Failure("non_retryable", "provider_failure")),
    (LookupError(), Failure("non_retryable", "unexpected_exception")),
    (ts.MalformedOutputError("c", "a set"), Failure("non_retryable", "malformed_output")),
    (ts.SkipRuleError("c"), Failure("non_retryable", "skip_rule")),
    (ts.TryAgain("why"), Failure("non_retryable", "try_again")),
    (ts.AttemptsSpentError("c", 3, "try_again", "why"), Failure("non_retryable", "try_again")),
    (ts.AttemptsSpentError("c", 3, "check_failed", "why"), Failure("non_retryable", "check_failed")),
    (ts.AttemptsSpentError("c", 3, "malformed_output", "why"), Failure("non_retryable", "malformed_output")),
    (ts.CheckError("c"), Failure("non_retryable", "check")),
    (ts.ProcessorError("pre-batch", "p", 0), Failure("fatal", "processor")),
    (ExceptionGroup("g", [StatusError(429)]), Failure("preserved", "rate_limited")),
    (ExceptionGroup("g", [StatusError(429), queue_timeout(9.0)]), Failure("preserved", "queue_timeout", 9.0)),
    (ExceptionGroup("g", [queue_timeout(9.0), StatusError(503)]), Failure("retryable", "provider_failure")),
    (
        ExceptionGroup("g", [StatusError(503), ExceptionGroup("h", [StatusError(429), LookupError()])]),
        Failure("non_retryable", "unexpected_exception"),
    ),
]


@pytest.mark.parametrize(("error", "failure"), FAILURES, ids=lambda value: repr(value)[:60])
def test_each_failure_has_its_meaning(error: Exception, failure: Failure) -> None:
    assert classify_failure(error) == failure

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sched._classify import judge_exception, refuses, used_up_quota

BEDROCK = "ThrottlingException"


@pytest.mark.parametrize(
    "code",
    [
        "rate_limit_exceeded",
        "RATE_LIMIT_EXCEEDED",
        "rateLimitExceeded",
        "slow_down",
        "rate_limit_error",
        "rate_limited",
        "RATE_LIMITED",
        "service_tier_capacity_exceeded",
        "rate_limit_reached_error",
        "RateLimitReached",
        "too_many_requests",
        "TOO_MANY_REQUESTS",
        "Too Many Requests",
        "RESOURCE_EXHAUSTED",
        "userRateLimitExceeded",
        "TooManyRequestsException",
        "ModelNotReadyException",
        "overloaded_error",
        "overloaded",
        "engine_overloaded",
        "engine_overloaded_error",
        "server_is_overloaded",
        "server_overloaded",
        "model_overloaded",
        BEDROCK,
        BEDROCK[0].lower() + BEDROCK[1:],
        f"com.amazon.coral.availability#{BEDROCK}",
    ],
)
def test_a_code_that_refuses(code: str) -> None:
    assert refuses(code)


@pytest.mark.parametrize(
    "code",
    [
        "",
        "#",
        "requests",
        "tokens",
        "server_error",
        "api_error",
        "UNAVAILABLE",
        "invalid_request_error",
        "context_length_exceeded",
        "insufficient_quota",
        "rate_limit_exceeded_not",
        "the rate_limit_exceeded",
        "ServiceQuotaExceededException",
        "a message that says that it is overloaded " * 4,
    ],
)
def test_a_code_that_does_not_refuse(code: str) -> None:
    assert not refuses(code)


def test_the_most_particular_code_of_a_quota() -> None:
    assert used_up_quota({"insufficient_quota", "project_spend_limit_exceeded"}) == "project_spend_limit_exceeded"
    assert used_up_quota({"billing_error", "x"}) == "billing_error"
    assert used_up_quota({"rate_limit_exceeded"}) is None
    assert used_up_quota(frozenset()) is None


@given(st.text())
def test_any_text_is_a_code_or_none(code: str) -> None:
    assert isinstance(refuses(code), bool)


class ClientError(Exception):
    """As botocore raises it: everything is in a mapping."""

    def __init__(self, code: str, status: object = 429, headers: object = None) -> None:
        super().__init__(f"An error occurred ({code}) when calling the Converse operation: Too many tokens")
        self.response = {
            "Error": {"Code": code, "Message": "Too many tokens"},
            "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers},
        }


@pytest.mark.parametrize(
    ("exc", "kind", "retryable", "hint", "status"),
    [
        (ClientError(BEDROCK), "rate_limited", True, None, 429),
        (ClientError(BEDROCK, 400), "rate_limited", True, None, 400),
        (ClientError(BEDROCK[0].lower() + BEDROCK[1:], 400), "rate_limited", True, None, 400),
        (ClientError(BEDROCK, 400, {"retry-after": "3"}), "rate_limited", True, 3.0, 400),
        (ClientError("ServiceUnavailableException", 503), "provider_failure", True, None, 503),
        (ClientError("ValidationException", 400), "provider_failure", False, None, 400),
        (ClientError("AccessDeniedException", 403, {"x-should-retry": "true"}), "provider_failure", True, None, 403),
        (ClientError(BEDROCK, None), "unexpected_exception", False, None, None),
    ],
)
def test_an_error_of_botocore(exc: Exception, kind: str, retryable: bool, hint: float | None, status: object) -> None:
    verdict = judge_exception(exc)
    outcome = verdict.outcome
    assert (outcome.kind, verdict.retryable, outcome.retry_after_seconds) == (kind, retryable, hint)
    assert outcome.provider_status == status

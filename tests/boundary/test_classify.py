from __future__ import annotations

import errno
import importlib
import json
import socket
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import cast

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from trio_sched._answers import ProviderAnswerError, RateLimited
from trio_sched._classify import ErrorVerdict, classify_exception, judge_exception
from trio_sched._resources.request import OUTCOME_KINDS, RequestReleaseOutcome

URL = "https://provider.test/v1/chat/completions"


def http_error(
    status: int, headers: Mapping[str, str] | None = None, json: object = None, *, read: bool = True
) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", URL)
    if read:
        response = httpx.Response(status, headers=headers, json=json, request=request)
    else:
        response = httpx.Response(status, headers=headers, stream=httpx.ByteStream(b"{}"), request=request)
    return httpx.HTTPStatusError(f"status {status}", request=request, response=response)


def brief(exc: BaseException) -> tuple[str, bool, float | None, int | None]:
    verdict = judge_exception(exc)
    assert classify_exception(exc) == verdict.outcome
    assert verdict.retryable == (verdict.outcome.blame in {"pace", "endpoint", "access"})
    return (
        verdict.outcome.kind,
        verdict.retryable,
        verdict.outcome.retry_after_seconds,
        verdict.outcome.provider_status,
    )


@pytest.mark.parametrize(
    ("status", "headers", "kind", "retryable", "hint"),
    [
        (429, {}, "rate_limited", True, None),
        (429, {"retry-after": "2"}, "rate_limited", True, 2.0),
        (429, {"retry-after": "0"}, "rate_limited", True, None),
        (429, {"x-should-retry": "false"}, "rate_limited", True, None),
        (529, {}, "rate_limited", True, None),
        (503, {"retry-after-ms": "250"}, "rate_limited", True, 0.25),
        (503, {}, "provider_failure", True, None),
        (503, {"retry-after": "0"}, "provider_failure", True, None),
        (503, {"x-ratelimit-reset-requests": "2s"}, "rate_limited", True, 2.0),
        (
            503,
            {"x-ratelimit-reset-requests": "2s", "x-ratelimit-remaining-requests": "7"},
            "provider_failure",
            True,
            None,
        ),
        (429, {"x-ratelimit-reset-requests": "2s"}, "rate_limited", True, 2.0),
        (529, {"anthropic-ratelimit-requests-reset": "2s"}, "rate_limited", True, 2.0),
        (500, {"x-ratelimit-reset-requests": "2s"}, "provider_failure", True, None),
        (403, {"retry-after": "9"}, "rate_limited", True, 9.0),
        (403, {"x-ratelimit-reset": "9"}, "provider_failure", True, None),
        (498, {"retry-after": "9"}, "rate_limited", True, 9.0),
        (500, {"retry-after": "2"}, "provider_failure", True, 2.0),
        (500, {"x-should-retry": "false"}, "provider_failure", False, None),
        (500, {"x-should-retry": "perhaps"}, "provider_failure", True, None),
        (502, {}, "provider_failure", True, None),
        (504, {}, "provider_failure", True, None),
        (501, {}, "provider_failure", False, None),
        (505, {}, "provider_failure", False, None),
        (408, {}, "provider_failure", True, None),
        (409, {}, "provider_failure", True, None),
        (400, {}, "provider_failure", False, None),
        (400, {"x-should-retry": "true"}, "provider_failure", True, None),
        (401, {}, "provider_failure", True, None),
        (403, {}, "provider_failure", True, None),
        (404, {}, "provider_failure", True, None),
        (413, {}, "provider_failure", False, None),
        (422, {}, "provider_failure", False, None),
        (302, {}, "provider_failure", False, None),
    ],
)
def test_an_http_status(status: int, headers: dict[str, str], kind: str, retryable: bool, hint: float | None) -> None:
    assert brief(http_error(status, headers)) == (kind, retryable, hint, status)


def blame(exc: BaseException) -> str:
    verdict = judge_exception(exc)
    assert verdict.retryable == (verdict.outcome.blame in {"pace", "endpoint", "access"})
    return verdict.outcome.blame


@pytest.mark.parametrize(
    ("whose", "statuses"),
    [
        ("pace", [429, 503, 529]),
        ("endpoint", [408, 409, 425, 499, 500, 502, 504, 520, 522, 524, 530]),
        ("access", [401, 403, 404, 405, 407, 410, 498]),
        ("row", [302, 400, 406, 411, 413, 415, 422, 424, 451, 501, 505]),
    ],
)
def test_whose_failure_a_status_is(whose: str, statuses: list[int]) -> None:
    assert {status: blame(http_error(status)) for status in statuses} == dict.fromkeys(statuses, whose)


@pytest.mark.parametrize(
    ("status", "body", "whose"),
    [
        # Refused by a code or in words.
        (403, {"error": {"status": "PERMISSION_DENIED", "errors": [{"reason": "rateLimitExceeded"}]}}, "pace"),
        (403, {"message": "You have exceeded a secondary rate limit."}, "pace"),
        (498, {"error": {"code": "capacity_exceeded"}}, "pace"),
        (498, {"error": {"message": "Invalid token."}}, "access"),
        (400, {"message": "rate limit"}, "row"),
        # Key and model, said with 400.
        (400, {"error": {"status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}}, "access"),
        (400, {"error": {"code": "model_decommissioned", "type": "invalid_request_error"}}, "access"),
        (401, {"error": {"code": "invalid_api_key", "type": "invalid_request_error"}}, "access"),
        # What is missing.
        (404, {"error": {"code": "model_not_found", "message": "The model `file-writer` does not exist"}}, "access"),
        (404, {"error": {"message": "models/file-1 is not found for API version v1"}}, "access"),
        (404, {"error": {"type": "not_found_error", "message": "model: claude-0"}}, "access"),
        (404, {"error": {"code": "DeploymentNotFound", "message": "The file of the deployment"}}, "access"),
        (404, {"error": {"message": "No such thing", "param": "model"}}, "access"),
        (404, {"detail": "Not Found"}, "access"),
        (404, {"error": {"message": "Invalid URL (POST /v1/files)"}}, "access"),
        (404, {"error": {"message": "No such File object: file-model-1", "param": "id"}}, "row"),
        (404, {"error": {"code": "file_not_found"}}, "row"),
        (404, {"error": {"code": "previous_response_not_found", "message": "of the model"}}, "row"),
        (404, {"error": {"code": "FileNotFound", "message": "The model cannot see it"}}, "row"),
        (404, {"error": {"message": "Item with id 'rs_1' not found."}}, "row"),
        (410, {"error": {"message": "The assistant was deleted"}}, "row"),
        # A failure of the model may pass.
        (424, {"message": "The request failed", "originalStatusCode": 500}, "endpoint"),
        (424, {"message": "The request failed", "__type": "ModelErrorException"}, "endpoint"),
        (424, {"message": "Failed dependency"}, "row"),
        (400, {"status": 400, "detail": "Function id '1': DEGRADED function cannot be invoked"}, "endpoint"),
        (400, {"detail": "A degraded image"}, "row"),
        # About the content.
        (400, {"error": {"code": "content_filter"}}, "row"),
        (500, {"error": {"code": "context_length_exceeded"}}, "row"),
        (503, {"error": {"type": "exceed_context_size_error"}}, "row"),
        (502, {"error": {"code": "moderation_unavailable"}}, "endpoint"),
        (403, {"error": {"code": 403, "message": "The model requires moderation. Your input was flagged"}}, "row"),
        (403, {"error": {"message": "Your account was flagged"}}, "access"),
        (413, {"error": {"type": "request_too_large"}}, "row"),
        # Larger than its whole limit.
        (429, {"error": {"code": "rate_limit_exceeded", "message": "TPM: Limit 30000, Requested 30001."}}, "row"),
        (413, {"error": {"code": "rate_limit_exceeded", "message": "TPM: Limit: 6000, Requested: 9000"}}, "row"),
        (429, {"error": {"code": "rate_limit_exceeded", "message": "TPM: Limit 30000, Requested 30000."}}, "pace"),
        (429, {"error": {"code": "x", "message": "TPM: Limit 100, Used 99, Requested 2. Try again in 1s"}}, "pace"),
        # Quota.
        (429, {"error": {"code": "insufficient_quota"}}, "access"),
        (402, None, "access"),
        (429, {"error": {"code": "exceeded_current_quota_error"}}, "access"),
        (400, {"code": "Arrearage"}, "access"),
    ],
)  # fmt: skip
def test_whose_failure_a_body_says(status: int, body: object, whose: str) -> None:
    assert blame(http_error(status, json=body)) == whose


def test_a_request_larger_than_its_limit_lowers_no_limit_and_waits_for_nothing() -> None:
    body = {"error": {"code": "rate_limit_exceeded", "message": "Limit 10, Requested 11. Try again in 9s."}}
    outcome = classify_exception(http_error(429, {"retry-after": "9"}, body))
    assert (outcome.kind, outcome.refused, outcome.retry_after_seconds) == ("provider_failure", False, None)
    assert "hint_source" not in outcome.diagnostics


def test_a_page_of_a_firewall_is_no_word_about_the_key() -> None:
    assert blame(plain_error(403, "<!DOCTYPE html><title>Attention required</title>")) == "endpoint"
    assert blame(plain_error(403, "You may not.")) == "access"
    assert blame(plain_error(404, "<html><h1>File or directory not found.</h1></html>")) == "access"


@pytest.mark.parametrize(
    ("status", "wish", "whose"),
    [
        (500, "false", "row"),
        (409, "false", "row"),
        (400, "true", "endpoint"),
        (401, "true", "endpoint"),
        (401, "false", "access"),
        (503, "false", "pace"),
        (429, "false", "pace"),
    ],
)
def test_whose_failure_where_the_provider_says_whether_to_retry(status: int, wish: str, whose: str) -> None:
    assert blame(http_error(status, {"x-should-retry": wish})) == whose


def test_the_error_type_in_a_header_of_bedrock() -> None:
    named = {"x-amzn-errortype": "ModelErrorException:http://internal.amazon.com/coral/"}
    assert blame(http_error(424, named, {"message": "The request failed"})) == "endpoint"
    assert blame(http_error(424, {"x-amzn-errortype": "Other"}, {"message": "The request failed"})) == "row"


def os_error(number: int) -> OSError:
    return OSError(number, "said by the system")


@pytest.mark.parametrize(
    ("exc", "kind", "whose"),
    [
        (os_error(errno.ENETUNREACH), "provider_failure", "endpoint"),
        (os_error(errno.EHOSTUNREACH), "provider_failure", "endpoint"),
        (os_error(errno.ENOSPC), "unexpected_exception", "row"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "provider_failure", "endpoint"),
        (ssl.SSLCertVerificationError("expired"), "provider_failure", "endpoint"),
        (os_error(errno.EMFILE), "local_timeout", "pace"),
        (httpx.PoolTimeout("full"), "local_timeout", "pace"),
        (httpx.ConnectTimeout("slow"), "provider_timeout", "endpoint"),
        (trio.TooSlowError(), "local_timeout", "endpoint"),
        (httpx.InvalidURL("no"), "unexpected_exception", "row"),
    ],
)
def test_whose_failure_of_the_transport(exc: Exception, kind: str, whose: str) -> None:
    assert (judge_exception(exc).outcome.kind, blame(exc)) == (kind, whose)


def test_what_an_error_of_the_transport_comes_from() -> None:
    no_descriptor = caused(request_error("ConnectError"), caused(Exception("httpcore"), os_error(errno.EMFILE)))
    assert (judge_exception(no_descriptor).outcome.kind, blame(no_descriptor)) == ("local_timeout", "pace")
    mapped = Exception("httpcore")
    mapped.__context__ = caused(OSError("all attempts to connect failed"), group(os_error(errno.EMFILE)))
    assert blame(caused(request_error("ConnectError"), mapped)) == "pace"
    own = FileNotFoundError(errno.ENOENT, "no such file")
    own.__context__ = ConnectionRefusedError(errno.ECONNREFUSED, "no")
    assert blame(own) == "row"
    everywhere = group(ConnectionRefusedError(errno.ECONNREFUSED, "no"), os_error(errno.ENETUNREACH))
    assert blame(caused(OSError("all attempts to connect failed"), everywhere)) == "endpoint"
    assert blame(caused(OSError("a file is not there"), os_error(errno.ENOENT))) == "row"
    in_a_circle = OSError("round")
    in_a_circle.__cause__ = in_a_circle
    assert blame(in_a_circle) == "row"


def raised_by(function: Callable[[], object]) -> Exception:
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_a_body_that_cannot_be_decoded() -> None:
    cut = httpx.Response(200, content=b'{"choices": [{"mess')
    assert brief(raised_by(cut.json)) == ("provider_failure", True, None, None)
    binary = httpx.Response(200, content=b'{"a": "\xff"}')
    assert brief(raised_by(binary.json)) == ("provider_failure", True, None, None)
    page = "<html><body>Please log in</body></html>"
    assert brief(raised_by(lambda: json.loads(page))) == ("provider_failure", True, None, None)


def test_a_text_of_a_model_that_is_no_json_is_its_own() -> None:
    assert brief(raised_by(lambda: json.loads("Here you are: {"))) == ("unexpected_exception", False, None, None)


def test_rate_limited_said_by_an_author() -> None:
    assert brief(RateLimited()) == ("rate_limited", True, None, None)
    assert brief(RateLimited(retry_after=20)) == ("rate_limited", True, 20.0, None)
    assert brief(RateLimited(0)) == ("rate_limited", True, None, None)
    assert brief(RateLimited(1e9)) == ("rate_limited", True, 300.0, None)
    assert blame(RateLimited(3)) == "pace"


def test_what_a_judge_said_is_the_verdict() -> None:
    said = RequestReleaseOutcome("provider_timeout", 4.0, 504, {"why": "slow"}, blame="row")
    verdict = judge_exception(ProviderAnswerError("p/m", "no", outcome=said), hint_cap_seconds=3)
    assert (verdict.outcome.kind, verdict.outcome.provider_status) == ("provider_timeout", 504)
    assert (verdict.outcome.blame, verdict.retryable) == ("row", False)
    assert verdict.outcome.retry_after_seconds == 3.0
    assert verdict.outcome.diagnostics == {"error_type": "trio_sched._answers.ProviderAnswerError", "why": "slow"}


def request_error(name: str) -> httpx.RequestError:
    return cast("type[httpx.RequestError]", getattr(httpx, name))("no luck", request=httpx.Request("POST", URL))


@pytest.mark.parametrize(
    ("name", "kind", "retryable"),
    [
        ("ConnectTimeout", "provider_timeout", True),
        ("ReadTimeout", "provider_timeout", True),
        ("WriteTimeout", "provider_timeout", True),
        ("PoolTimeout", "local_timeout", True),
        ("ConnectError", "provider_failure", True),
        ("ReadError", "provider_failure", True),
        ("WriteError", "provider_failure", True),
        ("CloseError", "provider_failure", True),
        ("ProxyError", "provider_failure", True),
        ("RemoteProtocolError", "provider_failure", True),
        ("DecodingError", "provider_failure", True),
        ("LocalProtocolError", "unexpected_exception", False),
        ("UnsupportedProtocol", "unexpected_exception", False),
        ("TooManyRedirects", "unexpected_exception", False),
    ],
)
def test_an_httpx_transport_error(name: str, kind: str, retryable: bool) -> None:
    assert brief(request_error(name)) == (kind, retryable, None, None)
    # The property `request` of an httpx error raises when there is none; that must not come through.
    without_request = cast("type[httpx.RequestError]", getattr(httpx, name))("no luck")
    assert brief(without_request) == (kind, retryable, None, None)


@pytest.mark.parametrize(
    ("exc", "kind", "retryable"),
    [
        (trio.TooSlowError(), "local_timeout", True),
        (TimeoutError(), "provider_timeout", True),
        (ConnectionResetError(), "provider_failure", True),
        (ConnectionRefusedError(), "provider_failure", True),
        (trio.BrokenResourceError(), "provider_failure", True),
        (trio.ClosedResourceError(), "unexpected_exception", False),
        (FileNotFoundError(), "unexpected_exception", False),
        (httpx.InvalidURL("no"), "unexpected_exception", False),
        (ValueError("prompt"), "unexpected_exception", False),
        (AssertionError(), "unexpected_exception", False),
        (KeyboardInterrupt(), "local_cancelled", False),
        (SystemExit(), "local_cancelled", False),
        (GeneratorExit(), "local_cancelled", False),
    ],
)
def test_other_exceptions(exc: BaseException, kind: str, retryable: bool) -> None:
    assert brief(exc) == (kind, retryable, None, None)


async def test_cancelled() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(trio.Cancelled) as caught:
            await trio.lowlevel.checkpoint()
        assert brief(caught.value) == ("local_cancelled", False, None, None)


class Status(Exception):
    """An error that says its status in one of the ways that are about."""

    def __init__(self, **attributes: object) -> None:
        super().__init__()
        self.__dict__.update(attributes)


class Answer:
    def __init__(self, **attributes: object) -> None:
        self.__dict__.update(attributes)


@pytest.mark.parametrize(
    "exc",
    [
        Status(status_code=429),
        Status(status=429),
        Status(http_status=429),
        Status(code=429),
        Status(response=Answer(status_code=429)),
        Status(response=Answer(status=429)),
        Status(status="RESOURCE_EXHAUSTED", code=429),
    ],
)
def test_a_status_wherever_it_stands(exc: BaseException) -> None:
    assert brief(exc) == ("rate_limited", True, None, 429)


@pytest.mark.parametrize("value", ["429", True, 42.9, 0, 99, 600, -429, None, []])
def test_what_is_no_status(value: object) -> None:
    assert brief(Status(status_code=value, code=value)) == ("unexpected_exception", False, None, None)


def test_a_hint_from_the_headers_of_the_error_itself() -> None:
    assert brief(Status(status=503, headers={"Retry-After": "4"})) == ("rate_limited", True, 4.0, 503)


RETRY_INFO = {"error": {"code": 429, "details": [{"@type": "x/google.rpc.RetryInfo", "retryDelay": "12.5s"}]}}


def test_a_hint_from_the_body() -> None:
    assert brief(http_error(429, json=RETRY_INFO)) == ("rate_limited", True, 12.5, 429)
    assert brief(http_error(503, json=RETRY_INFO)) == ("rate_limited", True, 12.5, 503)
    assert brief(Status(code=429, details=RETRY_INFO)) == ("rate_limited", True, 12.5, 429)
    assert brief(Status(code=429, body='{"retryDelay": "3s"}')) == ("rate_limited", True, 3.0, 429)


def test_a_failure_that_does_not_refuse_has_no_hint_in_its_body() -> None:
    said = {"error": {"message": "try again in 5s", "retryDelay": "5s"}}
    assert brief(http_error(500, json=said)) == ("provider_failure", True, None, 500)
    assert brief(http_error(503, json=said)) == ("rate_limited", True, 5.0, 503)


def test_a_hint_in_words() -> None:
    azure = {"error": {"code": "429", "message": "You exceeded the call rate limit. Please retry after 26 seconds."}}
    assert brief(http_error(429, json=azure)) == ("rate_limited", True, 26.0, 429)
    assert brief(Status(status=429, message="Please try again in 7.5s.")) == ("rate_limited", True, 7.5, 429)
    assert brief(Status(status=429, body="Too many requests, try again in 5s")) == ("rate_limited", True, 5.0, 429)
    assert brief(Status(status=429, body=b"try again in 5s \xff")) == ("rate_limited", True, 5.0, 429)
    assert brief(plain_error(429, "Too many requests, please try again in 5 seconds.")) == (
        "rate_limited",
        True,
        5.0,
        429,
    )
    said = Status(status=429)
    said.args = ("Please try again in 8s", 5)
    assert brief(said) == ("rate_limited", True, 8.0, 429)
    assert classify_exception(said).diagnostics["hint_source"] == "message"
    said.__dict__["status"] = 500
    assert brief(said) == ("provider_failure", True, None, 500)


def plain_error(status: int, text: str) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", URL)
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(status, text=text, request=request))


def test_what_is_no_error_of_a_provider_has_no_hint() -> None:
    headers = {"retry-after": "4"}
    assert brief(Status(headers=headers)) == ("unexpected_exception", False, None, None)
    assert brief(Status(status=200, headers=headers)) == ("unexpected_exception", False, None, 200)
    timeout = TimeoutError("try again in 5s")
    assert brief(timeout) == ("provider_timeout", True, None, None)


@pytest.mark.parametrize("status", [400, 403, 413, 429, 500, 502, 503, 529])
@pytest.mark.parametrize(
    "error",
    [
        {"type": "overloaded_error"},
        {"code": "engine_overloaded", "type": "server_error"},
        {"code": "server_is_overloaded"},
        {"type": "rate_limit_error"},
        {"type": "tokens", "code": "rate_limit_exceeded"},
        {"code": 403, "status": "RESOURCE_EXHAUSTED"},
        {"code": "too_many_requests"},
        {"errors": [{"reason": "rateLimitExceeded"}]},
        {"code": 429},
        {"code": "429"},
        {"code": 529},
        {"status_code": 429, "code": "x"},
    ],
)
def test_a_refusal_said_by_a_code_whatever_the_status(status: int, error: dict[str, object]) -> None:
    expected = ("rate_limited", True, None, status)
    assert brief(http_error(status, json={"error": error})) == expected
    assert brief(http_error(status, {"x-should-retry": "false"}, {"error": error})) == expected
    assert brief(http_error(status, {"x-ratelimit-reset": "2"}, {"error": error})) == (
        "rate_limited",
        True,
        2.0,
        status,
    )
    words = {**error, "message": "try again in 3s"}
    assert brief(http_error(status, json={"error": words})) == ("rate_limited", True, 3.0, status)
    assert brief(Status(status=status, code="rate_limit_exceeded")) == expected


@pytest.mark.parametrize(
    "error",
    [{"type": "server_error"}, {"code": "503"}, {"code": 503}, {"status": "UNAVAILABLE"}, {"message": "overloaded"}],
)
def test_503_without_a_code_that_refuses_and_without_a_hint(error: dict[str, object]) -> None:
    failure = http_error(503, json={"error": error})
    assert brief(failure) == ("provider_failure", True, None, 503)
    assert classify_exception(failure).refused


def test_what_refuses() -> None:
    assert classify_exception(http_error(429)).refused
    assert classify_exception(http_error(529)).refused
    assert classify_exception(http_error(400, json={"error": {"code": "slow_down"}})).refused
    assert not classify_exception(http_error(500)).refused
    assert not classify_exception(TimeoutError()).refused


def test_a_body_that_was_not_read_is_not_read_here() -> None:
    assert brief(http_error(429, {"retry-after": "1"}, read=False)) == ("rate_limited", True, 1.0, 429)


def test_the_hint_is_capped_and_uses_the_wall_time_given() -> None:
    long = http_error(429, {"retry-after": "86400"})
    assert classify_exception(long).retry_after_seconds == 300.0
    assert classify_exception(long, hint_cap_seconds=10).retry_after_seconds == 10.0
    dated = http_error(429, {"retry-after": "Wed, 21 Oct 2015 12:00:30 GMT"})
    assert classify_exception(dated, wall_now=lambda: 1445428800.0).retry_after_seconds == 30.0


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (429, {"error": {"type": "insufficient_quota", "code": "insufficient_quota"}}, "insufficient_quota"),
        (
            429,
            {"error": {"type": "insufficient_quota", "code": "project_spend_limit_exceeded"}},
            "project_spend_limit_exceeded",
        ),
        (429, {"error": {"type": "x", "code": "credit_balance_exhausted"}}, "credit_balance_exhausted"),
        (400, {"error": {"code": "billing_hard_limit_reached"}}, "billing_hard_limit_reached"),
        (402, {"type": "error", "error": {"type": "billing_error"}}, "billing_error"),
        (402, None, "payment_required"),
        (
            429,
            {"error": {"type": "rate_limit_error", "details": {"error_code": "enforced_spend_limit_reached"}}},
            "enforced_spend_limit_reached",
        ),
        (
            429,
            [{"error": {"details": [{"violations": [{"quotaId": "TokensPerMinute"}, {"quotaId": "CallsPerDay"}]}]}}],
            "daily_quota",
        ),
    ],
)  # fmt: skip
def test_a_quota_that_is_used_up(status: int, body: object, code: str) -> None:
    verdict = judge_exception(http_error(status, json=body))
    assert (verdict.outcome.blame, verdict.exhausted) == ("access", code)
    assert verdict.outcome.kind == ("rate_limited" if status == 429 else "provider_failure")
    assert verdict.outcome.diagnostics["quota_code"] == code


@pytest.mark.parametrize(
    "exc",
    [
        http_error(429, json={"error": {"type": "requests", "code": "rate_limit_exceeded"}}),
        http_error(429, json={"error": {"details": {"error_code": "ramp_limit_exceeded"}}}),
        http_error(429, json={"error": {"details": [{"violations": [{"quotaId": "PerMinute"}, {"quotaId": 5}]}]}}),
        http_error(429, json={"error": {"message": "insufficient_quota"}}),
        Status(code="insufficient_quota"),
        Status(type="billing_error", body={"error": {"type": "billing_error"}}),
    ],
)  # fmt: skip
def test_a_quota_that_is_not_used_up(exc: BaseException) -> None:
    assert judge_exception(exc).exhausted is None


def test_a_used_up_quota_that_is_said_with_a_code_that_refuses() -> None:
    spent = {"error": {"type": "rate_limit_error", "code": "insufficient_quota"}}
    for status in (400, 429):
        verdict = judge_exception(http_error(status, json=spent))
        assert (verdict.outcome.kind, verdict.outcome.blame, verdict.exhausted) == (
            "rate_limited",
            "access",
            "insufficient_quota",
        )


def test_diagnostics_hold_plain_facts_only() -> None:
    secret = "sk-secret and a prompt"
    body = {"error": {"message": secret, "code": "insufficient_quota", "type": secret, "param": secret}}
    outcome = classify_exception(http_error(429, {"retry-after": "1", "x-secret": secret}, body))
    assert dict(outcome.diagnostics) == {
        "error_type": "httpx.HTTPStatusError",
        "hint_source": "retry-after",
        "quota_code": "insufficient_quota",
    }
    assert dict(classify_exception(ValueError(secret)).diagnostics) == {"error_type": "builtins.ValueError"}


def group(*errors: BaseException) -> BaseException:
    home = importlib.import_module("builtins" if sys.version_info >= (3, 11) else "exceptiongroup")
    return cast("BaseException", home.BaseExceptionGroup("several", errors))


def test_a_group_with_one_leaf_is_that_leaf() -> None:
    leaf = http_error(429, {"retry-after": "2"})
    assert judge_exception(group(group(leaf))) == judge_exception(leaf)
    assert judge_exception(group(KeyboardInterrupt())) == judge_exception(KeyboardInterrupt())


def test_in_a_group_cancelled_leaves_are_set_aside() -> None:
    leaf = TimeoutError()
    assert judge_exception(group(KeyboardInterrupt(), leaf)) == judge_exception(leaf)
    assert judge_exception(group(KeyboardInterrupt(), SystemExit())).outcome.kind == "local_cancelled"


@pytest.mark.parametrize(
    ("errors", "whose"),
    [
        ([http_error(429), http_error(400)], "row"),
        ([http_error(401), http_error(429)], "access"),
        ([http_error(500), http_error(429)], "pace"),
        ([KeyboardInterrupt(), http_error(500)], "endpoint"),
        ([KeyboardInterrupt()], "nobody"),
    ],
)
def test_whose_failure_a_group_is(errors: list[BaseException], whose: str) -> None:
    assert blame(group(*errors)) == whose
    assert blame(group(*reversed(errors))) == whose


@pytest.mark.parametrize(
    ("errors", "kind", "retryable", "hint"),
    [
        ([TimeoutError(), http_error(429, {"retry-after": "2"})], "rate_limited", True, 2.0),
        ([http_error(429, {"retry-after": "2"}), http_error(429, {"retry-after": "5"})], "rate_limited", True, 5.0),
        ([http_error(429), ValueError()], "rate_limited", False, None),
        ([http_error(500), ValueError()], "unexpected_exception", False, None),
        ([TimeoutError(), http_error(500)], "provider_failure", True, None),
        ([trio.TooSlowError(), TimeoutError()], "provider_timeout", True, None),
    ],
)
def test_the_worst_of_a_group(errors: list[BaseException], kind: str, retryable: bool, hint: float | None) -> None:
    for order in (errors, errors[::-1]):
        verdict = judge_exception(group(*order))
        assert (verdict.outcome.kind, verdict.retryable, verdict.outcome.retry_after_seconds) == (kind, retryable, hint)
        assert verdict.outcome.diagnostics["errors_in_group"] == 2


def test_a_used_up_quota_within_a_group_is_seen() -> None:
    used_up = http_error(429, json={"error": {"code": "insufficient_quota"}})
    assert judge_exception(group(TimeoutError(), used_up)).exhausted == "insufficient_quota"


class APIError(Exception):
    """Named as in the SDKs, which raise it of what a stream says."""

    def __init__(self, body: object, **attributes: object) -> None:
        super().__init__("no")
        self.body = body
        self.__dict__.update(attributes)


@pytest.mark.parametrize(
    ("body", "kind", "retryable", "hint", "status"),
    [
        ({"code": "rate_limit_exceeded"}, "rate_limited", True, None, None),
        ({"type": "engine_overloaded", "message": "retry in 2s"}, "rate_limited", True, 2.0, None),
        ({"code": 429}, "rate_limited", True, None, 429),
        ({"code": "429"}, "rate_limited", True, None, 429),
        ({"code": 429, "metadata": {"raw": "x"}}, "rate_limited", True, None, 429),
        ({"error": {"code": 529}}, "rate_limited", True, None, 529),
        ({"code": 429, "details": [{"retryDelay": "9s"}]}, "rate_limited", True, 9.0, 429),
        ({"code": 503, "status": "UNAVAILABLE"}, "provider_failure", True, None, 503),
        ({"code": 503, "message": "retry after 3 seconds"}, "rate_limited", True, 3.0, 503),
        ({"code": 500}, "provider_failure", True, None, 500),
        ({"code": 500, "message": "retry after 3 seconds"}, "provider_failure", True, None, 500),
        ({"code": 400, "type": "BadRequestError"}, "provider_failure", False, None, 400),
        ({"code": "tool_use_failed", "status_code": 400}, "provider_failure", False, None, 400),
        ({"type": "server_error"}, "provider_failure", True, None, None),
        ({"code": 200}, "provider_failure", True, None, None),
        ({"code": "1300"}, "provider_failure", True, None, None),
        ({"code": True}, "provider_failure", True, None, None),
        ({"code": 10**5000}, "provider_failure", True, None, None),
        ("overloaded", "provider_failure", True, None, None),
        (None, "provider_failure", True, None, None),
    ],
)
def test_an_error_inside_a_stream(body: object, kind: str, retryable: bool, hint: float | None, status: object) -> None:
    assert brief(APIError(body)) == (kind, retryable, hint, status)
    begun = APIError(body, status_code=200)
    if status is not None or kind == "rate_limited":
        assert brief(begun) == (kind, retryable, hint, status or 200)


@pytest.mark.parametrize(
    ("body", "whose"),
    [
        # Anthropic, whose error stands below `error`.
        ({"type": "error", "error": {"type": "overloaded_error"}}, "pace"),
        ({"type": "error", "error": {"type": "rate_limit_error"}}, "pace"),
        ({"type": "error", "error": {"type": "api_error"}}, "endpoint"),
        ({"type": "error", "error": {"type": "timeout_error"}}, "endpoint"),
        ({"type": "error", "error": {"type": "invalid_request_error"}}, "row"),
        ({"type": "error", "error": {"type": "request_too_large"}}, "row"),
        ({"type": "error", "error": {"type": "authentication_error"}}, "access"),
        ({"type": "error", "error": {"type": "permission_error"}}, "access"),
        ({"type": "error", "error": {"type": "not_found_error", "message": "model: x"}}, "access"),
        ({"type": "error", "error": {"type": "not_found_error", "message": "File not found: file_1"}}, "row"),
        ({"type": "error", "error": {"type": "billing_error"}}, "access"),
        # OpenAI and its relatives, of which the SDK shows what stands below `error`.
        ({"type": "server_error", "code": None}, "endpoint"),
        ({"code": 400, "type": "BadRequestError", "message": "context too long"}, "row"),
        ({"code": "tool_use_failed", "type": "invalid_request_error"}, "row"),
        ({"code": "invalid_api_key", "type": "invalid_request_error"}, "access"),
        ({"code": "context_length_exceeded"}, "row"),
        ({"code": "invalid_prompt"}, "row"),
        ({"code": "invalid_response"}, "endpoint"),
        ({"code": 401}, "access"),
        ({"code": 404, "message": "No such file"}, "row"),
        ({"code": 502, "message": "Provider disconnected"}, "endpoint"),
        ({"code": 503}, "pace"),
        ({"status": "UNAVAILABLE"}, "endpoint"),
        ({"status": "INVALID_ARGUMENT"}, "row"),
        ({"code": "something new"}, "endpoint"),
        ("boom", "endpoint"),
    ],
)  # fmt: skip
def test_whose_failure_an_error_inside_a_stream_is(body: object, whose: str) -> None:
    assert blame(APIError(body)) == whose
    assert blame(APIError(body, status_code=200)) == whose


def test_503_inside_a_stream_is_known_as_an_overload() -> None:
    assert classify_exception(APIError({"code": 503})).refused
    assert not classify_exception(APIError({"code": 500})).refused


def test_the_headers_of_a_stream_count_where_its_error_refuses() -> None:
    headers = {
        "x-ratelimit-reset-requests": "2s",
        "x-ratelimit-reset-tokens": "9s",
        "x-ratelimit-remaining-tokens": "8",
    }
    began = Answer(status_code=200, headers=headers)
    assert brief(APIError({"code": "slow_down"}, response=began)) == ("rate_limited", True, 2.0, 200)
    assert brief(APIError({"code": 500}, response=began)) == ("provider_failure", True, None, 500)


def test_a_used_up_quota_inside_a_stream() -> None:
    verdict = judge_exception(APIError({"code": "insufficient_quota"}))
    assert (verdict.outcome.kind, verdict.outcome.blame) == ("provider_failure", "access")
    assert verdict.exhausted == "insufficient_quota"


class APIConnectionError(Exception):
    """Named as in the SDKs."""


class OwnError(Exception):
    """An author's error."""


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def test_only_sdk_wrappers_are_looked_behind() -> None:
    assert brief(caused(APIConnectionError(), request_error("ReadError")))[:2] == ("provider_failure", True)
    assert brief(caused(APIConnectionError(), request_error("PoolTimeout")))[:2] == ("local_timeout", True)
    assert brief(caused(APIConnectionError(), request_error("UnsupportedProtocol")))[:2] == (
        "unexpected_exception",
        False,
    )
    assert brief(caused(OwnError(), http_error(429)))[:2] == ("unexpected_exception", False)


class Hostile(Exception):
    def __getattr__(self, name: str) -> object:
        raise RuntimeError(name)


class EntirelyHostile(Exception):
    def __getattribute__(self, name: str) -> object:
        raise RuntimeError(name)


class HostileHeaders:
    def get(self, name: str) -> object:
        raise RuntimeError(name)

    def __bool__(self) -> bool:
        raise RuntimeError


class NoArguments(Exception):
    args = None  # type: ignore[assignment]  # what an exception of somebody else may do
    status_code = 429


def test_foreign_errors_cannot_raise() -> None:
    for error in (Hostile(), EntirelyHostile(), group(EntirelyHostile(), Hostile())):
        assert brief(error) == ("unexpected_exception", False, None, None)
    assert brief(Status(status=500, headers=HostileHeaders())) == ("provider_failure", True, None, 500)
    assert brief(Status(status=500, response=Answer(headers=HostileHeaders()))) == ("provider_failure", True, None, 500)
    assert brief(NoArguments()) == ("rate_limited", True, None, 429)
    assert brief(Status(status=500, headers={"x-should-retry": []})) == ("provider_failure", True, None, 500)


NamedJSONDecodeError = type("JSONDecodeError", (Exception,), {})


class HostileMapping(Mapping[str, object]):
    def __getitem__(self, name: str) -> object:
        raise RuntimeError(name)

    def __iter__(self) -> Iterator[str]:
        raise RecursionError

    def __len__(self) -> int:
        raise ValueError


def answer(status: object, content: object) -> Answer:
    return Answer(status_code=status, headers=content, content=content, is_closed=True)


fields = st.sampled_from(
    [
        "error", "details", "code", "type", "retryDelay", "retry-after", "violations", "quotaId", "status", "message",
        "x-ratelimit-reset", "x-ratelimit-remaining", "ResponseMetadata", "HTTPStatusCode", "HTTPHeaders", "Error",
    ]
)  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    | st.sampled_from([429, 503, 200, "insufficient_quota", "429", "slow_down", "try again in 5s", "6m0s"]),
    lambda inner: st.lists(inner) | st.dictionaries(fields, inner) | st.builds(answer, inner, inner)
    | st.just(HostileHeaders()) | st.just(HostileMapping()),
    max_leaves=10,
)  # fmt: skip
attributes = st.dictionaries(
    st.sampled_from(
        [
            "status_code",
            "status",
            "code",
            "type",
            "body",
            "details",
            "headers",
            "response",
            "message",
            "reason",
            "http_status",
            "errno",
            "doc",
            "args",
        ]
    ),
    values,
)


@given(attributes)
def test_any_error_gets_a_verdict(attributes: dict[str, object]) -> None:
    in_a_stream = APIError(None)
    in_a_stream.__dict__.update(attributes)
    undecoded = NamedJSONDecodeError()
    undecoded.__dict__.update(attributes)
    said = ProviderAnswerError("p/m", "no", body=attributes.get("body"))
    for error in (Status(**attributes), in_a_stream, undecoded, said):
        verdict = judge_exception(error)
        assert isinstance(verdict, ErrorVerdict)
        assert verdict.outcome.kind in OUTCOME_KINDS
        assert "invalid_retry_after_seconds" not in verdict.outcome.diagnostics
        assert verdict.exhausted is None or verdict.outcome.blame == "access"
        assert verdict.retryable == (verdict.outcome.blame in {"pace", "endpoint", "access"})


def sdk_http(sdk: ModuleType) -> ModuleType:
    """The HTTP library that an installed SDK speaks: newer ones moved to its successor."""
    base = sys.modules[f"{sdk.__name__}._base_client"]
    return cast("ModuleType", getattr(base, "httpx2", httpx))


Raised = Callable[[int, Mapping[str, str], object], Exception]


@pytest.fixture(params=["openai", "anthropic"])
def raised(request: pytest.FixtureRequest) -> Raised:
    """Makes the error that the SDK itself makes of a response."""
    sdk = pytest.importorskip(request.param)
    http = sdk_http(sdk)

    def make(status: int, headers: Mapping[str, str], body: object) -> Exception:
        response = http.Response(status, headers=headers, json=body, request=http.Request("POST", URL))
        client = (sdk.AsyncOpenAI if request.param == "openai" else sdk.AsyncAnthropic)(api_key="none")
        return cast("Exception", client._make_status_error_from_response(response))

    return make


@pytest.mark.parametrize(
    ("status", "headers", "kind", "retryable", "hint"),
    [
        (400, {}, "provider_failure", False, None),
        (401, {}, "provider_failure", True, None),
        (403, {}, "provider_failure", True, None),
        (404, {}, "provider_failure", True, None),
        (409, {}, "provider_failure", True, None),
        (422, {}, "provider_failure", False, None),
        (429, {"retry-after": "2"}, "rate_limited", True, 2.0),
        (500, {}, "provider_failure", True, None),
        (503, {"retry-after-ms": "1500"}, "rate_limited", True, 1.5),
        (529, {}, "rate_limited", True, None),
    ],
)
def test_a_status_error_of_an_sdk(
    raised: Raised, status: int, headers: dict[str, str], kind: str, retryable: bool, hint: float | None
) -> None:
    error = raised(status, headers, {"error": {"type": "some_error", "message": "no"}})
    assert brief(error) == (kind, retryable, hint, status)


def test_a_used_up_quota_of_an_sdk(raised: Raised) -> None:
    verdict = judge_exception(raised(429, {}, {"error": {"type": "insufficient_quota", "code": "insufficient_quota"}}))
    assert (verdict.exhausted, verdict.outcome.blame) == ("insufficient_quota", "access")
    spent = {"error": {"type": "rate_limit_error", "details": {"error_code": "contract_spend_limit_reached"}}}
    assert judge_exception(raised(429, {}, spent)).exhausted == "contract_spend_limit_reached"


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_the_connection_errors_of_an_sdk(name: str) -> None:
    sdk = pytest.importorskip(name)
    http = sdk_http(sdk)
    request = http.Request("POST", URL)
    assert brief(sdk.APITimeoutError(request)) == ("provider_timeout", True, None, None)
    assert brief(sdk.APIConnectionError(request=request)) == ("provider_failure", True, None, None)
    pool = caused(sdk.APITimeoutError(request), http.PoolTimeout("full"))
    assert brief(pool)[:2] == ("local_timeout", True)
    read = caused(sdk.APITimeoutError(request), http.ReadTimeout("slow"))
    assert brief(read)[:2] == ("provider_timeout", True)
    bad = caused(sdk.APIConnectionError(request=request), http.UnsupportedProtocol("ftp"))
    assert brief(bad)[:2] == ("unexpected_exception", False)
    answer = http.Response(200, text="<html>", request=request)
    assert brief(sdk.APIResponseValidationError(answer, body=None))[:2] == ("provider_failure", True)


def test_errors_inside_a_stream_of_an_sdk(raised: Raised) -> None:
    openai = pytest.importorskip("openai")
    request = sdk_http(openai).Request("POST", URL)
    limited = openai.APIError("no", request, body={"code": "rate_limit_exceeded", "type": "requests"})
    assert brief(limited)[:2] == ("rate_limited", True)
    broken = openai.APIError("no", request, body={"type": "server_error"})
    assert brief(broken)[:2] == ("provider_failure", True)
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "no"}}
    assert brief(raised(200, {}, overloaded)) == ("rate_limited", True, None, 200)


def test_a_refusal_by_number_inside_a_stream_of_an_sdk() -> None:
    openai = pytest.importorskip("openai")
    request = sdk_http(openai).Request("POST", URL)
    body = {"message": "Rate limit reached. Please try again in 1.5s.", "code": 429}
    assert brief(openai.APIError(body["message"], request, body=body)) == ("rate_limited", True, 1.5, 429)


def test_hints_of_an_sdk(raised: Raised) -> None:
    resets = {
        "x-ratelimit-reset-requests": "20s",
        "x-ratelimit-remaining-requests": "0",
        "anthropic-ratelimit-tokens-reset": "2015-10-21T12:00:50Z",
        "anthropic-ratelimit-tokens-remaining": "8000",
        "date": "Wed, 21 Oct 2015 12:00:00 GMT",
    }
    error = {"error": {"type": "some_error", "message": "Please try again in 7.5s."}}
    assert brief(raised(429, resets, error)) == ("rate_limited", True, 20.0, 429)
    assert brief(raised(429, {}, error)) == ("rate_limited", True, 7.5, 429)
    assert brief(raised(500, resets, error)) == ("provider_failure", True, None, 500)


def test_the_outcome_is_a_release_outcome() -> None:
    assert type(classify_exception(ValueError())) is RequestReleaseOutcome

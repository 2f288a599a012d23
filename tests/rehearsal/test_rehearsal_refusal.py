"""What a refusal looks like, in every form in which providers send it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trio_sched._rehearsal.provider import Provider, Refused
from trio_sched._rehearsal.script import Phase, RehearsalScript
from trio_sched._rehearsal.wire import RefusalReply, refusal_reply
from trio_sched._retry_hints import retry_hint

NOON = 1_700_049_600.25
"""2023-11-15, a quarter of a second past noon."""

DATE = "Wed, 15 Nov 2023 12:00:00 GMT"


def refusal(**fields: Any) -> RefusalReply:
    phase = Phase(refuse_all=True, **fields)
    verdict = Provider("a", RehearsalScript(phases=(phase,))).arrive("chat", 0.0)
    assert isinstance(verdict, Refused)
    return refusal_reply("a", verdict, NOON)


def error(reply: RefusalReply) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(reply.body)["error"]
    return body


@pytest.mark.parametrize(
    ("form", "seconds", "headers"),
    [
        ("retry-after", 2.0, {"retry-after": "2"}),
        ("retry-after", 0.2, {"retry-after": "0.2"}),
        ("retry-after", 1e7, {"retry-after": "10000000"}),
        ("retry-after-ms", 1.1, {"retry-after-ms": "1100"}),
        ("retry-after-date", 1.5, {"retry-after": "Wed, 15 Nov 2023 12:00:02 GMT", "date": DATE}),
        ("retry-after-date", 1e300, {"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT", "date": DATE}),
        ("retry-after-epoch", 20.0, {"retry-after": "1700049621", "date": DATE}),
        (
            "x-ratelimit-reset-requests",
            1.5,
            {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1.5s"},
        ),
        (
            "anthropic-ratelimit-requests-reset",
            60.0,
            {
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2023-11-15T12:01:01Z",
                "date": DATE,
            },
        ),
        ("retryDelay", 1.5, {}),
        ("message", 1.5, {}),
        ("retry-after", None, {}),
        ("retry-after-date", None, {}),
    ],
)
def test_the_hint_is_in_the_headers_of_its_form(form: str, seconds: float | None, headers: dict[str, str]) -> None:
    assert refusal(retry_after_header=form, retry_after_seconds=seconds).headers == headers


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.0, "0s"),
        (0.02, "20ms"),
        (1.0, "1s"),
        (1.5, "1.5s"),
        (90.0, "1m30s"),
        (119.9999, "2m0s"),
        (3661.5, "1h1m1.5s"),
    ],
)
def test_openai_writes_its_durations_as_go_does(seconds: float, written: str) -> None:
    reply = refusal(retry_after_header="x-ratelimit-reset-requests", retry_after_seconds=seconds)
    assert reply.headers["x-ratelimit-reset-requests"] == written
    text = refusal(retry_after_header="message", retry_after_seconds=seconds)
    assert error(text)["message"] == text.message
    assert text.message.endswith(f"in phase steady. Please try again in {written}.")


def test_gemini_has_its_hint_among_the_details() -> None:
    reply = refusal(retry_after_header="retryDelay", retry_after_seconds=1.5)
    assert error(reply)["details"] == [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.5s"}]
    assert "details" not in error(refusal(retry_after_header="retryDelay", retry_after_seconds=None))
    assert "details" not in error(refusal())


@pytest.mark.parametrize(
    ("form", "read"),
    [("retry-after", 1.5), ("retry-after-ms", 1.5), ("retry-after-date", 2.0), ("retryDelay", 1.5)],
)
def test_the_hint_is_read_back(form: str, read: float) -> None:
    reply = refusal(retry_after_header=form, retry_after_seconds=1.5)
    hint = retry_hint(reply.headers, json.loads(reply.body))
    assert hint is not None
    assert (hint.source, hint.seconds) == (form, read)


@pytest.mark.parametrize(
    ("status", "kind", "code", "message"),
    [
        (429, "requests", "rate_limit_exceeded", "Rate limit reached for provider a: no request is served in phase x."),
        (503, "overloaded_error", None, "Provider a is overloaded: no request is served in phase x."),
        (529, "overloaded_error", None, "Provider a is overloaded: no request is served in phase x."),
    ],
)
def test_a_refusal_may_be_in_the_body_of_a_success(status: int, kind: str, code: str | None, message: str) -> None:
    plain = refusal(name="x", refusal_status=status)
    assert (plain.status, plain.headers) == (status, {"retry-after": "1"})
    assert error(plain) == {"message": message, "type": kind, "param": None, "code": code}
    hidden = refusal(name="x", refusal_status=status, refusal_form="body-in-200")
    assert (hidden.status, hidden.headers) == (200, {"retry-after": "1"})
    assert error(hidden) == {"message": message, "type": kind, "param": None, "code": status}


@pytest.mark.parametrize(
    ("phase", "limit"),
    [
        (Phase(max_in_flight=1), "1 request in flight"),
        (Phase(requests_per_second=0.5), "0.5 requests per second"),
        (Phase(requests_per_window=1), "1 request per 60 seconds"),
    ],
)
def test_a_refusal_names_the_limit(phase: Phase, limit: str) -> None:
    provider = Provider("a", RehearsalScript(phases=(phase,)))
    provider.arrive("chat", 0.0)
    verdict = provider.arrive("chat", 0.0)
    assert isinstance(verdict, Refused)
    assert refusal_reply("a", verdict, NOON).message == f"Rate limit reached for provider a: {limit} in phase steady."


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("form", ["status", "body-in-200"])
def test_a_key_is_refused_for_good(status: int, form: str) -> None:
    reply = refusal(refusal_status=status, refusal_form=form, retry_after_seconds=3.0)
    assert (reply.status, reply.headers) == (status if form == "status" else 200, {})
    assert error(reply)["code"] == "invalid_api_key"
    assert error(reply)["message"] == "Incorrect API key provided to provider a: every key is refused in phase steady."


@pytest.mark.parametrize("refusal_status", [429, 503])
def test_a_quota_that_is_used_up_is_a_429_without_a_hint_whatever_else_is_refused_how(refusal_status: Any) -> None:
    phase = Phase(quota=0, refusal_status=refusal_status, retry_after_seconds=3.0)
    verdict = Provider("a", RehearsalScript(phases=(phase,))).arrive("chat", 0.0)
    assert isinstance(verdict, Refused)
    reply = refusal_reply("a", verdict, NOON)
    assert (reply.status, reply.headers) == (429, {})
    assert (error(reply)["code"], error(reply)["type"]) == ("insufficient_quota", "insufficient_quota")
    assert reply.message == "You exceeded your current quota: provider a accepts 0 requests in all in phase steady."

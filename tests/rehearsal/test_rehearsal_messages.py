"""Anthropic's dialect, through Anthropic's client: answers, streams, refusals and errors of the same scripts."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio

from trio_sched._classify import classify_exception, judge_exception
from trio_sched._rehearsal.script import RehearsalScript as Script
from trio_sched._rehearsal.wire import MessagesRequest, WireError
from trio_sched.rehearsal import Latency, Phase, RehearsalScript, RehearsalServer, open_rehearsal

pytest.importorskip("hypercorn", reason="needs trio_sched[rehearsal]")
pytest.importorskip("starlette", reason="needs trio_sched[rehearsal]")
anthropic = pytest.importorskip("anthropic", reason="needs trio_sched[anthropic]")

from anthropic import AsyncAnthropic, DefaultAsyncHttpxClient  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator")

AT_ONCE = Latency(mean=0.0)
MESSAGES: Any = [{"role": "user", "content": "Explain coroutine objects and nurseries."}]
ASKED: dict[str, Any] = {"model": "m", "max_tokens": 100, "messages": MESSAGES}


@asynccontextmanager
async def serving(*phases: Phase) -> AsyncGenerator[tuple[RehearsalServer, AsyncAnthropic], None]:
    http = DefaultAsyncHttpxClient(trust_env=False)
    async with open_rehearsal({"a": RehearsalScript(phases=phases)}) as server:
        url = server.base_url("a").removesuffix("/v1")
        async with AsyncAnthropic(base_url=url, api_key="x", max_retries=0, http_client=http) as client:
            yield server, client


async def pieces(client: AsyncAnthropic, into: list[str]) -> None:
    """Collect what a stream brings, up to where it ends or breaks."""
    with trio.fail_after(20):
        async with client.messages.stream(**ASKED) as stream:
            async for text in stream.text_stream:
                into += [text]


async def test_the_client_gets_its_answer_at_once_and_word_by_word() -> None:
    async with serving(Phase(latency=AT_ONCE)) as (server, client):
        whole = cast("Any", await client.messages.create(**ASKED))
        got: list[str] = []
        await pieces(client, got)
        assert "".join(got) == whole.content[0].text
        assert len(got) > 5
        assert (whole.stop_reason, whole.usage.input_tokens) == ("end_turn", 5)
        assert (server.counters("a").answered, server.counters("a").in_flight) == (2, 0)


@pytest.mark.parametrize(
    ("fields", "error", "kind"),
    [
        ({"refuse_all": True}, anthropic.RateLimitError, "rate_limit_error"),
        ({"refuse_all": True, "refusal_status": 529}, anthropic.InternalServerError, "overloaded_error"),
        ({"refuse_all": True, "refusal_status": 401}, anthropic.AuthenticationError, "authentication_error"),
        ({"refuse_all": True, "refusal_status": 403}, anthropic.PermissionDeniedError, "permission_error"),
        ({"refuse_all": True, "refusal_status": 404}, anthropic.NotFoundError, "not_found_error"),
        ({"quota": 0}, anthropic.APIStatusError, "billing_error"),
        ({"error_share": 1.0}, anthropic.InternalServerError, "api_error"),
        ({"error_share": 1.0, "error_status": 413}, anthropic.APIStatusError, "request_too_large"),
        ({"bad_request_share": 1.0}, anthropic.BadRequestError, "invalid_request_error"),
    ],
)
async def test_what_goes_wrong_has_the_name_that_anthropic_gives_it(
    fields: dict[str, Any], error: type[Exception], kind: str
) -> None:
    async with serving(Phase(latency=AT_ONCE, **fields)) as (_, client):
        with pytest.raises(error) as caught:
            await client.messages.create(**ASKED)
        assert caught.value.body["error"]["type"] == kind  # type: ignore[attr-defined]
        assert (judge_exception(caught.value).exhausted is not None) == (kind == "billing_error")


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (429, None, "rate_limit_error"),
        (529, None, "overloaded_error"),
        (500, None, "api_error"),
        (504, None, "timeout_error"),
        (400, None, "invalid_request_error"),
        (401, None, "authentication_error"),
        (413, None, "request_too_large"),
        (500, "something_new", "something_new"),
    ],
)
async def test_an_error_in_the_middle_of_a_stream_has_its_type(status: int, code: str | None, kind: str) -> None:
    phase = Phase(latency=AT_ONCE, error_share=1.0, error_form="body-in-200", error_status=status, error_code=code)
    async with serving(phase) as (server, client):
        got: list[str] = []
        with pytest.raises(anthropic.APIStatusError) as caught:
            await pieces(client, got)
        assert any(got)
        assert caught.value.body["error"]["type"] == kind
        assert server.counters("a").failed == {"error": 1}


@pytest.mark.parametrize("form", ["cut", "reset"])
async def test_a_stream_may_break_off(form: Any) -> None:
    async with serving(Phase(latency=AT_ONCE, malformed_share=1.0, malformed_form=form)) as (server, client):
        got: list[str] = []
        with pytest.raises(Exception, match=r".") as caught:
            await pieces(client, got)
        assert classify_exception(caught.value).kind == "provider_failure"
        assert (server.counters("a").failed, server.counters("a").in_flight) == ({"malformed": 1}, 0)


def body(**fields: object) -> bytes:
    return json.dumps({**ASKED, **fields}).encode()


def test_the_system_prompt_is_read_in_both_forms() -> None:
    whole = MessagesRequest.parse(body(system="Reply with JSON: the score."))
    parts = MessagesRequest.parse(body(system=[{"type": "text", "text": "Reply with JSON: the score."}]))
    assert whole == parts
    assert whole.messages[0] == ("system", "Reply with JSON: the score.")
    assert "score" in json.loads(json.loads(whole.answer(Script()))["content"][0]["text"])


@pytest.mark.parametrize(
    ("fields", "param"), [({"messages": []}, "messages"), ({"max_tokens": 0}, "max_tokens"), ({"model": ""}, "model")]
)
def test_what_anthropic_would_not_take_names_the_parameter(fields: dict[str, object], param: str) -> None:
    with pytest.raises(WireError) as caught:
        MessagesRequest.parse(body(**fields))
    assert caught.value.param == param


def test_events_begin_and_end_as_they_should() -> None:
    events = MessagesRequest.parse(body()).events(Script())
    kinds = [event.split(b"\n")[0].removeprefix(b"event: ").decode() for event in events]
    assert kinds[:3] == ["message_start", "content_block_start", "content_block_delta"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    empty = MessagesRequest.parse(body()).events(Script(), empty=True)
    assert len(empty) == 3

"""Streamed chats, through the real OpenAI client: whole ones, and what a script makes of them."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio

from trio_sched._classify import classify_exception
from trio_sched._rehearsal.script import RehearsalScript as Script
from trio_sched._rehearsal.wire import ChatRequest
from trio_sched.rehearsal import Latency, Phase, RehearsalScript, RehearsalServer, open_rehearsal

pytest.importorskip("hypercorn", reason="needs trio_sched[rehearsal]")
pytest.importorskip("starlette", reason="needs trio_sched[rehearsal]")
openai = pytest.importorskip("openai", reason="needs trio_sched[openai]")

from openai import AsyncOpenAI, DefaultAsyncHttpxClient  # noqa: E402

# The SDK stops reading at [DONE] and leaves its own generators to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator")

AT_ONCE = Latency(mean=0.0)
MESSAGES: Any = [{"role": "user", "content": "Explain coroutine objects and nurseries."}]


@asynccontextmanager
async def serving(*phases: Phase) -> AsyncGenerator[tuple[RehearsalServer, AsyncOpenAI], None]:
    http = DefaultAsyncHttpxClient(trust_env=False)
    async with (
        open_rehearsal({"a": RehearsalScript(phases=phases)}) as server,
        AsyncOpenAI(base_url=server.base_url("a"), api_key="x", max_retries=0, http_client=http) as client,
    ):
        yield server, client


async def pieces(client: AsyncOpenAI, into: list[str], **options: Any) -> None:
    """Collect what a stream brings, up to where it ends or breaks."""
    with trio.fail_after(20):
        stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True, **options)
        async with stream:
            async for chunk in stream:
                into.extend(choice.delta.content or "" for choice in chunk.choices)


async def until(reached: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not reached():
            await trio.lowlevel.checkpoint()


async def test_a_stream_is_the_answer_word_by_word() -> None:
    async with serving(Phase(latency=AT_ONCE)) as (server, client):
        whole = await client.chat.completions.create(model="m", messages=MESSAGES)
        got: list[str] = []
        await pieces(client, got)
        assert "".join(got) == whole.choices[0].message.content
        assert len([piece for piece in got if piece]) > 5
        assert (server.counters("a").answered, server.counters("a").in_flight) == (2, 0)


async def test_choices_and_usage_are_streamed_too() -> None:
    async with serving(Phase(latency=AT_ONCE)) as (_, client):
        whole = await client.chat.completions.create(model="m", messages=MESSAGES, n=2)
        stream = await client.chat.completions.create(
            model="m", messages=MESSAGES, n=2, stream=True, stream_options={"include_usage": True}
        )
        texts, usage = ["", ""], None
        async for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
            usage = chunk.usage
        assert texts == [choice.message.content for choice in whole.choices]
        assert usage == whole.usage


@pytest.mark.parametrize(
    ("fields", "error", "kind", "counted"),
    [
        ({"malformed_share": 1.0, "malformed_form": "cut"}, Exception, "provider_failure", "malformed"),
        ({"malformed_share": 1.0, "malformed_form": "half"}, json.JSONDecodeError, "provider_failure", "malformed"),
        ({"error_share": 1.0, "error_form": "body-in-200"}, openai.APIError, "provider_failure", "error"),
    ],
    ids=["cut", "half", "error event"],
)
async def test_a_stream_goes_wrong_in_its_middle(
    fields: dict[str, Any], error: type[Exception], kind: str, counted: str
) -> None:
    async with serving(Phase(latency=AT_ONCE, **fields)) as (server, client):
        got: list[str] = []
        with pytest.raises(error) as caught:
            await pieces(client, got)
        assert any(got)
        assert classify_exception(caught.value).kind == kind
        assert (server.counters("a").failed, server.counters("a").in_flight) == ({counted: 1}, 0)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"error_share": 1.0, "error_status": 502}, openai.InternalServerError),
        ({"bad_request_share": 1.0}, openai.BadRequestError),
        ({"refuse_all": True}, openai.RateLimitError),
        # Early releases of the SDK let httpx's own error through here.
        ({"unreachable": True}, (openai.APIConnectionError, httpx.RemoteProtocolError)),
    ],
)
async def test_what_goes_wrong_before_a_stream_has_its_status(
    fields: dict[str, Any], error: type[Exception] | tuple[type[Exception], ...]
) -> None:
    async with serving(Phase(latency=AT_ONCE, **fields)) as (_, client):
        with pytest.raises(error):
            await pieces(client, [])


async def test_a_stream_may_have_no_choice_at_all() -> None:
    async with serving(Phase(latency=AT_ONCE, malformed_share=1.0, malformed_form="empty")) as (server, client):
        got: list[str] = []
        await pieces(client, got)
        assert got == []
        assert server.counters("a").failed == {"malformed": 1}


async def test_a_stream_that_hangs_is_silent_after_its_first_half_and_holds_its_slot() -> None:
    async with serving(Phase(latency=AT_ONCE, hang_share=1.0)) as (server, client):
        got: list[str] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pieces, client, got)
            await until(lambda: any(got))
            assert server.counters("a").in_flight == 1
            nursery.cancel_scope.cancel()
        await until(lambda: server.counters("a").in_flight == 0)
        assert server.counters("a").failed == {"hang": 1}


async def test_a_client_that_leaves_a_stream_frees_its_slot() -> None:
    async with serving(Phase(latency=Latency(mean=1e6))) as (server, client):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pieces, client, list[str]())
            await until(lambda: server.counters("a").in_flight == 1)
            nursery.cancel_scope.cancel()
        await until(lambda: server.counters("a").in_flight == 0)
        assert server.counters("a").abandoned == 1


async def test_a_slot_is_free_before_the_last_event_arrives() -> None:
    async with serving(Phase(latency=AT_ONCE, max_in_flight=1)) as (server, client):
        for _ in range(20):
            await pieces(client, [])
        assert server.counters("a").refused == {}


async def test_leaving_the_server_ends_a_stream() -> None:
    async with trio.open_nursery() as nursery, serving(Phase(latency=Latency(mean=1e6))) as (server, client):

        async def broken() -> None:
            with pytest.raises(Exception, match=r"."):
                await pieces(client, [])

        nursery.start_soon(broken)
        await until(lambda: server.counters("a").in_flight == 1)


def test_events_are_the_same_for_the_same_request() -> None:
    body = json.dumps({"model": "m", "messages": MESSAGES, "stream": True}).encode()
    events = ChatRequest.parse(body).events(Script())
    assert events == ChatRequest.parse(body).events(Script())
    assert events[-1] == b"data: [DONE]\n\n"
    assert all(event.startswith(b"data: ") and event.endswith(b"\n\n") for event in events)

"""The provider over real HTTP, mostly through the real OpenAI client."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from trio_sched import MissingExtraError, TrioSchedError
from trio_sched._classify import classify_exception
from trio_sched._rehearsal.process import RehearsalClient
from trio_sched._retry_hints import retry_hint
from trio_sched.rehearsal import (
    Latency,
    NotLoopbackError,
    Phase,
    RehearsalRefusedError,
    RehearsalScript,
    RehearsalServer,
    open_rehearsal,
)

pytest.importorskip("hypercorn", reason="needs trio_sched[rehearsal]")
pytest.importorskip("starlette", reason="needs trio_sched[rehearsal]")
openai = pytest.importorskip("openai", reason="needs trio_sched[openai]")

import httpx  # noqa: E402
from openai import AsyncOpenAI, DefaultAsyncHttpxClient  # noqa: E402

AT_ONCE = Latency(mean=0.0)
HANG = Phase(hang_share=1.0)


def script(*phases: Phase) -> RehearsalScript:
    return RehearsalScript(phases=phases or (Phase(latency=AT_ONCE),))


@asynccontextmanager
async def client_of(server: RehearsalServer, provider: str = "a") -> AsyncGenerator[AsyncOpenAI, None]:
    http = DefaultAsyncHttpxClient(trust_env=False)
    url = server.base_url(provider)
    async with AsyncOpenAI(base_url=url, api_key="rehearsal", max_retries=0, http_client=http) as client:
        yield client


async def ask(client: AsyncOpenAI, text: str = "Explain coroutine objects.") -> str | None:
    reply = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])
    return reply.choices[0].message.content


async def until(reached: Callable[[], bool]) -> None:
    """Let the loop turn, sockets included, until something is so."""
    with trio.fail_after(10):
        while not reached():
            await trio.lowlevel.checkpoint()


async def test_the_openai_client_gets_its_answers() -> None:
    async with open_rehearsal({"a": script(), "b": RehearsalScript(seed=1)}) as server:
        async with client_of(server) as a, client_of(server, "b") as b:
            assert await ask(a) == await ask(a) != await ask(b)
            judgement = await ask(a, "Reply with JSON: the score of this answer.")
            assert judgement is not None
            assert json.loads(judgement)["score"] in range(1, 6)

            by_base64 = await a.embeddings.create(model="e", input=["one", "two"])
            by_float = await a.embeddings.create(model="e", input=["one", "two"], encoding_format="float")
            assert [entry.embedding for entry in by_base64.data] == [entry.embedding for entry in by_float.data]
            assert [len(entry.embedding) for entry in by_base64.data] == [16, 16]

            assert [model.id async for model in a.models.list()] == ["rehearsal-chat", "rehearsal-embedding"]
        assert server.counters("a").answered == 5
        assert {name: tally.requests for name, tally in server.counters("a").by_domain.items()} == {
            "chat": 3,
            "embedding": 2,
        }
        assert server.counters("b").answered == 1


@pytest.mark.parametrize(
    ("phase", "header", "value"),
    [
        (Phase(max_in_flight=1, retry_after_seconds=2.0, latency=AT_ONCE), "retry-after", "2"),
        (Phase(max_in_flight=1, retry_after_seconds=0.25, latency=AT_ONCE), "retry-after", "0.25"),
        (
            Phase(max_in_flight=1, retry_after_seconds=0.25, retry_after_header="retry-after-ms"),
            "retry-after-ms",
            "250",
        ),
        (Phase(max_in_flight=1, retry_after_seconds=None), "retry-after", None),
    ],
)
async def test_a_refusal_is_a_rate_limit_to_the_client(phase: Phase, header: str, value: str | None) -> None:
    async with open_rehearsal({"a": script(HANG)}) as server, client_of(server) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, client)
            await until(lambda: server.counters("a").in_flight == 1)
            server.replace_script("a", script(phase))
            with pytest.raises(openai.RateLimitError) as caught:
                await ask(client)
            nursery.cancel_scope.cancel()
        assert caught.value.code == "rate_limit_exceeded"
        assert caught.value.response.headers.get(header) == value
        assert "1 request in flight in phase steady" in str(caught.value)


async def test_the_rate_limit_is_shared_by_the_domains() -> None:
    phase = Phase(requests_per_second=0.001, burst=2, latency=AT_ONCE)
    async with open_rehearsal({"a": script(phase)}) as server, client_of(server) as client:
        await ask(client)
        await client.embeddings.create(model="e", input="text")
        with pytest.raises(openai.RateLimitError, match=r"0\.001 requests per second"):
            await ask(client)
        assert server.counters("a").refused == {"rate": 1}


@pytest.mark.parametrize(
    ("phase", "status", "kind", "hint"),
    [
        (Phase(refuse_all=True), 429, "requests", "1"),
        (Phase(refuse_all=True, refusal_status=503, retry_after_seconds=None), 503, "overloaded_error", None),
        (Phase(refuse_all=True, refusal_status=529, retry_after_seconds=20.0), 529, "overloaded_error", "20"),
    ],
    ids=["flood", "outage", "overload"],
)
async def test_a_flood_or_an_outage_refuses_every_request(
    phase: Phase, status: int, kind: str, hint: str | None
) -> None:
    async with open_rehearsal({"a": script(phase)}) as server, client_of(server) as client:
        for _ in range(2):
            with pytest.raises(openai.APIStatusError) as caught:
                await ask(client)
            assert (caught.value.status_code, caught.value.type) == (status, kind)
            assert caught.value.response.headers.get("retry-after") == hint
        assert server.counters("a").refused == {"flood" if status == 429 else "outage": 2}


async def test_a_point_in_time_comes_with_the_date_that_it_counts_from() -> None:
    phase = Phase(refuse_all=True, retry_after_header="retry-after-date", retry_after_seconds=20.0)
    async with open_rehearsal({"a": script(phase)}) as server, client_of(server) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            await ask(client)
    headers = caught.value.response.headers
    assert len(headers.get_list("date")) == 1
    hint = retry_hint(headers)
    assert hint is not None
    assert (hint.source, hint.seconds) in [("retry-after-date", 20.0), ("retry-after-date", 21.0)]


async def test_a_refusal_in_the_body_of_a_success_is_a_success_to_the_client() -> None:
    phase = Phase(refuse_all=True, refusal_form="body-in-200", retry_after_header="retryDelay")
    async with open_rehearsal({"a": script(phase)}) as server, client_of(server) as client:
        messages = [{"role": "user", "content": "x"}]
        reply = await client.post(
            "/chat/completions", cast_to=httpx.Response, body={"model": "m", "messages": messages}
        )
        error = reply.json()["error"]
        assert (reply.status_code, error["code"], error["details"][0]["retryDelay"]) == (200, 429, "1s")
        assert server.counters("a").refused == {"flood": 1}


async def test_a_bad_request_that_the_script_asked_for_counts_as_failed() -> None:
    phase = Phase(bad_request_share=1.0, latency=Latency(mean=1000.0))
    async with open_rehearsal({"a": script(phase)}) as server, client_of(server) as client:
        with trio.fail_after(10), pytest.raises(openai.BadRequestError, match="because the script asked for one"):
            await ask(client)
        assert server.counters("a").failed == {"bad_request": 1}


async def test_a_late_refusal_holds_no_slot() -> None:
    phases = (HANG, Phase(name="late", after_requests=1, max_in_flight=1, refusal_seconds=1000.0))
    async with (
        open_rehearsal({"a": script(*phases)}) as server,
        client_of(server) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(ask, client)
        await until(lambda: server.counters("a").in_flight == 1)
        nursery.start_soon(ask, client)
        await until(lambda: server.counters("a").refused == {"concurrency": 1})
        assert server.counters("a").in_flight == 1
        nursery.cancel_scope.cancel()


async def test_a_scripted_error_is_a_server_error_to_the_client() -> None:
    async with open_rehearsal({"a": script(Phase(error_share=1.0, latency=AT_ONCE))}) as server:
        async with client_of(server) as client:
            with pytest.raises(openai.InternalServerError):
                await ask(client)
        assert server.counters("a").failed == {"error": 1}


async def test_a_malformed_reply_cannot_be_read() -> None:
    async with open_rehearsal({"a": script(Phase(malformed_share=1.0, latency=AT_ONCE))}) as server:
        async with client_of(server) as client:
            with pytest.raises(json.JSONDecodeError):
                await ask(client)
        assert server.counters("a").failed == {"malformed": 1}


@pytest.mark.parametrize("embeds", [False, True])
@pytest.mark.parametrize(
    ("fields", "error", "kind", "counted"),
    [
        (
            {"malformed_share": 1.0, "malformed_form": "reset"},
            openai.APIConnectionError,
            "provider_failure",
            ("failed", "malformed"),
        ),
        ({"malformed_share": 1.0, "malformed_form": "cut"}, Exception, "provider_failure", ("failed", "malformed")),
        (
            {"refuse_all": True, "refusal_status": 401},
            openai.AuthenticationError,
            "provider_failure",
            ("refused", "key"),
        ),
        (
            {"refuse_all": True, "refusal_status": 403},
            openai.PermissionDeniedError,
            "provider_failure",
            ("refused", "key"),
        ),
        ({"quota": 0}, openai.RateLimitError, "rate_limited", ("refused", "quota")),
        (
            {"error_share": 1.0, "error_status": 502},
            openai.InternalServerError,
            "provider_failure",
            ("failed", "error"),
        ),
    ],
)
async def test_what_a_script_line_does_is_what_the_client_sees(
    fields: dict[str, Any], error: type[Exception], kind: str, counted: tuple[str, str], embeds: bool
) -> None:
    phase = Phase(latency=AT_ONCE, **fields)
    async with open_rehearsal({"a": script(phase)}) as server, client_of(server) as client:
        for _ in range(2):
            with trio.fail_after(10), pytest.raises(error) as caught:
                await (client.embeddings.create(model="m", input="x") if embeds else ask(client))
            assert classify_exception(caught.value).kind == kind
        view = server.counters("a")
        assert getattr(view, counted[0]) == {counted[1]: 2}
        assert view.in_flight == 0


@pytest.mark.parametrize(
    ("phase", "status", "content_type"),
    [
        (Phase(malformed_share=1.0, malformed_form="html", latency=AT_ONCE), 200, "text/html; charset=utf-8"),
        (Phase(malformed_share=1.0, malformed_form="empty", latency=AT_ONCE), 200, "application/json"),
        (Phase(error_share=1.0, error_form="body-in-200", latency=AT_ONCE), 200, "application/json"),
    ],
    ids=["html", "empty", "error in 200"],
)
async def test_what_is_no_answer_under_status_200(phase: Phase, status: int, content_type: str) -> None:
    async with open_rehearsal({"a": script(phase)}) as server, client_of(server) as client:
        for path, body, list_name in (
            ("/chat/completions", {"messages": [{"role": "user", "content": "x"}]}, "choices"),
            ("/embeddings", {"input": "x"}, "data"),
        ):
            reply = await client.post(path, cast_to=httpx.Response, body={"model": "m", **body})
            assert (reply.status_code, reply.headers["content-type"]) == (status, content_type)
            if phase.error_share:
                assert reply.json()["error"]["code"] == 500
            elif phase.malformed_form == "empty":
                assert reply.json()[list_name] == []
            else:
                assert reply.text.startswith("<html>")


async def test_connections_are_reset_where_their_number_starts_the_next_phase() -> None:
    down = Phase(name="down", after_requests=1, unreachable=True)
    again = Phase(name="again", after_requests=3, latency=AT_ONCE)
    async with (
        open_rehearsal({"a": script(Phase(latency=AT_ONCE), down, again)}) as server,
        client_of(server) as client,
    ):
        await ask(client)
        for _ in range(2):
            with pytest.raises(openai.APIConnectionError):
                await ask(client)
        await ask(client)


@pytest.mark.parametrize(
    ("phase", "abandoned", "failed"),
    [(Phase(latency=Latency(mean=1000.0)), 1, {}), (HANG, 0, {"hang": 1})],
    ids=["slow", "hang"],
)
async def test_a_client_that_leaves_frees_its_slot(phase: Phase, abandoned: int, failed: dict[str, int]) -> None:
    async with open_rehearsal({"a": script(phase)}) as server, client_of(server) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, client)
            await until(lambda: server.counters("a").in_flight == 1)
            nursery.cancel_scope.cancel()
        await until(lambda: server.counters("a").in_flight == 0)
        counters = server.counters("a")
        assert (counters.answered, counters.abandoned, counters.failed) == (0, abandoned, failed)


async def test_a_client_that_leaves_in_the_middle_of_its_request_counts_as_nothing() -> None:
    async with open_rehearsal({"a": script()}) as server:
        async with await trio.open_tcp_stream(server.host, server.port) as stream:
            await stream.send_all(b"POST /a/v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        assert await RehearsalClient(server.host, server.port).counters("a") == server.counters("a")
        assert server.counters("a").requests == 0


async def test_a_slot_is_free_before_the_reply_arrives() -> None:
    async with open_rehearsal({"a": script(Phase(max_in_flight=1, latency=AT_ONCE))}) as server:
        async with client_of(server) as client:
            for _ in range(20):
                await ask(client)
        assert server.counters("a").refused == {}


async def test_a_bad_request_names_its_parameter_and_counts_as_nothing() -> None:
    async with open_rehearsal({"a": script()}) as server, client_of(server) as client:
        with pytest.raises(openai.BadRequestError, match="messages must be a non-empty list") as caught:
            await client.chat.completions.create(model="m", messages=[])
        assert caught.value.param == "messages"
        assert server.counters("a").requests == 0


async def test_what_is_not_there_is_a_clear_404() -> None:
    async with open_rehearsal({"a": script(), "b": script()}) as server, client_of(server) as client:
        with pytest.raises(openai.NotFoundError, match="There is no provider 'c' here, only a, b"):
            await ask(client.with_options(base_url=server.base_url("a").replace("/a/", "/c/")))
        with pytest.raises(openai.NotFoundError, match="Not Found"):
            await client.get("/files", cast_to=object)
        with pytest.raises(openai.APIStatusError, match="GET is not allowed here") as caught:
            await client.get("/embeddings", cast_to=object)
        assert caught.value.status_code == 405
        with pytest.raises(KeyError):
            server.base_url("c")


async def test_plain_v1_is_the_first_provider() -> None:
    async with open_rehearsal({"b": script(), "a": script()}) as server, client_of(server) as client:
        await ask(client.with_options(base_url=f"http://{server.host}:{server.port}/v1"))
        assert (server.counters("b").requests, server.counters("a").requests) == (1, 0)


async def test_scripts_and_counters_are_reached_over_http() -> None:
    async with open_rehearsal({"a": script()}) as server, client_of(server) as client:
        remote = RehearsalClient(server.host, server.port)
        assert remote.base_url("a") == server.base_url("a")
        assert await remote.script("a") == script()

        other = script(Phase(name="other", error_share=1.0, latency=AT_ONCE))
        await remote.replace_script("a", other)
        assert await remote.script("a") == other
        with pytest.raises(openai.InternalServerError):
            await ask(client)
        counters = await remote.counters("a")
        assert counters == server.counters("a")
        assert counters.phase == "other"
        assert counters.by_phase["other"].failed == {"error": 1}


async def test_a_bad_script_is_refused_over_http_and_changes_nothing() -> None:
    async with open_rehearsal({"a": script()}) as server, client_of(server) as client:
        with pytest.raises(openai.BadRequestError, match=r"Phase\.max_in_flight must be a positive int, got 0"):
            await client.put("../script", cast_to=object, body={"phases": [{"max_in_flight": 0}]})
        remote = RehearsalClient(server.host, server.port)
        assert await remote.script("a") == script()
        with pytest.raises(
            RehearsalRefusedError, match=r"^the rehearsal provider answered 404 to /z/script: "
        ) as caught:
            await remote.script("z")
        assert (caught.value.status, caught.value.target) == (404, "/z/script")


async def test_leaving_waits_neither_for_hangs_nor_for_idle_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_sched._rehearsal.server._GRACE_SECONDS", 60.0)
    ends: list[int] = []

    async def hang(client: AsyncOpenAI) -> None:
        with pytest.raises(openai.InternalServerError) as caught:
            await ask(client)
        ends.append(caught.value.status_code)

    async with trio.open_nursery() as nursery:
        async with open_rehearsal({"idle": script(), "a": script(HANG)}) as server:
            client = await nursery.start(_held_open, server)
            nursery.start_soon(hang, client)
            await until(lambda: server.counters("a").in_flight == 1)
            started = trio.current_time()
        assert trio.current_time() - started < 30  # so nothing had to be cut off
        assert server.counters("a").in_flight == 0
        await until(lambda: bool(ends))
        nursery.cancel_scope.cancel()
    assert ends == [503]


async def _held_open(
    server: RehearsalServer, task_status: trio.TaskStatus[AsyncOpenAI] = trio.TASK_STATUS_IGNORED
) -> None:
    """Two connections: one that has been used and idles, one client for more."""
    async with client_of(server, "idle") as idle, client_of(server) as client:
        await ask(idle)
        task_status.started(client)
        await trio.sleep_forever()


async def test_cancelling_shuts_down_in_order() -> None:
    opened: list[RehearsalServer] = []
    with trio.CancelScope() as scope:
        async with open_rehearsal({"a": script(HANG)}) as server, client_of(server) as client:
            opened.append(server)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, client)
                await until(lambda: server.counters("a").in_flight == 1)
                scope.cancel()
    assert scope.cancelled_caught
    assert opened[0].counters("a").in_flight == 0
    with pytest.raises(OSError, match="all attempts to connect"):
        await trio.open_tcp_stream(opened[0].host, opened[0].port)


async def test_an_error_of_the_block_comes_out_as_it_is() -> None:
    error = RuntimeError("of the block")
    with pytest.raises(RuntimeError) as caught:
        async with open_rehearsal({"a": script()}):
            raise error
    assert caught.value is error


async def test_an_interrupt_that_strikes_the_server_reaches_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> tuple[bool, float]:
        raise KeyboardInterrupt

    monkeypatch.setattr("trio_sched._rehearsal.provider.Provider.gone_at", interrupted)
    with trio.fail_after(10), pytest.raises(KeyboardInterrupt):
        async with open_rehearsal({"a": script()}):
            await trio.sleep_forever()


async def test_an_interrupt_that_strikes_an_answer_comes_out_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("trio_sched._rehearsal.wire.chat_answer", interrupted)
    with trio.fail_after(10), pytest.raises(KeyboardInterrupt):
        async with open_rehearsal({"a": script()}) as server, client_of(server) as client:
            await ask(client)


async def test_only_loopback_is_served() -> None:
    with pytest.raises(NotLoopbackError):
        async with open_rehearsal({"a": script()}, host="0.0.0.0"):
            raise AssertionError("opened")


async def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    message = r"^starlette\.applications is not installed; run: pip install 'trio_sched\[rehearsal\]'$"
    with pytest.raises(MissingExtraError, match=message) as caught:
        async with open_rehearsal({"a": script()}):
            raise AssertionError("opened")
    assert isinstance(caught.value, TrioSchedError)
    assert isinstance(caught.value, ImportError)
    assert caught.value.extra == "rehearsal"


async def test_a_server_shows_where_it_is() -> None:
    async with open_rehearsal({"a": script(), "b": script()}) as server:
        assert repr(server) == f"<RehearsalServer of a, b on 127.0.0.1:{server.port}>"
        assert server.base_url("b") == f"http://127.0.0.1:{server.port}/b/v1"

"""The whole boundary with the real SDKs as clients, offline: mock transports stand for the provider."""

from __future__ import annotations

import importlib
import json
import random
from collections.abc import Callable
from types import ModuleType
from typing import Any, cast

import httpx
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_sched._answers import JudgeError, ProviderAnswerError, RateLimited
from trio_sched._classify import judge_exception
from trio_sched._clients import RetryFreeClients
from trio_sched._errors import InvalidTypeError
from trio_sched._events.sinks import InMemoryAdmissionEventSink
from trio_sched._executor import (
    ModelRequest,
    ModelRequestExecutor,
    ModelTimeoutError,
    QuotaExhaustedError,
    RequestRetryConfig,
)
from trio_sched._pipeline.models import Model, ModelHandle
from trio_sched._request.controller import AdaptiveRequestAdmissionController
from trio_sched._request.limit import LimitName
from trio_sched._resources.identity import RequestResourceKey
from trio_sched._resources.request import RequestReleaseOutcome

MESSAGES = [{"role": "user", "content": "a prompt that stays here"}]
OPENAI_ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}],
}
ANTHROPIC_ANSWER = {
    "id": "1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


class Sdk:
    """One SDK, its client on a mock transport, and how to make one call with it."""

    def __init__(self, name: str, *, sync: bool = False) -> None:
        self.module = cast("ModuleType", pytest.importorskip(name))
        base: Any = importlib.import_module(f"{name}._base_client")
        self.http: Any = getattr(base, "httpx2", httpx)
        self.steps: list[Any] = []
        self.times: list[float] = []
        kind = {"openai": "OpenAI", "anthropic": "Anthropic"}[name]
        client_kind = self.http.Client if sync else self.http.AsyncClient
        handler: Any = self._answer_sync if sync else self._answer
        self.client: Any = getattr(self.module, kind if sync else f"Async{kind}")(
            api_key="sk-secret",
            base_url="http://provider.test",
            http_client=client_kind(transport=self.http.MockTransport(handler)),
        )
        self.create: Any = self.client.chat.completions.create if name == "openai" else self.client.messages.create
        self.ok = OPENAI_ANSWER if name == "openai" else ANTHROPIC_ANSWER
        self.resource = RequestResourceKey(name, "m", "chat")
        self.clients = RetryFreeClients()

    def arguments(self) -> dict[str, Any]:
        return {"model": "m", "messages": MESSAGES, "max_tokens": 5}

    def response(self, status: int, body: object, headers: dict[str, str] | None = None) -> Any:
        return self.http.Response(status, json=body, headers=headers)

    async def _answer(self, request: Any) -> Any:
        self.times.append(trio.current_time())
        await trio.sleep(1)
        return self._answer_sync(request)

    def _answer_sync(self, request: Any) -> Any:
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    def call(self) -> Callable[[], Any]:
        create = self.clients.redirect(self.create)
        return lambda: create(**self.arguments())


@pytest.fixture(params=["openai", "anthropic"])
def sdk(request: pytest.FixtureRequest) -> Sdk:
    return Sdk(request.param)


def text(sdk: Sdk, reply: Any) -> str:
    return cast("str", reply.choices[0].message.content if hasattr(reply, "choices") else reply.content[0].text)


class Boundary:
    """A controller and an executor that know the SDK's endpoint."""

    def __init__(self, sdk: Sdk, max_attempts: int = 5, limit: LimitName = "evidence") -> None:
        self.sink = InMemoryAdmissionEventSink()
        self.admission = AdaptiveRequestAdmissionController(event_sink=self.sink)
        self.admission.register(
            provider_name=sdk.resource.provider_name,
            model_id="m",
            alias="m",
            max_parallel_requests=4,
            limit=limit,
        )
        self.executor = ModelRequestExecutor(
            self.admission, retry=RequestRetryConfig(max_attempts=max_attempts), rng=random.Random(0)
        )

    def handle(self, sdk: Sdk, judge: Any = None) -> ModelHandle:
        # Without a timeout, since a thread of the SDK works while the simulated time jumps.
        model = Model(sdk.resource.provider_name, "m", judge=judge, timeout=None)
        return ModelHandle(model, self.executor, sdk.clients)

    def outcomes(self) -> list[str | None]:
        return [
            event.reason_or_outcome
            for event in self.sink.request_events
            if event.event_kind == "request_lease_released"
        ]


async def test_a_rate_limit_is_waited_out_and_the_call_repeated(sdk: Sdk, autojump_clock: MockClock) -> None:
    boundary = Boundary(sdk, limit="aimd")
    sdk.steps = [sdk.response(429, {"error": {"type": "x"}}, {"retry-after": "20"}), sdk.response(200, sdk.ok)]
    async with boundary.admission:
        reply = await boundary.executor.execute(ModelRequest(sdk.resource, sdk.call()))
    assert text(sdk, reply) == "hello"
    assert sdk.times == [0.0, 21.0]
    assert boundary.outcomes() == ["rate_limited", "success"]


async def test_a_hint_is_kept_once_a_trial_has_been_refused_too(sdk: Sdk, autojump_clock: MockClock) -> None:
    boundary = Boundary(sdk)
    refusal = sdk.response(429, {"error": {"type": "x"}}, {"retry-after": "20"})
    sdk.steps = [refusal, refusal, sdk.response(200, sdk.ok)]
    async with boundary.admission:
        reply = await boundary.executor.execute(ModelRequest(sdk.resource, sdk.call()))
    assert text(sdk, reply) == "hello"
    # Each answer takes a second; the first stop lasts a quarter of one.
    assert sdk.times == [0.0, 1.25, 22.25]
    assert boundary.outcomes() == ["rate_limited", "rate_limited", "success"]


async def test_every_hidden_attempt_of_the_sdk_is_one_of_ours(sdk: Sdk, autojump_clock: MockClock) -> None:
    boundary = Boundary(sdk)
    sdk.steps = [
        sdk.http.ReadTimeout("slow"),
        sdk.http.ConnectError("down"),
        sdk.response(500, {"error": {"type": "x"}}),
        sdk.response(200, sdk.ok),
    ]
    async with boundary.admission:
        await boundary.executor.execute(ModelRequest(sdk.resource, sdk.call()))
    assert boundary.outcomes() == ["provider_timeout", "provider_failure", "provider_failure", "success"]
    assert len(sdk.times) == 4


async def test_authors_catch_the_errors_of_their_sdk(sdk: Sdk, autojump_clock: MockClock) -> None:
    boundary = Boundary(sdk)
    sdk.steps = [sdk.response(429, {"error": {"type": "x"}}), sdk.response(422, {"error": {"type": "x"}})]
    async with boundary.admission:
        with pytest.raises(sdk.module.UnprocessableEntityError) as caught:
            await boundary.executor.execute(ModelRequest(sdk.resource, sdk.call()))
    assert caught.value.response.status_code == 422
    assert boundary.admission.leak_report() == ()


async def test_a_used_up_quota(sdk: Sdk, autojump_clock: MockClock) -> None:
    boundary = Boundary(sdk)
    used_up = {"error": {"type": "insufficient_quota", "code": "insufficient_quota"}}
    sdk.steps = [sdk.response(429, used_up), sdk.response(429, used_up)]
    async with boundary.admission:
        with pytest.raises(QuotaExhaustedError) as caught:
            await boundary.executor.execute(ModelRequest(sdk.resource, sdk.call()))
    assert isinstance(caught.value.cause, sdk.module.RateLimitError)


async def test_a_cancelled_call_gives_its_lease_back(sdk: Sdk, autojump_clock: MockClock) -> None:
    boundary = Boundary(sdk)
    async with boundary.admission, trio.open_nursery() as nursery:
        nursery.start_soon(boundary.executor.execute, ModelRequest(sdk.resource, sdk.call()))
        await trio.sleep(0.5)
        assert len(boundary.admission.leak_report()) == 1
        nursery.cancel_scope.cancel()
    assert boundary.outcomes() == ["local_cancelled"]


async def test_an_attempt_cut_by_its_timeout(sdk: Sdk, autojump_clock: MockClock) -> None:
    boundary = Boundary(sdk, max_attempts=1)
    async with boundary.admission:
        request = ModelRequest(sdk.resource, sdk.call(), attempt_timeout_seconds=0.5)
        with pytest.raises(ModelTimeoutError):
            await boundary.executor.execute_attempt(request)
    assert boundary.outcomes() == ["provider_timeout"]


async def test_events_of_a_failed_call_hold_nothing_of_it(sdk: Sdk, autojump_clock: MockClock) -> None:
    boundary = Boundary(sdk, max_attempts=1)
    secret = "a secret in the answer"
    sdk.steps = [sdk.response(400, {"error": {"type": secret, "message": secret, "code": secret}})]
    async with boundary.admission:
        with pytest.raises(sdk.module.BadRequestError):
            await boundary.executor.execute(ModelRequest(sdk.resource, sdk.call()))
        await wait_all_tasks_blocked()
    told = repr(boundary.sink.request_events)
    assert "provider_failure" in told
    for hidden in (secret, "a prompt that stays here", "sk-secret"):
        assert hidden not in told


@pytest.mark.parametrize("name", ["openai", "anthropic"])
async def test_a_synchronous_client_in_a_thread(name: str) -> None:
    sdk = Sdk(name, sync=True)
    boundary = Boundary(sdk)
    sdk.steps = [sdk.response(200, sdk.ok)]
    create = sdk.clients.redirect(sdk.create)
    async with boundary.admission:
        call = boundary.executor.in_thread(create, **sdk.arguments())
        assert text(sdk, await boundary.executor.execute(ModelRequest(sdk.resource, call))) == "hello"
        sdk.steps = [sdk.response(400, {"error": {"type": "x"}}), sdk.response(200, sdk.ok)]
        with pytest.raises(sdk.module.BadRequestError):
            await boundary.executor.execute(ModelRequest(sdk.resource, call))
    assert boundary.outcomes() == ["success", "provider_failure"]


# Answers that raise nothing.


def page(sdk: Sdk) -> Any:
    return sdk.http.Response(200, text="<html>Log in</html>", headers={"content-type": "text/html"})


def cut(sdk: Sdk) -> Any:
    return sdk.http.Response(200, content=b'{"choices": [{"me', headers={"content-type": "application/json"})


def of_another_api(sdk: Sdk) -> Any:
    """A result without what a result of this API has."""
    return sdk.response(200, {**sdk.ok, "choices": [], "content": None})


def refused_inside(sdk: Sdk) -> Any:
    return sdk.response(200, {"error": {"message": "Provider returned error", "code": 429}, "user_id": "u"})


def failed_inside(sdk: Sdk) -> Any:
    return sdk.response(200, {"error": {"message": "Provider returned error", "code": 502}})


@pytest.mark.parametrize(
    ("bad", "outcome"),
    [
        (page, "provider_failure"),
        (cut, "provider_failure"),
        (of_another_api, "provider_failure"),
        (refused_inside, "rate_limited"),
        (failed_inside, "provider_failure"),
    ],
)
async def test_an_answer_that_is_none_is_asked_for_again(
    sdk: Sdk, bad: Callable[[Sdk], Any], outcome: str, autojump_clock: MockClock
) -> None:
    boundary = Boundary(sdk)
    sdk.steps = [bad(sdk), bad(sdk), sdk.response(200, sdk.ok)]
    async with boundary.admission:
        reply = await boundary.handle(sdk).call(sdk.create, **sdk.arguments())
    assert text(sdk, reply) == "hello"
    assert boundary.outcomes() == [outcome, outcome, "success"]


async def test_a_refusal_inside_a_success_lowers_the_limit(sdk: Sdk, autojump_clock: MockClock) -> None:
    boundary = Boundary(sdk, limit="aimd")
    sdk.steps = [refused_inside(sdk), sdk.response(200, sdk.ok)]
    async with boundary.admission:
        await boundary.handle(sdk).call(sdk.create, **sdk.arguments())
        assert boundary.admission.pressure.snapshots()[sdk.resource].current_limit < 4


async def test_the_error_of_an_answer_reaches_the_column(sdk: Sdk, autojump_clock: MockClock) -> None:
    boundary = Boundary(sdk)
    sdk.steps = [sdk.response(200, {"error": {"message": "context too long", "code": 400}})]
    async with boundary.admission:
        with pytest.raises(ProviderAnswerError) as caught:
            await boundary.handle(sdk).call(sdk.create, **sdk.arguments())
    assert str(caught.value) == (
        f"{sdk.resource.provider_name}/m answered with an error instead of a result (status 400): context too long"
    )
    assert boundary.outcomes() == ["provider_failure"]


BLOCKED: dict[str, dict[str, object]] = {
    "content filter": {"finish_reason": "content_filter", "message": {"role": "assistant", "content": None}},
    "refusal": {"finish_reason": "stop", "message": {"role": "assistant", "content": None, "refusal": "no"}},
    "tool call": {
        "finish_reason": "tool_calls",
        "message": {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
    },
}


@pytest.mark.parametrize("choice", BLOCKED.values(), ids=BLOCKED)
async def test_an_answer_without_text_is_one(choice: dict[str, object], autojump_clock: MockClock) -> None:
    sdk = Sdk("openai")
    boundary = Boundary(sdk)
    sdk.steps = [sdk.response(200, {**OPENAI_ANSWER, "choices": [{"index": 0, **choice}]})]
    async with boundary.admission:
        reply = await boundary.handle(sdk).call(sdk.create, **sdk.arguments())
    assert reply.choices[0].message.content is None
    assert boundary.outcomes() == ["success"]


async def test_a_message_without_blocks_is_an_answer(autojump_clock: MockClock) -> None:
    sdk = Sdk("anthropic")
    boundary = Boundary(sdk)
    sdk.steps = [sdk.response(200, {**ANTHROPIC_ANSWER, "content": []})]
    async with boundary.admission:
        reply = await boundary.handle(sdk).call(sdk.create, **sdk.arguments())
    assert reply.content == []


@pytest.mark.parametrize("data", [[], [{"object": "embedding", "index": 0, "embedding": [0.5]}]])
async def test_embeddings_are_an_answer(data: list[object], autojump_clock: MockClock) -> None:
    sdk = Sdk("openai")
    boundary = Boundary(sdk)
    sdk.steps = [sdk.response(200, {"object": "list", "model": "m", "data": data, "usage": {}})]
    async with boundary.admission:
        reply = await boundary.handle(sdk).call(
            sdk.client.embeddings.create, model="m", input="x", encoding_format="float"
        )
    assert len(reply.data) == len(data)


async def test_a_failed_response_of_the_responses_api(autojump_clock: MockClock) -> None:
    sdk = Sdk("openai")
    boundary = Boundary(sdk)
    response: dict[str, object] = {"id": "r", "object": "response", "created_at": 1, "model": "m", "output": []}
    failed = {**response, "status": "failed", "error": {"code": "rate_limit_exceeded", "message": "busy"}}
    sdk.steps = [sdk.response(200, failed), sdk.response(200, {**response, "status": "completed", "error": None})]
    async with boundary.admission:
        reply = await boundary.handle(sdk).call(sdk.client.responses.create, model="m", input="x")
    assert reply.status == "completed"
    assert boundary.outcomes() == ["rate_limited", "success"]


async def test_a_function_of_ones_own_may_give_what_it_likes(sdk: Sdk, autojump_clock: MockClock) -> None:
    boundary = Boundary(sdk)

    async def write_page() -> str:
        return "<html>as asked for</html>"

    async with boundary.admission:
        assert await boundary.handle(sdk).call(write_page) == "<html>as asked for</html>"
    assert boundary.outcomes() == ["success"]


async def test_a_call_that_is_no_coroutine_is_still_named(sdk: Sdk, autojump_clock: MockClock) -> None:
    boundary = Boundary(sdk)
    async with boundary.admission:
        with pytest.raises(InvalidTypeError, match="must be an awaitable"):
            await boundary.handle(sdk).call(cast("Any", len), "x")


async def test_rate_limited_raised_within_a_call(sdk: Sdk, autojump_clock: MockClock) -> None:
    boundary = Boundary(sdk, limit="aimd")
    steps: list[Exception | str] = [RateLimited(retry_after=20, message="busy"), "hello"]
    times: list[float] = []

    async def call() -> str:
        times.append(trio.current_time())
        step = steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    async with boundary.admission:
        assert await boundary.handle(sdk).call(call) == "hello"
    assert times == [0.0, 20.0]
    assert boundary.outcomes() == ["rate_limited", "success"]


async def test_what_a_judge_says_ends_the_attempt(sdk: Sdk, autojump_clock: MockClock) -> None:
    boundary = Boundary(sdk, limit="aimd")
    said = [RateLimited(retry_after=20), RequestReleaseOutcome("provider_failure", None, 500), None]

    def judge(answer: Any) -> object:
        assert len(boundary.admission.leak_report()) == 1, "the lease is given back already"
        assert text(sdk, answer) == "hello"
        return said.pop(0)

    sdk.steps = [sdk.response(200, sdk.ok) for _ in range(3)]
    async with boundary.admission:
        reply = await boundary.handle(sdk, judge).call(sdk.create, **sdk.arguments())
    assert text(sdk, reply) == "hello"
    assert sdk.times[1] == 21.0
    assert boundary.outcomes() == ["rate_limited", "provider_failure", "success"]


async def test_a_judge_that_raises_ends_the_call(sdk: Sdk, autojump_clock: MockClock) -> None:
    boundary = Boundary(sdk)

    def judge(answer: Any) -> object:
        return answer.no_such_thing

    sdk.steps = [sdk.response(200, sdk.ok)]
    async with boundary.admission:
        with pytest.raises(JudgeError) as caught:
            await boundary.handle(sdk, judge).call(sdk.create, **sdk.arguments())
    assert isinstance(caught.value.cause, AttributeError)
    assert boundary.outcomes() == ["unexpected_exception"]
    assert boundary.admission.leak_report() == ()


# Errors inside streams.


def events(sdk: Sdk, *bodies: tuple[str | None, str]) -> Any:
    lines = "".join(f"{f'event: {name}' if name else ': '}\ndata: {data}\n\n" for name, data in bodies)
    return sdk.http.Response(200, text=lines, headers={"content-type": "text/event-stream"})


def broken_stream(sdk: Sdk, error: dict[str, object]) -> Any:
    if sdk.resource.provider_name == "openai":
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        first = {**chunk, "choices": [{"index": 0, "delta": {"content": "hel"}, "finish_reason": None}]}
        return events(sdk, (None, json.dumps(first)), (None, json.dumps({"error": error})))
    start = {"type": "message_start", "message": {**ANTHROPIC_ANSWER, "content": []}}
    body = {"type": "error", "error": error}
    return events(sdk, ("message_start", json.dumps(start)), ("error", json.dumps(body)))


@pytest.mark.parametrize(
    ("error", "kind", "whose"),
    [
        ({"type": "overloaded_error", "message": "Overloaded"}, "rate_limited", "pace"),
        ({"type": "rate_limit_error", "message": "x"}, "rate_limited", "pace"),
        ({"type": "x", "message": "Rate limit", "code": 429}, "rate_limited", "pace"),
        ({"type": "engine_overloaded", "code": "engine_overloaded", "message": "x"}, "rate_limited", "pace"),
        ({"type": "api_error", "message": "x"}, "provider_failure", "endpoint"),
        ({"type": "timeout_error", "message": "x"}, "provider_failure", "endpoint"),
        ({"type": "server_error", "message": "boom", "code": 500}, "provider_failure", "endpoint"),
        ({"type": "BadRequestError", "message": "context too long", "code": 400}, "provider_failure", "row"),
        ({"type": "invalid_request_error", "message": "x", "code": "tool_use_failed"}, "provider_failure", "row"),
        ({"type": "invalid_request_error", "message": "x"}, "provider_failure", "row"),
        ({"type": "request_too_large", "message": "x"}, "provider_failure", "row"),
        ({"type": "authentication_error", "message": "x"}, "provider_failure", "access"),
        ({"type": "permission_error", "message": "x"}, "provider_failure", "access"),
        ({"type": "not_found_error", "message": "model: m"}, "provider_failure", "access"),
        ({"type": "insufficient_quota", "code": "insufficient_quota", "message": "x"}, "provider_failure", "access"),
    ],
)
async def test_an_error_inside_a_stream(
    sdk: Sdk, error: dict[str, object], kind: str, whose: str, autojump_clock: MockClock
) -> None:
    sdk.steps = [broken_stream(sdk, error)]
    with pytest.raises(sdk.module.APIError) as caught:
        async for _ in await sdk.clients.redirect(sdk.create)(**sdk.arguments(), stream=True):
            pass
    outcome = judge_exception(caught.value).outcome
    assert (outcome.kind, outcome.blame) == (kind, whose)


async def test_a_stream_that_is_cut_within_a_line(sdk: Sdk, autojump_clock: MockClock) -> None:
    sdk.steps = [events(sdk, ("message_start", '{"type": "message_st'))]
    with pytest.raises(json.JSONDecodeError) as caught:
        async for _ in await sdk.clients.redirect(sdk.create)(**sdk.arguments(), stream=True):
            pass
    outcome = judge_exception(caught.value).outcome
    assert (outcome.kind, outcome.blame) == ("provider_failure", "endpoint")

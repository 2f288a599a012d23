"""The whole boundary with the real SDKs as clients, offline: mock transports stand for the provider."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable
from types import ModuleType
from typing import Any, cast

import httpx
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_sched._clients import RetryFreeClients
from trio_sched._events.sinks import InMemoryAdmissionEventSink
from trio_sched._executor import ModelRequest, ModelRequestExecutor, QuotaExhaustedError, RequestRetryConfig
from trio_sched._request.controller import AdaptiveRequestAdmissionController
from trio_sched._request.limit import LimitName
from trio_sched._resources.identity import RequestResourceKey

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
    boundary = Boundary(sdk, max_attempts=3)
    sdk.steps = [
        sdk.http.ReadTimeout("slow"),
        sdk.http.ConnectError("down"),
        sdk.response(500, {"error": {"type": "x"}}),
        sdk.response(200, sdk.ok),
    ]
    async with boundary.admission:
        with pytest.raises(sdk.module.InternalServerError):
            await boundary.executor.execute(ModelRequest(sdk.resource, sdk.call()))
    assert boundary.outcomes() == ["provider_timeout", "provider_failure", "provider_failure"]
    assert len(sdk.times) == 3


async def test_authors_catch_the_errors_of_their_sdk(sdk: Sdk, autojump_clock: MockClock) -> None:
    boundary = Boundary(sdk, max_attempts=2)
    sdk.steps = [sdk.response(429, {"error": {"type": "x"}}) for _ in range(2)]
    async with boundary.admission:
        with pytest.raises(sdk.module.RateLimitError) as caught:
            await boundary.executor.execute(ModelRequest(sdk.resource, sdk.call()))
    assert caught.value.response.status_code == 429
    assert boundary.admission.leak_report() == ()


async def test_a_used_up_quota(sdk: Sdk, autojump_clock: MockClock) -> None:
    boundary = Boundary(sdk)
    sdk.steps = [sdk.response(429, {"error": {"type": "insufficient_quota", "code": "insufficient_quota"}})]
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
        with pytest.raises(trio.TooSlowError):
            await boundary.executor.execute(ModelRequest(sdk.resource, sdk.call(), attempt_timeout_seconds=0.5))
    assert boundary.outcomes() == ["local_timeout"]


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

"""The `openai` and `anthropic` SDKs over real HTTP: whatever becomes of a call, nothing stays behind.

`assert_nothing_left` looks at both ends: no lease and no waiter here, and no slot taken at the provider.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import attrs
import pytest
import trio
from nginx_front import integration

from trio_sched._executor import ModelTimeoutError, RequestRetryConfig
from trio_sched._rehearsal.provider import CountersView
from trio_sched._request.limit import LimitName
from trio_sched.lowlevel import (
    AdaptiveRequestAdmissionController,
    ModelRequest,
    ModelRequestExecutor,
    RequestAdmissionError,
    RequestDomain,
    RequestPressureSnapshot,
    RequestResourceKey,
    RetryFreeClients,
)
from trio_sched.rehearsal import Latency, Phase, RehearsalScript, open_rehearsal

pytestmark = integration

pytest.importorskip("starlette", reason="needs trio_sched[rehearsal]")
pytest.importorskip("hypercorn", reason="needs trio_sched[rehearsal]")

SdkName = Literal["openai", "anthropic"]
HANGING = Phase(hang_share=1.0)
LONGEST_WAIT = 10.0


@attrs.define(eq=False)
class Peer:
    """One SDK and the provider it calls: everything an attempt needs, and what both ends know of it."""

    name: SdkName
    module: Any
    base_url: str
    counters: Callable[[], CountersView]
    controller: AdaptiveRequestAdmissionController
    executor: ModelRequestExecutor
    resource: RequestResourceKey

    @asynccontextmanager
    async def client(self, **options: float) -> AsyncGenerator[Callable[[], Awaitable[str]], None]:
        """A function that makes one attempt with an asynchronous client."""
        kind = {"openai": "AsyncOpenAI", "anthropic": "AsyncAnthropic"}[self.name]
        async with getattr(self.module, kind)(api_key="sk-rehearsal", base_url=self.base_url, **options) as client:
            create = self._create(RetryFreeClients().use(client))

            async def call() -> str:
                return self._text(await create())

            yield call

    @asynccontextmanager
    async def client_in_thread(self, **options: float) -> AsyncGenerator[Callable[[], Awaitable[str]], None]:
        """A function that makes one attempt with a synchronous client, in a worker thread."""
        kind = {"openai": "OpenAI", "anthropic": "Anthropic"}[self.name]
        with getattr(self.module, kind)(api_key="sk-rehearsal", base_url=self.base_url, **options) as client:
            create = self._create(RetryFreeClients().use(client))
            yield self.executor.in_thread(lambda: self._text(create()))

    def request(self, call: Callable[[], Awaitable[str]], **options: float) -> ModelRequest[str]:
        """The model request that makes this call."""
        return ModelRequest(self.resource, call, **options)

    def pressure(self) -> RequestPressureSnapshot:
        """Pressure on the one resource."""
        snapshot = self.controller.pressure.snapshot(self.resource)
        assert snapshot is not None
        return snapshot

    async def until(self, condition: Callable[[CountersView], bool]) -> None:
        """Wait for the provider to see what happened on the wire."""
        with trio.move_on_after(LONGEST_WAIT):
            while not condition(self.counters()):  # noqa: ASYNC110 - only the wire tells it, and nothing tells us
                await trio.sleep(0.005)
        assert condition(self.counters()), self.counters()

    async def assert_nothing_left(self, outcome: str) -> None:
        """No lease, no waiter, no slot; and the last attempt was released as `outcome`."""
        assert self.pressure().last_outcome == outcome
        await self.assert_free()

    async def assert_free(self) -> None:
        """No lease, no waiter, no slot."""
        pressure = self.pressure()
        assert (pressure.in_flight_count, pressure.active_lease_count, pressure.waiters) == (0, 0, 0)
        assert self.controller.leak_report() == ()
        await self.until(lambda counters: counters.in_flight == 0)

    def _create(self, client: Any) -> Callable[[], Any]:
        messages = [{"role": "user", "content": "Say something about harbours."}]
        if self.name == "openai":
            return lambda: client.chat.completions.create(model="m", messages=messages)
        return lambda: client.messages.create(model="m", messages=messages, max_tokens=16)

    def _text(self, answer: Any) -> str:
        return str(answer.choices[0].message.content if self.name == "openai" else answer.content[0].text)


@asynccontextmanager
async def open_peer(
    name: SdkName, *phases: Phase, cap: int = 4, limit: LimitName = "evidence"
) -> AsyncGenerator[Peer, None]:
    """A provider that follows `phases`, an open controller, and the SDK."""
    pytest.importorskip(name)
    script = RehearsalScript(phases=phases or (Phase(),))
    resource = RequestResourceKey(name, "m", RequestDomain.CHAT)
    controller = AdaptiveRequestAdmissionController()
    controller.register(provider_name=name, model_id="m", alias="m", max_parallel_requests=cap, limit=limit)
    executor = ModelRequestExecutor(
        controller, retry=RequestRetryConfig(first_backoff_seconds=0.01, max_backoff_seconds=0.05)
    )

    async with controller, open_rehearsal({"main": script}) as server:
        base_url = server.base_url("main")
        if name == "anthropic":
            base_url = base_url.removesuffix("/v1")
        module = importlib.import_module(name)
        yield Peer(name, module, base_url, lambda: server.counters("main"), controller, executor, resource)


@pytest.fixture(params=["openai", "anthropic"])
def sdk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SdkName:
    """The SDK by name. Its clients would look for a proxy."""
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(variable, "127.0.0.1")
    name: SdkName = request.param
    return name


async def test_an_answer_arrives_in_one_attempt(sdk: SdkName) -> None:
    async with open_peer(sdk) as peer, peer.client() as call, peer.client_in_thread() as call_in_thread:
        assert await peer.executor.execute(peer.request(call))
        assert await peer.executor.execute(peer.request(call_in_thread))
        await peer.assert_nothing_left("success")
        assert peer.counters().answered == 2


async def test_many_calls_at_once_keep_to_the_cap(sdk: SdkName) -> None:
    cap, calls = 4, 40
    async with open_peer(sdk, Phase(latency=Latency(mean=0.02), max_in_flight=cap), cap=cap) as peer:
        async with peer.client() as call, trio.open_nursery() as nursery:
            for _ in range(calls):
                nursery.start_soon(peer.executor.execute, peer.request(call))
        await peer.assert_nothing_left("success")
        counters = peer.counters()
        assert (counters.requests, counters.answered, counters.max_in_flight) == (calls, calls, cap)


async def test_the_sdk_does_not_retry_inside_an_attempt(sdk: SdkName) -> None:
    async with open_peer(sdk, Phase(error_share=1.0)) as peer, peer.client() as call:
        with pytest.raises(peer.module.InternalServerError):
            await peer.executor.execute_attempt(peer.request(call))
        await peer.assert_nothing_left("provider_failure")
        assert peer.counters().requests == 1


async def test_a_refusal_is_waited_out_for_as_long_as_the_provider_says(sdk: SdkName) -> None:
    hint = 2.0
    phase = Phase(requests_per_second=0.5, retry_after_seconds=hint)
    async with open_peer(sdk, phase, limit="aimd") as peer, peer.client() as call:
        await peer.executor.execute(peer.request(call))
        refused_at = trio.current_time()
        await peer.executor.execute(peer.request(call))
        assert trio.current_time() - refused_at >= hint
        await peer.assert_nothing_left("success")
        counters = peer.counters()
        assert (counters.requests, counters.answered, counters.refused) == (3, 2, {"rate": 1})
        assert peer.pressure().current_limit == 3, "one refusal, one decrease, from 4"


async def test_a_hint_is_believed_once_a_trial_was_refused_too(sdk: SdkName) -> None:
    hint = 2.0
    phase = Phase(requests_per_second=0.5, retry_after_seconds=hint)
    async with open_peer(sdk, phase) as peer, peer.client() as call:
        await peer.executor.execute(peer.request(call))
        refused_at = trio.current_time()
        await peer.executor.execute(peer.request(call))
        assert trio.current_time() - refused_at >= hint
        await peer.assert_nothing_left("success")
        counters = peer.counters()
        assert (counters.requests, counters.answered, counters.refused) == (4, 2, {"rate": 2})


async def test_the_timeout_of_the_sdk_frees_both_ends(sdk: SdkName) -> None:
    async with open_peer(sdk, HANGING) as peer, peer.client(timeout=1.0) as call:
        with pytest.raises(peer.module.APITimeoutError):
            await peer.executor.execute_attempt(peer.request(call))
        await peer.assert_nothing_left("provider_timeout")
        assert peer.counters().requests == 1


async def test_the_timeout_of_the_sdk_in_a_thread_frees_both_ends(sdk: SdkName) -> None:
    async with open_peer(sdk, HANGING) as peer, peer.client_in_thread(timeout=1.0) as call:
        with pytest.raises(peer.module.APITimeoutError):
            await peer.executor.execute_attempt(peer.request(call))
        await peer.assert_nothing_left("provider_timeout")
        assert peer.counters().requests == 1


async def test_the_timeout_of_an_attempt_frees_both_ends(sdk: SdkName) -> None:
    async with open_peer(sdk, HANGING) as peer, peer.client() as call:
        with pytest.raises(ModelTimeoutError):
            await peer.executor.execute_attempt(peer.request(call, attempt_timeout_seconds=1.0))
        await peer.assert_nothing_left("provider_timeout")
        assert peer.counters().requests == 1


async def test_a_timed_out_call_is_attempted_again(sdk: SdkName) -> None:
    phases = (HANGING, Phase(name="well", after_accepted=1))
    async with open_peer(sdk, *phases) as peer, peer.client(timeout=1.0) as call:
        assert await peer.executor.execute(peer.request(call))
        await peer.assert_nothing_left("success")
        counters = peer.counters()
        assert (counters.requests, counters.answered) == (2, 1)


async def test_a_call_cancelled_on_the_wire_frees_both_ends(sdk: SdkName) -> None:
    async with open_peer(sdk, HANGING) as peer, peer.client() as call:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.executor.execute, peer.request(call))
            await peer.until(lambda counters: counters.in_flight == 1)
            assert peer.pressure().in_flight_count == 1
            nursery.cancel_scope.cancel()
        await peer.assert_nothing_left("local_cancelled")


async def test_a_call_in_a_thread_keeps_its_lease_until_the_thread_is_done(sdk: SdkName) -> None:
    """A thread cannot be stopped: cancelled, the call is still out, so it is still held, until the SDK's timeout."""
    async with open_peer(sdk, HANGING) as peer, peer.client_in_thread(timeout=1.0) as call:
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.executor.execute, peer.request(call))
            await peer.until(lambda counters: counters.in_flight == 1)
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
                assert peer.pressure().in_flight_count == 1
        assert trio.current_time() - started >= 1.0
        await peer.assert_nothing_left("provider_timeout")
        assert peer.counters().requests == 1


async def test_waiters_that_give_up_never_reach_the_provider(sdk: SdkName) -> None:
    """At a cap of 1 one call hangs; one waiter runs out of patience, another is cancelled, and the next one gets in."""
    async with (
        open_peer(sdk, HANGING, Phase(name="well", after_accepted=1), cap=1) as peer,
        peer.client() as call,
        trio.open_nursery() as holders,
    ):
        holders.start_soon(peer.executor.execute, peer.request(call))
        await peer.until(lambda counters: counters.in_flight == 1)
        with pytest.raises(RequestAdmissionError, match="queue_timeout"):
            await peer.executor.execute(peer.request(call, queue_wait_timeout_seconds=0.1))
        with trio.move_on_after(0.1) as waiter:
            await peer.executor.execute(peer.request(call))
        assert waiter.cancelled_caught
        pressure = peer.pressure()
        assert (pressure.in_flight_count, pressure.waiters) == (1, 0)
        assert peer.counters().requests == 1
        holders.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            assert await peer.executor.execute(peer.request(call))
            await peer.assert_nothing_left("success")
            assert peer.counters().requests == 2


async def test_hundreds_of_calls_cancelled_anywhere_leave_nothing(sdk: SdkName) -> None:
    """Deadlines spread over the time that the load takes: before the grant, while connecting, sending, and waiting."""
    calls = 200
    async with open_peer(sdk, Phase(latency=Latency(mean=0.05)), cap=8) as peer, peer.client() as call:

        async def caller(number: int) -> None:
            with trio.move_on_after(2.0 * number / calls):
                await peer.executor.execute(peer.request(call))
                answered.append(number)

        answered: list[int] = []
        async with trio.open_nursery() as nursery:
            for number in range(calls):
                nursery.start_soon(caller, number)
        await peer.assert_free()
        assert 0 < len(answered) < calls
        assert await peer.executor.execute(peer.request(call))
        await peer.assert_nothing_left("success")

"""What `why`, the panel and the log lines say of a limit that is probed, refused, stopped and tried again."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio
import trio.testing

from trio_sched._observe.display import limit_sentence
from trio_sched._observe.progress import RunProgressSink
from trio_sched._observe.request_replay import activity_at
from trio_sched._observe.view import RuntimeViewBuilder
from trio_sched._observe.wait_chain import HintsWaitedOut, LimitMoved
from trio_sched.lowlevel import (
    AdaptiveRequestAdmissionController,
    FanOutEventSink,
    RequestAdmissionConfig,
    RequestAdmissionItem,
    RequestAdmissionLease,
    RequestDomain,
    RequestEventContext,
    RequestGroupSpec,
    RequestReleaseOutcome,
    RequestResourceKey,
)

CHAT = RequestResourceKey("openai", "gpt", RequestDomain.CHAT)
SUCCESS = RequestReleaseOutcome("success")
OVERLOADED = RequestReleaseOutcome("provider_failure", provider_status=503)


def refused(hint: float | None = None) -> RequestReleaseOutcome:
    return RequestReleaseOutcome("rate_limited", hint)


class Provider:
    """One endpoint: who asks waits until there is room, and calls end when the test says so, the oldest first."""

    def __init__(
        self,
        nursery: trio.Nursery,
        controller: AdaptiveRequestAdmissionController,
        builder: RuntimeViewBuilder,
        progress: RunProgressSink,
    ) -> None:
        self._nursery = nursery
        self._controller = controller
        self._progress = progress
        self._asked = 0
        self.builder = builder
        self.out: list[RequestAdmissionLease] = []

    async def ask(self, calls: int, *, not_before: float | None = None) -> None:
        for _ in range(calls):
            self._asked += 1
            context = RequestEventContext(request_attempt_id=str(self._asked))
            item = RequestAdmissionItem(CHAT, RequestGroupSpec(CHAT), None, context, not_before)
            self._nursery.start_soon(self._ask, item)
            await trio.testing.wait_all_tasks_blocked()

    async def _ask(self, item: RequestAdmissionItem) -> None:
        self.out.append(await self._controller.acquire_async(item))

    async def end(self, outcome: RequestReleaseOutcome, calls: int = 1) -> None:
        for _ in range(calls):
            self._controller.release(self.out.pop(0), outcome)
            await trio.testing.wait_all_tasks_blocked()

    def chain(self) -> list[str]:
        return [str(link) for link in self.builder.chain(trio.current_time())[1]]

    def state(self) -> str:
        return str(activity_at(self.builder.requests.resources[CHAT], trio.current_time()))

    def sentence(self) -> str:
        return limit_sentence(self._progress.progress(trio.current_time()))


@asynccontextmanager
async def provider(cap: int, config: RequestAdmissionConfig) -> AsyncGenerator[Provider, None]:
    builder, progress = RuntimeViewBuilder(scheduler_stream=False), RunProgressSink(None)
    sink = FanOutEventSink(builder, progress)
    async with (
        AdaptiveRequestAdmissionController(config, event_sink=sink) as controller,
        trio.open_nursery() as nursery,
    ):
        controller.register(provider_name="openai", model_id="gpt", alias="a", max_parallel_requests=cap)
        found = Provider(nursery, controller, builder, progress)
        yield found
        nursery.cancel_scope.cancel()
        for lease in found.out:
            controller.release(lease, SUCCESS)


async def test_a_probe_is_reported_while_it_is_out_and_when_refused(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with provider(8, RequestAdmissionConfig(initial_limits={CHAT: 4})) as openai:
        await openai.ask(4)
        await openai.end(SUCCESS, 4)
        await openai.ask(7)
        assert openai.chain() == [
            "1 task waits for request admission on openai/gpt/chat",
            "6 of 6 of openai/gpt/chat in use, its cap is 8",
        ]
        await openai.end(refused())
        assert openai.chain()[-2:] == [
            "5 of 5 of openai/gpt/chat in use, its cap is 8",
            "openai/gpt/chat asked for 2 more calls and was refused: its limit is 5",
        ]
        assert openai.state() == ""
        while openai.state() != "asking for one more":
            await openai.ask(1)
            await openai.end(SUCCESS)
        await openai.ask(1)
        assert openai.chain() == [
            "1 task waits for request admission on openai/gpt/chat",
            "6 of 6 of openai/gpt/chat in use, its cap is 8",
            "openai/gpt/chat asks for one more call than 5",
        ]
        assert openai.sentence() == "limited by request admission at openai/gpt/chat: asking for one more"
        await openai.end(refused())
        assert openai.chain()[-2:] == [
            "5 of 5 of openai/gpt/chat in use, its cap is 8",
            "openai/gpt/chat asked for one more call and was refused: its limit is 5",
        ]
        assert "cool" not in " ".join(openai.chain())
        assert openai.builder.view(now=trio.current_time()).limited_by.cooldown == 0


async def test_a_probe_that_is_answered_is_over(autojump_clock: trio.testing.MockClock) -> None:
    async with provider(6, RequestAdmissionConfig(initial_limits={CHAT: 4})) as openai:
        await openai.ask(4)
        await openai.end(SUCCESS, 4)
        await openai.ask(6)
        await openai.end(refused())
        await openai.ask(1)
        while openai.state() != "asking for one more":
            await openai.ask(1)
            await openai.end(SUCCESS)
        await openai.ask(2)
        await openai.end(SUCCESS, 5)
        assert openai.state() == "asking for one more", "only the call that was granted last shows it"
        await openai.end(SUCCESS)
        assert openai.state() == ""


async def test_a_stop_a_trial_and_an_outage_are_reported_one_by_one(autojump_clock: trio.testing.MockClock) -> None:
    async with provider(4, RequestAdmissionConfig()) as openai:
        await openai.ask(4)
        await openai.end(SUCCESS, 4)
        await openai.ask(8)
        await openai.end(refused(30.0), 5)
        waits = "3 tasks wait for request admission on openai/gpt/chat"
        assert openai.chain() == [waits, "stopped after refusals: one trial call goes out in 0.2 s"]
        assert openai.state() == "stopped 0.2 s, then one trial"
        assert openai.sentence() == "limited by refusals at openai/gpt/chat: stopped 0.2 s, then one trial"
        await trio.sleep(0.25)
        await trio.testing.wait_all_tasks_blocked()
        waits = "2 tasks wait for request admission on openai/gpt/chat"
        assert openai.chain() == [waits, "after refusals one trial call is out, and all others wait for it"]
        assert openai.state() == "one trial is out"
        await trio.sleep(0.125)
        await openai.end(refused(4.0))
        assert openai.chain() == [
            waits,
            "the provider refuses everything: the next trial call goes out in 4.0 s (retry-after)",
        ]
        assert openai.state() == "outage: next trial in 4.0 s"
        await trio.sleep(4)
        await trio.testing.wait_all_tasks_blocked()
        waits = "1 task waits for request admission on openai/gpt/chat"
        assert openai.chain() == [waits, "the provider refuses everything: one trial call is out"]
        assert openai.state() == "outage: one trial is out"
        await openai.ask(2)
        await openai.end(SUCCESS)
        assert openai.chain() == [
            waits,
            "2 of 2 of openai/gpt/chat in use, its cap is 4",
            "openai/gpt/chat answers again after an outage, and its limit grows from 2",
        ]
        assert openai.state() == ""
        view = openai.builder.view(now=trio.current_time())
        assert view.limited_by.seconds()["cooldown"] == 0.25 + 0.125 + 4


async def test_a_trial_that_is_neither_answered_nor_refused_lets_the_others_go(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with provider(1, RequestAdmissionConfig()) as openai:
        await openai.ask(3)
        await openai.end(OVERLOADED)
        await trio.sleep(0.25)
        await trio.testing.wait_all_tasks_blocked()
        await openai.end(OVERLOADED)
        assert openai.chain()[-1] == "the provider refuses everything: the next trial call goes out in 1.0 s"
        await openai.ask(1)
        await trio.sleep(2)
        await trio.testing.wait_all_tasks_blocked()
        assert openai.chain() == [
            "1 task waits for request admission on openai/gpt/chat",
            "1 of 1 of openai/gpt/chat in use",
            "the provider refuses everything: calls go out again, and none was answered yet",
        ]
        assert openai.state() == "outage: nothing answered yet"


async def test_a_call_that_waits_for_its_retry_hint_is_named(autojump_clock: trio.testing.MockClock) -> None:
    async with provider(1, RequestAdmissionConfig()) as openai:
        await openai.ask(1)
        await openai.ask(1, not_before=trio.current_time() + 5)
        assert openai.chain()[1] == "it was refused, and lets others go first until its retry hint is over"
        await openai.ask(2)
        await openai.ask(1, not_before=trio.current_time() + 9)
        await trio.sleep(1)
        assert openai.chain()[:2] == [
            "4 tasks wait for request admission on openai/gpt/chat",
            "2 of them were refused, and let others go first until their retry hints are over",
        ]
        await trio.sleep(5)
        assert openai.chain()[1] == "1 of them was refused, and lets others go first until its retry hint is over"
        await trio.sleep(5)
        assert openai.chain()[1] == "1 of 1 of openai/gpt/chat in use"


async def test_a_stop_of_aimd_is_a_cooldown_and_no_trial_follows(autojump_clock: trio.testing.MockClock) -> None:
    async with provider(1, RequestAdmissionConfig(limit="aimd")) as openai:
        await openai.ask(3)
        await openai.end(refused(4.0))
        waits = "2 tasks wait for request admission on openai/gpt/chat"
        assert openai.chain() == [waits, "cooling down, 4.0 s left after 1 rate limit (retry-after)"]
        assert openai.state() == "cooling down 4.0 s"
        await trio.sleep(4)
        await trio.testing.wait_all_tasks_blocked()
        await openai.end(refused())
        assert openai.chain()[-1] == "cooling down, 0.2 s left after 2 rate limits"


async def test_a_pause_of_a_fixed_limit_is_a_cooldown_too(autojump_clock: trio.testing.MockClock) -> None:
    async with provider(1, RequestAdmissionConfig(limit="fixed")) as openai:
        await openai.ask(7)
        await openai.end(OVERLOADED)
        assert openai.chain()[-1] == "cooling down, 0.2 s left", "after no rate limit"
        await trio.sleep(0.25)
        await trio.testing.wait_all_tasks_blocked()
        await openai.end(refused())
        assert openai.chain()[-1] == "cooling down, 1.0 s left after 1 rate limit"


def test_numbers_of_one_and_of_many() -> None:
    assert str(LimitMoved("r", "probe_refused", 23, 0)) == "r asked for more calls and was refused: its limit is 23"
    assert str(LimitMoved("r", "probe_started", 1000, 1)) == "r asks for one more call than 1,000"
    assert str(HintsWaitedOut("r", 2, 2)).startswith("they were refused, and let others go first")

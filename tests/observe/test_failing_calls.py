"""`why` names the endpoint whose calls fail, while a run goes on and afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio
from simulated_runs import RateLimitError, ServerError, mocked

import trio_sched as ts
from trio_sched._observe.request_replay import ReplayedResource
from trio_sched._observe.view import RuntimeViewBuilder
from trio_sched._observe.why import Explanation, FailingCalls, explain, failing_calls, why
from trio_sched.lowlevel import RequestDomain, RequestPressureSnapshot, RequestResourceKey, inline

DOWN = ts.Model("local", "down", max_parallel_requests=2)
GOOD = ts.Model("other", "good", max_parallel_requests=2)
KEY = RequestResourceKey("local", "down", RequestDomain.CHAT)
PRESSURE = RequestPressureSnapshot(0.0, 1, KEY, 2, 2, 0, 0, 0, None, 0.0, None, 0, None, {})


def test_an_endpoint_that_cannot_be_reached_is_named_with_the_share_of_its_calls_that_failed(tmp_path: Path) -> None:
    @ts.from_scratch_column()
    async def number(span: ts.RowSpan) -> list[int]:
        return list(range(span.count))

    async def refused() -> None:
        await trio.sleep(1)
        raise ConnectionRefusedError

    async def served() -> None:
        await trio.sleep(1)

    @ts.column(needs=["number"], model=DOWN)
    async def answer(row: dict[str, int], model: ts.ModelHandle) -> None:
        await model.call(refused)

    @ts.column(needs=["number"], model=GOOD)
    async def embedding(row: dict[str, int], model: ts.ModelHandle) -> None:
        await model.call(served)

    live: list[Explanation] = []

    async def main() -> None:
        builder = RuntimeViewBuilder()

        async def look() -> None:
            await trio.sleep(2.5)
            live.append(explain(builder, now=trio.current_time()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await ts.run([number, answer, embedding], records=4, output=tmp_path, event_sink=builder, blocking=inline)

    mocked(main)
    after = why(tmp_path)
    for explanation in (live[0], after):
        (failing,) = explanation.failing
        assert failing.resource == "local/down/chat"
        assert failing.failed == failing.calls > 0
        text = f"{failing.failed} of {failing.calls} calls at local/down/chat failed; most: {failing.outcome}"
        assert text in str(explanation).splitlines()
        document = explanation.to_json()
        assert json.loads(json.dumps(document)) == document
    assert live[0].state == "running"
    assert str(live[0]).splitlines()[1].endswith("failed; most: provider_failure")


def test_a_run_whose_calls_are_answered_or_rate_limited_has_no_failing_endpoint(tmp_path: Path) -> None:
    refusals = [RateLimitError, RateLimitError, ServerError]

    @ts.from_scratch_column()
    async def number(span: ts.RowSpan) -> list[int]:
        return list(range(span.count))

    async def served() -> None:
        if refusals:
            raise refusals.pop()

    @ts.column(needs=["number"], model=GOOD)
    async def answer(row: dict[str, int], model: ts.ModelHandle) -> None:
        await model.call(served)

    async def main() -> None:
        await ts.run([number, answer], records=4, output=tmp_path, blocking=inline)

    mocked(main)
    explanation = why(tmp_path)
    assert explanation.failing == ()
    assert explanation.to_json()["failing_calls"] == []


@pytest.mark.parametrize(
    ("outcomes", "reported"),
    [
        (["success", "provider_failure"], "1 of 2 calls at local/down/chat failed; most: provider_failure"),
        (["success", "success", "provider_failure"], None),
        (["rate_limited"] * 50, None),
        (["local_cancelled"] * 50, None),
        (["provider_failure"] * 3 + ["local_cancelled"] * 50, "3 of 3 calls at local/down/chat failed; most: provider"),
        (
            ["success"] * 1000 + ["provider_failure"] * 20 + ["provider_timeout"] * 30,
            "50 of 1,050 calls at local/down/chat failed, 50 of the last 100; most: provider_timeout",
        ),
        (["provider_failure"] * 40 + ["success"] * 100, None),
        (
            ["provider_failure"] * 300 + ["success"] * 100,
            "300 of 400 calls at local/down/chat failed, 0 of the last 100; most: provider_failure",
        ),
    ],
)
def test_half_of_all_calls_or_of_the_latest_hundred_is_reported(outcomes: list[str], reported: str | None) -> None:
    resource = ReplayedResource(PRESSURE)
    for outcome in outcomes:
        resource.call_ended(outcome)
    found = failing_calls({KEY: resource})
    assert len(found) == (reported is not None)
    assert all(str(each).startswith(reported or "") for each in found)


def test_the_endpoint_with_most_failures_comes_first() -> None:
    resources = {
        RequestResourceKey("p", name, RequestDomain.CHAT): ReplayedResource(PRESSURE) for name in ("few", "many")
    }
    for resource, calls in zip(resources.values(), (1, 5), strict=True):
        for _ in range(calls):
            resource.call_ended("provider_failure")
    assert failing_calls(resources)[0] == FailingCalls("p/many/chat", 5, 5, 5, 5, "provider_failure")

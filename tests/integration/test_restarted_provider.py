"""Providers that are killed, and started again or not, over real HTTP and in real time: no row is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from nginx_front import integration

import trio_sched as ts
from trio_sched.rehearsal import Latency, Phase, RehearsalScript, rehearsal_process

pytestmark = integration

pytest.importorskip("starlette", reason="needs trio_sched[rehearsal]")
pytest.importorskip("hypercorn", reason="needs trio_sched[rehearsal]")
openai = pytest.importorskip("openai", reason="needs trio_sched[openai]")

SCRIPTS = {"a": RehearsalScript(phases=(Phase(latency=Latency(mean=0.3)),))}
ROWS = [{"topic": f"harbour {number}"} for number in range(600)]


@asynccontextmanager
async def client_of(base_url: str) -> AsyncGenerator[Any, None]:
    http = openai.DefaultAsyncHttpxClient(trust_env=False)
    async with openai.AsyncOpenAI(base_url=base_url, api_key="rehearsal", http_client=http) as client:
        yield client


def asked_column(client: Any, name: str = "answer", **options: Any) -> ts.Column:
    model = ts.Model(f"rehearsal-{name}", "m", client=client, max_parallel_requests=32)

    @ts.column(name=name, needs=["topic", "is_told"][: 1 + bool(options)], model=model, **options)
    async def answer(row: dict[str, str], handle: ts.ModelHandle) -> str:
        messages = [{"role": "user", "content": row["topic"]}]
        reply = await handle.call(client.chat.completions.create, model="m", messages=messages)
        return str(reply.choices[0].message.content)

    return answer


def is_not_told(row: Mapping[str, object]) -> bool:
    return not row["is_told"]


async def test_a_provider_that_is_killed_and_started_again_loses_no_row(tmp_path: Path) -> None:
    results: list[ts.RunResult] = []
    ended = trio.Event()

    async def run(base_url: str) -> None:
        async with client_of(base_url) as client:
            results.append(await ts.run([asked_column(client)], rows=ROWS, output=tmp_path / "out"))
        ended.set()

    async with trio.open_nursery() as nursery:
        async with rehearsal_process(SCRIPTS) as first:
            base_url, port = first.base_url("a"), first.port
            nursery.start_soon(run, base_url)
            while (await first.counters("a")).answered < 100:  # noqa: ASYNC110 - another process tells it
                await trio.sleep(0.1)
            os.kill(first.pid, signal.SIGKILL)
        await trio.sleep(25)
        assert results == [], "it waits"
        async with rehearsal_process(SCRIPTS, port=port) as second:
            await ended.wait()
            counters = await second.counters("a")
    (result,) = results
    assert (result.status, result.stop_reason) == ("completed", None)
    assert (result.records, result.dropped, result.leaks) == (len(ROWS), 0, ())
    rows = list(result.rows())
    assert [row["topic"] for row in rows] == [row["topic"] for row in ROWS]
    assert all(row["answer"] for row in rows)
    # What was in flight as it was killed is asked again, and nothing else.
    assert counters.answered <= len(ROWS) - 100


async def test_one_of_two_providers_that_is_down_for_good_stops_the_run_and_a_later_one_makes_the_rest(
    tmp_path: Path,
) -> None:
    rows = [{"topic": f"harbour {number}", "is_told": number < 20} for number in range(60)]
    config = ts.RunConfig(buffer_size=10, max_outage_seconds=12.0)

    async def run(up: str, down: str) -> ts.RunResult:
        async with client_of(up) as one, client_of(down) as other:
            told = asked_column(other, "told", skip_when=is_not_told)
            steps = [asked_column(one), told]
            return await ts.run(steps, rows=rows, output=tmp_path / "out", config=config, resume="if-possible")

    async with rehearsal_process(SCRIPTS) as up:
        async with rehearsal_process(SCRIPTS) as gone:
            down, port = gone.base_url("a"), gone.port
        stopped = await run(up.base_url("a"), down)
        assert (stopped.status, stopped.stop_reason) == ("stopped", "endpoint_not_answering")
        assert (stopped.records, stopped.dropped) == (40, 0)
        async with rehearsal_process(SCRIPTS, port=port):
            resumed = await run(up.base_url("a"), down)
    assert (resumed.status, resumed.stop_reason) == ("completed", None)
    assert (resumed.records, resumed.dropped) == (60, 0)
    assert [bool(row["told"]) for row in resumed.rows()] == [row["is_told"] for row in rows]

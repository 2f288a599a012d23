"""Throughput and refusals behind nginx, whose limits the client must find out: `limit_conn` and `limit_req`.

Timed by nature, on the real clock: ten seconds of load to settle, then the measurement. All figures but the limit are
nginx's own. The static cap is twice and eight times what would be right.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs
import httpx
import pytest
import trio
from nginx_front import LoggedCall, NginxFront, integration, needs_nginx, nginx_front

from trio_sched import Model, RequestAdmission, open_admission
from trio_sched.lowlevel import ModelRequest, ModelRequestExecutor
from trio_sched.rehearsal import Latency, Phase, RehearsalScript, rehearsal_process

pytestmark = [*integration, needs_nginx]

SETTLING_SECONDS = 10.0
MEASURED_SECONDS = 12.0


@attrs.frozen
class Load:
    """What the measured seconds showed. `limits`: every value that the adaptive limit had in them."""

    calls: list[LoggedCall]
    seconds: float
    limits: set[int]

    @property
    def let_through(self) -> list[LoggedCall]:
        """The calls that were answered."""
        return [call for call in self.calls if call.status == 200]

    @property
    def refused_share(self) -> float:
        """Refused calls among all that were sent. Nothing but answers and refusals may have come."""
        statuses = Counter(call.status for call in self.calls)
        assert statuses.keys() <= {200, 429}
        return statuses[429] / len(self.calls)


async def measure(
    front: NginxFront, admission: RequestAdmission, model: Model, call_once: Callable[[], Awaitable[object]]
) -> Load:
    """Call without a pause from as many tasks as the static cap allows, and measure once it has settled."""

    def limit() -> int:
        snapshot = admission.controller.pressure.snapshot(model.resource)
        assert snapshot is not None
        return snapshot.current_limit

    async def caller() -> None:
        while True:
            with contextlib.suppress(httpx.HTTPStatusError):
                await call_once()
            limits.add(limit())

    limits: set[int] = set()
    async with trio.open_nursery() as nursery:
        for _ in range(model.max_parallel_requests):
            nursery.start_soon(caller)
        await trio.sleep(SETTLING_SECONDS)
        before, started = len(front.calls()), trio.current_time()
        limits.clear()
        limits.add(limit())
        await trio.sleep(MEASURED_SECONDS)
        calls, ended = front.calls()[before:], trio.current_time()
        nursery.cancel_scope.cancel()
    assert admission.controller.leak_report() == ()
    snapshot = admission.controller.pressure.snapshot(model.resource)
    assert snapshot is not None
    assert (snapshot.in_flight_count, snapshot.waiters) == (0, 0)
    return Load(list(calls), ended - started, limits)


def client_for(front: NginxFront, model: Model) -> httpx.AsyncClient:
    """A client whose pool never makes an admitted call wait, and that knows no proxies."""
    pool = httpx.Limits(
        max_connections=model.max_parallel_requests, max_keepalive_connections=model.max_parallel_requests
    )
    return httpx.AsyncClient(base_url=f"http://{front.address}/v1", limits=pool, timeout=30, trust_env=False)


async def chat(client: httpx.AsyncClient) -> None:
    """One call, or `httpx.HTTPStatusError`."""
    body = {"model": "m", "messages": [{"role": "user", "content": "Something about ports and harbours"}]}
    (await client.post("/chat/completions", json=body)).raise_for_status()


@pytest.mark.parametrize("multiple", [2, 8])
async def test_the_limit_settles_at_what_limit_conn_lets_through(
    tmp_path: Path, record_property: Callable[[str, object], None], multiple: int
) -> None:
    """20 connections: a refusal takes no time, an answer about a second."""
    connections = 20
    model = Model("nginx", "limit-conn", max_parallel_requests=multiple * connections)
    script = RehearsalScript(phases=(Phase(latency=Latency(mean=1.0, sigma=0.3, minimum=0.05, shape="normal")),))
    async with (
        rehearsal_process({"main": script}) as provider,
        nginx_front(
            tmp_path, f"{provider.host}:{provider.port}", limit=f"limit_conn in_flight {connections};"
        ) as front,
        client_for(front, model) as client,
        open_admission(model) as admission,
    ):

        async def call_once() -> None:
            async with admission.request(model):
                await chat(client)

        load = await measure(front, admission, model, call_once)
        counters = await provider.counters("main")
    throughput = sum(call.seconds for call in load.let_through) / (connections * load.seconds)
    report = f"limit {sorted(load.limits)}, refused {load.refused_share:.2%}, throughput {throughput:.1%}"
    record_property("limit_conn", report)
    print(report)
    assert counters.max_in_flight == connections, "nginx let through something else than what it was told"
    assert not counters.refused
    assert min(load.limits) >= 0.85 * connections, report
    assert max(load.limits) <= 1.15 * connections, report
    assert load.refused_share < 0.02, report
    assert throughput > 0.9, report


@pytest.mark.parametrize("multiple", [2, 8])
async def test_throughput_stays_near_what_limit_req_lets_through(
    tmp_path: Path, record_property: Callable[[str, object], None], multiple: int
) -> None:
    """20 requests a second, a burst of one second, answers after about a second: 20 calls in flight would just do."""
    rate = 20
    model = Model("nginx", "limit-req", max_parallel_requests=multiple * rate)
    script = RehearsalScript(phases=(Phase(latency=Latency(mean=1.0, sigma=0.3, minimum=0.05, shape="normal")),))
    async with (
        rehearsal_process({"main": script}) as provider,
        nginx_front(
            tmp_path,
            f"{provider.host}:{provider.port}",
            limit=f"limit_req zone=arrivals burst={rate} nodelay;",
            requests_per_second=rate,
        ) as front,
        client_for(front, model) as client,
        open_admission(model) as admission,
    ):
        executor = ModelRequestExecutor(admission.controller)

        async def call_once() -> None:
            await executor.execute(ModelRequest(model.resource, lambda: chat(client)))

        load = await measure(front, admission, model, call_once)
        counters = await provider.counters("main")
    throughput = len(load.let_through) / (rate * load.seconds)
    report = f"limit {sorted(load.limits)}, refused {load.refused_share:.2%}, throughput {throughput:.1%}"
    record_property("limit_req", report)
    print(report)
    assert not counters.refused
    assert throughput < 1.1, "nginx let through something else than what it was told"
    assert throughput > 0.9, report

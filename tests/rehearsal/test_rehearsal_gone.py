"""A provider that is gone for a while: connections are reset, connecting is refused, and then it is there again."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import trio
import trio.testing

from trio_sched._rehearsal.provider import Accepted, Provider, Refused
from trio_sched.rehearsal import Latency, Phase, RehearsalScript, RehearsalServer, open_rehearsal, rehearsal_process

pytest.importorskip("hypercorn", reason="needs trio_sched[rehearsal]")
pytest.importorskip("starlette", reason="needs trio_sched[rehearsal]")

AT_ONCE = Phase(latency=Latency(mean=0.0))
BODY = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def script(*phases: Phase) -> RehearsalScript:
    return RehearsalScript(phases=phases)


async def until(reached: Callable[[], bool]) -> None:
    """Let the loop turn, sockets included, until something is so."""
    with trio.fail_after(10):
        while not reached():
            await trio.lowlevel.checkpoint()


async def ask(server: RehearsalServer, provider: str = "a") -> int:
    """The status of an answer over a connection of its own."""
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        return (await client.post(f"{server.base_url(provider)}/chat/completions", json=BODY)).status_code


async def test_while_nobody_is_there_connecting_is_refused() -> None:
    async with open_rehearsal({"a": script(AT_ONCE)}) as server:
        assert await ask(server) == 200
        server.replace_script("a", script(Phase(unreachable=True)))
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            with pytest.raises(httpx.ConnectError):
                await ask(server)
        with pytest.raises(ConnectionRefusedError), socket.socket() as plain:
            plain.connect((server.host, server.port))
        assert server.counters("a").refused == {}
        server.replace_script("a", script(AT_ONCE))
        await trio.testing.wait_all_tasks_blocked()
        assert await ask(server) == 200
        assert server.counters("a").answered == 2


async def test_nobody_else_takes_the_port_meanwhile() -> None:
    async with open_rehearsal({"a": script(Phase(unreachable=True))}) as server:
        await trio.testing.wait_all_tasks_blocked()
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((server.host, server.port))


async def test_who_is_connected_is_reset() -> None:
    async with open_rehearsal({"a": script(Phase(hang_share=1.0))}) as server:
        idle = await trio.open_tcp_stream(server.host, server.port)
        ends: list[type[Exception]] = []

        async def hang() -> None:
            try:
                await ask(server)
            except httpx.TransportError as error:
                ends.append(type(error))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hang)
            await until(lambda: server.counters("a").in_flight == 1)
            server.replace_script("a", script(Phase(unreachable=True)))
        with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
            await idle.receive_some()
        await idle.aclose()
        assert ends == [httpx.ReadError]
        await until(lambda: server.counters("a").in_flight == 0)


def test_a_restart_is_one_line() -> None:
    """Gone for 25 s, with the connections reset, and then there again; all of it on a mock clock."""
    clock = trio.testing.MockClock()
    again = Phase(name="again", after_seconds=10.0, gone_seconds=25.0, latency=Latency(mean=0.0))

    async def main() -> None:
        async with open_rehearsal({"a": script(AT_ONCE, again)}) as server:
            assert await ask(server) == 200
            for seconds, is_there in ((9.0, True), (1.5, False), (24.0, False), (1.0, True)):
                clock.jump(seconds)
                await trio.testing.wait_all_tasks_blocked(0.01)
                if is_there:
                    assert await ask(server) == 200
                else:
                    with pytest.raises(httpx.ConnectError):
                        await ask(server)
            assert server.counters("a").phase == "again"

    trio.run(main, clock=clock)


async def test_one_of_two_providers_that_is_gone_resets_its_connections_and_no_others() -> None:
    scripts = {"a": script(Phase(hang_share=1.0)), "b": script(AT_ONCE)}
    async with open_rehearsal(scripts) as server, trio.open_nursery() as nursery:

        async def hang() -> None:
            with pytest.raises(httpx.ReadError):
                await ask(server)

        nursery.start_soon(hang)
        await until(lambda: server.counters("a").in_flight == 1)
        server.replace_script("a", script(Phase(unreachable=True)))
        await until(lambda: server.counters("a").in_flight == 0)
        with pytest.raises(httpx.ReadError):
            await ask(server)
        assert await ask(server, "b") == 200
        assert server.counters("a").refused == {"unreachable": 1}
        server.replace_script("b", script(Phase(unreachable=True)))
        await trio.testing.wait_all_tasks_blocked()
        for name in ("a", "b"):
            with pytest.raises(httpx.ConnectError):
                await ask(server, name)


async def test_a_process_is_steered_while_nobody_is_there() -> None:
    async with rehearsal_process({"a": script(Phase(unreachable=True))}) as process:
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream(process.host, process.port)
        assert (await process.counters("a")).requests == 0
        await process.replace_script("a", script(AT_ONCE))
        with trio.fail_after(10):
            while True:
                try:
                    await (await trio.open_tcp_stream(process.host, process.port)).aclose()
                except OSError:
                    await trio.lowlevel.checkpoint()
                else:
                    break


def test_gone_begins_and_ends_at_moments_that_are_known_before() -> None:
    gone = Phase(name="gone", after_seconds=10.0, unreachable=True)
    again = Phase(name="again", after_seconds=30.0)
    restart = Phase(name="restart", after_seconds=40.0, gone_seconds=5.0)
    provider = Provider("a", script(AT_ONCE, gone, again, restart))
    assert provider.gone_at(99.0) == (False, float("inf")), "the clock starts with the first request"
    provider.arrive("chat", 100.0)
    assert provider.gone_at(100.0) == (False, 110.0)
    assert provider.gone_at(110.0) == (True, 130.0)
    assert provider.gone_at(130.0) == (False, 140.0)
    assert provider.gone_at(140.0) == (True, 145.0)
    assert provider.gone_at(145.0) == (False, float("inf"))


def test_a_script_that_begins_with_nobody_there_starts_its_clock_at_once() -> None:
    provider = Provider("a", script(Phase(name="gone", unreachable=True), Phase(name="there", after_seconds=30.0)))
    assert provider.gone_at(7.0) == (True, 37.0)
    assert provider.gone_at(37.0) == (False, float("inf"))
    assert isinstance(provider.arrive("chat", 37.0), Accepted)


def test_a_phase_that_waits_for_requests_is_not_started_by_looking() -> None:
    provider = Provider("a", script(AT_ONCE, Phase(name="gone", after_requests=1, unreachable=True)))
    provider.arrive("chat", 0.0)
    assert provider.gone_at(50.0) == (False, float("inf"))
    assert isinstance(provider.arrive("chat", 51.0), Refused)
    assert provider.gone_at(52.0) == (True, float("inf"))


@pytest.mark.parametrize("keeps_state", [False, True])
def test_a_restart_keeps_or_loses_what_was_used(keeps_state: bool) -> None:
    limits: dict[str, Any] = {"quota": 3, "requests_per_window": 3, "window_seconds": 1000.0}
    before = Phase(latency=Latency(mean=0.0), **limits)
    again = Phase(name="again", after_seconds=10.0, gone_seconds=5.0, keeps_state=keeps_state, **limits)
    provider = Provider("a", script(before, again))
    for _ in range(2):
        verdict = provider.arrive("chat", 0.0)
        assert isinstance(verdict, Accepted)
        provider.depart(verdict, "answer")
    for now, is_there in ((10.0, False), (14.9, False), (15.0, True), (15.0, not keeps_state)):
        assert isinstance(provider.arrive("chat", now), Accepted) is is_there


@pytest.mark.parametrize("keeps_state", [False, True])
def test_a_restart_keeps_or_loses_the_tokens_of_a_rate(keeps_state: bool) -> None:
    rate: dict[str, Any] = {"requests_per_second": 0.1, "burst": 2}
    again = Phase(name="again", after_seconds=5.0, gone_seconds=2.0, keeps_state=keeps_state, **rate)
    provider = Provider("a", script(Phase(**rate), again))
    for _ in range(2):
        assert isinstance(provider.arrive("chat", 0.0), Accepted)
    assert isinstance(provider.arrive("chat", 8.0), Accepted) is not keeps_state
    assert isinstance(provider.arrive("chat", 12.0), Accepted)

"""Waiting ends when the time is over, the client leaves or the room closes, whichever is first."""

from __future__ import annotations

import math
from typing import Any

import trio
import trio.testing

from trio_sched._rehearsal.app import WaitingRoom

Messages = trio.MemorySendChannel[dict[str, Any]]


async def test_a_wait_takes_the_seconds_it_was_given(autojump_clock: trio.testing.MockClock) -> None:
    _, receive = trio.open_memory_channel[dict[str, Any]](1)
    started = trio.current_time()
    assert await WaitingRoom().wait(receive.receive, 2.5) == "elapsed"
    assert trio.current_time() - started == 2.5


async def test_a_wait_ends_when_the_client_leaves(autojump_clock: trio.testing.MockClock) -> None:
    send, receive = trio.open_memory_channel[dict[str, Any]](2)
    room = WaitingRoom()
    ends: list[tuple[str, float]] = []

    async def wait() -> None:
        ends.append((await room.wait(receive.receive, math.inf), trio.current_time() - started))

    async with trio.open_nursery() as nursery:
        started = trio.current_time()
        nursery.start_soon(wait)
        await trio.sleep(3)
        send.send_nowait({"type": "http.request"})
        await trio.sleep(1)
        assert repr(room) == "<WaitingRoom, open, 1 waiting>"
        send.send_nowait({"type": "http.disconnect"})
    assert ends == [("client_left", 4.0)]
    assert repr(room) == "<WaitingRoom, open, 0 waiting>"


async def test_closing_ends_every_wait_also_those_to_come() -> None:
    _, receive = trio.open_memory_channel[dict[str, Any]](1)
    room = WaitingRoom()
    ends: list[str] = []

    async def wait() -> None:
        ends.append(await room.wait(receive.receive, math.inf))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert ends == []
        room.close()
    with trio.testing.assert_checkpoints():
        await wait()
    assert ends == ["closed"] * 4
    assert repr(room) == "<WaitingRoom, closed, 0 waiting>"


async def test_a_cancelled_wait_leaves_the_room() -> None:
    _, receive = trio.open_memory_channel[dict[str, Any]](1)
    room = WaitingRoom()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(room.wait, receive.receive, math.inf)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert repr(room) == "<WaitingRoom, open, 0 waiting>"

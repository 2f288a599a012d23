"""Who is answered, how much is read, and how long a connection may stay half open."""

from __future__ import annotations

import json

import pytest
import trio
import trio.testing

from trio_sched._rehearsal.server import is_of_loopback
from trio_sched.rehearsal import Latency, Phase, RehearsalScript, RehearsalServer, open_rehearsal

pytest.importorskip("hypercorn", reason="needs trio_sched[rehearsal]")
pytest.importorskip("starlette", reason="needs trio_sched[rehearsal]")

CHAT = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
AT_ONCE = RehearsalScript(phases=(Phase(latency=Latency(mean=0.0)),))
REQUESTS = [
    (b"GET", b"/a/v1/models", b""),
    (b"GET", b"/a/counters", b""),
    (b"GET", b"/a/script", b""),
    (b"PUT", b"/a/script", b"{}"),
    (b"POST", b"/a/v1/chat/completions", CHAT),
    (b"POST", b"/v1/chat/completions", CHAT),
]


@pytest.mark.parametrize("host", ["localhost", "LocalHost:80", "127.0.0.1", "127.0.0.1:8123", "127.3.2.1", "[::1]:9"])
def test_loopback_is_served_under_each_of_its_names(host: str) -> None:
    assert is_of_loopback([(b"host", host.encode())])
    assert is_of_loopback([(b"Host", host.encode()), (b"Origin", f"http://{host}".encode())])
    assert is_of_loopback([(b"host", b"localhost"), (b"origin", f"https://{host}".encode())])


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "localhost.", "192.168.0.1", "0.0.0.0",
     "[::2]:80", "[::1", "localhost:x]", "evil.example#localhost", "user@evil.example", "\xff"],
)  # fmt: skip
def test_no_other_host_is_served_and_no_page_of_one(host: str) -> None:
    assert not is_of_loopback([(b"host", host.encode("latin-1"))])
    assert not is_of_loopback([(b"host", b"localhost"), (b"host", host.encode("latin-1"))])
    assert not is_of_loopback([(b"host", b"localhost"), (b"origin", f"http://{host}".encode("latin-1"))])


def test_a_page_without_an_origin_of_its_own_is_not_served() -> None:
    assert not is_of_loopback([(b"host", b"localhost"), (b"origin", b"null")])


async def exchange(server: RehearsalServer, request: bytes) -> bytes:
    """What comes back until the server closes the connection."""
    with trio.fail_after(30):
        async with await trio.open_tcp_stream(server.host, server.port) as stream:
            await stream.send_all(request)
            return b"".join([part async for part in stream])


@pytest.mark.parametrize(("method", "target", "body"), REQUESTS)
@pytest.mark.parametrize("stranger", [b"host: evil.example", b"host: localhost\r\norigin: https://evil.example"])
async def test_a_stranger_is_refused_at_every_route_and_changes_nothing(
    method: bytes, target: bytes, body: bytes, stranger: bytes
) -> None:
    async with open_rehearsal({"a": AT_ONCE}) as server:
        head = b"%s %s HTTP/1.1\r\n%s\r\ncontent-length: %d\r\n\r\n" % (method, target, stranger, len(body))
        reply = await exchange(server, head + body)
        assert reply.startswith(b"HTTP/1.1 403 ")
        assert json.loads(reply.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"
        assert server.counters("a").requests == 0


@pytest.mark.parametrize("sent_in_chunks", [False, True])
@pytest.mark.parametrize(("method", "target"), [(b"PUT", b"/a/script"), (b"POST", b"/a/v1/chat/completions")])
async def test_a_body_that_is_too_large_is_413_and_is_not_kept(
    method: bytes, target: bytes, sent_in_chunks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_sched._rehearsal.app._LARGEST_BODY", 1000)
    async with open_rehearsal({"a": AT_ONCE}) as server:
        for size, status in ((1000, b"400"), (1001, b"413"), (200_000, b"413")):
            head = b"%s %s HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n" % (method, target)
            if sent_in_chunks:
                request = head + b"transfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (size, b"x" * size)
            else:
                request = head + b"content-length: %d\r\n\r\n%s" % (size, b"x" * size)
            assert (await exchange(server, request)).startswith(b"HTTP/1.1 %s " % status)
        assert server.counters("a").requests == 0


@pytest.mark.parametrize(
    ("sent", "seconds", "reply"),
    [
        (b"", 601, b""),
        (b"POST /a/v1/chat", 601, b""),
        (b"POST /a/v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx", 601, b""),
        (
            b"POST /a/v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{",
            61,
            b"HTTP/1.1 408 ",
        ),
        (b"PUT /a/script HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n", 61, b"HTTP/1.1 408 "),
    ],
)
def test_a_half_open_connection_is_closed_after_a_while(sent: bytes, seconds: float, reply: bytes) -> None:
    clock = trio.testing.MockClock()
    got = b""

    async def main() -> None:
        nonlocal got
        async with open_rehearsal({"a": AT_ONCE}) as server, trio.open_nursery() as nursery:
            stream = await trio.open_tcp_stream(server.host, server.port)

            async def receive() -> None:
                nonlocal got
                async with stream:
                    got = b"".join([part async for part in stream])

            await stream.send_all(sent)
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked(0.05)
            clock.jump(seconds - 2)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert nursery.child_tasks, "closed too early"
            clock.jump(2)

    trio.run(main, clock=clock)
    assert got.startswith(reply)
    assert bool(got) == bool(reply)

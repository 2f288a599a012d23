"""Loopback, and nothing else."""

from __future__ import annotations

import re
import socket

import pytest

from trio_sched import InvalidValueError, TrioSchedError
from trio_sched._rehearsal.server import NotLoopbackError, ProviderAddress, check_loopback, listen_on_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.8.7", "::1", "localhost"])
def test_loopback_is_accepted(host: str) -> None:
    check_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.0.1", "10.0.0.1", "8.8.8.8", "example.org", "localhost.", "1"]
)
async def test_anything_else_is_refused_without_a_lookup(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(*arguments: object, **options: object) -> None:
        raise AssertionError("looked up")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    message = (
        "the rehearsal provider listens on loopback only, because it answers whoever reaches it: "
        f"host must be localhost, ::1 or an address in 127.0.0.0/8, got {host!r}"
    )
    with pytest.raises(NotLoopbackError, match=f"^{re.escape(message)}$") as caught:
        await listen_on_loopback(host, 0)
    assert caught.value.value == host
    assert isinstance(caught.value, TrioSchedError)
    assert isinstance(caught.value, ValueError)


async def test_a_localhost_that_points_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(*arguments: object, **options: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with pytest.raises(NotLoopbackError, match=r"got '192\.0\.2\.1'$"):
        await listen_on_loopback("localhost", 0)


async def test_port_zero_is_settled_by_binding() -> None:
    with await listen_on_loopback("127.0.0.1", 0) as listener:
        host, port = listener.getsockname()
        assert host == "127.0.0.1"
        assert port > 0
        with pytest.raises(
            InvalidValueError, match=rf"^port must be a port that can be bound on 127\.0\.0\.1 .*got {port}$"
        ):
            await listen_on_loopback("127.0.0.1", port)


@pytest.mark.parametrize("port", [-1, 65536, "80"])
async def test_a_port_that_cannot_be_is_refused(port: int) -> None:
    with pytest.raises(InvalidValueError, match=f"^port must be .*, got {port!r}$"):
        await listen_on_loopback("127.0.0.1", port)


@pytest.mark.parametrize(("host", "netloc"), [("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80")])
def test_the_host_stands_in_a_url_as_it_has_to(host: str, netloc: str) -> None:
    address = ProviderAddress(host, 80)
    assert (address.host, address.port, address.netloc) == (host, 80, netloc)
    assert address.base_url("a") == f"http://{netloc}/a/v1"

"""How many connections the clients of an endpoint may open, as far as they tell."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from trio_sched._client_pools import ConnectionLimit, connection_limit


def http(connections: int | None) -> httpx.AsyncClient:
    return httpx.AsyncClient(limits=httpx.Limits(max_connections=connections))


@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
def test_an_sdk_client_has_the_limit_of_its_http_client(sdk: str) -> None:
    package: Any = pytest.importorskip(sdk)
    kind: Any = getattr(package, {"openai": "AsyncOpenAI", "anthropic": "AsyncAnthropic"}[sdk])
    client = kind(api_key="none")
    default = package.DEFAULT_CONNECTION_LIMITS.max_connections
    assert connection_limit([client]) == ConnectionLimit(default)
    # The copy without retries shares the pool of its original.
    assert connection_limit([client, client.with_options(max_retries=0)]) == ConnectionLimit(default)


def test_httpx_alone_tells_its_limit_and_two_of_them_add_up() -> None:
    first, second = http(7), http(5)
    assert connection_limit([first]) == ConnectionLimit(7)
    assert connection_limit([first, second]) == ConnectionLimit(12)
    assert connection_limit([first, first]) == ConnectionLimit(7)


def test_of_several_transports_the_smallest_counts() -> None:
    small = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=3))
    client = httpx.AsyncClient(
        limits=httpx.Limits(max_connections=9), mounts={"https://small.test": small, "https://any.test": None}
    )
    assert connection_limit([client]) == ConnectionLimit(3)


@pytest.mark.parametrize(
    ("clients", "reason"),
    [
        ([None], "the model was declared without its client"),
        ([http(3), None], "the model was declared without its client"),
        ([object()], "a client of type object does not tell its connections"),
        ([http(None)], "a client of type AsyncClient sets no limit"),
        ([http(3), http(None)], "a client of type AsyncClient sets no limit"),
        (
            [httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200)))],
            "a client of type AsyncClient does not tell its connections",
        ),
    ],
    ids=["none given", "one of two given", "unknown", "unlimited", "one unlimited", "a transport of one's own"],
)
def test_what_cannot_be_known_says_why(clients: list[object], reason: str) -> None:
    assert connection_limit(clients) == ConnectionLimit(None, reason)

"""How many connections a client may keep open at once, read off the HTTP client within it.

A pool sizes transport and is no limit of requests: a request that holds a lease may still wait for a connection, and
one connection of HTTP/2 carries many requests. What is recognised is httpx, alone or within an SDK's client. An HTTP
client may have a transport for some addresses and another for the rest; since the address is not known here, the
smallest pool counts.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Final

import attrs

from trio_sched._client_transports import http_clients

__all__ = ["ConnectionLimit", "connection_limit"]

_NO_LIMIT: Final = sys.maxsize
"""What the pool of httpx holds where it was told of no limit."""


@attrs.frozen
class ConnectionLimit:
    """connections: the most at once, or None, and then `unknown_because` says why."""

    connections: int | None
    unknown_because: str | None = None


def connection_limit(clients: Iterable[object | None]) -> ConnectionLimit:
    """What all `clients` of an endpoint may open together; None is a client that was not handed over."""
    limits: dict[int, int] = {}
    for client in clients:
        if client is None:
            return ConnectionLimit(None, "the model was declared without its client")
        http_client, limit = _http_client(client)
        if limit is None:
            return ConnectionLimit(None, f"a client of type {type(client).__qualname__} does not tell its connections")
        if limit == _NO_LIMIT:
            return ConnectionLimit(None, f"a client of type {type(client).__qualname__} sets no limit")
        # Clients that share an HTTP client share its pool.
        limits[id(http_client)] = limit
    return ConnectionLimit(sum(limits.values()))


def _http_client(client: object) -> tuple[object, int | None]:
    for holder, transports in http_clients(client):
        limits = [getattr(getattr(transport, "_pool", None), "_max_connections", None) for transport in transports]
        known = [limit for limit in limits if isinstance(limit, int)]
        if known and len(known) == len(limits):
            return holder, min(known)
    return None, None

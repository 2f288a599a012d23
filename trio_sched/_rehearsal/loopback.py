"""Where a rehearsal provider may listen: on loopback, and nowhere else.

A script that anyone may replace and a model that answers anyone must not be reachable from another machine. Names other
than `localhost` are refused without being looked up, because what they mean can change.

The socket is bound here and handed over listening. So port 0 is settled once, and no other process can take the port
between asking for it and serving on it.
"""

from __future__ import annotations

import ipaddress
import os
import socket

import trio

from trio_sched import _validation as check
from trio_sched._errors import InvalidValueError
from trio_sched._rehearsal.errors import NotLoopbackError

__all__ = ["check_loopback", "listen_on_loopback"]

_BACKLOG = 2048


def check_loopback(host: str) -> None:
    """Raise `NotLoopbackError` unless `host` is `localhost` or a loopback address."""
    if check.check_text("host", host) == "localhost":
        return
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        raise NotLoopbackError(host) from error
    if not address.is_loopback:
        raise NotLoopbackError(host)


async def listen_on_loopback(host: str, port: int) -> socket.socket:
    """A listening socket; the caller closes it. Port 0 takes any free port."""
    check_loopback(host)
    if check.check_int("port", port, minimum=0) > 65535:
        raise InvalidValueError("port", port, "an int from 0 to 65535")
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    check_loopback(str(address[0]))
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Elsewhere the option would let two servers share the port; here it only forgives connections of the last one.
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise InvalidValueError("port", port, f"a port that can be bound on {host} ({error.strerror})") from error
    return listener

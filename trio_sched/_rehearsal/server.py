"""Serving rehearsal providers inside a running Trio program: Hypercorn's Trio worker in a nursery of its own.

It listens on loopback and nowhere else: a script that anyone may replace and a model that answers anyone must not be
reachable from another machine. Names other than `localhost` are refused without being looked up, because what they mean
can change. A page in a browser reaches loopback as well, under a name that it has had resolved there or from an origin
of its own: a request is answered only if its `Host`, and its `Origin` if it has one, are loopback's.

The socket is bound here and handed over listening. So port 0 is resolved once, and no other process can
take the port between asking for it and serving on it.

Shutting down takes three steps, and none of them waits for a client. The waiting room closes, so every request that
waits gets its reply now. Hypercorn stops listening and closes the connections that idle. What is left a second later
is cut off. The worker is shielded so that these steps also happen, in this order, when the surrounding scope is
cancelled; the second bounds the shield.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import trio

from trio_sched import _validation as check
from trio_sched._errors import InvalidValueError, require
from trio_sched._rehearsal.app import WaitingRoom
from trio_sched._rehearsal.counters import CountersView
from trio_sched._rehearsal.provider import Provider, open_providers
from trio_sched._rehearsal.script import RehearsalScript
from trio_sched._rehearsal.wire import error_body
from trio_sched._util import single_error

if TYPE_CHECKING:
    from hypercorn.typing import ASGIFramework
    from starlette.applications import Starlette
    from starlette.types import Receive, Scope, Send

__all__ = [
    "NotLoopbackError",
    "ProviderAddress",
    "RehearsalServer",
    "check_loopback",
    "is_of_loopback",
    "listen_on_loopback",
    "open_rehearsal",
]


_BACKLOG = 2048
_GRACE_SECONDS = 1.0
_KEEP_ALIVE_SECONDS = 600.0
"""Also the time that a connection has for the headers of its next request."""


class NotLoopbackError(InvalidValueError):
    """A rehearsal provider was to listen where other machines could reach it."""

    def __init__(self, host: str) -> None:
        super().__init__("host", host, "a loopback address")

    def __str__(self) -> str:
        return (
            f"the rehearsal provider listens on loopback only, because it answers whoever reaches it: "
            f"host must be localhost, ::1 or an address in 127.0.0.0/8, got {self.value!r}"
        )


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


def is_of_loopback(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request with these headers was sent to a name of loopback, and from no page of another host."""
    for name, value in headers:
        if name.lower() in (b"host", b"origin"):
            url = value.decode("latin-1")
            try:
                host = urlsplit(url if name.lower() == b"origin" else f"//{url}").hostname or ""
                check_loopback(host)
            except ValueError:  # which `NotLoopbackError` is, too
                return False
    return True


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


class ProviderAddress:
    """The address that providers are served at, by their names."""

    __slots__ = ("_host", "_port")

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port

    @property
    def host(self) -> str:
        """The address listened on."""
        return self._host

    @property
    def port(self) -> int:
        """The port listened on, also when port 0 was asked for."""
        return self._port

    @property
    def netloc(self) -> str:
        """Host and port as a URL has them."""
        return f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"

    def base_url(self, provider: str) -> str:
        """What an OpenAI client takes as its `base_url`."""
        return f"http://{self.netloc}/{provider}/v1"


class RehearsalServer(ProviderAddress):
    """The providers served by this process."""

    __slots__ = ("_providers",)

    def __init__(self, host: str, port: int, providers: Mapping[str, Provider]) -> None:
        super().__init__(host, port)
        self._providers = providers

    def __repr__(self) -> str:
        return f"<RehearsalServer of {', '.join(self._providers)} on {self.host}:{self.port}>"

    def base_url(self, provider: str) -> str:
        """What an OpenAI client takes as its `base_url`. KeyError for a provider that is not served."""
        return super().base_url(self._providers[provider].name)

    def counters(self, provider: str) -> CountersView:
        """What the provider has counted so far. KeyError for a provider that is not served."""
        return self._providers[provider].counters()

    def replace_script(self, provider: str, script: RehearsalScript) -> None:
        """Start another script from its first phase. KeyError for a provider that is not served."""
        self._providers[provider].replace_script(script)


@asynccontextmanager
async def open_rehearsal(
    providers: Mapping[str, RehearsalScript], *, host: str = "127.0.0.1", port: int = 0
) -> AsyncGenerator[RehearsalServer, None]:
    """Serve `providers`, scripts by name, until the block is left. The first one also answers under plain `/v1`.

    An error of the block comes out as it is, not inside an exception group.
    """
    served = open_providers(providers)
    require("rehearsal", "starlette.applications", "hypercorn.trio")
    from trio_sched._rehearsal.app import build_app

    room = WaitingRoom()
    closing = trio.Event()
    failure: BaseException | None = None
    listener = await listen_on_loopback(host, port)
    bound_host, bound_port = listener.getsockname()[:2]
    # Ctrl-C strikes whatever runs, an answer that is being sent included.
    with single_error():
        async with trio.open_nursery() as nursery:
            try:
                await nursery.start(_serve, build_app(served, room), listener, closing, nursery.cancel_scope)
                yield RehearsalServer(bound_host, bound_port, served)
            except (Exception, KeyboardInterrupt) as error:
                failure = error
            finally:
                room.close()
                closing.set()
    if failure is not None:
        raise failure
    if nursery.cancel_scope.cancel_called:
        raise KeyboardInterrupt


async def _serve(
    app: Starlette,
    listener: socket.socket,
    closing: trio.Event,
    interrupted: trio.CancelScope,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    from hypercorn.config import Config
    from hypercorn.trio import serve  # pyright: ignore[reportUnknownVariableType]

    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = _quiet_log()
    config.graceful_timeout = _GRACE_SECONDS
    # A client that finds its idle connection closed reports an error the provider never made.
    config.keep_alive_timeout = _KEEP_ALIVE_SECONDS
    config.keep_alive_max_requests = 2**62
    config.include_server_header = False
    config.include_date_header = False
    with trio.CancelScope(shield=True):
        framework = cast("ASGIFramework", _loopback_only(app))  # ASGI both, each in types of its own
        await serve(framework, config, shutdown_trigger=closing.wait, task_status=task_status, mode="asgi")
    if not closing.is_set():
        # Hypercorn swallows a KeyboardInterrupt that strikes its own code, and just ends.
        interrupted.cancel()


def _loopback_only(app: Starlette) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The application, for requests from this machine."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not is_of_loopback(scope["headers"]):
            text = "The rehearsal provider answers programs on this machine: Host and Origin must be loopback's."
            body = error_body(text, "invalid_request_error")
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(body)),
                (b"connection", b"close"),
            ]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        await app(scope, receive, send)

    return guarded


def _quiet_log() -> logging.Logger:
    """A log for errors: Hypercorn announces its address, and the address is the caller's to announce."""
    log = logging.getLogger("trio_sched.rehearsal")
    log.setLevel(logging.WARNING)
    return log

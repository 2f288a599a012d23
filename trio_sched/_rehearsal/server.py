"""Serving rehearsal providers inside a running Trio program: Hypercorn's connections in a nursery of its own.

It listens on loopback and nowhere else: a script that anyone may replace and a model that answers anyone must not be
reachable from another machine. Names other than `localhost` are refused without being looked up, because what they mean
can change. A page in a browser reaches loopback as well, under a name that it has had resolved there or from an origin
of its own: a request is answered only if its `Host`, and its `Origin` if it has one, are loopback's.

The socket is bound and listens before anything is served. So port 0 is resolved once, and no other process can take the
port between asking for it and serving on it.

Where a script says that nobody is there, nobody is: the `_Door` is shut. Its listening socket is closed, all
connections are reset, and whoever connects is refused, until a phase comes in which somebody is there again. The port
stays bound meanwhile, by a socket that does not listen. Providers that are served together share a door, which is shut
while all of them are gone; until then, one that is gone resets the connections that ask for it.

Shutting down takes three steps, and none of them waits for a client. The waiting room closes, so every request that
waits gets its reply now. Nobody listens any more, and the connections that idle are closed. What is left a second later
is cut off. The server is shielded so that these steps also happen, in this order, when the surrounding scope is
cancelled; the second bounds the shield.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast
from urllib.parse import urlsplit

import trio

from trio_sched import _validation as check
from trio_sched._errors import InvalidValueError, require
from trio_sched._rehearsal.provider import CountersView, Provider, open_providers
from trio_sched._rehearsal.script import RehearsalScript
from trio_sched._rehearsal.wire import error_body
from trio_sched._util import single_error

if TYPE_CHECKING:
    from hypercorn.typing import ASGIFramework
    from starlette.applications import Starlette
    from starlette.types import Receive, Scope, Send

    from trio_sched._rehearsal.app import Served

__all__ = [
    "NotLoopbackError",
    "ProviderAddress",
    "RehearsalServer",
    "check_loopback",
    "is_of_loopback",
    "listen_on_loopback",
    "open_rehearsal",
    "open_with_control",
]


_BACKLOG = 2048
_NO_ROOM: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""What accepting a connection may find that passes."""
_RETRY_SECONDS = 0.1
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
    try:
        listener = _bound(family, address)
        try:
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise InvalidValueError("port", port, f"a port that can be bound on {host} ({error.strerror})") from error
    return listener


def _bound(family: int, address: Any) -> socket.socket:
    """A socket that has the address, and does not listen on it."""
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Elsewhere the option would let two servers share the port; here it only forgives connections of the last one.
        if os.name == "posix":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


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


class _Door:
    """Where connections come in: a socket that listens, or, while the door is shut, one that is only bound.

    Invariant: `_connections` are those whose handler has not ended.
    """

    __slots__ = ("_changed", "_connections", "_listener", "_opened")

    def __init__(self, listener: socket.socket) -> None:
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        self._connections: set[trio.SocketStream] = set()
        self._opened = trio.Event()
        self._opened.set()
        self._changed = trio.Event()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, port, *_ = cast("tuple[str, int]", self._listener.socket.getsockname())
        return host, port

    def close(self) -> None:
        """Give the port back."""
        self._listener.socket.close()

    async def accept(self, handle: Callable[[trio.SocketStream], Awaitable[None]], nursery: trio.Nursery) -> NoReturn:
        """Handle each connection in a task of the nursery."""
        while True:
            while not self._opened.is_set():
                await self._opened.wait()
            try:
                connection = await self._listener.accept()
            except trio.ClosedResourceError:
                continue  # the door was shut, and has another listener now
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                await trio.sleep(_RETRY_SECONDS)
                continue
            self._connections.add(connection)
            nursery.start_soon(self._handle, connection, handle)

    async def watch(self, served: Served, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        """Shut the door while all providers are gone, and open it again. Started once it has looked."""
        has_looked = False
        for provider in served.providers.values():
            provider.on_change = self._look_again
        while True:
            self._changed = trio.Event()
            now = trio.current_time()
            told = [(provider, *provider.gone_at(now)) for provider in served.providers.values()]
            if all(is_gone and not provider.must_count for provider, is_gone, _ in told):
                self._shut()
            else:
                self._open()
            for provider, is_gone, _ in told:
                if is_gone:
                    served.reset(provider)
            if not has_looked:
                has_looked = True
                task_status.started()
            with trio.move_on_at(min(until for _, _, until in told)):
                await self._changed.wait()

    def _look_again(self) -> None:
        self._changed.set()

    def _shut(self) -> None:
        """Refuse who connects, and reset who is connected."""
        from trio_sched._rehearsal.app import reset

        if self._opened.is_set():
            self._opened = trio.Event()
            family, address = self._listener.socket.family, self._listener.socket.getsockname()
            self._listener.socket.close()
            self._listener.socket = trio.socket.from_stdlib_socket(_bound(family, address))
        for connection in self._connections:
            reset(connection)

    def _open(self) -> None:
        """Listen again."""
        if not self._opened.is_set():
            self._listener.socket.listen(_BACKLOG)
            self._opened.set()

    async def _handle(
        self, connection: trio.SocketStream, handle: Callable[[trio.SocketStream], Awaitable[None]]
    ) -> None:
        try:
            await handle(connection)
        finally:
            self._connections.remove(connection)
            await trio.aclose_forcefully(connection)


@asynccontextmanager
async def open_rehearsal(
    providers: Mapping[str, RehearsalScript], *, host: str = "127.0.0.1", port: int = 0
) -> AsyncGenerator[RehearsalServer, None]:
    """Serve `providers`, scripts by name, until the block is left. The first one also answers under plain `/v1`.

    An error of the block comes out as it is, not inside an exception group.
    """
    async with _opened(providers, host, port) as (server, _):
        yield server


@asynccontextmanager
async def open_with_control(
    providers: Mapping[str, RehearsalScript], *, host: str, port: int
) -> AsyncGenerator[tuple[RehearsalServer, int], None]:
    """The same, with a second port under which counters and scripts are reached whatever the scripts say."""
    async with _opened(providers, host, port, controlled=True) as (server, control_port):
        yield server, control_port


@asynccontextmanager
async def _opened(
    providers: Mapping[str, RehearsalScript], host: str, port: int, *, controlled: bool = False
) -> AsyncGenerator[tuple[RehearsalServer, int], None]:
    require("rehearsal", "starlette.applications", "hypercorn.trio")
    from trio_sched._rehearsal.app import Served, WaitingRoom, build_app

    served = Served(open_providers(providers))
    room = WaitingRoom()
    closing = trio.Event()
    failure: BaseException | None = None
    doors = [_Door(await listen_on_loopback(host, port))]
    try:
        if controlled:
            doors.append(_Door(await listen_on_loopback(host, 0)))
        bound_host, bound_port = doors[0].address
        # Ctrl-C strikes whatever runs, an answer that is being sent included.
        with single_error():
            async with trio.open_nursery() as nursery:
                try:
                    await nursery.start(_serve, build_app(served, room), served, doors, closing)
                    yield RehearsalServer(bound_host, bound_port, served.providers), doors[-1].address[1]
                except (Exception, KeyboardInterrupt) as error:
                    failure = error
                finally:
                    room.close()
                    closing.set()
    finally:
        for door in doors:
            door.close()
    if failure is not None:
        raise failure


async def _serve(
    app: Starlette,
    served: Served,
    doors: Sequence[_Door],
    closing: trio.Event,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    from hypercorn.app_wrappers import ASGIWrapper
    from hypercorn.config import Config
    from hypercorn.trio.tcp_server import TCPServer
    from hypercorn.trio.worker_context import WorkerContext
    from hypercorn.typing import ConnectionState

    config = Config()
    config.errorlog = _quiet_log()
    # A client that finds its idle connection closed reports an error the provider never made.
    config.keep_alive_timeout = _KEEP_ALIVE_SECONDS
    config.keep_alive_max_requests = 2**62
    config.include_server_header = False
    config.include_date_header = False
    context = WorkerContext(None)

    async def handle(connection: trio.SocketStream) -> None:
        framework = cast("ASGIFramework", _loopback_only(app, connection))  # ASGI both, each in types of its own
        # Hypercorn's own listening ends with its server; here one connection is served at a time.
        await TCPServer(ASGIWrapper(framework), config, context, ConnectionState({}), cast("Any", connection))

    with trio.CancelScope(shield=True):
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                for door in doors:
                    accepting.start_soon(door.accept, handle, connections)
                await accepting.start(doors[0].watch, served)
                task_status.started()
                await closing.wait()
                accepting.cancel_scope.cancel()
            for door in doors:
                door.close()
            await context.terminated.set()
            connections.cancel_scope.deadline = trio.current_time() + _GRACE_SECONDS


def _loopback_only(app: Starlette, connection: trio.SocketStream) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The application, for requests from this machine that come over the connection."""
    from trio_sched._rehearsal.app import CONNECTION

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        scope[CONNECTION] = connection
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

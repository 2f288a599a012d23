"""The rehearsal provider as a Starlette application: routes, status codes and headers.

    POST /{provider}/v1/chat/completions      POST /v1/chat/completions
    POST /{provider}/v1/messages              POST /v1/messages
    POST /{provider}/v1/embeddings            POST /v1/embeddings
    GET  /{provider}/v1/models                GET  /v1/models
    GET  /{provider}/counters                 GET, PUT /{provider}/script

The paths without a provider's name are those of the first provider. A request is read first, and what no provider would
take is a 400 that counts as nothing. Then the provider decides, the request waits for as long as the script says, and
the slot is given back *before* the reply is sent: a client that sends its next request the moment it has the reply must
find the slot free.

A rehearsed latency, a hang and a delayed refusal are the same thing: time passes unless the client leaves first. ASGI
reports a client that left as the message after the body, so waiting *is* listening for that message, with a deadline:
no task and no nursery is needed per request, and a slot is free as soon as its client is gone.

A connection is reset below HTTP: the server puts it into the scope of each request, under `CONNECTION`.
"""

from __future__ import annotations

import math
import socket
import struct
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Generator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, Final, Literal

import attrs
import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from trio_sched._errors import TrioSchedError
from trio_sched._rehearsal.provider import Accepted, Ending, Provider, Refused
from trio_sched._rehearsal.script import MalformedForm, RehearsalScript
from trio_sched._rehearsal.serde import counters_to_json, script_from_json, script_to_json
from trio_sched._rehearsal.wire import (
    GATEWAY_PAGE,
    ChatRequest,
    Dialect,
    EmbeddingRequest,
    MessagesRequest,
    ModelRequest,
    StreamedRequest,
    WireError,
    error_body,
    error_reply,
    failure_body,
    model_list,
    refusal_reply,
    stream_of,
)

__all__ = [
    "CONNECTION",
    "Served",
    "WaitEnd",
    "WaitingRoom",
    "build_app",
    "reset",
]

CONNECTION: Final = "trio_sched.connection"

WaitEnd = Literal["elapsed", "client_left", "closed"]

_MEDIA_TYPE = "application/json"
_CLIENT_LEFT = 499
"""Nobody reads the reply to a client that left; nginx gave the status its number."""
_LARGEST_BODY = 2**24
_MOST_DISCARDED = 4 * _LARGEST_BODY
"""Bytes of a body that is too large: a client that sends to the end reads the reply."""
_BODY_SECONDS = 60.0
_CLOSE = {"connection": "close"}


def reset(connection: trio.SocketStream) -> None:
    """Close the connection at once, whatever was still to be sent; its peer finds it reset."""
    if connection.socket.fileno() != -1:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.socket.close()


class WaitingRoom:
    """Where the requests of one server wait.

    Closing it ends every wait at once; otherwise a hang would keep the server from shutting down in good order.
    """

    __slots__ = ("_closing", "_waiting")

    def __init__(self) -> None:
        self._closing = trio.Event()
        self._waiting: set[trio.CancelScope] = set()

    def __repr__(self) -> str:
        return f"<WaitingRoom, {'closed' if self._closing.is_set() else 'open'}, {len(self._waiting)} waiting>"

    async def wait(self, receive: Callable[[], Awaitable[MutableMapping[str, Any]]], seconds: float) -> WaitEnd:
        """Wait for `seconds`, which may be infinite, while `receive` delivers nothing but the client's leaving."""
        if self._closing.is_set():
            await trio.lowlevel.checkpoint()
            return "closed"
        with trio.move_on_after(seconds) as scope:
            self._waiting.add(scope)
            try:
                while (await receive())["type"] != "http.disconnect":
                    pass
            finally:
                self._waiting.remove(scope)
        if not scope.cancelled_caught:
            return "client_left"
        return "closed" if self._closing.is_set() else "elapsed"

    def close(self) -> None:
        """End every wait, also those to come."""
        self._closing.set()
        for scope in self._waiting:
            scope.cancel()


@attrs.define(eq=False)
class Served:
    """The providers, and the connections over which each of them has requests."""

    providers: Mapping[str, Provider]
    _busy: defaultdict[str, set[trio.SocketStream]] = attrs.field(factory=lambda: defaultdict(set), init=False)

    @contextmanager
    def holding(self, provider: Provider, scope: MutableMapping[str, Any]) -> Generator[None, None, None]:
        """Have a request over the connection of the scope."""
        connection: trio.SocketStream = scope[CONNECTION]
        self._busy[provider.name].add(connection)
        try:
            yield
        finally:
            self._busy[provider.name].discard(connection)

    def reset(self, provider: Provider) -> None:
        """Reset the connections over which the provider has requests."""
        for connection in self._busy[provider.name]:
            reset(connection)


class _Rehearsal:
    """The endpoints, over the providers they serve."""

    __slots__ = ("_default", "_providers", "_room", "_served")

    def __init__(self, served: Served, room: WaitingRoom) -> None:
        self._served = served
        self._providers = served.providers
        self._default = next(iter(served.providers))
        self._room = room

    async def chat(self, request: Request) -> Response:
        return await self._serve(request, "chat", ChatRequest.parse)

    async def messages(self, request: Request) -> Response:
        return await self._serve(request, "chat", MessagesRequest.parse, "anthropic")

    async def embeddings(self, request: Request) -> Response:
        return await self._serve(request, "embedding", EmbeddingRequest.parse)

    async def models(self, request: Request) -> Response:
        return _json(model_list(self._provider(request).script.models))

    async def counters(self, request: Request) -> Response:
        return _json(counters_to_json(self._provider(request).counters()))

    async def script(self, request: Request) -> Response:
        provider = self._provider(request)
        if request.method == "PUT":
            try:
                provider.replace_script(script_from_json(await _body(request)))
            except ClientDisconnect:
                return Response(status_code=_CLIENT_LEFT)
            except TrioSchedError as error:
                return _failure(400, str(error))
        return _json(script_to_json(provider.script))

    async def _serve(
        self, request: Request, domain: str, parse: Callable[[bytes], ModelRequest], dialect: Dialect = "openai"
    ) -> Response:
        provider = self._provider(request)
        try:
            asked = parse(await _body(request))
        except ClientDisconnect:
            return Response(status_code=_CLIENT_LEFT)
        except WireError as error:
            return _failure(400, str(error), dialect, error.param)
        verdict = provider.arrive(domain, trio.current_time())
        if isinstance(verdict, Refused):
            with self._served.holding(provider, request.scope):
                await self._room.wait(request.receive, verdict.seconds)
            if verdict.reason == "unreachable":
                return _Reset()
            refusal = refusal_reply(provider.name, verdict, time.time(), dialect)
            return Response(refusal.body, refusal.status, headers=refusal.headers, media_type=_MEDIA_TYPE)
        if isinstance(asked, ChatRequest | MessagesRequest) and asked.stream and _begins_as_a_stream(verdict):
            return _Stream(self._room, self._served, provider, verdict, asked)
        ending: Ending = "abandoned"
        try:
            with self._served.holding(provider, request.scope):
                response, ending = await self._reply(request, provider, verdict, asked)
        finally:
            provider.depart(verdict, ending)
        return response

    async def _reply(
        self, request: Request, provider: Provider, accepted: Accepted, asked: ModelRequest
    ) -> tuple[Response, Ending]:
        hangs = accepted.fate == "hang"
        end = await self._room.wait(request.receive, math.inf if hangs else accepted.seconds)
        if end == "closed":
            return _failure(503, "The rehearsal provider is shutting down.", asked.dialect), "abandoned"
        if end == "client_left":
            return Response(status_code=_CLIENT_LEFT), "hang" if hangs else "abandoned"
        if accepted.fate == "bad_request":
            text = "A bad request, because the script asked for one."
            return _failure(400, text, asked.dialect), "bad_request"
        if accepted.fate == "error":
            status, body = error_reply(accepted.phase, asked.dialect)
            return Response(body, status, media_type=_MEDIA_TYPE), "error"
        if accepted.fate == "malformed":
            return _malformed(accepted.phase.malformed_form, provider.script, asked), "malformed"
        return _json(asked.answer(provider.script)), "answer"

    def _provider(self, request: Request) -> Provider:
        name = request.path_params.get("provider", self._default)
        provider = self._providers.get(name)
        if provider is None:
            raise HTTPException(404, f"There is no provider {name!r} here, only {', '.join(self._providers)}.")
        return provider


def build_app(served: Served, room: WaitingRoom) -> Starlette:
    """The application for the providers that are `served`; its requests wait in `room`."""
    rehearsal = _Rehearsal(served, room)
    routes: list[Route] = []
    for prefix in ("/{provider}", ""):
        routes += (
            Route(f"{prefix}/v1/chat/completions", rehearsal.chat, methods=["POST"]),
            Route(f"{prefix}/v1/messages", rehearsal.messages, methods=["POST"]),
            Route(f"{prefix}/v1/embeddings", rehearsal.embeddings, methods=["POST"]),
            Route(f"{prefix}/v1/models", rehearsal.models, methods=["GET"]),
        )
    routes += (
        Route("/{provider}/counters", rehearsal.counters, methods=["GET"]),
        Route("/{provider}/script", rehearsal.script, methods=["GET", "PUT"]),
    )
    return Starlette(routes=routes, exception_handlers={HTTPException: _explain})


class _Cut(Response):
    """A reply that ends after `part`, before its `length`: Hypercorn closes a connection that it cannot use again."""

    def __init__(self, part: bytes, length: int) -> None:
        super().__init__(part, media_type=_MEDIA_TYPE, headers={"content-length": str(length)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})


class _Reset(Response):
    """No reply: the connection is reset."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reset(scope[CONNECTION])
        await trio.lowlevel.checkpoint()


class _Stream(Response):
    """A reply as a stream of events, spread evenly over the latency. It holds its slot until the last of them."""

    def __init__(
        self, room: WaitingRoom, served: Served, provider: Provider, accepted: Accepted, asked: StreamedRequest
    ) -> None:
        super().__init__(media_type="text/event-stream")
        del self.headers["content-length"]
        self._room = room
        self._served = served
        self._provider = provider
        self._accepted = accepted
        self._asked = asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._served.holding(self._provider, scope):
            await self._send(scope, receive, send)

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        accepted = self._accepted
        ending: Ending = "hang" if accepted.fate == "hang" else "abandoned"
        try:
            events, ends = stream_of(self._asked, accepted, self._provider.script)
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            for event in (b"", *events[:-1]):
                await send({"type": "http.response.body", "body": event, "more_body": True})
                if await self._room.wait(receive, accepted.seconds / len(events)) != "elapsed":
                    return
            if accepted.fate == "hang":
                await send({"type": "http.response.body", "body": events[-1], "more_body": True})
                await self._room.wait(receive, math.inf)
                return
            ending = accepted.fate
        finally:
            self._provider.depart(accepted, ending)
        await send({"type": "http.response.body", "body": events[-1], "more_body": not ends})
        if ending == "malformed" and accepted.phase.malformed_form == "reset":
            reset(scope[CONNECTION])


def _begins_as_a_stream(accepted: Accepted) -> bool:
    """Whether what goes wrong, if anything does, goes wrong within the stream."""
    if accepted.fate == "error":
        return accepted.phase.error_form == "body-in-200"
    if accepted.fate == "malformed":
        return accepted.phase.malformed_form != "html"
    return accepted.fate != "bad_request"


def _malformed(form: MalformedForm, script: RehearsalScript, asked: ModelRequest) -> Response:
    if form == "html":
        return Response(GATEWAY_PAGE, media_type="text/html")
    if form == "reset":
        return _Reset()
    body = asked.answer(script, empty=form == "empty")
    if form == "empty":
        return _json(body)
    half = body[: len(body) // 2]
    return _Cut(half, len(body)) if form == "cut" else _json(half)


async def _body(request: Request) -> bytes:
    """The body, read to its end. Raises `HTTPException` for one that is too large or incomplete."""
    size, parts = 0, list[bytes]()
    with trio.move_on_after(_BODY_SECONDS) as scope:
        async for part in request.stream():
            size += len(part)
            if size <= _LARGEST_BODY:
                parts.append(part)
            elif size > _MOST_DISCARDED:
                break
    if scope.cancelled_caught:
        raise HTTPException(408, f"The body did not arrive within {_BODY_SECONDS:g} seconds.", _CLOSE)
    if size > _LARGEST_BODY:
        raise HTTPException(413, f"The body is larger than {_LARGEST_BODY:,} bytes.", _CLOSE)
    return b"".join(parts)


async def _explain(request: Request, error: Exception) -> Response:
    """A wrong path, provider or method, in the shape that the SDKs expect."""
    if not isinstance(error, HTTPException):
        raise error
    message = error.detail if error.status_code != 405 else f"{request.method} is not allowed here."
    return Response(
        error_body(message, "invalid_request_error"), error.status_code, headers=error.headers, media_type=_MEDIA_TYPE
    )


def _json(body: bytes) -> Response:
    return Response(body, media_type=_MEDIA_TYPE)


def _failure(status: int, message: str, dialect: Dialect = "openai", param: str | None = None) -> Response:
    return Response(failure_body(dialect, status, message, param=param), status, media_type=_MEDIA_TYPE)

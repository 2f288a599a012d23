"""The rehearsal provider as a Starlette application: routes, status codes and headers.

    POST /{provider}/v1/chat/completions      POST /v1/chat/completions
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
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Literal

import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from trio_sched._errors import TrioSchedError
from trio_sched._rehearsal.counters import Ending
from trio_sched._rehearsal.provider import Accepted, Provider, Refused
from trio_sched._rehearsal.script import MalformedForm, RehearsalScript
from trio_sched._rehearsal.serde import counters_to_json, script_from_json, script_to_json
from trio_sched._rehearsal.wire import (
    GATEWAY_PAGE,
    ChatRequest,
    EmbeddingRequest,
    ModelRequest,
    WireError,
    error_body,
    error_reply,
    model_list,
    refusal_reply,
    stream_of,
)

__all__ = [
    "WaitEnd",
    "WaitingRoom",
    "build_app",
]

WaitEnd = Literal["elapsed", "client_left", "closed"]

_MEDIA_TYPE = "application/json"
_CLIENT_LEFT = 499
"""Nobody reads the reply to a client that left; nginx gave the status its number."""
_LARGEST_BODY = 2**24
_MOST_DISCARDED = 4 * _LARGEST_BODY
"""Bytes of a body that is too large: a client that sends to the end reads the reply."""
_BODY_SECONDS = 60.0
_CLOSE = {"connection": "close"}


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


class _Rehearsal:
    """The endpoints, over the providers they serve."""

    __slots__ = ("_default", "_providers", "_room")

    def __init__(self, providers: Mapping[str, Provider], room: WaitingRoom) -> None:
        self._providers = providers
        self._default = next(iter(providers))
        self._room = room

    async def chat(self, request: Request) -> Response:
        return await self._serve(request, "chat", ChatRequest.parse)

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
                return _bad_request(str(error))
        return _json(script_to_json(provider.script))

    async def _serve(self, request: Request, domain: str, parse: Callable[[bytes], ModelRequest]) -> Response:
        provider = self._provider(request)
        try:
            asked = parse(await _body(request))
        except ClientDisconnect:
            return Response(status_code=_CLIENT_LEFT)
        except WireError as error:
            return _bad_request(str(error), error.param)
        verdict = provider.arrive(domain, trio.current_time())
        if isinstance(verdict, Refused):
            await self._room.wait(request.receive, verdict.seconds)
            if verdict.reason == "unreachable":
                return _Cut(b"", 1)
            refusal = refusal_reply(provider.name, verdict, time.time())
            return Response(refusal.body, refusal.status, headers=refusal.headers, media_type=_MEDIA_TYPE)
        if isinstance(asked, ChatRequest) and asked.stream and _begins_as_a_stream(verdict):
            return _Stream(self._room, provider, verdict, asked)
        ending: Ending = "abandoned"
        try:
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
            return _error(503, "The rehearsal provider is shutting down."), "abandoned"
        if end == "client_left":
            return Response(status_code=_CLIENT_LEFT), "hang" if hangs else "abandoned"
        if accepted.fate == "bad_request":
            return _bad_request("A bad request, because the script asked for one."), "bad_request"
        if accepted.fate == "error":
            status, body = error_reply(accepted.phase)
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


def build_app(providers: Mapping[str, Provider], room: WaitingRoom) -> Starlette:
    """The application that serves `providers`; its requests wait in `room`."""
    rehearsal = _Rehearsal(providers, room)
    routes: list[Route] = []
    for prefix in ("/{provider}", ""):
        routes += (
            Route(f"{prefix}/v1/chat/completions", rehearsal.chat, methods=["POST"]),
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


class _Stream(Response):
    """A reply as a stream of events, spread evenly over the latency. It holds its slot until the last of them."""

    def __init__(self, room: WaitingRoom, provider: Provider, accepted: Accepted, asked: ChatRequest) -> None:
        super().__init__(media_type="text/event-stream")
        del self.headers["content-length"]
        self._room = room
        self._provider = provider
        self._accepted = accepted
        self._asked = asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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


def _bad_request(message: str, param: str | None = None) -> Response:
    return Response(error_body(message, "invalid_request_error", param=param), 400, media_type=_MEDIA_TYPE)


def _error(status: int, message: str) -> Response:
    return Response(error_body(message, "server_error"), status, media_type=_MEDIA_TYPE)

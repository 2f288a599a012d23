"""The one place where a request waits.

A rehearsed latency, a hang and a delayed refusal are the same thing: time passes unless the client leaves first. ASGI
reports a client that left as the message after the body, so waiting *is* listening for that message, with a deadline:
no task and no nursery is needed per request, and a slot is free as soon as its client is gone.

Closing the room ends every wait at once. Without that a hang would keep the server from shutting down in good order.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal

import trio

__all__ = ["WaitEnd", "WaitingRoom"]

WaitEnd = Literal["elapsed", "client_left", "closed"]


class WaitingRoom:
    """Where the requests of one server wait."""

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

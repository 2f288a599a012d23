"""A provider in simulated time that fails as providers do, and remembers who came when and what became of them.

Its time starts with its first call. What strikes a call depends on when it comes and on its key alone, so a run can be
compared with a sequential one. A call that comes before an outage and would end in it is struck as the outage begins,
unless what fails is something that only new calls need, such as the look-up of a name.
"""

from __future__ import annotations

import hashlib
import math
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import attrs
import httpx
import trio

import trio_sched as ts

__all__ = [
    "ACCESS",
    "KINDS",
    "APITimeoutError",
    "Call",
    "Kind",
    "Outage",
    "Provider",
    "StatusError",
    "answer_column",
    "answered_rows",
    "is_not_told",
    "topics",
]


class StatusError(Exception):
    """Looks like the error of an SDK: status, body and headers of the response."""

    def __init__(
        self, status_code: int, message: str = "", *, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        self.status_code = status_code
        self.code = code
        self.headers = dict(headers or {})
        self.body = {"message": message, "code": code, "type": code}
        super().__init__(f"Error code: {status_code} - {message}")


class APITimeoutError(Exception):
    """Looks like what SDKs raise when their own timeout ends."""


@attrs.frozen
class Kind:
    """How an endpoint does not answer.

    seconds: until a call finds out. error: what it finds, or None: it waits for ever. breaks_calls: whether calls in
    flight as it begins find the same.
    """

    name: str
    seconds: float
    error: Callable[[], Exception] | None
    breaks_calls: bool = True

    def __str__(self) -> str:
        return self.name

    async def strike(self) -> None:
        """What becomes of a call."""
        if self.error is None:
            await trio.sleep_forever()
        else:
            await trio.sleep(self.seconds)
            raise self.error()


KINDS: Final = (
    Kind("connect", 0.01, lambda: httpx.ConnectError("[Errno 111] Connection refused")),
    Kind(
        "dns",
        0.02,
        lambda: socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        breaks_calls=False,
    ),
    Kind("reset", 0.05, lambda: ConnectionResetError(104, "Connection reset by peer")),
    Kind("500", 0.1, lambda: StatusError(500, "Internal server error")),
    Kind("503", 0.1, lambda: StatusError(503, "Service unavailable")),
    Kind("529", 0.1, lambda: StatusError(529, "Overloaded", code="overloaded_error")),
    Kind("timeout", 10.0, lambda: APITimeoutError("Request timed out.")),
    Kind("hang", math.inf, None),
)

ACCESS: Final[Mapping[str, Callable[[], Exception]]] = {
    "401": lambda: StatusError(401, "Incorrect API key provided", code="invalid_api_key"),
    "403": lambda: StatusError(403, "The key may not use this model", code="permission_denied"),
    "404": lambda: StatusError(404, "The model m does not exist", code="model_not_found"),
    "quota": lambda: StatusError(429, "You exceeded your current quota", code="insufficient_quota"),
}
"""How an endpoint refuses for good."""


@attrs.frozen
class Outage:
    """From `begins`, for `lasts` seconds, every call is struck."""

    begins: float
    lasts: float
    kind: Kind

    @property
    def ends(self) -> float:
        """When the first call is answered again."""
        return self.begins + self.lasts


@attrs.define(eq=False)
class Call:
    """A call at the provider. ended: math.inf while it is in flight. outcome: `answered` or the type of its error."""

    key: str
    arrived: float
    ended: float = math.inf
    outcome: str = "in flight"


def part_of(*parts: object) -> float:
    """A number from 0 to 1 that follows from the parts."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


@attrs.define(eq=False)
class Provider:
    """Answers every call after about `seconds`, unless something strikes it.

    outages: one after the other. poisoned: by key, what becomes of each of its calls. refuses_after: from then on,
    access is refused after 0.05 s, in the words of `refusal`; a call that came before is answered. calls_left: the
    quota, after which it is refused just so.
    """

    seconds: float = 1.0
    outages: Sequence[Outage] = ()
    poisoned: Mapping[str, Kind] = attrs.field(factory=dict[str, Kind])
    refuses_after: float = math.inf
    calls_left: float = math.inf
    refusal: Callable[[], Exception] = ACCESS["401"]
    calls: list[Call] = attrs.field(factory=list[Call])
    _started_at: float | None = None

    def now(self) -> float:
        """Seconds since the first call."""
        if self._started_at is None:
            self._started_at = trio.current_time()
        return trio.current_time() - self._started_at

    async def call(self, key: str) -> str:
        """One outbound attempt."""
        call = Call(key, self.now())
        self.calls.append(call)
        try:
            await self._meet(call)
            call.outcome = "answered"
        except BaseException as error:
            call.outcome = type(error).__name__
            raise
        finally:
            call.ended = self.now()
        return self.answer(key)

    @staticmethod
    def answer(key: str) -> str:
        """What it answers in the end."""
        return key.upper()

    async def _meet(self, call: Call) -> None:
        seconds = self.seconds * (0.8 + 0.4 * part_of(call.key))
        for outage in self.outages:
            if outage.begins <= call.arrived < outage.ends:
                await outage.kind.strike()
            if outage.kind.breaks_calls and call.arrived < outage.begins < call.arrived + seconds:
                await trio.sleep(outage.begins - call.arrived)
                await outage.kind.strike()
        if call.arrived >= self.refuses_after or self.calls_left <= 0:
            await trio.sleep(0.05)
            raise self.refusal()
        self.calls_left -= 1
        if call.key in self.poisoned:
            await self.poisoned[call.key].strike()
        await trio.sleep(seconds)

    def arrived(self, begins: float, ends: float = math.inf) -> list[Call]:
        """The calls that came from `begins` on, before `ends`."""
        return [call for call in self.calls if begins <= call.arrived < ends]

    def answered(self, after: float, until: float = math.inf) -> list[Call]:
        """The calls that were answered after one moment, until another."""
        return [call for call in self.calls if call.outcome == "answered" and after < call.ended <= until]

    def in_flight(self, at: float) -> int:
        """How many calls had come before and were not over."""
        return sum(call.arrived < at <= call.ended for call in self.calls)

    def calls_by_key(self) -> Counter[str]:
        """How often each key was called."""
        return Counter(call.key for call in self.calls)

    def outcomes(self) -> Counter[str]:
        """What became of the calls."""
        return Counter(call.outcome for call in self.calls)


def topics(count: int) -> list[dict[str, object]]:
    """Rows to be answered."""
    return [{"topic": f"t{index}"} for index in range(count)]


def answered_rows(rows: Sequence[Mapping[str, object]], *, without: Sequence[str] = ()) -> list[dict[str, object]]:
    """The rows of a sequential run with a provider that nothing strikes. without: topics that are rejected."""
    return [{**row, "answer": Provider.answer(str(row["topic"]))} for row in rows if str(row["topic"]) not in without]


def answer_column(provider: Provider, model: ts.Model, **options: Any) -> ts.Column:
    """A column that asks the provider about each topic."""

    @ts.column(needs=["topic"], model=model, **options)
    async def answer(row: dict[str, str], handle: ts.ModelHandle) -> str:
        call: Callable[[str], Awaitable[str]] = provider.call
        return await handle.call(call, row["topic"])

    return answer


def is_not_told(row: Mapping[str, object]) -> bool:
    """A skip rule."""
    return not row["is_told"]

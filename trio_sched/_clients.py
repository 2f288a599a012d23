"""What is read off the SDK clients of a pipeline: their own retries, which are switched off, and their connections.

A hidden retry is an outbound attempt that nobody admitted: it sits in one lease, is invisible to the adaptive limit,
and sleeps through a cooldown that others obey. So a client is used through a copy that makes none. The user goes on
writing `model.call(openai.chat.completions.create, ...)` with the original client: the function is recognised as a
method of a client, or of a part of it, and replaced by the same method of the copy.

What is recognised: bound methods of a client; bound methods of what the client's own package hangs below it (`chat`,
`chat.completions`, ...), which is anything of that package that keeps the client as `_client`; the `with_raw_response`
and `with_streaming_response` forms of these; and `functools.partial` of any of them. Any other function is called as it
is. What a function of one's own calls inside cannot be seen from here: it should use the client that `use` returns.

A client says that it retries by a `max_retries` above 0, a transport of httpx by its `retries`, a session of requests
by the `max_retries` of its adapters. Without a `with_options(max_retries=0)` to take a copy from, it is refused.

A client has a timeout of its own, too. Where it is shorter than what a `Model` was given, the copy waits a little
longer than that, so that the attempt ends by the model's.

A connection pool sizes transport and is no limit of requests: a request that holds a lease may still wait for a
connection, and one connection of HTTP/2 carries many requests. What is recognised is httpx, alone or within an SDK's
client. An HTTP client may have a transport for some addresses and another for the rest; since the address is not known
here, the smallest pool counts.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FunctionType, MethodType
from typing import Final, Literal, ParamSpec, TypeVar, cast

import attrs

from trio_sched._errors import TrioSchedError

__all__ = [
    "ClientRetries",
    "ConnectionLimit",
    "HiddenRetriesError",
    "RetryFreeClients",
    "connection_limit",
]


P = ParamSpec("P")
T = TypeVar("T")

_TAKE_COPY: Final = "pass a method of client.with_options(max_retries=0)"
_FORMS: Final = ("with_raw_response", "with_streaming_response")
_LONGER: Final = 5.0
"""Seconds by which the timeout of a copy is longer than the one that is to end the call."""
_NO_LIMIT: Final = sys.maxsize
"""What the pool of httpx holds where no limit was set."""


@attrs.frozen
class ClientRetries:
    """What a client said about its own retries, and what was done about it; for the capacity plan.

    client: its type. max_retries: what it was set to, or None if it says nothing. handling: `copied_without` a client
    that retried, `already_off`, or `none_found` in a client that says nothing.
    """

    client: str
    max_retries: int | None
    handling: Literal["copied_without", "already_off", "none_found"]


class HiddenRetriesError(TrioSchedError, ValueError):
    """A client retries on its own and cannot be used without. Attributes: `client` (its type), `found`, `remedy`."""

    def __init__(self, client: str, found: str, remedy: str) -> None:
        super().__init__(client, found, remedy)
        self.client = client
        self.found = found
        self.remedy = remedy

    def __str__(self) -> str:
        return (
            f"{self.client} retries on its own ({self.found}), which would send requests that were never admitted; "
            f"{self.remedy}"
        )


@attrs.define(eq=False)
class _Known:
    """copy is None for a client that is used as it is: a strong reference to itself would keep it alive."""

    copy: object | None
    original: weakref.ref[object] | None = None
    parts: dict[type, object] = attrs.field(factory=dict[type, object])


class RetryFreeClients:
    """Clients by their copies without retries, each made once and kept as long as the client itself."""

    __slots__ = ("_known", "_records")

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}
        self._records: dict[ClientRetries, None] = {}

    @property
    def records(self) -> tuple[ClientRetries, ...]:
        """What was found so far, each different finding once, in the order of finding."""
        return tuple(self._records)

    def use(self, client: T, *, timeout: float | None = None) -> T:
        """The client to call instead of `client`. Raises `HiddenRetriesError`.

        timeout: seconds after which others end a call; the first that is given for a client counts.
        """
        copy = self._know(client, timeout).copy
        return client if copy is None else cast("T", copy)

    def redirect(self, function: Callable[P, T]) -> Callable[P, T]:
        """What to call instead of `function`, the same in every way but hidden retries. Raises `HiddenRetriesError`."""
        given: object = function
        if isinstance(given, functools.partial):
            partial = cast("functools.partial[T]", given)
            inner = self.redirect(partial.func)
            if inner is partial.func:
                return function
            return cast("Callable[P, T]", functools.partial(inner, *partial.args, **partial.keywords))
        method: object = given if isinstance(given, MethodType) else getattr(given, "__wrapped__", None)
        if not isinstance(method, MethodType):
            return function
        owner: object = method.__self__
        client = _client_of(owner)
        if client is None:
            return function
        known = self._know(client)
        if known.copy is None:
            return function
        target = known.copy if owner is client else _part(known, owner)
        return cast("Callable[P, T]", _same(given, method, target))

    def _know(self, client: object, timeout: float | None = None) -> _Known:
        key = id(client)
        known = self._known.get(key)
        if known is None:
            copy, record = _prepare(client, timeout)
            known = _Known(copy)
            self._records[record] = None
            everything = self._known
            try:
                known.original = weakref.ref(client, lambda _: everything.pop(key))
            except TypeError:
                # Cannot be watched, so its id might be another's one day: looked at anew each time.
                return known
            everything[key] = known
        return known


def _client_of(owner: object) -> object | None:
    """The client behind the owner of a method: the owner itself, or what a part of the client's package keeps."""
    if _max_retries(owner) is not None or any(True for _ in _transports(owner)):
        return owner
    client: object = getattr(owner, "_client", None)
    packages = {_package(cls) for cls in type(client).__mro__}
    return client if _max_retries(client) is not None and _package(type(owner)) in packages else None


def _prepare(client: object, timeout: float | None) -> tuple[object | None, ClientRetries]:
    name = _name(type(client))
    retries = _max_retries(client)
    copy: object | None = None
    if retries:
        with_options = getattr(client, "with_options", None)
        copy = with_options(max_retries=0) if callable(with_options) else None
        if _max_retries(copy) != 0:
            raise HiddenRetriesError(name, f"max_retries={retries}", "make the client with max_retries=0")
    for transport, found in _transports(client):
        if found > 0:
            raise HiddenRetriesError(
                name, f"retries={found} of its {transport}", f"make the {transport} without retries"
            )
    own = _timeout(client)
    with_options = getattr(client, "with_options", None)
    if timeout is not None and own is not None and own < timeout + _LONGER and callable(with_options):
        copy = with_options(timeout=timeout + _LONGER, max_retries=0)
    if retries:
        return copy, ClientRetries(name, retries, "copied_without")
    return copy, ClientRetries(name, retries, "none_found" if retries is None else "already_off")


def _timeout(client: object) -> float | None:
    """Seconds for which a client of an SDK waits for an answer, where it says so."""
    if _max_retries(client) is None:
        return None
    value: object = getattr(client, "timeout", None)
    seconds: object = getattr(value, "read", value)
    return float(seconds) if isinstance(seconds, int | float) and not isinstance(seconds, bool) else None


def _max_retries(client: object) -> int | None:
    value: object = getattr(client, "max_retries", None)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _http_clients(client: object) -> Iterator[tuple[object, list[object]]]:
    """The client, and what an SDK's client keeps within it, each with its transports, as far as it has any.

    The first transport is for all addresses for which no other is mounted; None where there is none.
    """
    for holder in (client, getattr(client, "_client", None)):
        mounts: object = getattr(holder, "_mounts", None)
        mounted = cast("Mapping[object, object]", mounts).values() if isinstance(mounts, Mapping) else ()
        # None is an address that takes the first transport.
        yield holder, [getattr(holder, "_transport", None), *(each for each in mounted if each is not None)]


def _transports(client: object) -> Iterator[tuple[str, int]]:
    """Type and retries of the HTTP transports of a client, or of the HTTP client within it."""
    for holder, transports in _http_clients(client):
        for transport in transports:
            retries: object = getattr(getattr(transport, "_pool", None), "_retries", None)
            if isinstance(retries, int):
                yield type(transport).__name__, retries
        adapters: object = getattr(holder, "adapters", None)
        for adapter in cast("Mapping[object, object]", adapters).values() if isinstance(adapters, Mapping) else ():
            total: object = getattr(getattr(adapter, "max_retries", None), "total", None)
            if isinstance(total, int):
                yield type(adapter).__name__, int(total)


def _part(known: _Known, owner: object) -> object:
    """The copy's counterpart of a part of the client: SDKs make their parts from the client alone."""
    kind = type(owner)
    part = known.parts.get(kind)
    if part is None:
        try:
            part = cast("Callable[[object], object]", kind)(known.copy)
        except TypeError:
            part = None
        if getattr(part, "_client", None) is not known.copy:
            raise HiddenRetriesError(_name(kind), "through its client", _TAKE_COPY)
        known.parts[kind] = part
    return part


def _same(function: object, method: MethodType, target: object) -> object:
    """The counterpart of `function` on `target`; `function` itself if it is somebody's own wrapper of a method."""
    name = method.__name__
    if function is method:
        found: object = getattr(target, name, None)
        if not isinstance(found, MethodType) or found.__func__ is not method.__func__:
            raise HiddenRetriesError(_name(type(method.__self__)), f"through its changed method {name}", _TAKE_COPY)
        return found
    for form in _FORMS:
        found = getattr(getattr(target, form, None), name, None)
        if (
            isinstance(found, FunctionType)
            and isinstance(function, FunctionType)
            and found.__code__ is function.__code__
        ):
            return found
    return function


def _package(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def _name(cls: type) -> str:
    return f"{_package(cls)}.{cls.__qualname__}"


@attrs.frozen
class ConnectionLimit:
    """connections: the most at once, or None, and then `unknown_because` says why.

    sets_none: it is known that the clients set no limit, so that each call may take a connection of its own.
    """

    connections: int | None
    unknown_because: str | None = None
    sets_none: bool = False


def connection_limit(clients: Iterable[object | None]) -> ConnectionLimit:
    """What all `clients` of an endpoint may open together; None is a client that was not handed over."""
    limits: dict[int, int] = {}
    for client in clients:
        if client is None:
            return ConnectionLimit(None, "the model was declared without its client")
        http_client, limit = _http_client(client)
        if limit is None:
            return ConnectionLimit(
                None, f"a client of type {type(client).__qualname__} does not say how many connections it opens"
            )
        if limit == _NO_LIMIT:
            reason = f"a client of type {type(client).__qualname__} sets no limit"
            return ConnectionLimit(None, reason, sets_none=True)
        # Clients that share an HTTP client share its pool.
        limits[id(http_client)] = limit
    return ConnectionLimit(sum(limits.values()))


def _http_client(client: object) -> tuple[object, int | None]:
    for holder, transports in _http_clients(client):
        limits = [getattr(getattr(transport, "_pool", None), "_max_connections", None) for transport in transports]
        known = [limit for limit in limits if isinstance(limit, int)]
        if known and len(known) == len(limits):
            return holder, min(known)
    return None, None

"""Who is called, and who calls: canonical identities of endpoints and their request domains, and of the task at work.

An *endpoint* is a provider and a model (`ProviderModelKey`); its static cap binds all its domains together. A *request
resource* is one domain of an endpoint (`RequestResourceKey`); its adaptive limit is learned. Both are canonical: an
alias never appears in them.

`RuntimeCorrelation` identifies one execution of a task and joins the two event streams. A context variable carries the
current one, so that whatever a worker causes knows its execution.

*Who inherits it.* Tasks that a worker starts, in nurseries of its own or of others, at any depth; threads started by
`trio.to_thread`, and what they call back through `trio.from_thread`. A thread of another making starts without it; what
it is to run is wrapped by `carried` on the worker's side. Trio's system tasks start without it.

*When it ends.* A correlation belongs to one execution and ends with it. The context variable does not hold the bare
value but a binding, the same one in every copy of the worker's context. `reset` ends the binding, so a task that
outlives its worker, in a nursery of somebody else, has no correlation from then on: what it calls late is
uncorrelated, and never attached to an execution that is over. A call that was begun before that keeps the correlation
it was begun under.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from enum import Enum
from functools import wraps
from typing import Literal, ParamSpec, TypeVar

import attrs

from trio_sched import _validation as check

__all__ = [
    "CorrelationToken",
    "ProviderModelKey",
    "ProviderModelStaticCap",
    "RequestDomain",
    "RequestResourceKey",
    "RuntimeCorrelation",
    "RuntimeCorrelationProvider",
    "runtime_correlation",
]

P = ParamSpec("P")
T = TypeVar("T")


class RequestDomain(str, Enum):
    """The kind of call within an endpoint; each has an adaptive limit of its own."""

    CHAT = "chat"
    EMBEDDING = "embedding"
    IMAGE = "image"
    HEALTHCHECK = "healthcheck"

    def __str__(self) -> str:
        return self.value


@attrs.frozen(order=True, cache_hash=True)
class ProviderModelKey:
    """One endpoint: a provider's model under its canonical id."""

    provider_name: str = attrs.field(validator=check.text)
    model_id: str = attrs.field(validator=check.text)

    def __str__(self) -> str:
        return f"{self.provider_name}/{self.model_id}"


@attrs.frozen(order=True, cache_hash=True)
class RequestResourceKey:
    """One request domain of one endpoint. `domain` also takes the domain's string value."""

    provider_name: str = attrs.field(validator=check.text)
    model_id: str = attrs.field(validator=check.text)
    domain: RequestDomain = attrs.field(converter=RequestDomain)

    @property
    def provider_model_key(self) -> ProviderModelKey:
        """The endpoint this domain belongs to."""
        return ProviderModelKey(self.provider_name, self.model_id)

    def __str__(self) -> str:
        return f"{self.provider_name}/{self.model_id}/{self.domain.value}"


def _names(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(value)


def _caps(value: Mapping[str, int]) -> Mapping[str, int]:
    return check.frozen_mapping(value)


@attrs.frozen
class ProviderModelStaticCap:
    """The most concurrent calls an endpoint may carry, over all domains, and where that number came from.

    cap: the merged value, at least 1. aliases: names under which the endpoint was registered, sorted. raw_caps: what
    each alias asked for. merge_rule: aliases of one endpoint merge to the smallest cap.
    """

    cap: int = attrs.field(validator=check.positive_int)
    aliases: tuple[str, ...] = attrs.field(converter=_names)
    raw_caps: Mapping[str, int] = attrs.field(converter=_caps)
    merge_rule: Literal["min_same_endpoint"] = "min_same_endpoint"


@attrs.frozen
class RuntimeCorrelation:
    """Identity of one task execution, carried by context to everything that it causes.

    Of what belongs to a row group, or to the run as a whole, the more specific fields are None.
    """

    run_id: str
    row_group: int | None = None
    task_column: str | None = None
    task_type: str | None = None
    scheduling_group_kind: str | None = None
    scheduling_group_identity_hash: str | None = None
    task_execution_id: str | None = None


@attrs.define(eq=False)
class CorrelationToken:
    """What `set` returns and `reset` takes: a binding, which holds the correlation for as long as its execution lasts.

    correlation: None once that is over. undo: what the context variable gave when it was set, until that is undone: it
    knows the whole context, and whoever inherited the binding would keep that alive.
    """

    correlation: RuntimeCorrelation | None
    undo: Token[CorrelationToken | None] | None = None


class RuntimeCorrelationProvider:
    """Reads and sets the correlation of the current context."""

    __slots__ = ("_current",)

    def __init__(self) -> None:
        self._current: ContextVar[CorrelationToken | None] = ContextVar("trio_sched_correlation", default=None)

    def current(self) -> RuntimeCorrelation | None:
        """The correlation of the task execution at work here; None outside one, and after it ended."""
        binding = self._current.get()
        return None if binding is None else binding.correlation

    def set(self, correlation: RuntimeCorrelation | None) -> CorrelationToken:
        """Set it for this context and what it spawns; give the token to `reset`."""
        token = CorrelationToken(correlation)
        token.undo = self._current.set(token)
        return token

    def reset(self, token: CorrelationToken) -> None:
        """Undo the `set` that returned `token`, here and in everything that inherited it."""
        token.correlation = None
        if token.undo is None:
            raise RuntimeError("a correlation is reset once, and this token was used before")
        self._current.reset(token.undo)
        token.undo = None

    @contextmanager
    def within(self, correlation: RuntimeCorrelation) -> Generator[None, None, None]:
        """The block, and what it spawns, belong to `correlation`."""
        token = self.set(correlation)
        try:
            yield
        finally:
            self.reset(token)

    def carried(self, function: Callable[P, T]) -> Callable[P, T]:
        """`function`, to be called in a thread that Trio did not start, under the correlation that is current here."""
        binding = self._current.get()

        @wraps(function)
        def under_correlation(*args: P.args, **kwargs: P.kwargs) -> T:
            token = self._current.set(binding)
            try:
                return function(*args, **kwargs)
            finally:
                self._current.reset(token)

        return under_correlation


runtime_correlation: RuntimeCorrelationProvider = RuntimeCorrelationProvider()

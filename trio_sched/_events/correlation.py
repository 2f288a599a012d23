"""Carries the current `RuntimeCorrelation` in a context variable, so that whatever a worker causes knows its execution.

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

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from functools import wraps
from typing import ParamSpec, TypeVar

import attrs

from trio_sched._resources.identity import RuntimeCorrelation

__all__ = ["CorrelationToken", "RuntimeCorrelationProvider", "runtime_correlation"]

P = ParamSpec("P")
T = TypeVar("T")


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

"""Carries the current `RuntimeCorrelation` in a context variable, so that child tasks of a worker inherit it."""

from __future__ import annotations

from contextvars import ContextVar, Token

from trio_sched._resources.correlation import RuntimeCorrelation

__all__ = ["RuntimeCorrelationProvider", "runtime_correlation"]


class RuntimeCorrelationProvider:
    """Reads and sets the correlation of the current context."""

    __slots__ = ("_current",)

    def __init__(self) -> None:
        self._current: ContextVar[RuntimeCorrelation | None] = ContextVar("trio_sched_correlation", default=None)

    def current(self) -> RuntimeCorrelation | None:
        """The correlation of the task execution at work here, or None outside one."""
        return self._current.get()

    def set(self, correlation: RuntimeCorrelation | None) -> Token[RuntimeCorrelation | None]:
        """Set it for this context and what it spawns; give the token to `reset`."""
        return self._current.set(correlation)

    def reset(self, token: Token[RuntimeCorrelation | None]) -> None:
        """Undo the `set` that returned `token`."""
        self._current.reset(token)


runtime_correlation = RuntimeCorrelationProvider()

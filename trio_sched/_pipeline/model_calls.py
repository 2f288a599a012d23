"""How a column calls its models: the user's own function, once per outbound attempt, each under a lease of its own.

`await handle.call(client.chat.completions.create, model=handle.model_id, ...)` imitates no SDK. It takes any async
function and its arguments, goes through the executor for admission, retries and release, and returns what the function
returned. If the function belongs to the client of a known SDK, it is called on a copy of that client which makes no
retries of its own, since a hidden retry would be an attempt that nobody admitted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import ParamSpec, TypeVar

from trio_sched._clients import RetryFreeClients
from trio_sched._executor import ModelRequest, ModelRequestExecutor
from trio_sched._pipeline.models import Model

__all__ = ["ModelHandle", "retry_free_clients"]

P = ParamSpec("P")
T = TypeVar("T")


class ModelHandle:
    """One model of one column in one run: what the column's function gets after the row.

    was_called: whether any call went through it.
    """

    __slots__ = ("_clients", "_executor", "_model", "was_called")

    def __init__(self, model: Model, executor: ModelRequestExecutor, clients: RetryFreeClients) -> None:
        self._model = model
        self._executor = executor
        self._clients = clients
        self.was_called: bool = False

    def __repr__(self) -> str:
        return f"<ModelHandle {self._model}>"

    @property
    def model_id(self) -> str:
        """The model's canonical id, as most SDKs want it."""
        return self._model.model_id

    async def call(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function(*args, **kwargs)` under admission; again if that fails in a way that may pass.

        Raises what the last attempt raised.
        """
        self.was_called = True
        once = self._clients.redirect(function)
        return await self._executor.execute(ModelRequest(self._model.resource, lambda: once(*args, **kwargs)))


def retry_free_clients(models: Iterable[Model]) -> RetryFreeClients:
    """The clients of these models without retries. Raises `HiddenRetriesError` for one that cannot be used so."""
    clients = RetryFreeClients()
    for model in models:
        if model.client is not None:
            clients.use(model.client)
    return clients

"""One outbound attempt as a block in a column, inside which anything may be done, such as reading a stream.

    async with model.request(idle_timeout=30) as request:
        stream = await request.call(client.chat.completions.create, model=model.model_id, messages=..., stream=True)
        async for piece in request.pieces(stream):
            ...

The lease lives as long as the block. A block cannot be run again from here, so an error leaves it, and the column's
cell is made again where the error says nothing about the row.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import ParamSpec, TypeVar

import trio

from trio_sched._answers import gives_objects, look_at_answer
from trio_sched._clients import RetryFreeClients
from trio_sched._executor import ModelTimeoutError, blame_endpoint
from trio_sched._request.attempt import AdmittedAttempt
from trio_sched._request.leases import RequestAdmissionLease
from trio_sched._request.protocol import ModelCallAdmission
from trio_sched._resources.identity import RequestResourceKey, runtime_correlation
from trio_sched._resources.request import (
    RequestAdmissionItem,
    RequestEventContext,
    RequestGroupSpec,
    RequestReleaseOutcome,
)

__all__ = ["AdmittedRequest", "admitted_request"]

P = ParamSpec("P")
T = TypeVar("T")


class AdmittedRequest:
    """What the block of `ModelHandle.request` gives. lease: what admitted it."""

    __slots__ = ("_clients", "_endpoint", "_idle_timeout", "lease")

    def __init__(self, lease: RequestAdmissionLease, clients: RetryFreeClients, idle_timeout: float | None) -> None:
        self._clients = clients
        self._endpoint = lease.item.resource.provider_model_key
        self._idle_timeout = math.inf if idle_timeout is None else idle_timeout
        self.lease: RequestAdmissionLease = lease

    def __repr__(self) -> str:
        return f"<AdmittedRequest {self._endpoint}, lease {self.lease.lease_id}>"

    async def call(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function(*args, **kwargs)` once, without the hidden retries of the client that it belongs to.

        Raises `ProviderAnswerError` for an answer that is an error, or cannot be read. The model's judge is not asked:
        what is made of a stream is known at its end, inside the block, where `RateLimited` may be raised.
        """
        answer = await self._clients.redirect(function)(*args, **kwargs)
        look_at_answer(answer, model=str(self._endpoint), due=gives_objects(function, args))
        return answer

    async def pieces(self, stream: AsyncIterable[T]) -> AsyncGenerator[T, None]:
        """The pieces of a stream. Raises `ModelTimeoutError` where the next one takes longer than `idle_timeout`."""
        iterator = aiter(stream)
        while True:
            pieces: list[T] = []
            with trio.move_on_after(self._idle_timeout):
                try:
                    pieces.append(await anext(iterator))
                except StopAsyncIteration:
                    return
            if not pieces:
                raise ModelTimeoutError(self._endpoint, self._idle_timeout, "idle_timeout=...")
            yield pieces[0]


class _Block(AdmittedAttempt):
    """The block of one attempt. An error that may be the endpoint's leaves it with a note of what that had answered."""

    __slots__ = ("_admission", "_when_asked")

    def __init__(self, admission: ModelCallAdmission, item: RequestAdmissionItem) -> None:
        super().__init__(admission, item)
        self._admission = admission
        self._when_asked = admission.answered(item.resource.provider_model_key)

    def _outcome_of(self, exc: BaseException | None, lease: RequestAdmissionLease) -> RequestReleaseOutcome:
        outcome = super()._outcome_of(exc, lease)
        self._admission.model_request_completed(lease, outcome)
        if exc is not None and outcome.blame in ("endpoint", "access"):
            blame_endpoint(exc, lease.item.resource.provider_model_key, self._when_asked)
        return outcome


@asynccontextmanager
async def admitted_request(
    admission: ModelCallAdmission,
    resource: RequestResourceKey,
    clients: RetryFreeClients,
    *,
    timeout: float | None,  # noqa: ASYNC109 - it bounds a block, not this call
    idle_timeout: float | None,
) -> AsyncGenerator[AdmittedRequest, None]:
    """The block of one attempt at `resource`, admitted on entry, classified and released on exit.

    timeout: seconds for the whole block, from its lease on; None for no limit. idle_timeout: seconds for each piece of
    a stream. Raises `ModelTimeoutError`.
    """
    correlation = runtime_correlation.current()
    execution = None if correlation is None else correlation.task_execution_id
    item = RequestAdmissionItem(
        resource, RequestGroupSpec(resource), event_context=RequestEventContext(correlation, execution)
    )
    async with _Block(admission, item) as lease:
        with trio.move_on_after(math.inf if timeout is None else timeout) as scope:
            admission.model_request_started(lease)
            yield AdmittedRequest(lease, clients, idle_timeout)
        if scope.cancelled_caught:
            assert timeout is not None
            raise ModelTimeoutError(resource.provider_model_key, timeout, "model.request(timeout=...)")

"""Who is asking, and when: what the controller takes from its surroundings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from trio_sched._events.correlation import runtime_correlation
from trio_sched._request.attempt import RequestAdmissionUsageError
from trio_sched._request.leases import RequestAdmissionLease
from trio_sched._resources.correlation import RuntimeCorrelation
from trio_sched._resources.request import RequestAdmissionItem

__all__ = ["correlation_of", "current_holder", "wait_in_thread"]


def current_holder() -> str | None:
    """The name of the current Trio task, if there is one."""
    try:
        return trio.lowlevel.current_task().name
    except RuntimeError:
        return None


def correlation_of(item: RequestAdmissionItem) -> RuntimeCorrelation | None:
    """The execution an item belongs to: as captured in it, else the one at work here."""
    context = item.event_context
    if context is not None and context.captured_correlation is not None:
        return context.captured_correlation
    return runtime_correlation.current()


def wait_in_thread(
    acquire: Callable[[RequestAdmissionItem], Awaitable[RequestAdmissionLease]], item: RequestAdmissionItem
) -> RequestAdmissionLease:
    """Have the Trio thread wait for a lease, on behalf of the worker thread this is called in."""
    if trio.lowlevel.in_trio_run():
        raise RequestAdmissionUsageError(
            "acquire_sync would block the Trio thread; await acquire_async there, or call it from a worker thread"
        )
    try:
        trio.from_thread.check_cancelled()
    except RuntimeError:
        raise RequestAdmissionUsageError(
            "acquire_sync works in threads started by trio.to_thread.run_sync, and this is none of them; "
            "call it there, or await acquire_async on the Trio thread"
        ) from None
    return trio.from_thread.run(acquire, item)

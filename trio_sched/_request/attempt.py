"""One outbound attempt as a block: admitted on entry, classified and released on exit.

An attempt is admitted once. A context variable remembers the attempt that the current code works in, tasks it starts
included; asking for another lease there raises instead of waiting, because an attempt that waits for itself at a limit
of one waits forever. The memory ends with the block, also for tasks that outlive it.

A block holds one lease, so it is entered by one task at a time: a second one would take the first one's lease along.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from types import TracebackType
from typing import Final

import trio

from trio_sched._classify import classify_exception
from trio_sched._errors import TrioSchedError
from trio_sched._request.leases import RequestAdmissionLease
from trio_sched._request.protocol import RequestAdmissionController
from trio_sched._resources.request import RequestAdmissionItem, RequestReleaseOutcome

__all__ = ["AdmittedAttempt", "RequestAdmissionUsageError", "refuse_nested_admission"]

logger = logging.getLogger("trio_sched.request")

_SUCCESS: Final = RequestReleaseOutcome("success")
_UNCLASSIFIED: Final = RequestReleaseOutcome("unexpected_exception")


class RequestAdmissionUsageError(TrioSchedError, RuntimeError):
    """A controller was called in a way that cannot work; the message says what to call instead."""


class AdmittedAttempt:
    """`async with` block around one outbound attempt; gives its lease."""

    __slots__ = ("_controller", "_is_entered", "_item", "lease")

    def __init__(self, controller: RequestAdmissionController, item: RequestAdmissionItem) -> None:
        self._controller = controller
        self._item = item
        self._is_entered = False
        self.lease: RequestAdmissionLease | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> RequestAdmissionLease:
        if self._is_entered:
            raise RequestAdmissionUsageError(
                f"this block is open already for an attempt on {self._item.resource}; make one for each attempt"
            )
        self._is_entered = True
        try:
            lease = await self._controller.acquire_async(self._item)
        except BaseException:
            self._is_entered = False
            raise
        self.lease = lease
        _current_attempt.set(self)
        return lease

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Release. Does not checkpoint: nothing may come between the end of the call and the release."""
        lease = self.lease
        assert lease is not None
        self.lease = None
        self._is_entered = False
        outcome = _UNCLASSIFIED
        try:
            outcome = self._outcome_of(exc)
        finally:
            self._release(lease, outcome, failed=exc is not None)

    def _outcome_of(self, exc: BaseException | None) -> RequestReleaseOutcome:
        """What became of the attempt that ended with `exc`."""
        return _SUCCESS if exc is None else classify_exception(exc)

    def _release(self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome, *, failed: bool) -> None:
        """Give the lease back. A controller that fails at it does not hide the error of the attempt."""
        try:
            self._controller.release(lease, outcome)
        except Exception:
            if not failed:
                raise
            logger.exception("Request admission failed to take back lease %s", lease.lease_id)


_current_attempt: ContextVar[AdmittedAttempt | None] = ContextVar("trio_sched_request_attempt", default=None)


def refuse_nested_admission() -> None:
    """Raise where the current code already works inside an admitted attempt."""
    attempt = _current_attempt.get()
    if attempt is not None and attempt.lease is not None:
        raise RequestAdmissionUsageError(
            f"this code runs inside an attempt on {attempt.lease.item.resource} that already holds lease "
            f"{attempt.lease.lease_id}; an outbound attempt is admitted once, so leave that block first"
        )

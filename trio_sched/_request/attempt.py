"""One outbound attempt as a block: admitted on entry, classified and released on exit.

An attempt is admitted once. A context variable remembers the attempt that the current code works in, tasks it starts
included; asking for another lease there raises instead of waiting, because an attempt that waits for itself at a limit
of one waits forever. The memory ends with the block, also for tasks that outlive it.

A block holds one lease, so it is entered by one task at a time: a second one would take the first one's lease along.

*Retries.* Where the provider refused the attempt of a block and named a time, the next block of the same Trio task on
that resource is taken for the same call's next attempt, unless it says otherwise: until that time it lets others go
first. `not_before` of a block is that time.
"""

from __future__ import annotations

import logging
import weakref
from contextvars import ContextVar
from types import TracebackType
from typing import Final, NamedTuple

import attrs
import trio

from trio_sched._classify import classify_exception
from trio_sched._errors import TrioSchedError
from trio_sched._request.leases import RequestAdmissionLease
from trio_sched._request.protocol import RequestAdmissionController
from trio_sched._resources.identity import RequestResourceKey
from trio_sched._resources.request import RequestAdmissionItem, RequestReleaseOutcome

__all__ = ["AdmittedAttempt", "RequestAdmissionUsageError", "refuse_nested_admission"]

logger = logging.getLogger("trio_sched.request")

_SUCCESS: Final = RequestReleaseOutcome("success")
_UNCLASSIFIED: Final = RequestReleaseOutcome("unexpected_exception")


class RequestAdmissionUsageError(TrioSchedError, RuntimeError):
    """A controller was called in a way that cannot work; the message says what to call instead."""


class AdmittedAttempt:
    """`async with` block around one outbound attempt; gives its lease."""

    __slots__ = ("_controller", "_follows_task", "_is_entered", "_item", "_retries", "lease", "not_before")

    def __init__(
        self,
        controller: RequestAdmissionController,
        item: RequestAdmissionItem,
        *,
        retries: bool = True,
        follows_task: bool = True,
    ) -> None:
        self._controller = controller
        self._follows_task = retries and follows_task
        self._item = item
        self._is_entered = False
        self._retries = retries
        self.lease: RequestAdmissionLease | None = None
        self.not_before: float | None = None

    @property
    def resource(self) -> RequestResourceKey:
        """Where the attempt goes to."""
        return self._item.resource

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> RequestAdmissionLease:
        if self._is_entered:
            raise RequestAdmissionUsageError(
                f"this block is open already for an attempt on {self._item.resource}; make one for each attempt"
            )
        self._is_entered = True
        self.not_before = None
        try:
            lease = await self._controller.acquire_async(self._item_for(trio.lowlevel.current_task()))
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
            outcome = self._outcome_of(exc, lease)
        finally:
            self._release(lease, outcome, failed=exc is not None)

    def _item_for(self, task: trio.lowlevel.Task) -> RequestAdmissionItem:
        """The item to admit: as it was given, or with the time that the task's last refusal named."""
        last = _last_refusal.get() if self._follows_task and self._item.not_before is None else None
        if last is None or last.task() is not task or last.resource != self._item.resource:
            return self._item
        return attrs.evolve(self._item, not_before=last.not_before)

    def _outcome_of(self, exc: BaseException | None, lease: RequestAdmissionLease) -> RequestReleaseOutcome:
        """What became of the attempt that ended with `exc`."""
        return _SUCCESS if exc is None else classify_exception(exc)

    def _release(self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome, *, failed: bool) -> None:
        """Give the lease back. A controller that fails at it does not hide the error of the attempt."""
        if outcome.kind == "rate_limited" and outcome.retry_after_seconds:
            self.not_before = trio.current_time() + outcome.retry_after_seconds
        if self._retries:
            _last_refusal.set(
                None
                if self.not_before is None
                else _Refusal(weakref.ref(trio.lowlevel.current_task()), lease.item.resource, self.not_before)
            )
        try:
            self._controller.release(lease, outcome)
        except Exception:
            if not failed:
                raise
            logger.exception("Request admission failed to take back lease %s", lease.lease_id)


class _Refusal(NamedTuple):
    """A task was asked to come back to a resource later. Child tasks inherit it, and it is not theirs: a child that
    lives on does not keep the task alive.
    """

    task: weakref.ref[trio.lowlevel.Task]
    resource: RequestResourceKey
    not_before: float


_last_refusal: ContextVar[_Refusal | None] = ContextVar("trio_sched_last_refusal", default=None)
_current_attempt: ContextVar[AdmittedAttempt | None] = ContextVar("trio_sched_request_attempt", default=None)


def refuse_nested_admission() -> None:
    """Raise where the current code already works inside an admitted attempt."""
    attempt = _current_attempt.get()
    if attempt is not None and attempt.lease is not None:
        raise RequestAdmissionUsageError(
            f"this code runs inside an attempt on {attempt.lease.item.resource} that already holds lease "
            f"{attempt.lease.lease_id}; an outbound attempt is admitted once, so leave that block first"
        )

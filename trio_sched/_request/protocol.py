"""What the model-call boundary needs of request admission, whichever controller provides it."""

from __future__ import annotations

from typing import Protocol

from trio_sched._request.leases import RequestAdmissionDecision, RequestAdmissionLease
from trio_sched._request.pressure import RequestPressureSnapshotProvider
from trio_sched._resources.release import ReleaseResult
from trio_sched._resources.request import RequestAdmissionItem, RequestReleaseOutcome

__all__ = ["RequestAdmissionController"]


class RequestAdmissionController(Protocol):
    """Admits concrete outbound attempts: one lease each, released once with its outcome."""

    def try_acquire(self, item: RequestAdmissionItem) -> RequestAdmissionDecision:
        """A lease or a denial, at once."""
        ...

    def acquire_sync(self, item: RequestAdmissionItem) -> RequestAdmissionLease:
        """Wait for a lease in a worker thread."""
        ...

    async def acquire_async(self, item: RequestAdmissionItem) -> RequestAdmissionLease:
        """Wait for a lease."""
        ...

    def release(self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome) -> ReleaseResult:
        """Give a lease back."""
        ...

    @property
    def pressure(self) -> RequestPressureSnapshotProvider:
        """Read-only pictures of what is in flight."""
        ...

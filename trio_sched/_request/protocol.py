"""What others need of request admission, whichever controller provides it."""

from __future__ import annotations

from typing import Protocol

from trio_sched._request.endpoint import Answers, ClosedReason
from trio_sched._request.leases import RequestAdmissionDecision, RequestAdmissionLease
from trio_sched._request.pressure import RequestPressureSnapshotProvider
from trio_sched._resources import ReleaseResult
from trio_sched._resources.identity import ProviderModelKey
from trio_sched._resources.request import RequestAdmissionItem, RequestReleaseOutcome

__all__ = ["ModelCallAdmission", "RequestAdmissionController"]


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
        """Read-only snapshots of what is in flight."""
        ...


class ModelCallAdmission(RequestAdmissionController, Protocol):
    """What the model-call boundary needs: leases, the record of calls, and closing an endpoint."""

    def model_request_started(self, lease: RequestAdmissionLease) -> None:
        """Record that the call admitted by `lease` goes out."""
        ...

    def model_request_completed(self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome) -> None:
        """Record that the call admitted by `lease` is over."""
        ...

    def answered(self, provider_model: ProviderModelKey) -> Answers:
        """What an endpoint has answered so far."""
        ...

    def close_endpoint(
        self, provider_model: ProviderModelKey, reason: str, denies_with: ClosedReason = "endpoint_closed"
    ) -> None:
        """Admit nothing more at an endpoint."""
        ...

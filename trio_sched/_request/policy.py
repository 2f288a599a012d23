"""Whether one request may go out now, judged from the ledger alone. Pure: it may be asked any number of times."""

from __future__ import annotations

from trio_sched._request.leases import RequestDenialReason
from trio_sched._request.state import DomainState

__all__ = ["RequestAdmissionPolicy"]


class RequestAdmissionPolicy:
    """A request is admitted when its domain is not cooling down, and domain and endpoint both have room."""

    __slots__ = ()

    def admits(self, domain: DomainState) -> bool:
        """Whether the next request of `domain` may go out."""
        return domain.has_room

    def refusal(self, domain: DomainState, *, waiters_ahead: bool) -> RequestDenialReason:
        """Why it may not. waiters_ahead: whether others already queue for the same capacity."""
        if domain.endpoint.closed is not None:
            return "hard_policy_denial"
        if domain.blocked:
            return "cooldown"
        return "queued_waiters_ahead" if waiters_ahead else "no_capacity"

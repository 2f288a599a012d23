"""Whether one request may go out now, judged from the ledger alone. Pure: it may be asked any number of times."""

from __future__ import annotations

from trio_sched._request.leases import RequestDenialReason
from trio_sched._request.state import DomainState

__all__ = ["RequestAdmissionPolicy"]


class RequestAdmissionPolicy:
    """A request is admitted when its domain is not stopped, and domain and endpoint both have room."""

    __slots__ = ()

    def admits(self, domain: DomainState) -> bool:
        """Whether the next request of `domain` may go out."""
        return domain.has_room

    def refusal(self, domain: DomainState, *, waiters_ahead: bool, waits_for_hint: bool) -> RequestDenialReason:
        """Why it may not.

        waiters_ahead: whether others already queue for the same capacity. waits_for_hint: whether the provider asked
        for a later moment.
        """
        if domain.endpoint.closed is not None:
            return "hard_policy_denial"
        if domain.limits.blocked_until is not None:
            return "cooldown"
        if waits_for_hint:
            return "retry_hint"
        return "queued_waiters_ahead" if waiters_ahead else "no_capacity"

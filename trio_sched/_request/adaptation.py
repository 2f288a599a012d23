"""Applies the adaptive rule to the ledger: what was reported, what time brought, what a new cap means.

*Verdicts.* A rate limit is not judged by the release that reports it. The release marks the domain as pending, which
closes it, and rings; `judge` applies the rule, as of the time of the release. A success is counted at the release, and
rings only when a growth step is due. Judging at once, as a controller without supervisor does, leads to the same
states, because a domain with a pending verdict neither counts successes nor ages.

*Time.* Each domain that waits for a moment has an entry in the table of deadlines; `next_due` is the earliest. While
nothing is due the table is empty, `next_due` is infinite, and looking costs one comparison.

Every change of a limit is published to its limiter, and the endpoint is noted in `touched` for the core to settle.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

import attrs

from trio_sched._request.journal import RequestJournal
from trio_sched._request.leases import RequestAdmissionLease
from trio_sched._request.limits import LimitTransition
from trio_sched._request.state import DomainState, EndpointState
from trio_sched._resources.request import RequestReleaseOutcome

__all__ = ["GrowthDue", "LimitKeeper", "RateLimitReported", "Ring"]


@attrs.frozen(eq=False)
class RateLimitReported:
    """A lease came back as rate limited; its domain is closed until this is judged."""

    domain: DomainState
    lease: RequestAdmissionLease
    released_at: float
    retry_after: float | None


@attrs.frozen(eq=False)
class GrowthDue:
    """Enough successes were counted in `domain` to raise its limit."""

    domain: DomainState


Ring = RateLimitReported | GrowthDue


class LimitKeeper:
    """Keeps the adaptive limits of one controller."""

    __slots__ = ("_deadlines", "_journal", "next_due", "rings", "touched")

    def __init__(self, journal: RequestJournal) -> None:
        self._journal = journal
        self._deadlines: dict[DomainState, float] = {}
        self.next_due = math.inf
        self.rings: deque[Ring] = deque()
        self.touched: list[EndpointState] = []

    def watch(self, domain: DomainState) -> None:
        """Keep time for `domain` from now on."""
        due = None if domain.pending else domain.limits.next_deadline()
        if due is not None:
            self._deadlines[domain] = due
        elif self._deadlines.pop(domain, None) is None:
            return
        self.next_due = min(self._deadlines.values(), default=math.inf)

    def report(
        self, domain: DomainState, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome, now: float
    ) -> None:
        """A lease of `domain` came back with `outcome`."""
        if outcome.kind == "success":
            if not domain.pending and domain.limits.success(now):
                self.rings.append(GrowthDue(domain))
        elif outcome.kind == "rate_limited":
            end = domain.limits.cooldown_end(now, outcome.retry_after_seconds)
            domain.pending += 1
            domain.pending_until = max(end, domain.pending_until)
            domain.publish_limit()
            self.watch(domain)
            self.rings.append(RateLimitReported(domain, lease, now, outcome.retry_after_seconds))

    def judge(self, ring: Ring, now: float) -> None:
        """Apply the rule to what was reported."""
        domain, limits = ring.domain, ring.domain.limits
        if isinstance(ring, GrowthDue):
            self._publish(domain, limits.grow(), now)
            return
        domain.pending -= 1
        assert domain.pending >= 0, "a rate limit is judged once"
        transitions = limits.rate_limited(ring.released_at, epoch=ring.lease.epoch, retry_after=ring.retry_after)
        self._changed(domain)
        self._journal.of_lease(
            "request_rate_limited",
            ring.lease,
            domain,
            now,
            "rate_limited",
            {
                "retry_after_seconds": ring.retry_after,
                "blocked_until_monotonic": limits.blocked_until,
                "lease_epoch": ring.lease.epoch,
                "epoch": limits.epoch,
            },
        )
        self._note(domain, transitions, now)
        self.advance(now)

    def advance(self, now: float) -> None:
        """Let time pass until `now`: cooldowns end, ramps rise."""
        for domain, due in list(self._deadlines.items()):
            if due <= now:
                self._publish(domain, domain.limits.advance(now), now)

    def cap_changed(self, domain: DomainState, effective_max: int, now: float) -> None:
        """The effective maximum of `domain` is another one from now on."""
        if effective_max == domain.limits.effective_max:
            return
        previous = domain.limits.effective_max
        transitions = domain.limits.set_effective_max(effective_max)
        self._changed(domain)
        self._journal.of_domain(
            "request_effective_cap_changed", domain, now, facts={"previous": previous, "current": effective_max}
        )
        self._note(domain, transitions, now)

    def _publish(self, domain: DomainState, transitions: Iterable[LimitTransition], now: float) -> None:
        self._changed(domain)
        self._note(domain, transitions, now)

    def _changed(self, domain: DomainState) -> None:
        domain.publish_limit()
        self.watch(domain)
        self.touched.append(domain.endpoint)

    def _note(self, domain: DomainState, transitions: Iterable[LimitTransition], now: float) -> None:
        for transition in transitions:
            self._journal.of_domain(
                transition.kind,
                domain,
                now,
                facts={
                    "previous": transition.previous,
                    "current": transition.current,
                    "rate_limit_ceiling": transition.ceiling,
                },
            )

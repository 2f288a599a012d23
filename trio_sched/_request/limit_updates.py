"""Puts into force what the rules have learned, and keeps their time.

*Learning.* `learn` hands every lease that comes back to the rule of its domain. If that changes the limit, or the
provider refused the call, an update is queued for whoever applies it: the supervisor, or the caller itself where a
controller was never opened. An update that lowers the limit, and every refusal, keeps its domain closed until then. So
nothing goes out between a refusal and what follows from it. A success that changes nothing costs no update.

*Time.* Each domain whose rule waits for a moment has an entry in the table of deadlines; `next_due` is the earliest.
While nothing is due the table is empty, `next_due` is infinite, and looking costs one comparison.

*Totals.* A limiter's total is set in three cases: by `apply`, for what was learned; by `advance`, for time that has
passed, from whichever of supervisor and callers comes first after the deadline; and by `cap_changed`.

Every change is published to the limiter, and the endpoint is noted in `touched`, for the core to grant waiters there.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Final

import attrs

from trio_sched._events.records import JsonValue, RequestAdmissionEventKind
from trio_sched._request.events import RequestEventRecorder
from trio_sched._request.leases import RequestAdmissionLease
from trio_sched._request.limit import LimitTransition, LimitTransitionKind, RequestSample
from trio_sched._request.state import DomainState, EndpointState
from trio_sched._resources.request import RequestReleaseOutcome

__all__ = ["LimitUpdate", "LimitUpdater"]

_EVENTS: Final[dict[LimitTransitionKind, tuple[RequestAdmissionEventKind, ...]]] = {
    "increased": ("request_limit_increased",),
    "decreased": ("request_limit_decreased",),
    "probe_started": ("request_limit_increased",),
    "probe_refused": ("request_limit_decreased",),
    "outage": ("request_outage_started", "request_limit_decreased"),
    "recovered": ("request_outage_ended", "request_limit_increased"),
    "soft_ceiling_recovered": ("request_soft_ceiling_recovered",),
    "fully_recovered": ("request_fully_recovered",),
}
_OF_A_CHANGE: Final = frozenset({"request_limit_increased", "request_limit_decreased"})


@attrs.frozen(eq=False)
class LimitUpdate:
    """What one lease taught the rule of its domain, by its grant (outcome is None) or by its release.

    closes: whether the domain is closed until this is applied.
    """

    domain: DomainState
    lease: RequestAdmissionLease
    outcome: RequestReleaseOutcome | None
    transitions: Sequence[LimitTransition]
    closes: bool


class LimitUpdater:
    """Keeps the limits of one controller. updates: those that await `apply`, oldest first."""

    __slots__ = ("_deadlines", "_events", "next_due", "touched", "updates")

    def __init__(self, events: RequestEventRecorder) -> None:
        self._events = events
        self._deadlines: dict[DomainState | EndpointState, float] = {}
        self.next_due: float = math.inf
        self.updates: deque[LimitUpdate] = deque()
        self.touched: list[EndpointState] = []

    def watch(self, domain: DomainState) -> None:
        """Keep time for `domain`, as its rule wants it now. A domain with updates to come has its time kept later."""
        due = None if domain.pending else domain.limits.deadline
        if due is not None:
            self._deadlines[domain] = due
        elif self._deadlines.pop(domain, None) is None:
            return
        self.next_due = min(self._deadlines.values(), default=math.inf)

    def watch_endpoint(self, endpoint: EndpointState) -> None:
        """Keep time for `endpoint`, as its state wants it now."""
        due = endpoint.health.next_deadline()
        if due < math.inf:
            self._deadlines[endpoint] = due
        elif self._deadlines.pop(endpoint, None) is None:
            return
        self.next_due = min(self._deadlines.values(), default=math.inf)

    def due_endpoints(self, now: float) -> list[EndpointState]:
        """The endpoints whose state has something to do."""
        return [each for each, due in self._deadlines.items() if due <= now and isinstance(each, EndpointState)]

    def granted(self, domain: DomainState, lease: RequestAdmissionLease) -> None:
        """The grant of `lease` was news to the rule, as that of a trial is."""
        self._queue(domain, lease, None, (), closes=False)

    def learn(
        self, domain: DomainState, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome, now: float
    ) -> None:
        """A lease of `domain` came back with `outcome`."""
        limits = domain.limits
        refused = outcome.kind != "success" and outcome.refused
        transitions = limits.ended(
            now,
            lease.grant,
            RequestSample(
                outcome.kind,
                outcome.retry_after_seconds,
                now - lease.acquired_at,
                None,
                domain.limiter.borrowed_tokens,
                refused,
            ),
        )
        if refused or transitions or limits.has_news:
            self._queue(domain, lease, outcome, transitions, closes=refused or limits.learned < limits.current_limit)

    def apply(self, update: LimitUpdate, now: float) -> None:
        """Put one update into force."""
        domain, lease, outcome = update.domain, update.lease, update.outcome
        domain.pending -= update.closes
        assert domain.pending >= 0, "an update is applied once"
        self._put_in_force(domain)
        if outcome is not None and outcome.kind == "rate_limited":
            self._events.of_lease(
                "request_rate_limited",
                lease,
                domain,
                now,
                "rate_limited",
                {
                    "retry_after_seconds": outcome.retry_after_seconds,
                    "blocked_until_monotonic": domain.limits.blocked_until,
                    "lease_epoch": lease.grant.epoch,
                    "epoch": domain.limits.epoch,
                },
            )
        if outcome is None and lease.grant.trial:
            facts: dict[str, JsonValue] = {"blocked_until_monotonic": domain.limits.blocked_until}
            self._events.of_lease("request_trial_started", lease, domain, now, facts=facts)
        self._note(domain, update.transitions, now)
        self.advance(now)

    def advance(self, now: float) -> None:
        """Let time pass until `now`: stops end, ramps rise."""
        for domain, due in list(self._deadlines.items()):
            if due <= now and isinstance(domain, DomainState):
                limits = domain.limits
                stop, ceiling = limits.blocked_until, limits.ceiling
                transitions = limits.advance(now)
                self._put_in_force(domain)
                emitted = self._note(domain, transitions, now)
                # An event that carried the stop also said when it ends.
                stop = stop if stop is not None and stop > now else None
                if not emitted and (limits.blocked_until, limits.ceiling) != (stop, ceiling):
                    self._note_stop(domain, stop, now)

    def cap_changed(self, domain: DomainState, effective_max: int, now: float) -> None:
        """The effective maximum of `domain` is another one from now on."""
        previous = domain.limits.effective_max
        if effective_max == previous:
            return
        transitions = domain.limits.set_effective_max(effective_max, now)
        self._put_in_force(domain)
        self._events.of_domain(
            "request_effective_cap_changed", domain, now, facts={"previous": previous, "current": effective_max}
        )
        self._note(domain, transitions, now)

    def _queue(
        self,
        domain: DomainState,
        lease: RequestAdmissionLease,
        outcome: RequestReleaseOutcome | None,
        transitions: Sequence[LimitTransition],
        *,
        closes: bool,
    ) -> None:
        domain.limits.has_news = False
        domain.pending += closes
        self.updates.append(LimitUpdate(domain, lease, outcome, transitions, closes))
        self.watch(domain)

    def _put_in_force(self, domain: DomainState) -> None:
        domain.limits.put_in_force()
        domain.publish_limit()
        self.watch(domain)
        self.touched.append(domain.endpoint)

    def _note(self, domain: DomainState, transitions: Sequence[LimitTransition], now: float) -> bool:
        """Emit the events of `transitions`; whether there were any."""
        emitted = False
        for each in transitions:
            for kind in _EVENTS[each.kind]:
                if kind not in _OF_A_CHANGE or each.previous != each.current:
                    self._emit(kind, domain, now, each.kind, each.previous, each.current, each.ceiling)
                    emitted = True
        return emitted

    def _note_stop(self, domain: DomainState, stop: float | None, now: float) -> None:
        """A rule changed its stop or its ceiling because time passed, and nothing else."""
        limits = domain.limits
        kind: RequestAdmissionEventKind = "request_limit_increased"
        cause = "ceiling" if limits.blocked_until == stop else "resumed"
        if limits.blocked_until is not None and limits.blocked_until != stop:
            kind, cause = "request_limit_decreased", "stopped"
        self._emit(kind, domain, now, cause, limits.current_limit, limits.current_limit, limits.ceiling)

    def _emit(
        self,
        kind: RequestAdmissionEventKind,
        domain: DomainState,
        now: float,
        cause: str,
        previous: int,
        current: int,
        ceiling: int | None,
    ) -> None:
        facts: dict[str, JsonValue] = {
            "cause": cause,
            "previous": previous,
            "current": current,
            "rate_limit_ceiling": ceiling,
        }
        self._events.of_domain(kind, domain, now, facts=facts)

"""What happened in request admission, as parts of events: made at the moment, kept until the state change is complete.

The core writes here while it works; whoever called the core takes the events out afterwards and delivers them. A kind
that nobody wants is not made, and with no sink at all the core does not even ask (`silent`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from trio_sched._events.json_value import JsonValue
from trio_sched._events.request import RequestAdmissionEventKind, RequestEventParts, RequestEventSubject
from trio_sched._events.sinks import RequestEventStream
from trio_sched._request.leases import RequestAdmissionLease
from trio_sched._request.state import DomainState
from trio_sched._resources.identity import ProviderModelKey, RuntimeCorrelation
from trio_sched._resources.request import RequestAdmissionItem, RequestPressureSnapshot

__all__ = ["RequestJournal"]

_MOST_REMEMBERED: Final = 1024


class RequestJournal:
    """Undelivered events of one controller."""

    __slots__ = ("_of_leases", "_picture", "_snapshot", "_stream", "pending", "silent", "wanted")

    def __init__(
        self,
        stream: RequestEventStream,
        snapshot: Callable[[DomainState, float], RequestPressureSnapshot],
    ) -> None:
        self._stream = stream
        self._snapshot = snapshot
        self._picture: RequestPressureSnapshot | None = None
        self._of_leases: dict[int, tuple[RequestAdmissionLease, RequestEventSubject]] = {}
        self.wanted = stream.tellers.keys()
        self.silent = not stream.tellers
        self.pending: deque[RequestEventParts] = deque()

    def of_endpoint(
        self, kind: RequestAdmissionEventKind, endpoint: ProviderModelKey, now: float, facts: dict[str, JsonValue]
    ) -> None:
        """Something happened to an endpoint as a whole."""
        if kind in self.wanted:
            named: dict[str, JsonValue] = {"provider_name": endpoint.provider_name, "model_id": endpoint.model_id}
            self._write(kind, RequestEventSubject(), None, now, None, {**named, **facts})

    def of_domain(
        self,
        kind: RequestAdmissionEventKind,
        domain: DomainState,
        now: float,
        reason: str | None = None,
        facts: dict[str, JsonValue] | None = None,
    ) -> None:
        """Something happened to a request resource, and to nobody in particular."""
        if kind in self.wanted:
            self._write(kind, RequestEventSubject(request_resource_key=domain.key), domain, now, reason, facts)

    def of_item(
        self,
        kind: RequestAdmissionEventKind,
        item: RequestAdmissionItem,
        domain: DomainState | None,
        now: float,
        correlation: RuntimeCorrelation | None,
        reason: str | None = None,
        facts: dict[str, JsonValue] | None = None,
    ) -> None:
        """Something happened to one request on its way to a lease."""
        if kind in self.wanted:
            self._write(kind, _subject(item, correlation, None), domain, now, reason, facts)

    def of_lease(
        self,
        kind: RequestAdmissionEventKind,
        lease: RequestAdmissionLease,
        domain: DomainState | None,
        now: float,
        reason: str | None = None,
        facts: dict[str, JsonValue] | None = None,
    ) -> None:
        """Something happened to a lease."""
        if kind in self.wanted:
            _, subject = self._of_leases.get(id(lease)) or self._remembered(lease)
            if kind == "request_lease_released":
                del self._of_leases[id(lease)]
            self._write(kind, subject, domain, now, reason, facts)

    def _write(
        self,
        kind: RequestAdmissionEventKind,
        subject: RequestEventSubject,
        domain: DomainState | None,
        now: float,
        reason: str | None,
        facts: dict[str, JsonValue] | None,
    ) -> None:
        if domain is not None:
            # A picture stays true until the domain changes, or, while it cools down, until time passes.
            picture = self._picture
            if (
                picture is None
                or picture.sequence != domain.sequence
                or picture.resource is not domain.key
                or (picture.blocked_until_monotonic is not None and picture.captured_at != now)
            ):
                picture = self._picture = self._snapshot(domain, now)
        else:
            picture = None
        self.pending.append((kind, now, self._stream.next_sequence(), subject, reason, picture, facts))

    def _remembered(self, lease: RequestAdmissionLease) -> tuple[RequestAdmissionLease, RequestEventSubject]:
        """Whom the events of a lease are about, until it is released; with the lease, so its id is nobody else's."""
        if len(self._of_leases) >= _MOST_REMEMBERED:
            self._of_leases.clear()
        subject = _subject(lease.item, lease.captured_correlation, lease.lease_id)
        known = self._of_leases[id(lease)] = (lease, subject)
        return known


def _subject(
    item: RequestAdmissionItem, correlation: RuntimeCorrelation | None, lease_id: int | None
) -> RequestEventSubject:
    context = item.event_context
    attempt = None if context is None else context.request_attempt_id
    return RequestEventSubject(correlation, attempt, lease_id, item.resource, item.group.key)

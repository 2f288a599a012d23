"""What happened in request admission, as parts of events: made at the moment, kept until the state change is complete.

The core writes here while it works; whoever called the core takes the events out afterwards and delivers them. A kind
that nobody wants is not made, and with no sink at all the core does not even ask (`silent`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from trio_sched._events.json_value import JsonValue
from trio_sched._events.request import RequestAdmissionEventKind, RequestEventParts, RequestEventSubject
from trio_sched._events.sinks import RequestEventStream
from trio_sched._request.leases import RequestAdmissionLease
from trio_sched._request.state import DomainState
from trio_sched._resources.correlation import RuntimeCorrelation
from trio_sched._resources.identity import ProviderModelKey
from trio_sched._resources.pressure import RequestPressureSnapshot
from trio_sched._resources.request import RequestAdmissionItem

__all__ = ["RequestJournal"]


class RequestJournal:
    """Undelivered events of one controller."""

    __slots__ = ("_picture", "_snapshot", "_stream", "pending", "silent", "wanted")

    def __init__(
        self,
        stream: RequestEventStream,
        snapshot: Callable[[DomainState, float], RequestPressureSnapshot],
    ) -> None:
        self._stream = stream
        self._snapshot = snapshot
        self._picture: RequestPressureSnapshot | None = None
        self.wanted = stream.wanted
        self.silent = not stream.wanted
        self.pending: deque[RequestEventParts] = deque()

    def of_endpoint(
        self, kind: RequestAdmissionEventKind, endpoint: ProviderModelKey, now: float, facts: dict[str, JsonValue]
    ) -> None:
        """Something happened to an endpoint as a whole."""
        if kind in self.wanted:
            named: dict[str, JsonValue] = {"provider_name": endpoint.provider_name, "model_id": endpoint.model_id}
            self._write(kind, now, diagnostics={**named, **facts})

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
            self._write(kind, now, domain=domain, reason=reason, diagnostics=facts)

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
            self._write(kind, now, domain=domain, item=item, correlation=correlation, reason=reason, diagnostics=facts)

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
            self._write(
                kind,
                now,
                domain=domain,
                item=lease.item,
                correlation=lease.captured_correlation,
                reason=reason,
                diagnostics=facts,
                lease_id=lease.lease_id,
            )

    def _write(
        self,
        kind: RequestAdmissionEventKind,
        now: float,
        *,
        domain: DomainState | None = None,
        item: RequestAdmissionItem | None = None,
        correlation: RuntimeCorrelation | None = None,
        reason: str | None = None,
        diagnostics: dict[str, JsonValue] | None = None,
        lease_id: int | None = None,
    ) -> None:
        context = None if item is None else item.event_context
        resource = None if item is None else item.resource
        if resource is None and domain is not None:
            resource = domain.key
        subject = RequestEventSubject(
            correlation,
            None if context is None else context.request_attempt_id,
            lease_id,
            resource,
            None if item is None else item.group.key,
        )
        pressure = None if domain is None else self._pressure(domain, now)
        self.pending.append((kind, now, self._stream.next_sequence(), subject, reason, pressure, diagnostics))

    def _pressure(self, domain: DomainState, now: float) -> RequestPressureSnapshot:
        """The domain now. A picture stays true until the domain changes, or, while it cools down, until time passes."""
        picture = self._picture
        if (
            picture is None
            or picture.sequence != domain.sequence
            or picture.resource is not domain.key
            or (picture.captured_at != now and picture.blocked_until_monotonic is not None)
        ):
            picture = self._picture = self._snapshot(domain, now)
        return picture

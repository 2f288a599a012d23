"""What happened in request admission: events are built at the moment, and kept until the state change is complete.

The core records them while it works; whoever called the core takes them out of `pending` afterwards and delivers them.
A kind that nobody wants is not built, and with no sink at all the core does not even ask (`silent`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from trio_sched._events.records import JsonValue, RequestAdmissionEvent, RequestAdmissionEventKind
from trio_sched._events.sinks import RequestEventStream
from trio_sched._request.leases import RequestAdmissionLease
from trio_sched._request.state import DomainState
from trio_sched._resources.identity import ProviderModelKey, RequestResourceKey, RuntimeCorrelation, runtime_correlation
from trio_sched._resources.request import RequestAdmissionItem, RequestPressureSnapshot

__all__ = ["RequestEventRecorder"]


class RequestEventRecorder:
    """Undelivered events of one controller.

    What happens to an endpoint or a resource is correlated with whatever the controller was made in: a run, or nothing.
    """

    __slots__ = ("_correlation", "_latest", "_snapshot", "_stream", "pending", "wanted")

    def __init__(
        self,
        stream: RequestEventStream,
        snapshot: Callable[[DomainState, float], RequestPressureSnapshot],
    ) -> None:
        self._stream = stream
        self._snapshot = snapshot
        self._latest: RequestPressureSnapshot | None = None
        self._correlation = runtime_correlation.current()
        self.wanted = stream.handlers.keys()
        self.pending: deque[RequestAdmissionEvent] = deque()

    @property
    def silent(self) -> bool:
        """Whether nobody wants any event."""
        return not self._stream.handlers

    def of_endpoint(
        self, kind: RequestAdmissionEventKind, endpoint: ProviderModelKey, now: float, facts: dict[str, JsonValue]
    ) -> None:
        """Something happened to an endpoint as a whole."""
        if kind in self.wanted:
            named: dict[str, JsonValue] = {"provider_name": endpoint.provider_name, "model_id": endpoint.model_id}
            self._record(kind, now, self._correlation, facts={**named, **facts})

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
            self._record(kind, now, self._correlation, resource=domain.key, reason=reason, domain=domain, facts=facts)

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
            self._record(
                kind, now, correlation, _attempt(item), None, item.resource, item.group.key, reason, domain, facts
            )

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
            item, correlation = lease.item, lease.captured_correlation
            attempt, group = _attempt(item), item.group.key
            self._record(kind, now, correlation, attempt, lease.lease_id, item.resource, group, reason, domain, facts)

    def _record(
        self,
        kind: RequestAdmissionEventKind,
        now: float,
        correlation: RuntimeCorrelation | None,
        attempt: str | None = None,
        lease_id: int | None = None,
        resource: RequestResourceKey | None = None,
        group: RequestResourceKey | None = None,
        reason: str | None = None,
        domain: DomainState | None = None,
        facts: dict[str, JsonValue] | None = None,
    ) -> None:
        snapshot = None
        if domain is not None:
            # A snapshot stays true until the domain changes, or, while it cools down, until time passes.
            snapshot = self._latest
            if (
                snapshot is None
                or snapshot.sequence != domain.sequence
                or snapshot.resource is not domain.key
                or (snapshot.blocked_until_monotonic is not None and snapshot.captured_at != now)
            ):
                snapshot = self._latest = self._snapshot(domain, now)
        self.pending.append(
            RequestAdmissionEvent(
                kind,
                now,
                self._stream.next_sequence(),
                correlation,
                attempt,
                lease_id,
                resource,
                group,
                reason,
                snapshot,
                {} if facts is None else facts,
            )
        )


def _attempt(item: RequestAdmissionItem) -> str | None:
    return None if item.event_context is None else item.event_context.request_attempt_id

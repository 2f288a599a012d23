"""Who waits for a lease, in fair order.

Requests wait in lines, one per request resource, first come first served. The resources of an endpoint compete for its
static cap, so each endpoint has a fair order over its lines; endpoints have nothing to share and no order between them.

Weighted fair comes first; between lines with equal tags, the older head.

A waiter with a `not_before` was refused by the provider, which wants to see it later. Until then it lets everybody else
in its line go first; where nobody else is, it heads the line, so no permit idles for it. Afterwards it has the place
that its age gives it. Time passes in `advance`.

Selecting changes nothing. Committing is the only removal by selection, and what moves the fair order on: a line is
charged one over the weight of the item that was served. A selection is stale when its waiter no longer heads its line.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import attrs
import trio

from trio_sched._fair import FairOrder
from trio_sched._request.leases import RequestAdmissionDecision
from trio_sched._resources.identity import ProviderModelKey, RequestResourceKey, RuntimeCorrelation
from trio_sched._resources.request import RequestAdmissionItem

__all__ = [
    "RequestFairQueue",
    "RequestQueueSelection",
    "RequestQueueSnapshot",
    "RequestQueueView",
    "RequestWaiter",
]


@attrs.define(eq=False)
class RequestWaiter:
    """One request in the queue. `decision` is what it got when it left, `task` who sleeps until then."""

    waiter_id: int
    item: RequestAdmissionItem
    enqueued_at: float
    holder: str | None = None
    correlation: RuntimeCorrelation | None = None
    decision: RequestAdmissionDecision | None = None
    task: trio.lowlevel.Task | None = None


@attrs.frozen
class RequestQueueSnapshot:
    """A `RequestQueueView` at one instant."""

    queued_total: int
    queued_by_group: Mapping[RequestResourceKey, int]
    queued_demand_by_resource: Mapping[RequestResourceKey, int]
    aggregate_provider_model_waiters: Mapping[ProviderModelKey, int]
    first_candidate_by_group: Mapping[RequestResourceKey, RequestAdmissionItem]


@attrs.frozen
class RequestQueueSelection:
    """The waiter that would be served next. It stays valid while that waiter heads its line."""

    item: RequestWaiter
    queue_view: RequestQueueView
    sequence_version: int


class _Line:
    """Who waits for one request resource.

    `ready`: in the order of arrival. `deferred`: those whose `not_before` has not passed, with a heap of these times.
    `matured`: those whose time has passed, with a heap of their ids, which is the order of arrival. The heaps keep
    whoever has left until they come to the top.
    """

    __slots__ = ("_deferred_heap", "_matured_heap", "deferred", "endpoint", "matured", "ready")

    def __init__(self, endpoint: _Endpoint) -> None:
        self.endpoint = endpoint
        self.ready: OrderedDict[int, RequestWaiter] = OrderedDict()
        self.deferred: dict[int, RequestWaiter] = {}
        self.matured: dict[int, RequestWaiter] = {}
        self._deferred_heap: list[tuple[float, int]] = []
        self._matured_heap: list[int] = []

    def __len__(self) -> int:
        return len(self.ready) + len(self.deferred) + len(self.matured)

    def waiters(self) -> list[RequestWaiter]:
        """All of them."""
        return [*self.ready.values(), *self.matured.values(), *self.deferred.values()]

    def add(self, waiter: RequestWaiter, now: float) -> None:
        """A waiter joins."""
        until = waiter.item.not_before
        if until is None or until <= now:
            self.ready[waiter.waiter_id] = waiter
        else:
            self.deferred[waiter.waiter_id] = waiter
            heapq.heappush(self._deferred_heap, (until, waiter.waiter_id))

    def discard(self, waiter_id: int) -> None:
        """A waiter leaves."""
        for those in (self.ready, self.matured, self.deferred):
            if those.pop(waiter_id, None) is not None:
                return

    def head(self) -> RequestWaiter:
        """Who is next. There must be somebody."""
        if not self.deferred and not self.matured:
            return next(iter(self.ready.values()))
        heap = self._matured_heap
        while heap and heap[0] not in self.matured:
            heapq.heappop(heap)
        oldest = self.matured[heap[0]] if heap else None
        ready = next(iter(self.ready.values()), None)
        if ready is not None and (oldest is None or ready.waiter_id < oldest.waiter_id):
            return ready
        return oldest if oldest is not None else self.deferred[self._first_deferred()[1]]

    def advance(self, now: float) -> float:
        """Let time pass until `now`; when it next matters, or infinity."""
        while self.deferred:
            until, waiter_id = self._first_deferred()
            if until > now:
                return until
            heapq.heappop(self._deferred_heap)
            self.matured[waiter_id] = self.deferred.pop(waiter_id)
            heapq.heappush(self._matured_heap, waiter_id)
        self._deferred_heap.clear()
        return math.inf

    def _first_deferred(self) -> tuple[float, int]:
        heap = self._deferred_heap
        while heap[0][1] not in self.deferred:
            heapq.heappop(heap)
        return heap[0]


class _Endpoint:
    """The fair order over the lines of one endpoint that have somebody in them, and how many wait in all of them."""

    __slots__ = ("lines", "order", "waiting")

    def __init__(self) -> None:
        self.lines: list[_Line] = []
        self.order = FairOrder[_Line]()
        self.waiting = 0


class RequestQueueView:
    """Facts about the queue, read when asked for. No eligibility."""

    __slots__ = ("_endpoints", "_lines", "_waiters")

    def __init__(
        self,
        waiters: Mapping[int, RequestWaiter],
        lines: Mapping[RequestResourceKey, _Line],
        endpoints: Mapping[ProviderModelKey, _Endpoint],
    ) -> None:
        self._waiters = waiters
        self._lines = lines
        self._endpoints = endpoints

    @property
    def queued_total(self) -> int:
        """All waiters."""
        return len(self._waiters)

    @property
    def queued_by_group(self) -> Mapping[RequestResourceKey, int]:
        """Waiters by request resource."""
        return MappingProxyType({key: len(line) for key, line in self._lines.items() if len(line)})

    @property
    def queued_demand_by_resource(self) -> Mapping[RequestResourceKey, int]:
        """Leases asked for by request resource: one per waiter, and each resource is a group of its own."""
        return self.queued_by_group

    @property
    def aggregate_provider_model_waiters(self) -> Mapping[ProviderModelKey, int]:
        """Waiters by endpoint."""
        return MappingProxyType(
            {key: endpoint.waiting for key, endpoint in self._endpoints.items() if endpoint.waiting}
        )

    @property
    def first_candidate_by_group(self) -> Mapping[RequestResourceKey, RequestAdmissionItem]:
        """What heads each line."""
        return MappingProxyType({key: line.head().item for key, line in self._lines.items() if len(line)})

    def snapshot(self) -> RequestQueueSnapshot:
        """Freeze it."""
        return RequestQueueSnapshot(
            self.queued_total,
            self.queued_by_group,
            self.queued_demand_by_resource,
            self.aggregate_provider_model_waiters,
            self.first_candidate_by_group,
        )


class RequestFairQueue:
    """Waiters in fair order. A line that empties is kept: there are no more than request resources that had to wait."""

    __slots__ = ("_endpoints", "_lines", "_next_due", "_now", "_version", "_view", "_waiters")

    def __init__(self) -> None:
        self._waiters: dict[int, RequestWaiter] = {}
        self._lines: dict[RequestResourceKey, _Line] = {}
        self._endpoints: dict[ProviderModelKey, _Endpoint] = {}
        self._view = RequestQueueView(self._waiters, self._lines, self._endpoints)
        self._version = 0
        self._now = -math.inf
        self._next_due = math.inf

    def advance(self, now: float) -> None:
        """Let time pass until `now`: whose `not_before` is over takes the place that its age gives it."""
        self._now = max(now, self._now)
        if now >= self._next_due:
            self._next_due = min(line.advance(now) for line in self._lines.values())

    def enqueue(self, waiters: Iterable[RequestWaiter]) -> tuple[int, ...]:
        """Add waiters at the end of their lines; returns the ids that were not queued already."""
        accepted: list[int] = []
        for waiter in waiters:
            if waiter.waiter_id in self._waiters:
                continue
            line = self._lines.get(waiter.item.resource)
            if line is None:
                line = self._new_line(waiter.item.resource)
            if not len(line):
                line.endpoint.order.activate(line)
            self._waiters[waiter.waiter_id] = waiter
            line.add(waiter, self._now)
            if waiter.item.not_before is not None:
                self._next_due = min(self._next_due, waiter.item.not_before)
            line.endpoint.waiting += 1
            accepted.append(waiter.waiter_id)
        self._version += len(accepted)
        return tuple(accepted)

    def select_next(
        self,
        is_eligible: Callable[[RequestWaiter, RequestQueueView], bool],
        *,
        endpoint: ProviderModelKey | None = None,
    ) -> RequestQueueSelection | None:
        """The eligible waiter that is next, at `endpoint` or at the first that has one. Changes nothing."""
        if endpoint is None:
            for each in self._endpoints.values():
                waiter = self._first(each, is_eligible)
                if waiter is not None:
                    return RequestQueueSelection(waiter, self._view, self._version)
            return None
        only = self._endpoints.get(endpoint)
        waiter = None if only is None else self._first(only, is_eligible)
        return None if waiter is None else RequestQueueSelection(waiter, self._view, self._version)

    def commit(self, selection: RequestQueueSelection) -> RequestWaiter | None:
        """Remove the selected waiter and charge its line; None if it no longer heads its line."""
        waiter = selection.item
        line = self._lines.get(waiter.item.resource)
        if line is None or not len(line) or line.head() is not waiter:
            return None
        line.endpoint.order.serve(line, waiter.item.group.weight)
        self._take_out(line, waiter.waiter_id)
        return waiter

    def remove(self, waiter_id: int) -> RequestWaiter | None:
        """Take a waiter out, wherever it is; None if it is not queued."""
        waiter = self._waiters.get(waiter_id)
        if waiter is not None:
            self._take_out(self._lines[waiter.item.resource], waiter_id)
        return waiter

    def view(self) -> RequestQueueView:
        """Facts about the queue, read from it when asked for."""
        return self._view

    def queued_in(self, resource: RequestResourceKey) -> int:
        """How many wait for one request resource."""
        line = self._lines.get(resource)
        return 0 if line is None else len(line)

    def queued_at(self, endpoint: ProviderModelKey) -> int:
        """How many wait for an endpoint."""
        known = self._endpoints.get(endpoint)
        return 0 if known is None else known.waiting

    def waiters(self, endpoint: ProviderModelKey) -> tuple[RequestWaiter, ...]:
        """Who waits for an endpoint, line by line."""
        known = self._endpoints.get(endpoint)
        return () if known is None else tuple(waiter for line in known.lines for waiter in line.waiters())

    def _new_line(self, resource: RequestResourceKey) -> _Line:
        key = resource.provider_model_key
        endpoint = self._endpoints.get(key)
        if endpoint is None:
            endpoint = self._endpoints[key] = _Endpoint()
        line = self._lines[resource] = _Line(endpoint)
        endpoint.lines.append(line)
        return line

    def _first(
        self, endpoint: _Endpoint, is_eligible: Callable[[RequestWaiter, RequestQueueView], bool]
    ) -> RequestWaiter | None:
        order = endpoint.order
        found: RequestWaiter | None = None
        found_tag = math.inf
        for line in order.ranked():
            tag, _ = order.rank(line)
            if found is not None and tag > found_tag:
                break
            waiter = line.head()
            if is_eligible(waiter, self._view) and (found is None or waiter.enqueued_at < found.enqueued_at):
                found, found_tag = waiter, tag
        return found

    def _take_out(self, line: _Line, waiter_id: int) -> None:
        line.discard(waiter_id)
        del self._waiters[waiter_id]
        line.endpoint.waiting -= 1
        if not len(line):
            line.endpoint.order.deactivate(line)
        self._version += 1

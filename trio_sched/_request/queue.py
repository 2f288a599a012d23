"""Who waits for a lease, in fair order.

Requests wait in lines, one per request resource, first come first served. The resources of an endpoint compete for its
static cap, so each endpoint has a fair order over its lines; endpoints have nothing to share and no order between them.

Weighted fair comes first; between lines that stand equal, the older head.

Selecting changes nothing. Committing is the only removal by selection, and what moves the fair order on: a line is
charged one over the weight of the item that was served. A selection is stale when its waiter no longer heads its line.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import attrs
import trio

from trio_sched._fair import FairOrder
from trio_sched._request.leases import RequestAdmissionDecision
from trio_sched._resources.correlation import RuntimeCorrelation
from trio_sched._resources.identity import ProviderModelKey, RequestResourceKey
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
    """Who waits for one request resource, oldest first."""

    __slots__ = ("endpoint", "waiters")

    def __init__(self, endpoint: _Endpoint) -> None:
        self.endpoint = endpoint
        self.waiters: OrderedDict[int, RequestWaiter] = OrderedDict()

    def head(self) -> RequestWaiter:
        return next(iter(self.waiters.values()))


class _Endpoint:
    """The fair order over the lines of one endpoint that have somebody in them, and how many wait in all of them."""

    __slots__ = ("lines", "order", "waiting")

    def __init__(self) -> None:
        self.lines: list[_Line] = []
        self.order = FairOrder[_Line]()
        self.waiting = 0


class RequestQueueView:
    """Facts about the queue as it stands, read when asked for. No eligibility."""

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
        return MappingProxyType({key: len(line.waiters) for key, line in self._lines.items() if line.waiters})

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
        return MappingProxyType({key: line.head().item for key, line in self._lines.items() if line.waiters})

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

    __slots__ = ("_endpoints", "_lines", "_version", "_view", "_waiters")

    def __init__(self) -> None:
        self._waiters: dict[int, RequestWaiter] = {}
        self._lines: dict[RequestResourceKey, _Line] = {}
        self._endpoints: dict[ProviderModelKey, _Endpoint] = {}
        self._view = RequestQueueView(self._waiters, self._lines, self._endpoints)
        self._version = 0

    def enqueue(self, waiters: Iterable[RequestWaiter]) -> tuple[int, ...]:
        """Add waiters at the end of their lines; returns the ids that were not queued already."""
        accepted: list[int] = []
        for waiter in waiters:
            if waiter.waiter_id in self._waiters:
                continue
            line = self._lines.get(waiter.item.resource)
            if line is None:
                line = self._new_line(waiter.item.resource)
            if not line.waiters:
                line.endpoint.order.activate(line)
            line.waiters[waiter.waiter_id] = self._waiters[waiter.waiter_id] = waiter
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
        if line is None or not line.waiters or line.head() is not waiter:
            return None
        line.endpoint.order.serve(line, waiter.item.group.weight)
        self._take_out(line, waiter.waiter_id)
        return waiter

    def remove(self, waiter_id: int) -> RequestWaiter | None:
        """Take a waiter out, wherever it stands; None if it is not queued."""
        waiter = self._waiters.get(waiter_id)
        if waiter is not None:
            self._take_out(self._lines[waiter.item.resource], waiter_id)
        return waiter

    def view(self) -> RequestQueueView:
        """Facts about the queue, read from it as it stands."""
        return self._view

    def queued_in(self, resource: RequestResourceKey) -> int:
        """How many wait for one request resource."""
        line = self._lines.get(resource)
        return 0 if line is None else len(line.waiters)

    def queued_at(self, endpoint: ProviderModelKey) -> int:
        """How many wait for an endpoint."""
        known = self._endpoints.get(endpoint)
        return 0 if known is None else known.waiting

    def waiters(self, endpoint: ProviderModelKey) -> tuple[RequestWaiter, ...]:
        """Who waits for an endpoint, line by line."""
        known = self._endpoints.get(endpoint)
        return () if known is None else tuple(waiter for line in known.lines for waiter in line.waiters.values())

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
        del line.waiters[waiter_id]
        del self._waiters[waiter_id]
        line.endpoint.waiting -= 1
        if not line.waiters:
            line.endpoint.order.deactivate(line)
        self._version += 1

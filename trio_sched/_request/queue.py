"""Who waits for a lease, in fair order.

Requests wait in lines, one per request resource, first come first served. The resources of an endpoint compete for its
static cap, so each endpoint has a fair order over its lines; endpoints have nothing to share and no order between them.

Selecting changes nothing. Committing is the only removal by selection, and what moves the fair order on: a line is
charged one over the weight of the item that was served. A selection is stale when its waiter no longer heads its line.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType

import attrs
import trio

from trio_sched._request.leases import RequestAdmissionDecision
from trio_sched._request.turns import FairOrder
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
    deadline_monotonic: float | None = None
    holder: str | None = None
    correlation: RuntimeCorrelation | None = None
    decision: RequestAdmissionDecision | None = None
    task: trio.lowlevel.Task | None = None


@attrs.frozen
class RequestQueueSnapshot:
    """A `RequestQueueView` at one instant."""

    queued_total: int
    queued_by_group: Mapping[RequestResourceKey, int]
    queued_by_endpoint: Mapping[ProviderModelKey, int]
    first_candidate_by_group: Mapping[RequestResourceKey, RequestAdmissionItem]


@attrs.frozen
class RequestQueueSelection:
    """The waiter that would be served next. It stays valid while that waiter heads its line."""

    item: RequestWaiter
    queue_view: RequestQueueView
    sequence_version: int


_Line = OrderedDict[int, RequestWaiter]


def _head(line: _Line) -> RequestWaiter:
    return next(iter(line.values()))


class _Lines:
    """The lines of one endpoint, none of them empty, and the fair order over them."""

    __slots__ = ("by_resource", "order")

    def __init__(self) -> None:
        self.by_resource: dict[RequestResourceKey, _Line] = {}
        self.order = FairOrder[RequestResourceKey]()


class RequestQueueView:
    """Facts about the queue as it stands, read when asked for. No eligibility."""

    __slots__ = ("_lines", "_waiters")

    def __init__(self, lines: Mapping[ProviderModelKey, _Lines], waiters: Mapping[int, RequestWaiter]) -> None:
        self._lines = lines
        self._waiters = waiters

    @property
    def queued_total(self) -> int:
        """All waiters."""
        return len(self._waiters)

    @property
    def queued_by_group(self) -> Mapping[RequestResourceKey, int]:
        """Waiters by request resource."""
        return MappingProxyType({key: len(line) for key, line in self._all()})

    @property
    def queued_by_endpoint(self) -> Mapping[ProviderModelKey, int]:
        """Waiters by endpoint."""
        return MappingProxyType(
            {endpoint: sum(map(len, lines.by_resource.values())) for endpoint, lines in self._lines.items()}
        )

    @property
    def first_candidate_by_group(self) -> Mapping[RequestResourceKey, RequestAdmissionItem]:
        """What heads each line."""
        return MappingProxyType({key: _head(line).item for key, line in self._all()})

    def snapshot(self) -> RequestQueueSnapshot:
        """Freeze it."""
        return RequestQueueSnapshot(
            self.queued_total, self.queued_by_group, self.queued_by_endpoint, self.first_candidate_by_group
        )

    def _all(self) -> Iterator[tuple[RequestResourceKey, _Line]]:
        for lines in self._lines.values():
            yield from lines.by_resource.items()


class RequestFairQueue:
    """Waiters in fair order."""

    __slots__ = ("_lines", "_version", "_view", "_waiters")

    def __init__(self) -> None:
        self._waiters: dict[int, RequestWaiter] = {}
        self._lines: dict[ProviderModelKey, _Lines] = {}
        self._view = RequestQueueView(self._lines, self._waiters)
        self._version = 0

    def enqueue(self, waiters: Iterable[RequestWaiter]) -> tuple[int, ...]:
        """Add waiters at the end of their lines; returns the ids that were not queued already."""
        accepted: list[int] = []
        for waiter in waiters:
            if waiter.waiter_id in self._waiters:
                continue
            resource = waiter.item.resource
            lines = self._lines.get(resource.provider_model_key)
            if lines is None:
                lines = self._lines[resource.provider_model_key] = _Lines()
            line = lines.by_resource.get(resource)
            if line is None:
                line = lines.by_resource[resource] = OrderedDict()
                lines.order.activate(resource)
            line[waiter.waiter_id] = self._waiters[waiter.waiter_id] = waiter
            accepted.append(waiter.waiter_id)
        self._version += bool(accepted)
        return tuple(accepted)

    def select_next(
        self,
        is_eligible: Callable[[RequestWaiter, RequestQueueView], bool],
        *,
        endpoint: ProviderModelKey | None = None,
    ) -> RequestQueueSelection | None:
        """The eligible waiter that is next, at `endpoint` or at the first that has one. Changes nothing."""
        for lines in self._lines.values() if endpoint is None else self._lines_at(endpoint):
            for resource in lines.order.ranked():
                waiter = _head(lines.by_resource[resource])
                if is_eligible(waiter, self._view):
                    return RequestQueueSelection(waiter, self._view, self._version)
        return None

    def commit(self, selection: RequestQueueSelection) -> RequestWaiter | None:
        """Remove the selected waiter and charge its line; None if it no longer heads its line."""
        waiter = selection.item
        resource = waiter.item.resource
        lines = self._lines.get(resource.provider_model_key)
        line = None if lines is None else lines.by_resource.get(resource)
        if lines is None or line is None or _head(line) is not waiter:
            return None
        lines.order.serve(resource, waiter.item.group.weight)
        return self.remove(waiter.waiter_id)

    def remove(self, waiter_id: int) -> RequestWaiter | None:
        """Take a waiter out, wherever it stands; None if it is not queued."""
        waiter = self._waiters.pop(waiter_id, None)
        if waiter is None:
            return None
        resource = waiter.item.resource
        lines = self._lines[resource.provider_model_key]
        line = lines.by_resource[resource]
        del line[waiter_id]
        if not line:
            del lines.by_resource[resource]
            lines.order.deactivate(resource)
        self._version += 1
        return waiter

    def view(self) -> RequestQueueView:
        """Facts about the queue, read from it as it stands."""
        return self._view

    def queued_in(self, resource: RequestResourceKey) -> int:
        """How many wait for one request resource."""
        lines = self._lines.get(resource.provider_model_key)
        return 0 if lines is None else len(lines.by_resource.get(resource, ()))

    def waiting_at(self, endpoint: ProviderModelKey) -> bool:
        """Whether anybody waits for an endpoint."""
        lines = self._lines.get(endpoint)
        return lines is not None and bool(lines.by_resource)

    def waiters(self, endpoint: ProviderModelKey) -> tuple[RequestWaiter, ...]:
        """Who waits for an endpoint, line by line."""
        lines = self._lines.get(endpoint)
        return () if lines is None else tuple(waiter for line in lines.by_resource.values() for waiter in line.values())

    def _lines_at(self, endpoint: ProviderModelKey) -> tuple[_Lines, ...]:
        lines = self._lines.get(endpoint)
        return () if lines is None else (lines,)

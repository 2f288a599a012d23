"""One execution while it is followed: its marks, its model calls, and its time by layer so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from trio_sched._events.records import RequestAdmissionEvent
from trio_sched._observe.marks import ExecutionView, RequestMarks, TaskMarks
from trio_sched._observe.waits import LAYERS, Layer, WaitBreakdown, seconds
from trio_sched._resources.correlation import RuntimeCorrelation
from trio_sched._resources.identity import RequestResourceKey

__all__ = ["Execution", "LayerTimes", "ReadyTask"]

_FIRST: Final[dict[str, str]] = {
    "request_wait_started": "request_wait_started_at",
    "request_wait_completed": "request_wait_completed_at",
    "request_lease_acquired": "request_lease_acquired_at",
    "model_request_started": "model_request_started_at",
}
_LAST: Final[dict[str, str]] = {
    "model_request_completed": "model_request_completed_at",
    "request_lease_released": "request_lease_released_at",
}
_UNSERVED: Final = frozenset({"request_wait_timeout", "request_wait_cancelled", "request_acquire_denied"})


class LayerTimes:
    """Nanoseconds by layer, and up to when they are told."""

    __slots__ = ("by_layer", "since", "until")

    def __init__(self, since: int) -> None:
        self.since = self.until = since
        self.by_layer: dict[Layer, int] = dict.fromkeys(LAYERS, 0)

    def spend(self, until: int, layer: Layer) -> None:
        """The time up to `until` is of `layer`."""
        if until > self.until:
            self.by_layer[layer] += until - self.until
            self.until = until

    def split(self, until: int, layer: Layer, part: int, rest: Layer) -> None:
        """Of the time up to `until`, `part` is of `layer`, and what is left of `rest`."""
        if until > self.until:
            part = max(0, min(part, until - self.until))
            self.by_layer[layer] += part
            self.by_layer[rest] += until - self.until - part
            self.until = until

    def breakdown(self) -> WaitBreakdown:
        """The times so far."""
        return WaitBreakdown(**self.by_layer)


class ReadyTask:
    """A task on its way to a lease. full: what its column's clock of full resources showed when it was enqueued."""

    __slots__ = ("enqueued_at", "full", "ready_at", "selected_at", "times")

    def __init__(self, times: LayerTimes) -> None:
        self.times = times
        self.ready_at: float | None = None
        self.enqueued_at: float | None = None
        self.selected_at: float | None = None
        self.full = 0


@attrs.define(eq=False)
class ModelCall:
    """One outbound attempt, as far as it has come; the fields are those of `RequestMarks`."""

    resource: RequestResourceKey
    request_attempt_id: str | None
    request_lease_id: int | None
    wait_started_at: float | None = None
    wait_ended_at: float | None = None
    lease_acquired_at: float | None = None
    model_request_started_at: float | None = None
    model_request_completed_at: float | None = None
    lease_released_at: float | None = None
    outcome: str | None = None

    def note(self, event: RequestAdmissionEvent) -> None:
        """Take in an event of this attempt."""
        at, kind = event.captured_at_monotonic, event.event_kind
        if self.request_lease_id is None:
            self.request_lease_id = event.request_lease_id
        if kind == "request_wait_started":
            self.wait_started_at = at
        elif kind == "request_wait_completed":
            self.wait_ended_at = at
        elif kind in _UNSERVED:
            self.wait_ended_at, self.outcome = at, event.reason_or_outcome or kind
        elif kind == "request_lease_acquired":
            self.lease_acquired_at = at
        elif kind == "model_request_started":
            self.model_request_started_at = at
        elif kind == "model_request_completed":
            self.model_request_completed_at = at
        elif kind == "request_lease_released":
            self.lease_released_at, self.outcome = at, event.reason_or_outcome

    def knows(self, event: RequestAdmissionEvent) -> bool:
        """Whether `event` is of this attempt."""
        attempt, lease_id = event.request_attempt_id, event.request_lease_id
        return (attempt is not None and self.request_attempt_id == attempt) or (
            lease_id is not None and self.request_lease_id == lease_id
        )

    def marks(self) -> RequestMarks:
        """The attempt as it stands."""
        return RequestMarks(*attrs.astuple(self, recurse=False))


class Execution:
    """A task that has, or has had, a lease; without the scheduler's stream one that is known by its calls alone."""

    __slots__ = (
        "_calls",
        "_held",
        "_stopped_before",
        "_waiting",
        "correlation",
        "lease_id",
        "marks",
        "ready",
        "result",
        "task_id",
    )

    def __init__(self, correlation: RuntimeCorrelation, ready: ReadyTask) -> None:
        self.correlation = correlation
        self.ready = ready
        self.task_id: str | None = None
        self.lease_id: int | None = None
        self.result: str | None = None
        self.marks: dict[str, float] = {}
        self._calls: list[ModelCall] = []
        self._held = 0
        self._waiting: list[RequestResourceKey] = []
        self._stopped_before = 0

    @property
    def times(self) -> LayerTimes:
        """Its time so far, from where the task began to wait."""
        return self.ready.times

    def spend(self, now: int, stopped: Mapping[RequestResourceKey, int]) -> None:
        """The time up to `now` passed as it stands. stopped: the clocks of resources that were stopped."""
        if self._held > 0:
            self.times.spend(now, "provider")
        elif self._waiting:
            clock = stopped.get(self._waiting[0], 0)
            self.times.split(now, "cooldown", clock - self._stopped_before, "request_admission")
            self._stopped_before = clock
        else:
            self.times.spend(now, "completion")

    def request_event(
        self, event: RequestAdmissionEvent, resource: RequestResourceKey, stopped: Mapping[RequestResourceKey, int]
    ) -> None:
        """Take in an event of one of its calls, after the time before it was spent."""
        kind = event.event_kind
        if kind in _FIRST:
            self.marks.setdefault(_FIRST[kind], event.captured_at_monotonic)
        elif kind in _LAST:
            self.marks[_LAST[kind]] = event.captured_at_monotonic
        if kind == "request_wait_started":
            self._waiting.append(resource)
        elif (kind == "request_wait_completed" or kind in _UNSERVED) and resource in self._waiting:
            self._waiting.remove(resource)
        elif kind == "request_lease_acquired":
            self._held += 1
        elif kind == "request_lease_released":
            self._held -= 1
        if self._waiting:
            self._stopped_before = stopped.get(self._waiting[0], 0)
        call = next((each for each in reversed(self._calls) if each.knows(event)), None)
        if call is None:
            call = ModelCall(resource, event.request_attempt_id, event.request_lease_id)
            self._calls.append(call)
        call.note(event)

    def view(self, execution_id: str) -> ExecutionView:
        """The execution as it stands."""
        correlation, ready, times = self.correlation, self.ready, self.times
        released = self.marks.get("task_lease_released_at")
        return ExecutionView(
            task_execution_id=execution_id,
            task_id=self.task_id,
            task_lease_id=self.lease_id,
            column=correlation.task_column,
            row_group=correlation.row_group,
            task_type=correlation.task_type,
            group_kind=correlation.scheduling_group_kind,
            result=self.result,
            started_at=seconds(times.since),
            ended_at=seconds(times.until) if released is not None else None,
            marks=TaskMarks(
                dependency_ready_at=ready.ready_at,
                ready_enqueued_at=ready.enqueued_at,
                selected_at=ready.selected_at,
                **self.marks,
            ),
            requests=tuple(call.marks() for call in self._calls),
            waits=times.breakdown(),
        )

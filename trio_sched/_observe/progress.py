"""How far a run has come, counted from its events as they pass: what the live panel and the log lines show.

`RunProgressSink` keeps counts and the replayed state of both stages; `progress` makes a frozen `RunProgress` of it a
few times a second. An event costs a few additions, and nothing is kept of it.

*Done* counts durable rows. Between two row groups it does not change, so the time left follows from the tasks instead:
the share of all cells that are made, and the time this took.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

import attrs

from trio_sched._events.records import RequestAdmissionEvent, SchedulerAdmissionEvent
from trio_sched._observe.layers import Limit, limit_now
from trio_sched._observe.request_replay import Activity, RequestReplay, activity_at
from trio_sched._observe.scheduler_replay import SchedulerReplay

__all__ = ["ColumnProgress", "EndpointProgress", "RunProgress", "RunProgressSink"]

_RECENT_SECONDS: Final = 60.0
"""Time over which rates "now" are taken; over shorter times they jump from row group to row group."""
_UNREAD: Final = frozenset({"selected", "dependency_ready", "queue_empty", "queue_drained", "group_capped"})


@attrs.frozen
class ColumnProgress:
    """One column. done: rows whose cell is made. running, ready: its tasks at work, and those that wait to be."""

    column: str
    done: int
    running: int
    ready: int


@attrs.frozen
class EndpointProgress:
    """One request resource. requests_per_minute: ended in the last minute. activity: what its limit is about."""

    resource: str
    limit: int
    effective_max: int
    in_flight: int
    waiting: int
    requests_per_minute: float
    activity: Activity


@attrs.frozen
class RunProgress:
    """A run at one instant. Rates are in records a second; `eta_seconds` is None while it is unknown.

    records_total: None where it is not known before the end. dropped: rows of durable groups that are not in them.
    deferred: failed tasks that wait to be repeated. limit: what limits progress right now, None where nothing does.
    """

    elapsed_seconds: float
    records_done: int
    records_total: int | None
    rate_now: float
    rate_average: float
    eta_seconds: float | None
    dropped: int
    deferred: int
    columns: tuple[ColumnProgress, ...]
    endpoints: tuple[EndpointProgress, ...]
    limit: Limit | None
    result: str | None


class _Recent:
    """Counts of the last minute, second by second."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, int]] = deque()
        self._sum = 0

    def add(self, at: float, count: int) -> None:
        second = math.floor(at)
        self._sum += count
        if self._seconds and self._seconds[-1][0] == second:
            count += self._seconds.pop()[1]
        self._seconds.append((second, count))

    def rate(self, now: float, elapsed: float) -> float:
        """Per second, over the last minute or the time there was."""
        while self._seconds and self._seconds[0][0] < now - _RECENT_SECONDS:
            self._sum -= self._seconds.popleft()[1]
        return self._sum / min(_RECENT_SECONDS, elapsed) if elapsed > 0 else 0.0


class RunProgressSink:
    """A sink of both streams. records_total: rows of the whole run, where that is known."""

    def __init__(self, records_total: int | None) -> None:
        self._total = records_total
        self._scheduler = SchedulerReplay()
        self._requests = RequestReplay()
        self._started_at: float | None = None
        self._done = 0
        self._dropped = 0
        self._filtered = 0
        self._result: str | None = None
        self._cells: dict[str, int] = {}
        self._recent_records = _Recent()
        self._recent_requests: dict[str, _Recent] = {}

    def accepts_scheduler_event(self, kind: str) -> bool:
        """Every kind but those that change nothing of what is counted."""
        return kind not in _UNREAD

    def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
        """Count one scheduler event."""
        at, kind = event.captured_at_monotonic, event.event_kind
        correlation = event.captured_correlation
        if self._started_at is None:
            self._started_at = at
        if kind == "row_group_checkpointed" and correlation is not None and correlation.row_group is not None:
            rows = event.diagnostics.get("rows")
            if isinstance(rows, int):
                self._done += rows
                filtered = event.diagnostics.get("filtered")
                left = rows + (filtered if isinstance(filtered, int) else 0)
                self._filtered += left - rows
                self._dropped += max(0, self._scheduler.row_groups.get(correlation.row_group, left) - left)
                self._recent_records.add(at, rows)
        elif kind == "task_completed" and correlation is not None and event.reason_or_result == "success":
            column = correlation.task_column or ""
            whole = correlation.task_type != "cell" and correlation.row_group is not None
            rows = self._scheduler.row_groups.get(correlation.row_group or 0, 0) if whole else 1
            self._cells[column] = self._cells.get(column, 0) + rows
        elif kind == "scheduler_job_completed":
            self._result = event.reason_or_result or "completed"
        self._scheduler.apply(event)

    def emit_request_event(self, event: RequestAdmissionEvent) -> None:
        """Count one request event."""
        self._requests.apply(event)
        if event.event_kind == "request_lease_released" and event.request_resource_key is not None:
            name = str(event.request_resource_key)
            recent = self._recent_requests.get(name)
            if recent is None:
                recent = self._recent_requests[name] = _Recent()
            recent.add(event.captured_at_monotonic, 1)

    def progress(self, now: float) -> RunProgress:
        """The progress at `now`, on the run's clock in seconds."""
        elapsed = max(0.0, now - self._started_at) if self._started_at is not None else 0.0
        scheduler = self._scheduler
        names = scheduler.columns or dict.fromkeys((*self._cells, *scheduler.queued_by_column))
        return RunProgress(
            elapsed_seconds=elapsed,
            records_done=self._done,
            records_total=self._total,
            rate_now=self._recent_records.rate(now, elapsed),
            rate_average=self._done / elapsed if elapsed > 0 else 0.0,
            eta_seconds=self._time_left(elapsed),
            dropped=self._dropped,
            deferred=len(scheduler.deferred),
            columns=tuple(
                ColumnProgress(
                    name,
                    self._cells.get(name, 0),
                    scheduler.running_by_column.get(name, 0),
                    scheduler.queued_by_column.get(name, 0),
                )
                for name in names
            ),
            endpoints=tuple(
                EndpointProgress(
                    str(key),
                    resource.current_limit,
                    resource.effective_max,
                    resource.in_flight,
                    resource.waiters,
                    self._answered_per_second(str(key), now, elapsed) * 60,
                    activity_at(resource, now),
                )
                for key, resource in sorted(self._requests.resources.items())
            ),
            limit=self._limit(now),
            result=self._result,
        )

    def _limit(self, now: float) -> Limit | None:
        if self._result is not None:
            return None
        return limit_now(self._scheduler, self._requests, now, model_tasks_call=False)

    def _answered_per_second(self, resource: str, now: float, elapsed: float) -> float:
        recent = self._recent_requests.get(resource)
        return recent.rate(now, elapsed) if recent is not None else 0.0

    def _time_left(self, elapsed: float) -> float | None:
        if self._result is not None:
            return 0.0
        columns = len(self._scheduler.columns)
        if self._total is None or not columns:
            return None
        cells = self._total * columns
        # A dropped row leaves cells unmade that nobody waits for any more.
        made = min(cells, sum(self._cells.values()) + self._dropped + self._filtered)
        return elapsed * (cells - made) / made if made and elapsed > 0 else None

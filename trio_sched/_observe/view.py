"""Joins both event streams of a run into one timeline: what each execution passed, and what limited progress, when.

A `RuntimeViewBuilder` takes events as they come, live as a sink or from files, and makes a frozen
`CorrelatedRuntimeView` whenever it is asked. Between two events nothing changes but the time, so each piece of time
between them is handed over once: to the run's `ProgressBook`, with what limited it (`layers.py`), and to the
executions (`executions.py`). A piece in which a stop ends is cut there.

    events ─> SchedulerReplay ─┐                    ┌─> ProgressBook    what limited the run
              RequestReplay  ──┴─> limit of a piece ┴─> ExecutionBook   timestamps and waits of each execution

Memory is bounded by what is under way, by `max_executions` finished ones, and by the fixed number of time bins of the
timeline; sums by column and layer cover all of a run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from trio_sched._events.records import (
    AdmissionEvent,
    RequestAdmissionEvent,
    RunSample,
    SchedulerAdmissionEvent,
    merged_by_time,
)
from trio_sched._observe.executions import ColumnWaits, ExecutionBook, ExecutionView, WaitClocks
from trio_sched._observe.layers import (
    Layer,
    Limit,
    LimitTime,
    ProgressBook,
    ProgressStretch,
    WaitBreakdown,
    limit_now,
    nanoseconds,
    open_limit,
    seconds,
)
from trio_sched._observe.request_replay import RequestReplay
from trio_sched._observe.sampling import SampledWaits, sample_of
from trio_sched._observe.scheduler_replay import Backlog, SchedulerReplay
from trio_sched._observe.wait_chain import WaitLink, wait_chain
from trio_sched._resources.identity import RequestResourceKey

__all__ = ["MAX_EXECUTIONS", "CorrelatedRuntimeView", "RuntimeViewBuilder", "lost_events"]

MAX_EXECUTIONS: Final = 100_000
"""Finished executions that a view shows one by one, by default: some 200 MB of them at the most."""

_NEW_WORK: Final = frozenset({"dependency_ready", "ready_enqueued", "row_group_admitted", "salvage_redispatched"})
_COMPLETED: Final = frozenset({"row_group_checkpointed", "scheduler_job_completed"})


def lost_events(count: int) -> str:
    """The sentence for events that are missing."""
    return f"at least {count:,} {'event is' if count == 1 else 'events are'} missing"


@attrs.frozen
class CorrelatedRuntimeView:
    """A run as its events report it, up to `ended_at`. Times are of the run's clock in seconds, breakdowns exact.

    result: how the run ended, None while it runs or where it was killed. limited_by: its wall time by limiting layer,
    from the first event to the last. limits: the same by layer and place, most first. limit: what limits at the end,
    None for an open instant. timeline: the same in equal time bins. columns: all finished executions by column.
    executions: finished ones that were kept, and those under way; `executions_not_kept` are only in the sums.
    uncorrelated_requests: leases of no execution; late_request_events: events of an execution that had ended.
    problems: what is missing of the events, in sentences. missing_events: how many at least.
    """

    run_id: str | None
    result: str | None
    started_at: float
    ended_at: float
    has_scheduler_events: bool
    has_request_events: bool
    limited_by: WaitBreakdown
    limits: tuple[LimitTime, ...]
    limit: Limit | None
    timeline: tuple[ProgressStretch, ...]
    columns: Mapping[str, ColumnWaits]
    executions: tuple[ExecutionView, ...]
    executions_not_kept: int
    uncorrelated_requests: int
    late_request_events: int
    missing_events: int = 0
    problems: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether all events are there; else it is the view of the run up to `ended_at`, or of one stream alone."""
        return not self.problems

    @property
    def wall_seconds(self) -> float:
        """The time that `limited_by` divides."""
        return seconds(self.limited_by.total)

    @classmethod
    def from_events(
        cls,
        scheduler_events: Iterable[SchedulerAdmissionEvent] | None,
        request_events: Iterable[RequestAdmissionEvent] | None,
        *,
        max_executions: int = MAX_EXECUTIONS,
        problems: Iterable[str] = (),
    ) -> CorrelatedRuntimeView:
        """The view of a run from either or both of its streams, each in its own order. None: that stream was off."""
        builder = RuntimeViewBuilder(
            scheduler_stream=scheduler_events is not None,
            request_stream=request_events is not None,
            max_executions=max_executions,
        )
        builder.take(scheduler_events or (), request_events or ())
        return builder.view(problems=problems)


class RuntimeViewBuilder:
    """Takes the events of one run in the order of their time, and knows its state at every moment.

    It is a sink for both streams. scheduler_stream, request_stream: whether that stream is on. result: how the run
    ended, None before that. stopped_at: what limited it just before its workers were last cancelled, and the chain that
    led there, which is all that can be known of why a run was stopped.
    """

    def __init__(
        self, *, scheduler_stream: bool = True, request_stream: bool = True, max_executions: int = MAX_EXECUTIONS
    ) -> None:
        self.scheduler: SchedulerReplay = SchedulerReplay()
        self.requests: RequestReplay = RequestReplay()
        self._model_tasks_call = not request_stream
        self._clocks = WaitClocks(self.scheduler.waited)
        self._executions = ExecutionBook(self._clocks, max_kept=max_executions, follows_tasks=scheduler_stream)
        self._progress: ProgressBook | None = None
        self._interval: _Interval | None = None
        self._sampled: SampledWaits | None = None
        self.stopped_at: tuple[Limit, tuple[WaitLink, ...]] | None = None
        self._stopping_since: float | None = None
        self.result: str | None = None
        self._run_id: str | None = None
        self._last_scheduler = 0
        self._last_request = 0
        self._missing = 0

    def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
        """Take the next scheduler event."""
        self._pass_time(event.captured_at_monotonic, event.event_kind)
        self._missing += max(0, event.sequence - self._last_scheduler - 1)
        self._last_scheduler = event.sequence
        if self._run_id is None and event.captured_correlation is not None:
            self._run_id = event.captured_correlation.run_id
        ends = event.event_kind == "scheduler_job_completed" and self._sampled is not None
        if ends or (event.event_kind == "cancelled" and event.task_lease_id is not None):
            self._note_stop(event.captured_at_monotonic)
        self._executions.scheduler_event(event)
        self.scheduler.apply(event)
        sample = sample_of(event)
        if sample is not None:
            self._take_sample(nanoseconds(event.captured_at_monotonic), sample)
        if event.event_kind == "scheduler_job_completed":
            self.result = event.reason_or_result or "completed"

    def emit_request_event(self, event: RequestAdmissionEvent) -> None:
        """Take the next request event."""
        self._pass_time(event.captured_at_monotonic, event.event_kind)
        self._missing += max(0, event.sequence - self._last_request - 1)
        self._last_request = event.sequence
        if self._run_id is None and event.captured_correlation is not None:
            self._run_id = event.captured_correlation.run_id
        self._executions.request_event(event)
        self.requests.apply(event)

    def take(
        self, scheduler_events: Iterable[SchedulerAdmissionEvent], request_events: Iterable[RequestAdmissionEvent]
    ) -> None:
        """Take all of both, merged by time. Of two events of one instant the scheduler's comes first."""
        for event in merged_by_time(scheduler_events, request_events):
            self.emit(event)

    def emit(self, event: AdmissionEvent) -> None:
        """Take the next event of either stream."""
        if isinstance(event, SchedulerAdmissionEvent):
            self.emit_scheduler_event(event)
        else:
            self.emit_request_event(event)

    def view(
        self, *, now: float | None = None, problems: Iterable[str] = (), missing_events: int | None = None
    ) -> CorrelatedRuntimeView:
        """The view so far; for a run under way up to `now`, else up to the last event.

        problems: what is missing of the events, where that is known, and missing_events: how many; by default the gaps
        in their numbers say it.
        """
        if missing_events is None:
            missing_events = self._missing
            problems = (*problems, lost_events(missing_events)) if missing_events else problems
        if now is not None:
            self._pass_time(now, None)
        progress = self._progress if self._progress is not None else ProgressBook(0)
        whole, limits, stretches = progress.times(open_as=self._undecided())
        return CorrelatedRuntimeView(
            run_id=self._run_id,
            result=self.result,
            started_at=seconds(progress.start),
            ended_at=seconds(progress.until),
            has_scheduler_events=self._last_scheduler > 0,
            has_request_events=self._last_request > 0 or bool(self.requests.resources),
            limited_by=whole,
            limits=limits,
            limit=self.limit(now),
            timeline=stretches,
            columns=self._executions.columns() if self._sampled is None else self._sampled.columns(),
            executions=self._executions.executions(),
            executions_not_kept=self._executions.not_kept,
            uncorrelated_requests=self.requests.uncorrelated,
            late_request_events=self._executions.late_request_events,
            missing_events=missing_events,
            problems=tuple(problems),
        )

    def limit(self, now: float | None = None) -> Limit | None:
        """What limits progress at `now`, or after the last event; None where it is open, or the run is over."""
        if self._progress is None or self.result is not None:
            return None
        at = seconds(self._progress.until) if now is None else now
        return limit_now(self.scheduler, self.requests, at, model_tasks_call=self._model_tasks_call)

    def chain(self, now: float | None = None) -> tuple[Limit, tuple[WaitLink, ...]]:
        """What limits progress at `now`, or after the last event, and who waits for what because of it."""
        at = now if now is not None else seconds(self._progress.until) if self._progress is not None else 0.0
        return wait_chain(self.scheduler, self.requests, at, model_tasks_call=self._model_tasks_call)

    def _take_sample(self, now: int, sample: RunSample) -> None:
        if self._sampled is None:
            self._sampled = SampledWaits()
        self._sampled.spend(now, self.scheduler, self.requests)
        self._sampled.results = {name: column.results for name, column in sample.scheduler.columns.items()}
        self.scheduler.load(sample.scheduler)
        self.requests.load(sample.requests)

    def _note_stop(self, time: float) -> None:
        """Keep the chain as it was before the first worker of this instant was cancelled."""
        if self._stopping_since != time:
            self._stopping_since = time
            self.stopped_at = self.chain(time)

    def _undecided(self) -> Layer:
        return "completion" if self.result is not None else open_limit(self.scheduler).layer

    def _pass_time(self, time: float, kind: str | None) -> None:
        """Hand over the time since the last event; `kind` is that of the event which ends it."""
        now = nanoseconds(time)
        if self._progress is None:
            self._progress = ProgressBook(now)
            return
        progress = self._progress
        while now > progress.until:
            interval = self._interval_from(progress.until)
            self._spend(progress, now if interval.until is None else min(now, interval.until), interval)
        if kind in _COMPLETED:
            progress.decide("completion")
        elif kind in _NEW_WORK or kind == "request_wait_started":
            progress.decide("readiness")

    def _interval_from(self, time: int) -> _Interval:
        """What holds from `time` on. Between two changes it is worked out once, as most events change nothing."""
        scheduler, requests, known = self.scheduler, self.requests, self._interval
        changes = scheduler.changes + requests.changes
        if known is not None and known.changes == changes and (known.until is None or time < known.until):
            return known
        stopped: list[RequestResourceKey] = []
        until: int | None = None
        for key, resource in requests.resources.items():
            if resource.blocked_until is not None:
                end = nanoseconds(resource.blocked_until)
                if end > time:
                    stopped.append(key)
                    until = end if until is None else min(until, end)
        unknown = not scheduler.resource_limits
        self._interval = _Interval(
            changes,
            until,
            limit_now(scheduler, requests, seconds(time), model_tasks_call=self._model_tasks_call),
            stopped,
            [backlog for backlog, awaited in scheduler.backlogs() if unknown or awaited is not None],
        )
        return self._interval

    def _spend(self, progress: ProgressBook, until: int, interval: _Interval) -> None:
        elapsed = until - progress.until
        for key in interval.stopped:
            self._clocks.stopped[key] = self._clocks.stopped.get(key, 0) + elapsed
        for backlog in interval.waiting:
            backlog.waited += elapsed
        progress.spend(until, interval.limit)


@attrs.define(eq=False)
class _Interval:
    """What holds until something changes, or until `until` (nanoseconds), when a stop ends.

    changes: how many there had been in both streams. waiting: the backlogs that wait for a stage resource.
    """

    changes: int
    until: int | None
    limit: Limit | None
    stopped: list[RequestResourceKey]
    waiting: list[Backlog]

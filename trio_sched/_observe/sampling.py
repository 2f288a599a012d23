"""The summary of a run's events: rare ones as they are, and samples of both stages in place of all others.

`summary.jsonl` is a scheduler stream of its own, numbered without gaps. It holds how the run started and ended, what
became of its row groups, and `scheduler_health_snapshot` events with a `RunSample` in their diagnostics. From these
report and `why` are made. What they say of instants is true at samples, and taken as true until the next.

*How often.* A task of the run samples at growing distances, fifty times for each doubling and more of the time that the
run has taken, so that a report is as fine for a second as for a day. A sample that shows nothing new is not written.
Nor is one that would make the file larger than `_FREE_BYTES` and `_BYTES_PER_EXECUTION` for each execution that ended,
unless the last was written a while ago.

Executions and queued tasks are counted by their owners. Of the request events, those that the run counts anyway are
replayed here, since what a limit is about shows in transitions only.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import attrs
import trio

from trio_sched._events.jsonl import SUMMARY_FILE, JsonlEventSink, event_line, written
from trio_sched._events.records import (
    JsonValue,
    RequestAdmissionEvent,
    RequestStatistics,
    ResourceSample,
    RunSample,
    SchedulerAdmissionEvent,
    SchedulerSample,
)
from trio_sched._observe.executions import ColumnWaits
from trio_sched._observe.layers import LAYERS, Layer, WaitBreakdown, seconds
from trio_sched._observe.request_replay import LimitChange, RequestReplay, RequestStatisticsSink
from trio_sched._observe.scheduler_replay import SchedulerReplay
from trio_sched._resources.identity import RequestResourceKey, RuntimeCorrelation
from trio_sched._resources.request import RequestPressureSnapshot
from trio_sched._resources.task import SchedulerResourceKey, endpoint_stage_resource
from trio_sched._util import Blocking

if TYPE_CHECKING:
    from cattrs import Converter

__all__ = ["SampledWaits", "SummaryEventSink", "open_summary_sink", "sample_of"]

logger = logging.getLogger("trio_sched.events")

_FIRST_SECONDS: Final = 0.01
_PER_RUN: Final = 50
_FREE_BYTES: Final = 32_000
_BYTES_PER_EXECUTION: Final = 200
_UNWRITTEN_SECONDS: Final = 10.0
_UNWRITTEN_SHARE: Final = 1 / 8
"""After so long, or such a share of the run, a sample is written whatever its size."""
_MAX_BUFFERED: Final = 10_000

_KEPT: Final = frozenset(
    {
        "scheduler_job_started",
        "scheduler_job_completed",
        "row_group_admitted",
        "row_group_checkpointed",
    }
)
_REPLAYED: Final = frozenset(
    {
        "request_resource_registered",
        "request_effective_cap_changed",
        "request_lease_acquired",
        "request_lease_released",
        "request_rate_limited",
        "request_limit_decreased",
        "request_limit_increased",
        "request_outage_started",
        "request_trial_started",
        "request_outage_ended",
        "request_endpoint_not_answering",
        "request_endpoint_answering",
        "request_endpoint_closed",
    }
)
_SAMPLE: Final = "sample"


class SummaryEventSink:
    """Writes the summary of one run; made by `open_summary_sink`. Belongs to the Trio thread."""

    def __init__(self, folder: Path, run_id: str, statistics: RequestStatisticsSink) -> None:
        self.files: Final = JsonlEventSink(folder, _MAX_BUFFERED, "write", names=(SUMMARY_FILE,))
        self._correlation = RuntimeCorrelation(run_id)
        self._statistics = statistics
        self._requests = RequestReplay()
        self._scheduler: Callable[[], SchedulerSample] | None = None
        self._pressure: Callable[[], Mapping[RequestResourceKey, RequestPressureSnapshot]] = dict
        self._watched = trio.Event()
        self._sequence = 0
        self._bytes = 0
        self._begun_at = self._written_at = -math.inf
        self._shown: object = None

    def watch(
        self,
        scheduler: Callable[[], SchedulerSample],
        pressure: Callable[[], Mapping[RequestResourceKey, RequestPressureSnapshot]],
    ) -> None:
        """Sample these from now on."""
        self._scheduler, self._pressure = scheduler, pressure
        self._begun_at = trio.current_time()
        self._watched.set()

    def accepts_scheduler_event(self, kind: str) -> bool:
        """Those that are rare whatever the run does."""
        return kind in _KEPT or kind == "cancelled"

    def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
        """Keep an event."""
        if event.event_kind in _KEPT or event.task_id is None:
            self._write(event)

    def accepts_request_event(self, kind: str) -> bool:
        """Those from which a limit is replayed."""
        return kind in _REPLAYED

    def emit_request_event(self, event: RequestAdmissionEvent) -> None:
        """Replay an event."""
        self._requests.apply(event)

    async def run(self) -> None:
        """Sample for ever."""
        await self._watched.wait()
        while True:
            await trio.sleep(max(_FIRST_SECONDS, (trio.current_time() - self._begun_at) / _PER_RUN))
            self.sample()

    @trio.lowlevel.enable_ki_protection
    def sample(self, *, last: bool = False) -> None:
        """Write the state of the run, if that is new and there is room for it. last: whatever room there is.

        What goes wrong, as in a policy that is asked why nothing moves, ends the summary and not the run.
        """
        try:
            self._sample(last)
        except Exception:
            self._scheduler = None
            logger.exception("The run cannot be sampled any more; the summary of its events ends here")

    def _sample(self, last: bool) -> None:
        if self._scheduler is None:
            return
        now, scheduler, pressure = trio.current_time(), self._scheduler(), self._pressure()
        shown = scheduler, {key: each.sequence for key, each in pressure.items()}
        if shown == self._shown:
            return
        since = now - self._written_at
        late = since >= _UNWRITTEN_SECONDS and since >= (now - self._begun_at) * _UNWRITTEN_SHARE
        if not (last or late or self._bytes <= _FREE_BYTES + _BYTES_PER_EXECUTION * scheduler.finished):
            return
        self._shown, self._written_at = shown, now
        sample = RunSample(scheduler, tuple(self._sample_of(key, each) for key, each in pressure.items()))
        self._write(
            SchedulerAdmissionEvent(
                "scheduler_health_snapshot",
                now,
                0,
                self._correlation,
                reason_or_result=_SAMPLE,
                diagnostics=cast("dict[str, JsonValue]", _converter().unstructure(sample)),
            )
        )

    def _write(self, event: SchedulerAdmissionEvent) -> None:
        self._sequence += 1
        event = attrs.evolve(event, sequence=self._sequence)
        self._bytes += len(event_line(event))
        self.files.emit_scheduler_event(event)

    def _sample_of(self, key: RequestResourceKey, pressure: RequestPressureSnapshot) -> ResourceSample:
        endpoint = key.provider_model_key
        caps, rule = self._requests.static_caps, self._requests.rules.get(endpoint)
        counted = self._statistics.by_resource.get(key, RequestStatistics())
        replayed = self._requests.resources.get(key)
        sample = ResourceSample(pressure, counted, caps.get(endpoint), rule)
        if replayed is None:
            return sample
        return attrs.evolve(
            sample,
            oldest=min(replayed.held.values(), default=None),
            hinted_stop=replayed.hinted_stop,
            outage_since=replayed.outage_since,
            trial=replayed.trial is not None,
            change=_change(replayed.change),
            asked=_change(replayed.asked),
            calls=replayed.calls,
            failures=replayed.failures,
            not_answering=replayed.not_answering,
            recent=(sum(replayed.recent_failed), len(replayed.recent_failed)),
        )


def sample_of(event: SchedulerAdmissionEvent) -> RunSample | None:
    """The sample that an event of a summary holds; None for any other event."""
    if event.event_kind != "scheduler_health_snapshot" or event.reason_or_result != _SAMPLE:
        return None
    return _converter().structure(event.diagnostics, RunSample)


def _change(change: LimitChange | None) -> tuple[str, int, int, int] | None:
    return None if change is None else (change.cause, change.previous, change.current, change.asked)


@cache
def _converter() -> Converter:
    from cattrs.preconf.msgspec import make_converter

    return make_converter(omit_if_default=True, detailed_validation=False)


@asynccontextmanager
async def open_summary_sink(
    folder: Path, run_id: str, statistics: RequestStatisticsSink, *, blocking: Blocking
) -> AsyncGenerator[SummaryEventSink, None]:
    """A sink that writes `summary.jsonl` in `folder` while the block runs, and to its end.

    statistics: the run's own counts, which it reads.
    """
    summary = SummaryEventSink(folder, run_id, statistics)
    async with written(summary.files, 0.25, blocking), trio.open_nursery() as nursery:
        nursery.start_soon(summary.run, name="event summary")
        try:
            yield summary
        finally:
            nursery.cancel_scope.cancel()
            summary.sample(last=True)


class SampledWaits:
    """Where the time of tasks went, as samples show it: so many tasks were in a layer, for so long.

    The tasks that were in a layer at a sample are taken to have been there until the next one. Samples do not show
    which running task waits for a call, so the calls of an endpoint are divided among the columns that run there, by
    their tasks; those of endpoints where none runs among the columns that call more than one. The sum over a column is
    what its executions took together, as in `executions.py`, but for the time before they were ready. results:
    executions so far, by column and result.
    """

    def __init__(self) -> None:
        self.results: Mapping[str, Mapping[str, int]] = {}
        self._since: int | None = None
        self._times: dict[str, dict[Layer, int]] = {}

    def spend(self, until: int, scheduler: SchedulerReplay, requests: RequestReplay) -> None:
        """The time from the last call up to `until` (nanoseconds) passed as both stages are."""
        since, self._since = self._since, until
        if since is None:
            return
        elapsed = until - since
        for column, queued in scheduler.queued_by_column.items():
            waits = scheduler.awaited_resource(column) is not None
            self._add(column, "task_admission" if waits else "fairness", queued * elapsed)
        calls = _calls(requests, seconds(since))
        places: dict[str, SchedulerResourceKey | None] = {}
        running: dict[SchedulerResourceKey | None, int] = {}
        for column, tasks in scheduler.running_by_column.items():
            facts = scheduler.columns.get(column)
            if facts is None or facts.calls_models:
                place = next((each for each in scheduler.resources_of(column) if each in calls), None)
                places[column] = place
                running[place] = running.get(place, 0) + tasks
        elsewhere = [by_layer for place, by_layer in calls.items() if place not in running]
        for column, tasks in scheduler.running_by_column.items():
            rest = tasks * elapsed
            if column in places:
                place = places[column]
                for by_layer in elsewhere if place is None else [calls[place]]:
                    for layer, count in by_layer.items():
                        part = min(rest, round(tasks * elapsed * count / running[place]))
                        self._add(column, layer, part)
                        rest -= part
            self._add(column, "completion", rest)

    def columns(self) -> dict[str, ColumnWaits]:
        """All executions that ended, by column, with the time of all of its tasks."""
        return {
            column: ColumnWaits(sum(results.values()), results, WaitBreakdown(**self._times.get(column, {})))
            for column, results in sorted(self.results.items())
            if results
        }

    def _add(self, column: str, layer: Layer, time: int) -> None:
        times = self._times.setdefault(column, dict.fromkeys(LAYERS, 0))
        times[layer] += time


def _calls(requests: RequestReplay, at: float) -> dict[SchedulerResourceKey, dict[Layer, int]]:
    """The calls of each endpoint's stage resource by the layer that they are in."""
    calls: dict[SchedulerResourceKey, dict[Layer, int]] = {}
    for key, resource in requests.resources.items():
        by_layer = calls.setdefault(endpoint_stage_resource(key.provider_model_key), {})
        waiting: Layer = "cooldown" if resource.stopped_at(at) else "request_admission"
        by_layer["provider"] = by_layer.get("provider", 0) + resource.in_flight
        by_layer[waiting] = by_layer.get(waiting, 0) + resource.waiters
    return calls

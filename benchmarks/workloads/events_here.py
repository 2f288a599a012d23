"""Scenario family 8 at this project: one stream, the events of executions from the lease to its release, four each.

`jsonl` is the run's own event files, written a batch at a time; the share of the writer task is in scenario `pipeline`.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Final

import trio

from benchmarks.workloads.outcome import Outcome, Params, Run, number, word
from benchmarks.workloads.samples import Stopwatch
from trio_sched._events.records import SchedulerAdmissionEventKind
from trio_sched.lowlevel import (
    InMemoryAdmissionEventSink,
    RuntimeCorrelation,
    SchedulerAdmissionEvent,
    SchedulerAdmissionEventSink,
    inline,
    open_jsonl_sink,
    scheduler_event_stream,
)

__all__ = ["prepare"]

BATCH: Final = 1_250
GROUPS: Final = 8
KINDS: Final[tuple[SchedulerAdmissionEventKind, ...]] = (
    "task_lease_acquired",
    "worker_spawned",
    "task_completed",
    "task_lease_released",
)


class Unwanted(InMemoryAdmissionEventSink):
    """A sink that wants nothing."""

    def accepts_scheduler_event(self, _kind: str) -> bool:
        return False


def prepare(params: Params) -> Run:
    """The workload at this project."""
    executions, kind = number(params, "events") // len(KINDS), word(params, "sink")

    def run(_warm_up: bool) -> Outcome:
        with tempfile.TemporaryDirectory() as scratch:
            sink = {"unwanted": Unwanted, "memory": InMemoryAdmissionEventSink}.get(kind, lambda: None)()
            watch = Stopwatch()
            if kind == "jsonl":
                trio.run(to_files, Path(scratch), executions)
            else:
                emit(sink, executions)
            watch.stop()
            written = sum(len(path.read_bytes().splitlines()) for path in Path(scratch).glob("*.jsonl"))
            kept = len(sink.scheduler_events) if sink is not None else 0
        count = executions * len(KINDS)
        return Outcome(
            wall_time_seconds=watch.wall,
            metrics=watch.each("one_event", count),
            counts={"emitted": count, "delivered": kept + written},
        )

    return run


async def to_files(folder: Path, executions: int) -> None:
    """Emit to the event files, and write them as often as the writer task would."""
    async with open_jsonl_sink(folder, blocking=inline) as sink:
        for first in range(0, executions, BATCH):
            emit(sink, min(BATCH, executions - first))
            sink.flush()


def emit(sink: SchedulerAdmissionEventSink | None, executions: int) -> None:
    """Do as an owner of state does: ask whether the kind is wanted, and only then build the event."""
    stream = scheduler_event_stream(sink)
    correlations = [
        RuntimeCorrelation("run", 0, f"column{each}", "cell", "local", f"hash{each}", None) for each in range(GROUPS)
    ]
    handlers, now, next_sequence = stream.handlers, time.perf_counter, stream.next_sequence
    for row in range(executions):
        for kind in KINDS:
            handle = handlers.get(kind)
            if handle is not None:
                group = correlations[row % GROUPS]
                task, execution, resource = f"column/0/{row}", f"column/0/{row}@1", "endpoint:provider"
                handle(SchedulerAdmissionEvent(kind, now(), next_sequence(), group, task, execution, row, resource))

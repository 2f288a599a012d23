"""Scenario family 8 at this project: one stream, one correlation, the event of a task that got its lease.

`jsonl` gathers events and writes them in batches as lines of JSON, which is what the run's own event files cost; the
share of the writer task in that is in scenario `pipeline`.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks.workloads.outcome import Outcome, Params, Run, number, word
from benchmarks.workloads.samples import Stopwatch
from trio_sched.lowlevel import (
    EventStream,
    InMemoryAdmissionEventSink,
    RuntimeCorrelation,
    SchedulerAdmissionEvent,
    event_line,
    scheduler_event_stream,
)

try:
    from trio_sched._events.scheduler import make_scheduler_event  # what owners call; users have no need of it
except ImportError:  # an earlier commit, where owners called the class
    make_scheduler_event = SchedulerAdmissionEvent

__all__ = ["prepare"]

BATCH: Final = 5_000
GROUPS: Final = 8


class Unwanted(InMemoryAdmissionEventSink):
    """A sink that wants nothing."""

    def accepts_scheduler_event(self, _kind: str) -> bool:
        return False


class Lines(InMemoryAdmissionEventSink):
    """A sink that writes lines, a batch at a time."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("w", encoding="utf-8")

    def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
        self.scheduler_events.append(event)
        if len(self.scheduler_events) >= BATCH:
            self.flush()

    def flush(self) -> None:
        self._file.write("".join(map(event_line, self.scheduler_events)))
        self._file.flush()
        self.scheduler_events.clear()

    def close(self) -> None:
        self.flush()
        self._file.close()


def prepare(params: Params) -> Run:
    """The workload at this project."""
    count, kind = number(params, "events"), word(params, "sink")

    def run(_warm_up: bool) -> Outcome:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "events.jsonl"
            sink = {"unwanted": Unwanted, "memory": InMemoryAdmissionEventSink}.get(kind, lambda: None)()
            if kind == "jsonl":
                sink = Lines(path)
            watch = Stopwatch()
            tell(scheduler_event_stream(sink), count)
            if isinstance(sink, Lines):
                sink.close()
            watch.stop()
            written = len(path.read_bytes().splitlines()) if path.exists() else 0
            kept = len(sink.scheduler_events) if sink is not None else 0
        return Outcome(
            wall_time_seconds=watch.wall,
            metrics=watch.each("one_event", count),
            counts={"told": count, "delivered": kept + written},
        )

    return run


def tell(stream: EventStream[SchedulerAdmissionEvent], count: int) -> None:
    """Do as an owner of state does: ask whether the kind is wanted, and only then build the event."""
    correlations = [
        RuntimeCorrelation("run", 0, f"column{each}", "cell", "local", f"hash{each}", None) for each in range(GROUPS)
    ]
    wanted, now = stream.wanted, time.perf_counter
    for row in range(count):
        if "task_lease_acquired" in wanted:
            stream.deliver(
                make_scheduler_event(
                    "task_lease_acquired",
                    now(),
                    stream.next_sequence(),
                    correlations[row % GROUPS],
                    f"column/0/{row}",
                    f"column/0/{row}@1",
                    row,
                    "endpoint:provider/model",
                )
            )

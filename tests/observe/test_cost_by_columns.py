"""What an event costs whoever reads it does not grow with the columns of the run. Counted in calls, not in time."""

from __future__ import annotations

import sys
from types import FrameType

import pytest

from trio_sched._events.records import JsonValue, SchedulerAdmissionEvent, SchedulerAdmissionEventKind
from trio_sched._observe.progress import RunProgressSink
from trio_sched._observe.report_figures import ReportCollector
from trio_sched._observe.view import RuntimeViewBuilder
from trio_sched._resources.identity import RuntimeCorrelation

ROWS = 3
KINDS: tuple[SchedulerAdmissionEventKind, ...] = (
    "selected",
    "task_lease_acquired",
    "worker_spawned",
    "task_completed",
    "task_lease_released",
)


def events(columns: int) -> list[SchedulerAdmissionEvent]:
    """A run whose columns are all queued at first; each of its tasks runs alone, and every event has its own time."""
    names = [f"column {number}" for number in range(columns)]
    facts: dict[str, JsonValue] = {
        name: {"group": f"group of {name}", "needs": [], "resources": {"submission": 1}} for name in names
    }
    made = [
        SchedulerAdmissionEvent(
            "scheduler_job_started",
            0.0,
            1,
            snapshot={"resource_limits": {"submission": 1}},
            diagnostics={"columns": facts},
        )
    ]
    tasks = [(name, row) for row in range(ROWS) for name in names]
    for kind in ("ready_enqueued", "cycle"):
        for name, row in tasks:
            task = f"{name}/{row}"
            for each in KINDS if kind == "cycle" else ("ready_enqueued",):
                made.append(
                    SchedulerAdmissionEvent(
                        each,
                        float(len(made)),
                        len(made) + 1,
                        RuntimeCorrelation("run", 0, name, "cell", "local", "hash", f"{task}@1"),
                        task,
                        f"{task}@1" if kind == "cycle" else None,
                        len(made) // len(KINDS) if kind == "cycle" else None,
                        "submission",
                        "success" if each == "task_completed" else None,
                    )
                )
    return made


@pytest.mark.parametrize("reader", [RuntimeViewBuilder, ReportCollector, lambda: RunProgressSink(None)])
def test_calls_per_event_are_the_same_for_a_hundred_columns(reader: type[RuntimeViewBuilder]) -> None:
    def calls_per_event(columns: int) -> float:
        taking, sink, calls = events(columns), reader(), 0

        def count(frame: FrameType, event: str, argument: object) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        previous = sys.getprofile()
        sys.setprofile(count)
        try:
            for event in taking:
                sink.emit_scheduler_event(event)
        finally:
            sys.setprofile(previous)
        return calls / len(taking)

    assert calls_per_event(100) < 1.2 * calls_per_event(2)

"""Builds `trace.json` and `report.html` of a run's folder, in one pass over its event files.

It works for a run that ended, for one that goes on, and for one that was killed. Both files are written beside their
names first and then renamed, so that a reader finds whole ones. Lines that are no events are left out, and the report
says so; documents that are missing or damaged leave their part of the report empty.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, cast

from trio_sched._events.records import AdmissionEvent, JsonValue, SchedulerAdmissionEvent
from trio_sched._observe.record import RunEventFiles
from trio_sched._observe.report.figures import ReportCollector
from trio_sched._observe.report.page import report_page
from trio_sched._observe.trace import write_trace

__all__ = ["REPORT_FILE", "TRACE_FILE", "write_run_views"]

TRACE_FILE: Final = "trace.json"
REPORT_FILE: Final = "report.html"

_EVENTS_PER_LOOK: Final = 1_000
"""Events between two questions whether to go on: some 40 ms of work."""


class _GivenUpError(Exception):
    """Whoever asked for the files does not want to wait any longer."""


def write_run_views(run_folder: Path, *, keep_going: Callable[[], bool] = lambda: True) -> bool:
    """Write both files into `run_folder`, and say whether they were written.

    keep_going: asked now and then; once it says no, nothing is left behind. Raises `NoEventsError` for a folder without
    events, and `OSError` for files that cannot be read or written.
    """
    files = RunEventFiles(run_folder)
    collector = ReportCollector()
    trace, report = run_folder / TRACE_FILE, run_folder / REPORT_FILE
    unfinished = trace.with_name(TRACE_FILE + ".tmp"), report.with_name(REPORT_FILE + ".tmp")
    plan = _document(run_folder / "capacity_plan.json")
    try:
        with unfinished[0].open("w", encoding="utf-8") as file:
            write_trace(_collected(files.events(), collector, keep_going), file, capacity_plan=plan)
        figures = collector.figures(_document(run_folder / "run.json"), plan, files.problems)
        unfinished[1].write_text(report_page(figures), encoding="utf-8")
        unfinished[0].replace(trace)
        unfinished[1].replace(report)
    except _GivenUpError:
        return False
    finally:
        for path in unfinished:
            path.unlink(missing_ok=True)
    return True


def _collected(
    events: Iterator[AdmissionEvent], collector: ReportCollector, keep_going: Callable[[], bool]
) -> Iterator[AdmissionEvent]:
    """The events, each shown to the collector on its way."""
    for number, event in enumerate(events):
        if number % _EVENTS_PER_LOOK == 0 and not keep_going():
            raise _GivenUpError
        if isinstance(event, SchedulerAdmissionEvent):
            collector.emit_scheduler_event(event)
        else:
            collector.emit_request_event(event)
        yield event


def _document(path: Path) -> dict[str, JsonValue]:
    """One of the run's JSON documents, or nothing."""
    try:
        read: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cast("dict[str, JsonValue]", read) if isinstance(read, dict) else {}

"""Reads the event files that a run leaves behind, also while it goes on and after it was killed.

A line that is no event is left out and told: at the end of a file it was being written when the reader came or the run
was killed; elsewhere the file was damaged. Events are read one at a time, so a long run costs no memory here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from trio_sched._errors import TrioSchedError
from trio_sched._events.jsonl import EVENT_FILES, read_event
from trio_sched._events.records import AdmissionEvent, RequestAdmissionEvent, SchedulerAdmissionEvent, merged_by_time
from trio_sched._observe.view import MAX_EXECUTIONS, CorrelatedRuntimeView, RuntimeViewBuilder

__all__ = ["NoEventsError", "RunEventFiles", "build_view", "view_of_run"]

E = TypeVar("E", SchedulerAdmissionEvent, RequestAdmissionEvent)


class NoEventsError(TrioSchedError):
    """A folder has no event files. `folder` is the folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder

    def __str__(self) -> str:
        return (
            f"{str(self.folder)!r} has no events to read: it needs events/{EVENT_FILES[0]} or events/{EVENT_FILES[1]}; "
            "give the output folder of a run that wrote its events"
        )


class RunEventFiles:
    """The event files of one run folder. Raises `NoEventsError` if there are none.

    `problems` says what could not be read, once the events were read to their end.
    """

    def __init__(self, run_folder: Path) -> None:
        self._scheduler, self._request = (run_folder / "events" / name for name in EVENT_FILES)
        self.problems: list[str] = []
        if not self._scheduler.is_file() and not self._request.is_file():
            raise NoEventsError(run_folder)

    def scheduler_events(self) -> Iterator[SchedulerAdmissionEvent] | None:
        """The scheduler's stream in order, or None if the run did not write it."""
        return self._read(self._scheduler, SchedulerAdmissionEvent) if self._scheduler.is_file() else None

    def request_events(self) -> Iterator[RequestAdmissionEvent] | None:
        """The request stage's stream in order, or None if the run did not write it."""
        return self._read(self._request, RequestAdmissionEvent) if self._request.is_file() else None

    def events(self) -> Iterator[AdmissionEvent]:
        """The events of both streams, by time."""
        return merged_by_time(self.scheduler_events() or (), self.request_events() or ())

    def _read(self, path: Path, kind: type[E]) -> Iterator[E]:
        damaged: int | None = None
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if damaged is not None:
                    self.problems.append(f"{path.name}: line {damaged} is no event and was left out")
                    damaged = None
                try:
                    event = read_event(line, kind)
                except ValueError:
                    damaged = number
                    continue
                yield event
        if damaged is not None:
            self.problems.append(f"{path.name}: the last line, {damaged}, is incomplete and was left out")


def build_view(run_folder: Path, *, max_executions: int = MAX_EXECUTIONS) -> tuple[RuntimeViewBuilder, tuple[str, ...]]:
    """The events of a run folder, all taken in, and what could not be read. Raises `NoEventsError`, or `OSError`."""
    files = RunEventFiles(run_folder)
    scheduler, request = files.scheduler_events(), files.request_events()
    builder = RuntimeViewBuilder(
        scheduler_stream=scheduler is not None, request_stream=request is not None, max_executions=max_executions
    )
    builder.take(scheduler if scheduler is not None else (), request if request is not None else ())
    return builder, tuple(files.problems)


def view_of_run(run_folder: Path, *, max_executions: int = MAX_EXECUTIONS) -> CorrelatedRuntimeView:
    """What the event files of a run folder tell. Raises `NoEventsError`, or `OSError` for files that cannot be read."""
    builder, problems = build_view(run_folder, max_executions=max_executions)
    return builder.view(problems=problems)

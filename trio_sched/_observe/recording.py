"""Reads the event files of a run folder: of a finished run, of one still going on, and of one that was killed.

Both streams come as one, in the order of their times, and nothing is held but the current line of each file. A last
line without its end is what a kill, or a writer at work, leaves behind: it is passed over. Any other line that is no
event is an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from heapq import merge
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

from trio_sched._errors import TrioSchedError
from trio_sched._events.request import RequestAdmissionEvent
from trio_sched._events.scheduler import SchedulerAdmissionEvent
from trio_sched._resources.correlation import RuntimeCorrelation
from trio_sched._resources.identity import RequestResourceKey
from trio_sched._resources.pressure import RequestPressureSnapshot

__all__ = ["AdmissionEvent", "UnreadableEventError", "recorded_events"]

AdmissionEvent: TypeAlias = SchedulerAdmissionEvent | RequestAdmissionEvent
E = TypeVar("E", SchedulerAdmissionEvent, RequestAdmissionEvent)


class UnreadableEventError(TrioSchedError, ValueError):
    """A line of an event file is no event of this version. Attributes: `path`, `line` (from 1)."""

    def __init__(self, path: Path, line: int) -> None:
        super().__init__(path, line)
        self.path = path
        self.line = line

    def __str__(self) -> str:
        return f"{self.path} line {self.line} is no event that this version of trio_sched knows; was it edited?"


def recorded_events(folder: Path) -> Iterator[AdmissionEvent]:
    """The events in `folder`, where `scheduler.jsonl` and `request.jsonl` are; a file that is missing has none.

    Events of one instant keep the order of their stream, the scheduler's first. Raises `UnreadableEventError`.
    """
    read = _EventReader()
    return merge(
        _lines(folder / "scheduler.jsonl", read.scheduler_event),
        _lines(folder / "request.jsonl", read.request_event),
        key=_at,
    )


def _at(event: AdmissionEvent) -> float:
    return event.captured_at_monotonic


def _lines(path: Path, read: Callable[[dict[str, Any]], E]) -> Iterator[E]:
    if not path.exists():
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield read(cast("dict[str, Any]", json.loads(line)))
            except (TypeError, ValueError, KeyError, AttributeError) as error:
                raise UnreadableEventError(path, number) from error


class _EventReader:
    """Makes events of their JSON, three times as fast as a converter that checks every field."""

    def __init__(self) -> None:
        self._resources: dict[tuple[str, str, str], RequestResourceKey] = {}

    def scheduler_event(self, fields: dict[str, Any]) -> SchedulerAdmissionEvent:
        fields["captured_correlation"] = _correlation(fields["captured_correlation"])
        return SchedulerAdmissionEvent(**fields)

    def request_event(self, fields: dict[str, Any]) -> RequestAdmissionEvent:
        fields["captured_correlation"] = _correlation(fields["captured_correlation"])
        fields["request_resource_key"] = self._resource(fields["request_resource_key"])
        fields["request_group_key"] = self._resource(fields["request_group_key"])
        snapshot = fields["pressure_snapshot"]
        if snapshot is not None:
            snapshot["resource"] = self._resource(snapshot["resource"])
            fields["pressure_snapshot"] = RequestPressureSnapshot(**snapshot)
        return RequestAdmissionEvent(**fields)

    def _resource(self, fields: dict[str, Any] | None) -> RequestResourceKey | None:
        if fields is None:
            return None
        names = (fields["provider_name"], fields["model_id"], fields["domain"])
        known = self._resources.get(names)
        if known is None:
            known = self._resources[names] = RequestResourceKey(*names)
        return known


def _correlation(fields: dict[str, Any] | None) -> RuntimeCorrelation | None:
    return None if fields is None else RuntimeCorrelation(**fields)

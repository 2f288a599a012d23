"""Both event streams as one timeline in the artifact's form, and whether it is in order.

An entry has the fields that the artifact gives to it and nothing else, so any candidate whose events can be brought
into this form can be measured. What is derived from it is in `timeline_metrics.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

from benchmarks.workloads.outcome import Json

__all__ = ["EXCERPT", "Entry", "at", "counted", "entries", "name_of", "requests_out_of_order", "streams_out_of_order"]

Entry: TypeAlias = Mapping[str, Json]

EXCERPT: Final = 60
"""How many entries of an iteration an artifact keeps: what is derived looks at all of them before they are cut."""

COMMON: Final = ("event_kind", "captured_at_monotonic", "sequence")
OF_TASKS: Final = ("task_id", "task_execution_id", "scheduler_resource_key")
OF_A_CORRELATION: Final = (
    "run_id",
    "row_group",
    "task_column",
    "task_type",
    "scheduling_group_kind",
    "scheduling_group_identity_hash",
    "task_execution_id",
)
OF_REQUESTS: Final = ("request_attempt_id", "reason_or_outcome")

STEPS_OF_A_REQUEST: Final = {
    kind: place
    for place, kind in enumerate(
        (
            "request_wait_started",
            "request_wait_completed",
            "request_lease_acquired",
            "model_request_started",
            "model_request_completed",
            "request_lease_released",
        )
    )
}


def entries(scheduler_events: Iterable[Any], request_events: Iterable[Any]) -> list[dict[str, Json]]:
    """The entries of both streams in the order of time, each stream in its own order."""
    found = [
        {
            **{name: getattr(event, name) for name in (*COMMON, *OF_TASKS)},
            "stream": "scheduler",
            "captured_correlation": _plain(event.captured_correlation),
            "task_lease_id": name_of(event.task_lease_id),
            "reason_or_outcome": event.reason_or_result,
        }
        for event in scheduler_events
    ]
    found += [
        {
            **{name: getattr(event, name) for name in (*COMMON, *OF_REQUESTS)},
            "stream": "request",
            "captured_correlation": _plain(event.captured_correlation),
            "request_lease_id": name_of(event.request_lease_id),
            "request_resource_key": name_of(event.request_resource_key),
        }
        for event in request_events
    ]
    return sorted(found, key=at)


def at(entry: Entry) -> float:
    """When it happened, in seconds."""
    return float(cast("float", entry["captured_at_monotonic"]))


def counted(timeline: Sequence[Entry]) -> dict[str, int]:
    """What the gates count: leases taken and given back in both stages, and what is out of order."""
    kinds = Counter(str(entry["event_kind"]) for entry in timeline)
    return {
        "timeline_entries": len(timeline),
        "task_leases": kinds["task_lease_acquired"],
        "task_leases_released": kinds["task_lease_released"],
        "request_leases": kinds["request_lease_acquired"],
        "request_leases_released": kinds["request_lease_released"],
        "streams_out_of_order": streams_out_of_order(timeline),
        "requests_out_of_order": requests_out_of_order(timeline),
    }


def streams_out_of_order(timeline: Sequence[Entry]) -> int:
    """Entries whose sequence does not rise within their stream, or whose time falls."""
    last: dict[str, tuple[int, float]] = {}
    broken = 0
    for entry in timeline:
        stream, here = str(entry["stream"]), (cast("int", entry["sequence"]), at(entry))
        before = last.get(stream)
        broken += before is not None and (here[0] <= before[0] or here[1] < before[1])
        last[stream] = here
    return broken


def requests_out_of_order(timeline: Sequence[Entry]) -> int:
    """Attempts whose steps do not come in their order: wait, lease, call, release."""
    reached: dict[str, int] = {}
    broken: set[str] = set()
    for entry in timeline:
        step, attempt = STEPS_OF_A_REQUEST.get(str(entry["event_kind"])), entry.get("request_attempt_id")
        if step is None or attempt is None:
            continue
        if step <= reached.get(str(attempt), -1):
            broken.add(str(attempt))
        reached[str(attempt)] = step
    return len(broken)


def _plain(correlation: Any) -> dict[str, Json] | None:
    if correlation is None or isinstance(correlation, dict):
        return cast("dict[str, Json] | None", correlation)
    return {name: getattr(correlation, name) for name in OF_A_CORRELATION}


def name_of(value: object) -> str | None:
    """The text of an id or of a resource's key, whichever form an implementation gives it."""
    if isinstance(value, Mapping):
        parts = cast("Mapping[str, object]", value).values()
        return "/".join(str(getattr(part, "value", part)) for part in parts)
    return None if value is None else str(value)

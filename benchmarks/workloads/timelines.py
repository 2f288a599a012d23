"""Both event streams as one timeline, and what is derived from it.

An entry has the fields that the artifact gives to it and nothing else. What is derived looks at entries alone, so any
candidate whose events can be brought into this form can be measured.

    ready_queue_wait      selected - ready_enqueued, by task
    task_admission_wait   task_lease_acquired - selected
    ready_to_lease_gap    task_lease_acquired - ready_enqueued
    ready_idle_gap        stretches in which a task is queued for a resource that has a free unit, and none is acquired
    active_capacity_integral             lease-seconds
    hidden_scheduler_resource_waiters    workers at once that run without a task lease
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from benchmarks.workloads.outcome import Json
from benchmarks.workloads.samples import quantile

__all__ = ["derived", "entries", "jain_index", "maximum_lag"]

Entry = Mapping[str, Json]

COMMON: Final = ("event_kind", "captured_at_monotonic", "sequence")
OF_TASKS: Final = ("task_id", "task_execution_id", "scheduler_resource_key")
OF_REQUESTS: Final = ("request_attempt_id", "reason_or_outcome")


def entries(scheduler_events: Iterable[Any], request_events: Iterable[Any]) -> list[dict[str, Json]]:
    """The entries of both streams in the order of time, each stream in its own order."""
    found = [
        {
            **{name: getattr(event, name) for name in (*COMMON, *OF_TASKS)},
            "stream": "scheduler",
            "captured_correlation": _plain(event.captured_correlation),
            "task_lease_id": _name(event.task_lease_id),
            "reason_or_outcome": event.reason_or_result,
        }
        for event in scheduler_events
    ]
    found += [
        {
            **{name: getattr(event, name) for name in (*COMMON, *OF_REQUESTS)},
            "stream": "request",
            "captured_correlation": _plain(event.captured_correlation),
            "request_lease_id": _name(event.request_lease_id),
            "request_resource_key": _name(event.request_resource_key),
        }
        for event in request_events
    ]
    return sorted(found, key=lambda entry: float(entry["captured_at_monotonic"]))


def derived(timeline: Sequence[Entry], limits: Mapping[str, int]) -> dict[str, float]:
    """What the timeline says of waiting and of idle capacity; `limits` are those of the stage's resources."""
    enqueued: dict[str, float] = {}
    selected: dict[str, float] = {}
    waits: dict[str, list[float]] = {"ready_queue_wait": [], "task_admission_wait": [], "ready_to_lease_gap": []}
    idle = _IdleGaps(limits)
    hidden, worst_hidden, lease_seconds = 0, 0, 0.0
    leased_at: dict[str, float] = {}
    for entry in timeline:
        kind, now = str(entry["event_kind"]), float(str(entry["captured_at_monotonic"]))
        task, lease = str(entry.get("task_id")), str(entry.get("task_lease_id"))
        resource = str(entry.get("scheduler_resource_key"))
        if kind == "ready_enqueued":
            enqueued[task] = now
            idle.queued(resource, now)
        elif kind == "selected":
            selected[task] = now
            waits["ready_queue_wait"].append(now - enqueued[task])
        elif kind == "task_lease_acquired":
            waits["task_admission_wait"].append(now - selected[task])
            waits["ready_to_lease_gap"].append(now - enqueued[task])
            leased_at[lease] = now
            idle.acquired(resource, now)
        elif kind == "worker_spawned":
            if lease not in leased_at:
                hidden += 1
                worst_hidden = max(worst_hidden, hidden)
        elif kind == "task_lease_released":
            lease_seconds += now - leased_at.pop(lease)
            idle.released(resource, now)
    metrics = {
        "ready_idle_gap_seconds": idle.longest,
        "active_capacity_integral": lease_seconds,
        "hidden_scheduler_resource_waiters": float(worst_hidden),
    }
    for name, seconds in waits.items():
        if seconds:
            ordered = sorted(seconds)
            metrics[f"{name}_p50_us"] = quantile(ordered, 0.5) * 1e6
            metrics[f"{name}_p95_us"] = quantile(ordered, 0.95) * 1e6
    return metrics


class _IdleGaps:
    """The longest stretch in which somebody is queued for a resource that has a free unit, and nobody acquires."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self._limits = limits
        self._queued: Counter[str] = Counter()
        self._held: Counter[str] = Counter()
        self._since: dict[str, float] = {}
        self.longest = 0.0

    def queued(self, resource: str, now: float) -> None:
        self._queued[resource] += 1
        self._look(resource, now)

    def acquired(self, resource: str, now: float) -> None:
        self._queued[resource] -= 1
        self._held[resource] += 1
        started = self._since.pop(resource, None)
        if started is not None:
            self.longest = max(self.longest, now - started)
        self._look(resource, now)

    def released(self, resource: str, now: float) -> None:
        self._held[resource] -= 1
        self._look(resource, now)

    def _look(self, resource: str, now: float) -> None:
        if self._queued[resource] and self._held[resource] < self._limits.get(resource, 0):
            self._since.setdefault(resource, now)


def jain_index(services: Sequence[float]) -> float:
    """Jain's fairness index of services already divided by weight; 1 is even."""
    return sum(services) ** 2 / (len(services) * sum(service * service for service in services))


def maximum_lag(served: Iterable[str], weights: Mapping[str, float]) -> float:
    """The largest difference, at any time, between two groups' services divided by their weights."""
    services = dict.fromkeys(weights, 0.0)
    lag = 0.0
    for group in served:
        services[group] += 1 / weights[group]
        lag = max(lag, max(services.values()) - min(services.values()))
    return lag


def _plain(correlation: Any) -> dict[str, Json] | None:
    if correlation is None:
        return None
    return {name: getattr(correlation, name) for name in correlation.__slots__ if name != "__weakref__"}


def _name(value: object) -> str | None:
    return None if value is None else str(value)

"""What a timeline says of waiting, idle capacity, fairness and debt. It looks at entries alone.

    ready_queue_wait      selected - ready_enqueued, by task
    task_admission_wait   task_lease_acquired - selected
    ready_to_lease_gap    task_lease_acquired - ready_enqueued
    ready_idle_gap        stretches in which a group has a task queued, the resource that it is queued for has a free
                          unit, and so has `submission`, and nobody acquires that resource; by group and resource
    active_capacity_integral             lease-seconds, in all and by resource
    hidden_scheduler_resource_waiters    the most workers at once that run without holding their task lease
    root_over_admission_debt             the most units that the root's group held above its strict share: the limit
                                         divided among the groups queued for it, a group alone having one imagined peer
    root_over_admission_while_others_wait    the same while another group was queued for the resource
    jain_index            of the groups' services at a resource while all of them were queued for it
    maximum_lag_tasks     the most tasks that one group was ahead of another over any stretch in which both were queued

A group is known by the column that its tasks make. Groups that are queued for one resource have equal weights here.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Final, TypeAlias, cast

from benchmarks.workloads.samples import quantile
from benchmarks.workloads.timelines import Entry, at

__all__ = ["derived", "first_times", "jain_index"]

SUBMISSION: Final = "submission"
Place: TypeAlias = tuple[str, str]
"""A group, and the resource that its tasks are queued for."""


def derived(timeline: Sequence[Entry], limits: Mapping[str, int], roots: Collection[str] = ()) -> dict[str, float]:
    """Everything above; `limits` are those of the stage's resources."""
    stage = _Stage(limits)
    waits, hidden, lease_seconds = _Waits(), _Hidden(), _LeaseSeconds()
    gaps, service, debt = _IdleGaps(stage), _Service(stage, timeline), _Debt(stage, roots)
    for entry in timeline:
        now, kind = at(entry), str(entry["event_kind"])
        waits.take(kind, entry, now)
        hidden.take(kind, entry)
        lease_seconds.take(kind, entry, now)
        place = (group_of(entry), str(entry.get("scheduler_resource_key")))
        if kind == "ready_enqueued":
            stage.queued[place] += 1
        elif kind == "task_lease_acquired":
            service.acquired(place)
            stage.acquired(place)
            debt.acquired(place)
            gaps.acquired(place[1], now)
        elif kind == "task_lease_released":
            stage.released(place)
        else:
            continue
        gaps.look(now)
    if timeline:
        gaps.close(at(timeline[-1]))
    return {
        **waits.metrics(),
        **lease_seconds.metrics(),
        **gaps.metrics(),
        **service.metrics(),
        **debt.metrics(),
        "hidden_scheduler_resource_waiters": float(hidden.worst),
    }


def first_times(timeline: Sequence[Entry], roots: Collection[str]) -> dict[str, float]:
    """When the first task that is not of a root was ready, and when it was dispatched, in seconds since the start."""
    found: dict[str, float] = {}
    for entry in timeline:
        name = {
            "ready_enqueued": "first_downstream_ready_seconds",
            "task_lease_acquired": "first_downstream_dispatch_seconds",
        }.get(str(entry["event_kind"]))
        if name is not None and group_of(entry) not in roots:
            found.setdefault(name, at(entry) - at(timeline[0]))
    return found


def group_of(entry: Entry) -> str:
    """The column whose task it is about."""
    correlation = cast("Mapping[str, object] | None", entry.get("captured_correlation"))
    return str(entry.get("task_id")).split("/")[0] if correlation is None else str(correlation.get("task_column"))


class _Stage:
    """What is queued and held, by group and resource."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self.limits = limits
        self.queued: Counter[Place] = Counter()
        self.held: Counter[Place] = Counter()
        self.held_of_resource: Counter[str] = Counter()
        self.held_in_all = 0

    def acquired(self, place: Place) -> None:
        self.queued[place] -= 1
        self.held[place] += 1
        self.held_of_resource[place[1]] += 1
        self.held_in_all += 1

    def released(self, place: Place) -> None:
        self.held[place] -= 1
        self.held_of_resource[place[1]] -= 1
        self.held_in_all -= 1

    def has_room(self, resource: str) -> bool:
        return self.held_of_resource[resource] < self.limits.get(resource, 0) and self.held_in_all < self.limits.get(
            SUBMISSION, math.inf
        )

    def others_queued(self, place: Place) -> int:
        """How many other groups are queued for the resource."""
        return sum(count > 0 and other != place and other[1] == place[1] for other, count in self.queued.items())


class _Waits:
    def __init__(self) -> None:
        self._enqueued: dict[str, float] = {}
        self._selected: dict[str, float] = {}
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)

    def take(self, kind: str, entry: Entry, now: float) -> None:
        task = str(entry.get("task_id"))
        if kind == "ready_enqueued":
            self._enqueued[task] = now
        elif kind == "selected":
            self._selected[task] = now
            self._seconds["ready_queue_wait"].append(now - self._enqueued[task])
        elif kind == "task_lease_acquired":
            self._seconds["task_admission_wait"].append(now - self._selected.get(task, now))
            self._seconds["ready_to_lease_gap"].append(now - self._enqueued[task])

    def metrics(self) -> dict[str, float]:
        return {
            f"{name}_{part}_us": quantile(sorted(seconds), share) * 1e6
            for name, seconds in self._seconds.items()
            for part, share in (("p50", 0.5), ("p95", 0.95))
        }


class _Hidden:
    """Workers between their start and their end, and the leases that are held."""

    def __init__(self) -> None:
        self._held: set[str] = set()
        self._lease_of_worker: dict[str, str] = {}
        self.worst = 0

    def take(self, kind: str, entry: Entry) -> None:
        lease, worker = str(entry.get("task_lease_id")), str(entry.get("task_execution_id"))
        if kind == "task_lease_acquired":
            self._held.add(lease)
        elif kind == "worker_spawned":
            self._lease_of_worker[worker] = lease
        elif kind in ("task_completed", "cancelled"):
            self._lease_of_worker.pop(worker, None)
        elif kind == "task_lease_released":
            self._held.discard(lease)
        else:
            return
        if kind in ("worker_spawned", "task_lease_released"):
            self.worst = max(self.worst, sum(each not in self._held for each in self._lease_of_worker.values()))


class _LeaseSeconds:
    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def take(self, kind: str, entry: Entry, now: float) -> None:
        lease, resource = str(entry.get("task_lease_id")), str(entry.get("scheduler_resource_key"))
        if kind == "task_lease_acquired":
            self._since[lease] = now
        elif kind == "task_lease_released" and lease in self._since:
            self._seconds[resource] += now - self._since.pop(lease)

    def metrics(self) -> dict[str, float]:
        by_resource = {f"active_capacity_integral[{name}]": value for name, value in self._seconds.items()}
        return {"active_capacity_integral": sum(self._seconds.values()), **by_resource}


class _IdleGaps:
    def __init__(self, stage: _Stage) -> None:
        self._stage = stage
        self._since: dict[Place, float] = {}
        self._longest: dict[Place, float] = {}

    def acquired(self, resource: str, now: float) -> None:
        for place in [place for place in self._since if place[1] == resource]:
            self._end(place, now)

    def look(self, now: float) -> None:
        for place, count in self._stage.queued.items():
            self._longest.setdefault(place, 0.0)
            if count > 0 and self._stage.has_room(place[1]):
                self._since.setdefault(place, now)
            elif place in self._since:
                self._end(place, now)

    def close(self, now: float) -> None:
        for place in list(self._since):
            self._end(place, now)

    def _end(self, place: Place, now: float) -> None:
        self._longest[place] = max(self._longest[place], now - self._since.pop(place))

    def metrics(self) -> dict[str, float]:
        by_place = {f"ready_idle_gap_seconds[{group}, {name}]": gap for (group, name), gap in self._longest.items()}
        return {"ready_idle_gap_seconds": max(self._longest.values(), default=0.0), **by_place}


class _Service:
    """Who was served while others were queued for the same resource."""

    def __init__(self, stage: _Stage, timeline: Sequence[Entry]) -> None:
        self._queued = stage.queued
        self._groups: defaultdict[str, set[Place]] = defaultdict(set)
        for entry in timeline:
            if entry["event_kind"] == "ready_enqueued":
                resource = str(entry.get("scheduler_resource_key"))
                self._groups[resource].add((group_of(entry), resource))
        self._while_all_queued: Counter[Place] = Counter()
        self._ahead: dict[tuple[Place, Place], tuple[int, int, int]] = {}
        self._lag = 0

    def acquired(self, place: Place) -> None:
        groups = self._groups[place[1]]
        if len(groups) > 1 and all(self._queued[each] > 0 for each in groups):
            self._while_all_queued[place] += 1
        for other in groups - {place}:
            first, second = sorted((place, other))
            if self._queued[other] <= 0:
                self._ahead.pop((first, second), None)
                continue
            now, low, high = self._ahead.get((first, second), (0, 0, 0))
            now += 1 if place == first else -1
            low, high = min(low, now), max(high, now)
            self._lag = max(self._lag, high - low)
            if self._queued[place] <= 1:
                self._ahead.pop((first, second), None)
            else:
                self._ahead[first, second] = now, low, high

    def metrics(self) -> dict[str, float]:
        found = {
            f"jain_index[{resource}]": jain_index([self._while_all_queued[each] for each in groups])
            for resource, groups in self._groups.items()
            if any(self._while_all_queued[each] for each in groups)
        }
        return {**found, "maximum_lag_tasks": float(self._lag)} if found else {}


class _Debt:
    def __init__(self, stage: _Stage, roots: Collection[str]) -> None:
        self._stage = stage
        self._roots = frozenset(roots)
        self._worst = {"root_over_admission_debt": 0, "root_over_admission_while_others_wait": 0}

    def acquired(self, place: Place) -> None:
        limit = self._stage.limits.get(place[1])
        if place[0] not in self._roots or limit is None:
            return
        others = self._stage.others_queued(place)
        above = self._stage.held[place] - math.ceil(limit / (1 + max(1, others)))
        for name in itertools.islice(self._worst, 2 if others else 1):
            self._worst[name] = max(self._worst[name], above)

    def metrics(self) -> dict[str, float]:
        return {name: float(value) for name, value in self._worst.items()} if self._roots else {}


def jain_index(services: Sequence[float]) -> float:
    """Jain's fairness index of services already divided by weight; 1 is even."""
    return sum(services) ** 2 / (len(services) * sum(service * service for service in services))

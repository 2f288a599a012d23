"""What the demo's event files show: A's limit followed its capacity, and B never waited for nothing.

Everything is replayed from `events/*.jsonl` in the order of the streams' own sequence. "Waited for nothing" means that
others were already at work again while a ready task of B was queued although B's stage had free units, or while a
request to B waited although its limit and its endpoint had room.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import attrs

from trio_sched.lowlevel import RequestAdmissionEvent, SchedulerAdmissionEvent, read_event

A = "a/writer/chat"
B = "b/judge"
STAGE_B = f"endpoint:{B}"

E = TypeVar("E", SchedulerAdmissionEvent, RequestAdmissionEvent)


@attrs.frozen
class Evidence:
    """Figures read from the events.

    lowest_limit: of A's adaptive limit within the low phase. last_limit: at the end. refused_share: of A's attempts.
    idle_tasks, idle_requests: times that a task or a request of B waited for nothing, or was left waiting at the end.
    """

    lowest_limit: int
    last_limit: int
    refused_share: float
    idle_tasks: int
    idle_requests: int

    def lines(self) -> str:
        """For the reader."""
        return (
            f"seen in the events: in the low phase A's limit fell to {self.lowest_limit}, at the end it is back at "
            f"{self.last_limit};\nA refused {self.refused_share:.1%} of its calls; while B had room, its ready tasks "
            f"waited {self.idle_tasks} times and its requests {self.idle_requests} times"
        )

    def holds(self) -> bool:
        """Whether admission did what the demo is there to show."""
        return (
            self.lowest_limit <= 10
            and self.last_limit >= 18
            and self.refused_share < 0.04
            and self.idle_tasks == 0
            and self.idle_requests == 0
        )


def read_evidence(output: Path, low_phase: range) -> Evidence:
    """Read the evidence from a finished demo's folder. low_phase: A's successful calls, by number, when it is low."""
    plan = json.loads((output / "capacity_plan.json").read_text(encoding="utf-8"))["configured"]
    cap_a = plan["provider_model_static_caps"]["a/writer"]["value"]["cap"]
    limit, lowest, attempts, refused, answered = cap_a, cap_a, 0, 0, 0
    for event in _events(output / "events" / "request.jsonl", RequestAdmissionEvent):
        if str(event.request_resource_key) != A:
            continue
        attempts += event.event_kind == "request_lease_acquired"
        refused += event.event_kind == "request_rate_limited"
        answered += event.event_kind == "request_lease_released" and event.reason_or_outcome == "success"
        if event.event_kind in ("request_limit_decreased", "request_limit_increased"):
            assert event.pressure_snapshot is not None
            limit = event.pressure_snapshot.current_limit
        if answered in low_phase:
            lowest = min(lowest, limit)
    return Evidence(
        lowest_limit=lowest,
        last_limit=limit,
        refused_share=refused / max(attempts, 1),
        idle_tasks=_idle_tasks(output, plan["task_resource_limits"]["value"][STAGE_B]),
        idle_requests=_idle_requests(output, plan["provider_model_static_caps"][B]["value"]["cap"]),
    )


def _idle_tasks(output: Path, limit: int) -> int:
    queued: set[str | None] = set()
    leased = idle = 0
    for event in _events(output / "events" / "scheduler.jsonl", SchedulerAdmissionEvent):
        # A worker's event while a task is queued means that the loop has had its turn and left the task there.
        if event.event_kind == "task_completed" and queued and leased < limit:
            idle += 1
        if event.scheduler_resource_key == STAGE_B:
            if event.event_kind == "ready_enqueued":
                queued.add(event.task_id)
            elif event.event_kind == "task_lease_acquired":
                queued.discard(event.task_id)
                leased += 1
            elif event.event_kind == "task_lease_released":
                leased -= 1
    return idle + len(queued)


def _idle_requests(output: Path, cap: int) -> int:
    waiting: defaultdict[str, set[str | None]] = defaultdict(set)
    in_flight: Counter[str] = Counter()
    limits: dict[str, int] = {}
    idle = 0
    for event in _events(output / "events" / "request.jsonl", RequestAdmissionEvent):
        resource = str(event.request_resource_key)
        if not resource.startswith(f"{B}/"):
            # Another endpoint's event: whatever B's release had to grant has been granted.
            has_room = in_flight.total() < cap
            idle += event.event_kind == "request_lease_acquired" and any(
                queued and has_room and in_flight[domain] < limits.get(domain, cap)
                for domain, queued in waiting.items()
            )
            continue
        if event.pressure_snapshot is not None:
            limits[resource] = event.pressure_snapshot.current_limit
        if event.event_kind == "request_wait_started":
            waiting[resource].add(event.request_attempt_id)
        elif event.event_kind == "request_wait_completed":
            waiting[resource].discard(event.request_attempt_id)
        elif event.event_kind == "request_lease_acquired":
            in_flight[resource] += 1
        elif event.event_kind == "request_lease_released":
            in_flight[resource] -= 1
    return idle + sum(map(len, waiting.values()))


def _events(path: Path, kind: type[E]) -> Iterator[E]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield read_event(line, kind)

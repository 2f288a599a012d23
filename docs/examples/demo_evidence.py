"""What the demo's event files show: A's limit followed its capacity, and B never waited for nothing."""

from __future__ import annotations

import json
from pathlib import Path

import attrs

from trio_sched.lowlevel import RequestAdmissionEvent, SchedulerAdmissionEvent, read_event

A = "a/writer/chat"
STAGE_B = "endpoint:b/judge"


@attrs.frozen
class Evidence:
    """Figures read from the events.

    lowest_limit, last_limit: of A's adaptive limit. refused_share: of A's attempts. idle_waits: times that a ready task
    of B was queued while B's stage had free capacity and others were already at work again. longest_wait_b: seconds
    that a request to B waited for its lease.
    """

    lowest_limit: int
    last_limit: int
    refused_share: float
    idle_waits: int
    longest_wait_b: float

    def lines(self) -> str:
        """For the reader."""
        return (
            f"seen in the events: A's limit fell to {self.lowest_limit} and came back to {self.last_limit}; "
            f"A refused {self.refused_share:.1%} of its calls;\n"
            f"ready tasks of B waited {self.idle_waits} times while B had free capacity; "
            f"the longest wait for a lease on B took {self.longest_wait_b * 1000:.1f} ms"
        )

    def holds(self) -> bool:
        """Whether admission did what the demo is there to show."""
        return self.lowest_limit <= 10 and self.last_limit >= 18 and self.refused_share < 0.08 and self.idle_waits == 0


def read_evidence(output: Path) -> Evidence:
    """Read the evidence from a finished demo's folder."""
    limits: list[int] = []
    attempts = refused = 0
    waiting: dict[str | None, float] = {}
    longest = 0.0
    with (output / "events" / "request.jsonl").open(encoding="utf-8") as lines:
        for event in (read_event(line, RequestAdmissionEvent) for line in lines):
            resource = str(event.request_resource_key)
            if resource == A:
                attempts += event.event_kind == "request_lease_acquired"
                refused += event.event_kind == "request_rate_limited"
                if event.pressure_snapshot is not None and event.event_kind in (
                    "request_limit_decreased",
                    "request_limit_increased",
                ):
                    limits.append(event.pressure_snapshot.current_limit)
            elif event.event_kind == "request_wait_started":
                waiting[event.request_attempt_id] = event.captured_at_monotonic
            elif event.event_kind == "request_wait_completed":
                longest = max(longest, event.captured_at_monotonic - waiting.pop(event.request_attempt_id))
    plan = json.loads((output / "capacity_plan.json").read_text(encoding="utf-8"))
    limit_b = plan["configured"]["task_resource_limits"]["value"][STAGE_B]
    return Evidence(min(limits), limits[-1], refused / attempts, _idle_waits(output, limit_b), longest)


def _idle_waits(output: Path, limit: int) -> int:
    queued = leased = idle_waits = 0
    with (output / "events" / "scheduler.jsonl").open(encoding="utf-8") as lines:
        for event in (read_event(line, SchedulerAdmissionEvent) for line in lines):
            # A worker's event while a task is queued means that the loop has had its turn and left the task there.
            if event.event_kind == "task_completed" and queued and leased < limit:
                idle_waits += 1
            if event.scheduler_resource_key == STAGE_B:
                queued += (event.event_kind == "ready_enqueued") - (event.event_kind == "task_lease_acquired")
                leased += (event.event_kind == "task_lease_acquired") - (event.event_kind == "task_lease_released")
    return idle_waits

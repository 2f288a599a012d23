"""The scheduler's state as plain JSON, for events and artifacts: group keys become their text form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from trio_sched._events.records import JsonValue
from trio_sched._resources.task import SchedulerResourceKey, TaskGroupKey
from trio_sched._task.controller import TaskAdmissionController
from trio_sched._task.queue import QueueView

__all__ = ["release_diagnostics", "scheduler_snapshot"]

_RELEASE_DIAGNOSTICS = (
    "duplicate",
    "stale_lease",
    "unknown_lease",
    "wrong_controller_generation",
    "policy_release_errors",
)


def release_diagnostics(admission: TaskAdmissionController) -> dict[str, int]:
    """What went wrong when leases were given back: how often, by reason; empty when nothing did."""
    counters = admission.diagnostics()
    return {reason: counters[reason] for reason in _RELEASE_DIAGNOSTICS if counters.get(reason)}


def scheduler_snapshot(queue: QueueView, controller: TaskAdmissionController) -> dict[str, JsonValue]:
    """Queue and ledger at one instant; zero entries are absent, except in limits and availability."""
    admission = controller.view()
    leases = Counter(resource for held in controller.leak_report() for resource in held.resources)
    return {
        "queued_total": queue.queued_total,
        "queued_by_group": {str(group): count for group, count in queue.queued_by_group.items()},
        "queued_resource_demand_by_group": _nested(queue.queued_resource_demand_by_group),
        "running_by_group": {str(group): count for group, count in admission.running_counts_by_group.items()},
        "resource_limits": dict(admission.resource_limits),
        "resources_available": dict(admission.resources_available),
        "leased_resources": dict(admission.leased_resources),
        "leased_resources_by_group": _nested(admission.leased_resources_by_group),
        "active_leases_by_resource": dict(leases),
        "release_diagnostics": dict(release_diagnostics(controller).items()),
        "policy_debt": {
            f"{group}|{resource}": debt for (group, resource), debt in admission.policy_debt_by_group_resource.items()
        },
    }


def _nested(by_group: Mapping[TaskGroupKey, Mapping[SchedulerResourceKey, int]]) -> dict[str, JsonValue]:
    return {str(group): dict(amounts) for group, amounts in by_group.items()}

"""The scheduler's state for events and artifacts: in full as plain JSON, and as a sample, which counts by column.

Group keys become their text form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from trio_sched._events.records import ColumnSample, DeferralSample, FailureSample, JsonValue, SchedulerSample
from trio_sched._resources.task import SchedulableTask, SchedulerResourceKey, Task, TaskGroupKey
from trio_sched._scheduler.events import SchedulerEvents
from trio_sched._scheduler.retry import Deferral
from trio_sched._task.controller import TaskAdmissionBlockSummary, TaskAdmissionController
from trio_sched._task.queue import QueueView

__all__ = ["release_diagnostics", "scheduler_sample", "scheduler_snapshot"]

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


def scheduler_sample(
    columns: Mapping[str, TaskGroupKey],
    events: SchedulerEvents,
    queue: QueueView,
    controller: TaskAdmissionController,
    running: Collection[Task],
    deferred: Iterable[Deferral],
) -> SchedulerSample:
    """The same as counts. columns: with their groups. running: the tasks that run."""
    held = controller.view()
    oldest: dict[TaskGroupKey, float] = {}
    for lease in controller.leak_report():
        oldest[lease.group] = min(lease.held_since, oldest.get(lease.group, lease.held_since))
    waiting: dict[tuple[str, str], list[Deferral]] = {}
    for deferral in deferred:
        waiting.setdefault((deferral.task.column, deferral.reason), []).append(deferral)
    blocked = controller.explain_blocked(queue) if queue.queued_total else TaskAdmissionBlockSummary(0, {})
    debt: dict[str, dict[str, int]] = {}
    for (group, resource), units in held.policy_debt_by_group_resource.items():
        debt.setdefault(str(group), {})[resource] = units
    return SchedulerSample(
        columns={
            column: ColumnSample(
                queue.queued_by_group.get(group, 0),
                held.running_counts_by_group.get(group, 0),
                oldest.get(group),
                dict(events.results.get(column, {})),
            )
            for column, group in columns.items()
        },
        unfinished=_unfinished(queue, running, [each for alike in waiting.values() for each in alike]),
        deferred=tuple(
            DeferralSample(
                column,
                min(each.task.row_group for each in alike),
                reason,
                len(alike),
                min(each.due for each in alike),
            )
            for (column, reason), alike in waiting.items()
        ),
        failures=tuple(FailureSample(*cause, tasks) for cause, tasks in events.failures.items()),
        refusals=dict(blocked.dominant_denial_reasons.items()),
        capped={
            group: reason
            for reason, groups in blocked.groups_by_reason.items()
            if reason in _OF_GROUPS
            for group in groups
        },
        debt=debt,
        release_diagnostics=release_diagnostics(controller),
    )


_OF_GROUPS = ("group_cap", "borrow_debt")


def _unfinished(queue: QueueView, running: Iterable[Task], deferred: Iterable[Deferral]) -> tuple[int, str] | None:
    """The oldest row group with such tasks, and the column that most of those which are known here belong to.

    Of the queued tasks only the first of each group is looked at, which is the oldest.
    """
    heads: Iterable[SchedulableTask] = queue.first_candidate_tasks_by_group.values()
    queued = [item.payload for item in heads if isinstance(item.payload, Task)]
    known = [*queued, *running, *(each.task for each in deferred)]
    if not known:
        return None
    row_group = min(task.row_group for task in known)
    columns = Counter(task.column for task in known if task.row_group == row_group)
    return row_group, columns.most_common(1)[0][0]

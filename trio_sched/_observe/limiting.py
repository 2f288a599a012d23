"""Which layer limits progress at one instant.

Work that waits says what holds it back. Each piece of waiting work has one vote:

- a model call that waits for its lease votes for `cooldown` if its resource cools down, else for `request_admission`;
- a queued task whose stage resources all have room votes for `fairness`: only order or policy holds it back;
- any other queued task votes for `task_admission`; but if the stage resource that is full is that of an endpoint where
  calls wait, it votes as they do, since with a lease it would only wait there.

The layer with the most votes limits, and of equal ones that nearest to the provider. Where nothing waits, what is
under way limits: `provider` if a model call is out, else, if failed tasks wait to be repeated, `cooldown` for rate
limits, `request_admission` for calls that waited too long, and `provider` for anything else. Where nothing waits and
no call is out, the instant is *open*: what happens next decides. If new work shows up, everything waited for that:
`readiness`. If a row group becomes durable or the run ends, it was `completion`. (See `progress.py`.)

Without the request stream nobody can tell when a model call is out. Then a running task of a model group counts as one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from trio_sched._observe.request_replay import ReplayedResource, RequestReplay
from trio_sched._observe.scheduler_replay import SchedulerReplay
from trio_sched._observe.waits import Layer
from trio_sched._resources.identity import RequestResourceKey
from trio_sched._resources.task import SchedulerResourceKey, endpoint_stage_resource

__all__ = ["Limit", "full_resource", "layer_of_deferral", "limit_now", "open_limit"]

_NEAREST_FIRST: Final[dict[Layer, int]] = {
    "cooldown": 0,
    "request_admission": 1,
    "task_admission": 2,
    "fairness": 3,
}

_LAYER_OF_DEFERRAL: Final[dict[str, Layer]] = {"rate_limited": "cooldown", "queue_timeout": "request_admission"}


@attrs.frozen
class Limit:
    """What limits: the layer, and the resource where most of the work waits or is under way, if it is one."""

    layer: Layer
    where: str | None = None


def layer_of_deferral(reason: str) -> Layer:
    """What a deferred task waits out, by the reason of its failure; anything unknown is trouble at the provider."""
    return _LAYER_OF_DEFERRAL.get(reason, "provider")


def full_resource(
    scheduler: SchedulerReplay, leased: Mapping[SchedulerResourceKey, int], column: str
) -> SchedulerResourceKey | None:
    """The most specific stage resource that has no room for another task of `column`, or None."""
    full: SchedulerResourceKey | None = None
    for resource, amount in scheduler.resources_of(column).items():
        limit = scheduler.resource_limits.get(resource)
        if limit is not None and leased.get(resource, 0) + amount > limit:
            full = resource
    return full


def limit_now(
    scheduler: SchedulerReplay, requests: RequestReplay, now: float, *, model_tasks_call: bool
) -> Limit | None:
    """The limit at `now`, or None for an open instant. model_tasks_call: a running model task counts as a call out."""
    votes: dict[Limit, int] = {}
    behind: dict[SchedulerResourceKey, Limit] = {}
    calling: RequestResourceKey | None = None
    most_out = 0
    for key, resource in requests.resources.items():
        if resource.waiters > 0:
            limit = _of_waiters(key, resource, now)
            votes[limit] = resource.waiters
            stage = endpoint_stage_resource(key.provider_model_key)
            if stage not in behind or resource.waiters > votes[behind[stage]]:
                behind[stage] = limit
        if resource.in_flight > most_out:
            calling, most_out = key, resource.in_flight
    if scheduler.queued_by_column:
        leased = scheduler.leased_resources()
        for column, queued in scheduler.queued_by_column.items():
            full = full_resource(scheduler, leased, column)
            if full is None and scheduler.resource_limits:
                limit = Limit("fairness", column)
            else:
                limit = behind.get(full, Limit("task_admission", full)) if full is not None else Limit("task_admission")
            votes[limit] = votes.get(limit, 0) + queued
    if votes:
        return _most(votes) if len(votes) > 1 else next(iter(votes))
    if calling is not None:
        return Limit("provider", str(calling))
    if model_tasks_call:
        for column in scheduler.running_by_column:
            facts = scheduler.columns.get(column)
            if facts is not None and facts.calls_models:
                return Limit("provider", column)
    return _of_deferrals(scheduler)


def open_limit(scheduler: SchedulerReplay) -> Limit:
    """What an open instant counts as while nobody knows what happens next.

    Where a column runs that others need, they wait for it: `readiness`, at that column. Else what runs, or is written,
    only has to be completed. Where no row group is open at all, rows are missing: `readiness`.
    """
    needed = {need for facts in scheduler.columns.values() for need in facts.needs}
    running = scheduler.running_by_column
    awaited = [column for column in running if column in needed or column not in scheduler.columns]
    if awaited:
        return Limit("readiness", max(awaited, key=running.__getitem__))
    if running or scheduler.row_groups:
        return Limit("completion")
    return Limit("readiness")


def _most(votes: dict[Limit, int]) -> Limit:
    by_layer: dict[Layer, int] = {}
    for limit, count in votes.items():
        by_layer[limit.layer] = by_layer.get(limit.layer, 0) + count
    layer = min(by_layer, key=lambda layer: (-by_layer[layer], _NEAREST_FIRST[layer]))
    return min((limit for limit in votes if limit.layer == layer), key=lambda limit: (-votes[limit], limit.where or ""))


def _of_waiters(key: RequestResourceKey, resource: ReplayedResource, now: float) -> Limit:
    return Limit("cooldown" if resource.cooling_at(now) else "request_admission", str(key))


def _of_deferrals(scheduler: SchedulerReplay) -> Limit | None:
    if not scheduler.deferred_by_cause:
        return None
    votes: dict[Limit, int] = {}
    for (column, reason), count in scheduler.deferred_by_cause.items():
        limit = Limit(layer_of_deferral(reason), column)
        votes[limit] = votes.get(limit, 0) + count
    return max(votes, key=votes.__getitem__)

"""Follows what waits down to its cause, at one instant: a limit and the links of the chain that leads to it."""

from __future__ import annotations

from collections import Counter

from trio_sched._observe.activity import activity_at
from trio_sched._observe.limiting import Limit, layer_of_deferral, limit_now, open_limit
from trio_sched._observe.request_replay import ReplayedResource, RequestReplay
from trio_sched._observe.scheduler_replay import DeferredTask, SchedulerReplay, TaskPlace
from trio_sched._observe.wait_links import (
    CallsOut,
    CoolingDown,
    HeldBack,
    HintsWaitedOut,
    LimitMoved,
    LimitReached,
    NothingToDo,
    RowGroupWaits,
    Stopped,
    TasksRun,
    TasksWait,
    WaitLink,
    WaitsToRepeat,
)
from trio_sched._resources.identity import RequestResourceKey

__all__ = ["wait_chain"]


def wait_chain(
    scheduler: SchedulerReplay, requests: RequestReplay, now: float, *, model_tasks_call: bool
) -> tuple[Limit, tuple[WaitLink, ...]]:
    """What limits at `now`, and the chain from the oldest row group to the cause."""
    limit = limit_now(scheduler, requests, now, model_tasks_call=model_tasks_call)
    links = list(_row_group(scheduler))
    if limit is None:
        limit = open_limit(scheduler)
        links += _under_way(scheduler, now)
        return limit, tuple(links)
    found = _resource(requests, limit.where)
    if found is not None:
        links += _at_request_resource(requests, *found, limit, now)
    elif limit.layer == "task_admission":
        links += _at_stage_resource(scheduler, limit)
    elif limit.layer == "fairness":
        waiting = scheduler.queued_by_column.get(limit.where or "", 0)
        reasons = scheduler.holding_back(limit.where or "")
        links += [TasksWait(waiting, limit.layer, limit.where), HeldBack(limit.where, reasons)]
    else:
        links += _to_repeat(scheduler, limit, now) or _under_way(scheduler, now)
    return limit, tuple(links)


def _row_group(scheduler: SchedulerReplay) -> list[WaitLink]:
    """The oldest row group with unfinished tasks, and the column that most of these belong to.

    Where none has any, the oldest row group. One that is only to be written holds up none of the others.
    """
    if not scheduler.row_groups:
        return []
    known: list[TaskPlace | DeferredTask] = [*scheduler.queued.values(), *scheduler.leases.values()]
    known += scheduler.deferred.values()
    unfinished = [task for task in known if task.row_group in scheduler.row_groups]
    if not unfinished:
        return [RowGroupWaits(min(scheduler.row_groups), None)]
    oldest = min(task.row_group for task in unfinished if task.row_group is not None)
    columns = Counter(task.column for task in unfinished if task.row_group == oldest)
    return [RowGroupWaits(oldest, columns.most_common(1)[0][0])]


def _resource(requests: RequestReplay, where: str | None) -> tuple[RequestResourceKey, ReplayedResource] | None:
    return next(((key, each) for key, each in requests.resources.items() if str(key) == where), None)


def _at_request_resource(
    requests: RequestReplay, key: RequestResourceKey, resource: ReplayedResource, limit: Limit, now: float
) -> list[WaitLink]:
    stopped = _stop(key, resource, now)
    if limit.layer == "provider":
        oldest = min(resource.held.values(), default=None)
        return [CallsOut(str(key), resource.in_flight, None if oldest is None else now - oldest), *stopped]
    waiting: list[WaitLink] = [TasksWait(resource.waiters, limit.layer, str(key))]
    if stopped:
        return [*waiting, *stopped]
    hinted = resource.waiting_for_hints(now)
    if hinted:
        waiting.append(HintsWaitedOut(str(key), hinted, resource.waiters))
    endpoint = key.provider_model_key
    cap = requests.static_caps.get(endpoint)
    in_all = sum(each.in_flight for other, each in requests.resources.items() if other.provider_model_key == endpoint)
    if cap is not None and resource.in_flight < resource.current_limit:
        return [*waiting, LimitReached(str(endpoint), in_all, cap, None)]
    reached = LimitReached(str(key), resource.in_flight, resource.current_limit, resource.effective_max)
    return [*waiting, reached, *_why_that_limit(key, resource)]


def _stop(key: RequestResourceKey, resource: ReplayedResource, now: float) -> list[WaitLink]:
    """Why nothing may go out, if that is so."""
    activity = activity_at(resource, now)
    left, hinted = activity.seconds_left, resource.stop_is_hinted
    if activity.kind == "trial" or activity.trial_follows:
        return [Stopped(str(key), activity.outage, activity.kind == "trial", left, hinted)]
    if activity.kind == "stopped":
        return [CoolingDown(str(key), left, resource.consecutive_rate_limits, hinted)]
    return []


def _why_that_limit(key: RequestResourceKey, resource: ReplayedResource) -> list[WaitLink]:
    """What the provider's latest answers say of the limit, where they say more than that it is so."""
    asked, change, limit = resource.asked, resource.change, resource.current_limit
    if resource.outage_since is not None:
        return [LimitMoved(str(key), "outage", limit, 0)]
    if asked is not None and asked.cause == "probe_started":
        return [LimitMoved(str(key), "probe_started", asked.previous, asked.current - asked.previous)]
    if change is not None and change.cause == "probe_refused":
        refused = resource.pressure.rate_limit_ceiling
        return [LimitMoved(str(key), "probe_refused", limit if refused is None else refused - 1, change.asked)]
    if change is not None and change.cause == "recovered":
        return [LimitMoved(str(key), "recovered", limit, 0)]
    return []


def _at_stage_resource(scheduler: SchedulerReplay, limit: Limit) -> list[WaitLink]:
    leased = scheduler.leased_resources()
    waiting = sum(
        queued
        for column, queued in scheduler.queued_by_column.items()
        if scheduler.awaited_resource(column) == limit.where
    )
    links: list[WaitLink] = [TasksWait(waiting, limit.layer, limit.where)]
    if limit.where is not None:
        held, most = leased.get(limit.where, 0), scheduler.resource_limits[limit.where]
        links.append(LimitReached(limit.where, held, most, None))
    return links


def _to_repeat(scheduler: SchedulerReplay, limit: Limit, now: float) -> list[WaitLink]:
    deferred = [
        each
        for each in scheduler.deferred.values()
        if each.column == limit.where and layer_of_deferral(each.reason) == limit.layer
    ]
    if not deferred or limit.where is None:
        return []
    reason = Counter(each.reason for each in deferred).most_common(1)[0][0]
    due = min((each.due - now for each in deferred if each.due is not None), default=None)
    return [WaitsToRepeat(limit.where, len(deferred), reason, due)]


def _under_way(scheduler: SchedulerReplay, now: float) -> list[WaitLink]:
    """What runs by itself: the tasks of the column whose oldest task has run longest."""
    if not scheduler.leases:
        return [NothingToDo(len(scheduler.row_groups))]
    oldest = min(scheduler.leases.values(), key=lambda place: place.since)
    return [TasksRun(oldest.column, scheduler.running_by_column[oldest.column], now - oldest.since)]

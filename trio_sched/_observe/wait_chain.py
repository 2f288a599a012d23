"""The wait-for chain at one instant: who waits, for what, and what that waits for in turn, down to the cause.

    row group 7 waits for column answer <- 214 tasks wait for request admission on openai/gpt-5-mini/chat
        <- the provider refuses everything: the next trial call goes out in 4.1 s

Each link is a value of its own with a text; `kind` names its type in JSON.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal, TypeAlias

import attrs

from trio_sched._observe.layers import Layer, Limit, layer_of_deferral, limit_now, open_limit
from trio_sched._observe.request_replay import ReplayedResource, RequestReplay, activity_at
from trio_sched._observe.scheduler_replay import DeferredTask, SchedulerReplay, TaskPlace
from trio_sched._resources.identity import RequestResourceKey
from trio_sched._util import counted, printable

__all__ = [
    "CallsOut",
    "CoolingDown",
    "HeldBack",
    "HintsWaitedOut",
    "LimitMoved",
    "LimitReached",
    "NotAnswering",
    "NothingToDo",
    "RowGroupWaits",
    "Stopped",
    "TasksRun",
    "TasksWait",
    "WaitLink",
    "WaitsToRepeat",
    "wait_chain",
]

_LAYER_WORDS: Mapping[Layer, str] = {
    "readiness": "inputs",
    "fairness": "their turn",
    "task_admission": "task admission",
    "request_admission": "request admission",
    "cooldown": "request admission",
    "provider": "an answer",
    "completion": "their own work",
}


def _hint(retry_after: bool) -> str:
    return " (retry-after)" if retry_after else ""


@attrs.frozen
class RowGroupWaits:
    """A row group that is not durable waits for a column; with no column it waits to be written."""

    row_group: int
    column: str | None
    kind: Literal["row_group_waits"] = "row_group_waits"

    def __str__(self) -> str:
        if self.column is None:
            return f"row group {self.row_group} waits to be written"
        return f"row group {self.row_group} waits for column {self.column}"


@attrs.frozen
class TasksWait:
    """So many tasks wait in one layer, at one place: a request resource, a stage resource or a column."""

    count: int
    layer: Layer
    where: str | None
    kind: Literal["tasks_wait"] = "tasks_wait"

    def __str__(self) -> str:
        place = f" on {self.where}" if self.where is not None else ""
        verb = "waits" if self.count == 1 else "wait"
        return f"{counted(self.count, 'task')} {verb} for {_LAYER_WORDS[self.layer]}{place}"


@attrs.frozen
class CoolingDown:
    """A request resource admits nothing for `seconds_left`, after so many rate limits in a row.

    retry_after: whether the provider said for how long.
    """

    resource: str
    seconds_left: float
    rate_limits: int
    retry_after: bool
    kind: Literal["cooling_down"] = "cooling_down"

    def __str__(self) -> str:
        after = f" after {counted(self.rate_limits, 'rate limit')}" if self.rate_limits else ""
        return f"cooling down, {self.seconds_left:.1f} s left{after}{_hint(self.retry_after)}"


@attrs.frozen
class Stopped:
    """A request resource admits nothing until one trial call has gone first.

    outage: whether the provider refuses everything. trial_out: whether that call is out. seconds_left: until it goes
    out. retry_after: whether the provider said for how long.
    """

    resource: str
    outage: bool
    trial_out: bool
    seconds_left: float
    retry_after: bool
    kind: Literal["stopped"] = "stopped"

    def __str__(self) -> str:
        hint = _hint(self.retry_after)
        if self.outage:
            trial = f"the next trial call goes out in {self.seconds_left:.1f} s{hint}"
            return f"the provider refuses everything: {'one trial call is out' if self.trial_out else trial}"
        if self.trial_out:
            return "after refusals one trial call is out, and all others wait for it"
        return f"stopped after refusals: one trial call goes out in {self.seconds_left:.1f} s{hint}"


@attrs.frozen
class NotAnswering:
    """The endpoint of a request resource does not answer, or is closed: `because`. One call at a time asks it."""

    resource: str
    because: str
    kind: Literal["not_answering"] = "not_answering"

    def __str__(self) -> str:
        return f"its endpoint does not answer: {printable(self.because)}"


@attrs.frozen
class HintsWaitedOut:
    """So many of the waiting calls were refused, and let all others go first until their retry hint is over."""

    resource: str
    count: int
    waiting: int
    kind: Literal["hints_waited_out"] = "hints_waited_out"

    def __str__(self) -> str:
        if self.count == 1:
            which = "it was" if self.waiting == 1 else "1 of them was"
            return f"{which} refused, and lets others go first until its retry hint is over"
        which = "they were" if self.count == self.waiting else f"{self.count:,} of them were"
        return f"{which} refused, and let others go first until their retry hints are over"


@attrs.frozen
class LimitMoved:
    """Why the limit of a request resource is where it is: its latest change, as the rule named it.

    limit: the most calls that the provider is known to accept. more: by how many a probe asked for more than that, 0
    where it is not known.
    """

    resource: str
    cause: Literal["probe_started", "probe_refused", "recovered", "outage"]
    limit: int
    more: int
    kind: Literal["limit_moved"] = "limit_moved"

    def __str__(self) -> str:
        more = "more calls" if not self.more else "one more call" if self.more == 1 else f"{self.more:,} more calls"
        match self.cause:
            case "probe_started":
                return f"{self.resource} asks for {more} than {self.limit:,}"
            case "probe_refused":
                return f"{self.resource} asked for {more} and was refused: its limit is {self.limit:,}"
            case "recovered":
                return f"{self.resource} answers again after an outage, and its limit grows from {self.limit:,}"
            case "outage":
                return "the provider refuses everything: calls go out again, and none was answered yet"


@attrs.frozen
class LimitReached:
    """All of a limit is in use. `most`: what the limit may grow to, None where it is fixed."""

    resource: str
    in_use: int
    limit: int
    most: int | None
    kind: Literal["limit_reached"] = "limit_reached"

    def __str__(self) -> str:
        cap = f", its cap is {self.most}" if self.most is not None and self.most != self.limit else ""
        return f"{self.in_use} of {self.limit} of {self.resource} in use{cap}"


@attrs.frozen
class HeldBack:
    """There is room, but order or policy holds a column's tasks back.

    refusals: heads of the queue by the reason for which they were refused though there was room, as last reported.
    Where there are none, the scheduler's next turn starts the tasks.
    """

    column: str | None
    refusals: Mapping[str, int]
    kind: Literal["held_back"] = "held_back"

    def __str__(self) -> str:
        if not self.refusals:
            return "there is room, and they are about to be started"
        return f"there is room, but the order or the admission policy holds them back ({', '.join(self.refusals)})"


@attrs.frozen
class CallsOut:
    """So many calls are out at a request resource; the oldest for `oldest_seconds`, None where that is not known."""

    resource: str
    count: int
    oldest_seconds: float | None
    kind: Literal["calls_out"] = "calls_out"

    def __str__(self) -> str:
        age = f", the oldest for {self.oldest_seconds:.1f} s" if self.oldest_seconds is not None else ""
        return f"{counted(self.count, 'call')} {'is' if self.count == 1 else 'are'} out at {self.resource}{age}"


@attrs.frozen
class WaitsToRepeat:
    """So many failed tasks of a column wait for another run; the first is due in `due_in_seconds`, if that is known."""

    column: str
    count: int
    reason: str
    due_in_seconds: float | None
    kind: Literal["waits_to_repeat"] = "waits_to_repeat"

    def __str__(self) -> str:
        due = f", the first in {self.due_in_seconds:.1f} s" if self.due_in_seconds is not None else ""
        verb = "waits" if self.count == 1 else "wait"
        what = counted(self.count, "failed task")
        return f"{what} of column {self.column} {verb} to be repeated after {self.reason}{due}"


@attrs.frozen
class TasksRun:
    """So many tasks of a column do their own work, outside model calls; the oldest for `oldest_seconds`."""

    column: str
    count: int
    oldest_seconds: float
    kind: Literal["tasks_run"] = "tasks_run"

    def __str__(self) -> str:
        who = f"{counted(self.count, 'task')} of column {self.column} {'is' if self.count == 1 else 'are'} at work"
        return f"{who}, the oldest for {self.oldest_seconds:.1f} s"


@attrs.frozen
class NothingToDo:
    """Nothing is queued, running or deferred: rows are being read or written, `open_row_groups` are not durable yet."""

    open_row_groups: int
    kind: Literal["nothing_to_do"] = "nothing_to_do"

    def __str__(self) -> str:
        if self.open_row_groups:
            return f"nothing runs: {counted(self.open_row_groups, 'row group')} to be written or given more work"
        return "nothing runs: rows are still to be read, or all is done"


WaitLink: TypeAlias = (
    RowGroupWaits
    | TasksWait
    | CoolingDown
    | Stopped
    | NotAnswering
    | HintsWaitedOut
    | LimitReached
    | LimitMoved
    | HeldBack
    | CallsOut
    | WaitsToRepeat
    | TasksRun
    | NothingToDo
)


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
    if scheduler.unfinished is not None:
        return [RowGroupWaits(*scheduler.unfinished)]
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
    if resource.not_answering is not None:
        return [NotAnswering(str(key), resource.not_answering)]
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
    waiting = sum(
        count
        for (column, cause), count in scheduler.deferred_by_cause.items()
        if column == limit.where and layer_of_deferral(cause) == limit.layer
    )
    return [WaitsToRepeat(limit.where, waiting, reason, due)]


def _under_way(scheduler: SchedulerReplay, now: float) -> list[WaitLink]:
    """What runs by itself: the tasks of the column whose oldest task has run longest."""
    if not scheduler.leases:
        return [NothingToDo(len(scheduler.row_groups))]
    oldest = min(scheduler.leases.values(), key=lambda place: place.since)
    return [TasksRun(oldest.column, scheduler.running_by_column[oldest.column], now - oldest.since)]

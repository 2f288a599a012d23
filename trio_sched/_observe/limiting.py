"""Which layer limits progress at one instant.

Work that waits says what holds it back. Each piece of waiting work has one vote:

- a model call that waits for its lease votes for `cooldown` while its resource is stopped, so that nothing may go out
  there, else for `request_admission`;
- a queued task whose stage resources all have room votes for `fairness`: only order or policy holds it back; but a
  place that was just given back, which the scheduler has not given away yet, is no such room
  (`SchedulerReplay.awaited`);
- any other queued task votes for `task_admission`; but if the stage resource that it waits for is that of an endpoint
  where calls wait, it votes as they do, since with a lease it would only wait there.

The layer with the most votes limits, and of equal ones that nearest to the provider. Where nothing waits, what is
under way limits: `provider` if a model call is out, else, if failed tasks wait to be repeated, `request_admission` for
calls that waited too long, and `provider` for anything else. Where nothing waits and no call is out, the instant is
*open*: what happens next decides. If new work shows up, everything waited for that: `readiness`. If a row group becomes
durable or the run ends, it was `completion`. (See `progress.py`.)

Without the request stream nobody can tell when a model call is out. Then a running task of a model group counts as one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, TypeAlias

import attrs

from trio_sched._observe.request_replay import RequestReplay
from trio_sched._observe.scheduler_replay import SchedulerReplay
from trio_sched._observe.waits import Layer
from trio_sched._resources.identity import RequestResourceKey
from trio_sched._resources.task import SchedulerResourceKey, endpoint_stage_resource

__all__ = ["Limit", "layer_of_deferral", "limit_now", "open_limit"]

_Vote: TypeAlias = "tuple[Layer, str | None]"
"""The fields of a `Limit`: counting is done with what needs no Python code to be compared."""

_NEAREST_FIRST: Final[dict[Layer, int]] = {
    "cooldown": 0,
    "request_admission": 1,
    "task_admission": 2,
    "fairness": 3,
}

_LAYER_OF_DEFERRAL: Final[dict[str, Layer]] = {"queue_timeout": "request_admission"}


@attrs.frozen
class Limit:
    """What limits: the layer, and the resource where most of the work waits or is under way, if it is one."""

    layer: Layer
    where: str | None = None


def layer_of_deferral(reason: str) -> Layer:
    """What a deferred task waits out, by the reason of its failure; anything unknown is trouble at the provider."""
    return _LAYER_OF_DEFERRAL.get(reason, "provider")


def limit_now(
    scheduler: SchedulerReplay, requests: RequestReplay, now: float, *, model_tasks_call: bool
) -> Limit | None:
    """The limit at `now`, or None for an open instant. model_tasks_call: a running model task counts as a call out."""
    votes: dict[_Vote, int] = {}
    behind: dict[SchedulerResourceKey, _Vote] = {}
    calling: RequestResourceKey | None = None
    most_out = 0
    for key, resource in requests.resources.items():
        if resource.waiters > 0:
            vote: _Vote = ("cooldown" if resource.stopped_at(now) else "request_admission", str(key))
            votes[vote] = resource.waiters
            stage = endpoint_stage_resource(key.provider_model_key)
            if stage not in behind or resource.waiters > votes[behind[stage]]:
                behind[stage] = vote
        out = len(resource.held)
        if out > most_out:
            calling, most_out = key, out
    held_back = 0
    longest: tuple[int, str] | None = None
    for backlog in scheduler.backlogs():
        awaited = scheduler.awaited(backlog)
        if awaited is not None:
            vote = behind.get(awaited) or ("task_admission", awaited)
        elif not scheduler.resource_limits:
            vote = ("task_admission", None)
        else:
            held_back += backlog.queued
            column, queued = backlog.longest()
            longest = min(longest or (-queued, column), (-queued, column))
            continue
        votes[vote] = votes.get(vote, 0) + backlog.queued
    if longest is not None:
        votes["fairness", longest[1]] = held_back
    if votes:
        return _limit(*(_most(votes) if len(votes) > 1 else next(iter(votes))))
    if calling is not None:
        return _limit("provider", str(calling))
    if model_tasks_call:
        for column in scheduler.running_by_column:
            facts = scheduler.columns.get(column)
            if facts is not None and facts.calls_models:
                return _limit("provider", column)
    return _of_deferrals(scheduler)


@lru_cache(maxsize=1024)
def _limit(layer: Layer, where: str | None) -> Limit:
    """The one that says this: the same limit is asked about at every event."""
    return Limit(layer, where)


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


def _most(votes: dict[_Vote, int]) -> _Vote:
    by_layer: dict[Layer, int] = {}
    for (layer, _), count in votes.items():
        by_layer[layer] = by_layer.get(layer, 0) + count
    most = min(by_layer, key=lambda layer: (-by_layer[layer], _NEAREST_FIRST[layer]))
    return min((vote for vote in votes if vote[0] == most), key=lambda vote: (-votes[vote], vote[1] or ""))


def _of_deferrals(scheduler: SchedulerReplay) -> Limit | None:
    if not scheduler.deferred_by_cause:
        return None
    votes: dict[_Vote, int] = {}
    for (column, reason), count in scheduler.deferred_by_cause.items():
        vote = layer_of_deferral(reason), column
        votes[vote] = votes.get(vote, 0) + count
    return _limit(*max(votes, key=votes.__getitem__))

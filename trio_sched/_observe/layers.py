"""The layers that can hold work back, time divided among them, and which of them limits progress at one instant.

    readiness          inputs are missing: nothing more is ready to run
    fairness           ready and queued while its resources are free: order or policy holds it back
    task_admission     ready and queued while a stage resource that it needs is full
    request_admission  a model call waits for its lease
    cooldown           the same, while its resource is stopped and nothing at all may go out there
    provider           a model call is out; or a task waits to repeat one that failed
    completion         the rest of the work: a column's own code outside model calls, and making rows durable

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
durable or the run ends, it was `completion`. (See `timeline.py`.)

Without the request stream it is unknown when a model call is out. Then a running task of a model group counts as one.

Times are whole nanoseconds, so that the parts of a breakdown add up to the whole exactly, in any order.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal, TypeAlias, get_args

import attrs

from trio_sched._observe.request_replay import ReplayedResource, RequestReplay
from trio_sched._observe.scheduler_replay import SchedulerReplay
from trio_sched._resources.identity import RequestResourceKey
from trio_sched._resources.task import SchedulerResourceKey, endpoint_stage_resource

__all__ = [
    "LAYERS",
    "Activity",
    "ActivityKind",
    "Layer",
    "Limit",
    "WaitBreakdown",
    "activity_at",
    "layer_of_deferral",
    "limit_now",
    "nanoseconds",
    "open_limit",
    "seconds",
]

Layer = Literal["readiness", "fairness", "task_admission", "request_admission", "cooldown", "provider", "completion"]
LAYERS: Final[tuple[Layer, ...]] = get_args(Layer)

_PER_SECOND: Final = 1_000_000_000


def nanoseconds(time: float) -> int:
    """A time of the run's clock, in seconds, as whole nanoseconds."""
    return round(time * _PER_SECOND)


def seconds(time: int) -> float:
    """Whole nanoseconds as seconds."""
    return time / _PER_SECOND


@attrs.frozen
class WaitBreakdown:
    """A length of time in nanoseconds, divided among the layers. Each instant belongs to exactly one."""

    readiness: int = 0
    fairness: int = 0
    task_admission: int = 0
    request_admission: int = 0
    cooldown: int = 0
    provider: int = 0
    completion: int = 0

    @property
    def total(self) -> int:
        """The whole length, in nanoseconds."""
        return sum(self.nanoseconds().values())

    @property
    def largest(self) -> Layer:
        """The layer with the most time; of equal ones the first named."""
        times = self.nanoseconds()
        return max(LAYERS, key=times.__getitem__)

    def nanoseconds(self) -> dict[Layer, int]:
        """All layers with their times."""
        return {
            "readiness": self.readiness,
            "fairness": self.fairness,
            "task_admission": self.task_admission,
            "request_admission": self.request_admission,
            "cooldown": self.cooldown,
            "provider": self.provider,
            "completion": self.completion,
        }

    def seconds(self) -> dict[Layer, float]:
        """All layers with their times in seconds."""
        return {layer: seconds(time) for layer, time in self.nanoseconds().items()}

    def shares(self) -> dict[Layer, float]:
        """All layers with their share of the whole, from 0 to 1; all 0 if there is no time."""
        total = self.total
        return {layer: time / total if total else 0.0 for layer, time in self.nanoseconds().items()}

    def __add__(self, other: WaitBreakdown) -> WaitBreakdown:
        mine, others = self.nanoseconds(), other.nanoseconds()
        return WaitBreakdown(**{layer: mine[layer] + others[layer] for layer in LAYERS})


# Which layer limits

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
            name, stage = _names(key)
            vote: _Vote = ("cooldown" if resource.stopped_at(now) else "request_admission", name)
            votes[vote] = resource.waiters
            if stage not in behind or resource.waiters > votes[behind[stage]]:
                behind[stage] = vote
        out = len(resource.held)
        if out > most_out:
            calling, most_out = key, out
    held_back = 0
    longest: tuple[int, str] | None = None
    for backlog, awaited in scheduler.backlogs():
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
def _names(resource: RequestResourceKey) -> tuple[str, SchedulerResourceKey]:
    """A request resource by name, and the stage resource of its endpoint; making these takes longer than all else."""
    return str(resource), endpoint_stage_resource(resource.provider_model_key)


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


# What the limit of an endpoint is doing

ActivityKind = Literal["open", "probing", "stopped", "trial"]

_TRIES: Final = "evidence"
"""The rule that ends each stop with one trial call."""


@attrs.frozen
class Activity:
    """kind: see above. outage: whether the provider refuses everything. seconds_left: of a stop. asks_for: how many
    more calls a probe asks for. trial_follows: whether one trial call goes out when a stop ends.
    """

    kind: ActivityKind = "open"
    outage: bool = False
    seconds_left: float = 0.0
    asks_for: int = 0
    trial_follows: bool = False

    def __str__(self) -> str:
        if self.outage:
            return f"outage: {self._in_an_outage()}"
        match self.kind:
            case "probing":
                return f"asking for {'one' if self.asks_for == 1 else self.asks_for} more"
            case "stopped":
                left = f"{self.seconds_left:.1f} s"
                return f"stopped {left}, then one trial" if self.trial_follows else f"cooling down {left}"
            case "trial":
                return "one trial is out"
            case "open":
                return ""

    def _in_an_outage(self) -> str:
        if self.kind == "stopped":
            return f"next trial in {self.seconds_left:.1f} s"
        return "one trial is out" if self.kind == "trial" else "nothing answered yet"


def activity_at(resource: ReplayedResource, now: float) -> Activity:
    """What the rule of `resource` is about at `now`."""
    outage = resource.outage_since is not None
    if resource.stopped_at(now):
        assert resource.blocked_until is not None
        if resource.trial is not None:
            return Activity("trial", outage)
        follows = outage or resource.rule == _TRIES
        return Activity("stopped", outage, resource.blocked_until - now, trial_follows=follows)
    asked = resource.asked
    if asked is not None and asked.cause == "probe_started":
        return Activity("probing", outage, asks_for=asked.current - asked.previous)
    return Activity("open", outage)

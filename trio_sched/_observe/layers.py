"""The layers that can hold work back: which of them limits progress at one instant, and how a run's time divides.

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
durable or the run ends, it was `completion`.

Without the request stream it is unknown when a model call is out. Then a running task of a model group counts as one.

A `ProgressBook` divides the wall time of a run among the layers. Time is handed over in one piece after the other, each
with its limit, so every instant is counted once; an open piece is kept back until it is decided. What is shown over
time is in `TimeBins`, a bounded number of equal bins. When a run outgrows them, neighbours are joined and every bin
becomes twice as wide: memory is bounded by the number of series, and no sum loses anything.

Times are whole nanoseconds, so that the parts of a breakdown add up to the whole exactly, in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import lru_cache
from itertools import pairwise
from typing import Final, Literal, TypeAlias, get_args

import attrs

from trio_sched._observe.request_replay import RequestReplay
from trio_sched._observe.scheduler_replay import SchedulerReplay
from trio_sched._resources.identity import RequestResourceKey
from trio_sched._resources.task import SchedulerResourceKey, endpoint_stage_resource

__all__ = [
    "LAYERS",
    "Layer",
    "Limit",
    "LimitTime",
    "ProgressBook",
    "ProgressStretch",
    "TimeBins",
    "WaitBreakdown",
    "layer_of_deferral",
    "limit_now",
    "nanoseconds",
    "open_limit",
    "seconds",
]

Layer = Literal["readiness", "fairness", "task_admission", "request_admission", "cooldown", "provider", "completion"]
LAYERS: Final[tuple[Layer, ...]] = get_args(Layer)

_PER_SECOND: Final = 1_000_000_000
_LIMIT_BINS: Final = 240
_FIRST_LIMIT_WIDTH: Final = 1_000_000


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


# How the time of a run divides among the layers


@attrs.define
class _Level:
    value: int
    since: int


@attrs.define(eq=False)
class TimeBins:
    """Series by name. Times are nanoseconds of the run's clock, and begin with the first that is mentioned.

    width: of a bin, in nanoseconds. most: so many bins at the most.
    """

    width: int = 125_000_000
    most: int = 160
    started_at: int | None = None
    ended_at: int = 0
    _sums: dict[str, list[int]] = attrs.field(factory=dict[str, list[int]], init=False)
    _levels: dict[str, _Level] = attrs.field(factory=dict[str, _Level], init=False)

    def reach(self, at: int) -> None:
        """The run got at least to `at`."""
        if self.started_at is None:
            self.started_at = self.ended_at = at
        elif at > self.ended_at:
            self.ended_at = at

    def add(self, series: str, at: int, amount: int) -> None:
        """Something happened `amount` times at `at`."""
        self.reach(at)
        index = self._fit(at)
        self._series(series, index)[index] += amount

    def spread(self, series: str, since: int, until: int, level: int = 1) -> None:
        """Something was at `level` from `since` to `until`."""
        self.reach(since)
        self.reach(until)
        assert self.started_at is not None
        since = max(since, self.started_at)
        if until <= since:
            return
        last = self._fit(until - 1)
        sums = self._series(series, last)
        for index in range((since - self.started_at) // self.width, last + 1):
            end = min(until, self.started_at + (index + 1) * self.width)
            sums[index] += level * (end - since)
            since = end

    def divide(self, series: str, since: int, until: int, amount: int) -> None:
        """Something happened `amount` times, evenly from `since` to `until`."""
        self.reach(since)
        if until <= since:
            self.add(series, until, amount)
            return
        self.reach(until)
        last = self._fit(until - 1)
        sums = self._series(series, last)
        assert self.started_at is not None
        length, counted = until - since, 0
        for index in range((since - self.started_at) // self.width, last + 1):
            end = min(until, self.started_at + (index + 1) * self.width)
            so_far = amount * (end - since) // length
            sums[index] += so_far - counted
            counted = so_far

    def set_level(self, series: str, at: int, value: int, *, before: int | None = None) -> None:
        """Something is at `value` from `at` on. before: what it was until then, if it is set first; None: the same."""
        self.reach(at)
        level = self._levels.get(series)
        if level is None:
            assert self.started_at is not None
            level = self._levels[series] = _Level(value if before is None else before, self.started_at)
        if level.value != value:
            self.spread(series, level.since, at, level.value)
            level.value, level.since = value, at

    def close(self) -> None:
        """Take the levels up to the end."""
        for series, level in self._levels.items():
            self.spread(series, level.since, self.ended_at, level.value)
            level.since = self.ended_at

    def edges(self) -> list[int]:
        """Where each bin begins, in nanoseconds since the start, and where the last one ends; none without time."""
        length = self.ended_at - self.started_at if self.started_at is not None else 0
        return [*range(0, length, self.width), length] if length else []

    def times(self) -> list[float]:
        """Where each bin begins, in seconds since the start."""
        return [seconds(edge) for edge in self.edges()[:-1]]

    def sums(self, series: str) -> Sequence[int]:
        """What was summed in each bin: counts of what was added, levels times nanoseconds of what was spread."""
        bins = max(0, len(self.edges()) - 1)
        sums = self._sums.get(series, [])
        values = [*sums[:bins], *[0] * (bins - len(sums))]
        if values and len(sums) > bins:
            # What happened at the very end, on the edge of a bin, belongs to the last one.
            values[-1] += sums[bins]
        return values

    def per_second(self, series: str) -> Sequence[float]:
        """How often something happened, by the bin's length, which is shorter for the last one."""
        return [count / seconds(length) for count, length in zip(self.sums(series), self._lengths(), strict=True)]

    def means(self, series: str) -> Sequence[float]:
        """The mean level of each bin."""
        return [level / length for level, length in zip(self.sums(series), self._lengths(), strict=True)]

    def total(self, series: str) -> int:
        """Everything that was summed."""
        return sum(self._sums.get(series, ()))

    def _lengths(self) -> list[int]:
        edges = self.edges()
        return [end - begin for begin, end in pairwise(edges)]

    def _fit(self, at: int) -> int:
        """The bin of `at`, after the bins became as wide as that takes."""
        assert self.started_at is not None
        while (at - self.started_at) // self.width >= self.most:
            self.width *= 2
            for name, sums in self._sums.items():
                self._sums[name] = [sum(sums[index : index + 2]) for index in range(0, len(sums), 2)]
        return max(0, at - self.started_at) // self.width

    def _series(self, series: str, index: int) -> list[int]:
        """The sums of a series, as far as the bin `index`."""
        sums = self._sums.setdefault(series, [])
        if index >= len(sums):
            sums.extend([0] * (index + 1 - len(sums)))
        return sums


@attrs.frozen
class ProgressStretch:
    """A part of the run, on its clock in seconds, and what limited it how long."""

    started_at: float
    ended_at: float
    limited_by: WaitBreakdown


@attrs.frozen
class LimitTime:
    """How long one layer limited at one place: a request resource, stage resource or column, or None for no one."""

    layer: Layer
    where: str | None
    nanoseconds: int


@attrs.define(eq=False)
class ProgressBook:
    """Divides the time from `start` (nanoseconds) on.

    until: the end of the time that was handed over, in nanoseconds.
    """

    start: int
    until: int = attrs.field(init=False)
    _bins: TimeBins = attrs.field(init=False)
    _by_limit: dict[Limit, int] = attrs.field(factory=dict[Limit, int], init=False)
    _open: int = attrs.field(default=0, init=False)
    _limit: Limit | None = attrs.field(default=None, init=False)
    """That of the last piece, which began at `_since`; the next may have the same, and is then summed with it."""
    _since: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.until = self.start
        self._bins = TimeBins(_FIRST_LIMIT_WIDTH, _LIMIT_BINS, self.start, self.start)

    def spend(self, until: int, limit: Limit | None) -> None:
        """The time up to `until` was limited so; with None it is open."""
        if limit is None:
            self._sum_up()
            self._open += until - self.until
        elif limit is not self._limit:
            self._sum_up()
            # What was under way ended in nothing that anybody waited for.
            self.decide("completion")
            self._limit, self._since = limit, self.until
        self.until = until

    def decide(self, layer: Layer) -> None:
        """The open piece before now, if there is one, was limited by `layer`."""
        if self._open:
            self._sum(self.until - self._open, self.until, Limit(layer))
            self._open = 0

    def times(self, *, open_as: Layer) -> tuple[WaitBreakdown, tuple[LimitTime, ...], tuple[ProgressStretch, ...]]:
        """The whole, by place (most first), and the time bins. A piece that is open still is shown as `open_as`."""
        self._sum_up()
        book = self if not self._open else deepcopy(self)
        book.decide(open_as)
        bins = book._bins
        edges = [seconds(book.start + edge) for edge in bins.edges()]
        divided = zip(*(bins.sums(layer) for layer in LAYERS), strict=True)
        stretches = tuple(
            ProgressStretch(begin, end, WaitBreakdown(*times))
            for (begin, end), times in zip(pairwise(edges), divided, strict=True)
        )
        by_limit = sorted(book._by_limit.items(), key=lambda entry: (-entry[1], entry[0].layer, entry[0].where or ""))
        places = tuple(LimitTime(limit.layer, limit.where, time) for limit, time in by_limit)
        return WaitBreakdown(*map(bins.total, LAYERS)), places, stretches

    def _sum_up(self) -> None:
        if self._limit is not None:
            self._sum(self._since, self.until, self._limit)
            self._limit = None

    def _sum(self, since: int, until: int, limit: Limit) -> None:
        if until > since:
            self._by_limit[limit] = self._by_limit.get(limit, 0) + until - since
            self._bins.spread(limit.layer, since, until)

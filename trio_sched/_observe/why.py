"""Why is a run slow, or why does it stall: its wait-for chain, live or afterwards, with where its time went.

The chain starts with the oldest row group that has unfinished tasks, names what most of the waiting work waits in (as
`layers.py` decides it), and ends with the cause. Of a run that is over, the chain is that of the moment before it was
stopped, and there is none where it simply completed; what is always there is the division of the time.

Beside it stand the endpoints whose calls fail, which no division of time can show: where every call fails at once, most
of the time may still be spent waiting for a place. They are named as soon as half of their calls, of all or of the
latest, have failed. A rate limit is no failure here: it shows in the limit of the resource and in its stops. Nor is a
call that was cancelled from this side a failure.

`explain` works on a live `RuntimeViewBuilder`, `why` on a run's folder. Both give a frozen `Explanation`, with a text
for people, and JSON for programs through `to_json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

from trio_sched._events.records import JsonValue
from trio_sched._observe.layers import Limit, LimitTime, WaitBreakdown, seconds
from trio_sched._observe.recorded_run import RunState, build_view, recorded_state, run_document
from trio_sched._observe.request_replay import ReplayedResource
from trio_sched._observe.view import CorrelatedRuntimeView, RuntimeViewBuilder
from trio_sched._observe.wait_chain import WaitLink
from trio_sched._resources.identity import RequestResourceKey
from trio_sched._util import counted, page

__all__ = ["Explanation", "FailingCalls", "explain", "failing_calls", "why"]

_PLACES_SHOWN: Final = 5
_PROBLEMS_SHOWN: Final = 20
_FAILING_SHARE: Final = 0.5
"""The share of failed attempts at which a run stops by default, too."""


@attrs.frozen
class FailingCalls:
    """Of all `calls` that ended at a request resource, `failed` failed; of the latest `recent_calls`, `recent_failed`.

    outcome: what most of those that failed ended in.
    """

    resource: str
    calls: int
    failed: int
    recent_calls: int
    recent_failed: int
    outcome: str

    def __str__(self) -> str:
        recent = ""
        if self.calls > self.recent_calls:
            recent = f", {self.recent_failed:,} of the last {self.recent_calls:,}"
        return (
            f"{self.failed:,} of {counted(self.calls, 'call')} at {self.resource} failed{recent}; most: {self.outcome}"
        )


@attrs.frozen
class Explanation:
    """state: `running` also of a run that was killed, where that is unknown. limit: what limits now, or did.

    chain: from who waits to the cause; empty for a run that completed, and where events are missing. wall_seconds: the
    time that its events cover. limited_by: that time by layer. limits: the same by layer and place, most first.
    problems: what is missing of the events. failing: request resources of which at least half of the calls failed, of
    all or of the latest hundred.
    """

    state: RunState
    limit: Limit | None
    chain: tuple[WaitLink, ...]
    wall_seconds: float
    limited_by: WaitBreakdown
    limits: tuple[LimitTime, ...]
    problems: tuple[str, ...] = ()
    failing: tuple[FailingCalls, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether all events are there."""
        return not self.problems

    def to_json(self) -> dict[str, JsonValue]:
        """The explanation as plain JSON; each link says its `kind` and its `text`."""
        return {
            "state": self.state,
            "limiting_layer": None if self.limit is None else self.limit.layer,
            "limiting_place": None if self.limit is None else self.limit.where,
            "chain": [{**attrs.asdict(link), "text": str(link)} for link in self.chain],
            "wall_seconds": self.wall_seconds,
            "limited_by_seconds": dict(self.limited_by.seconds().items()),
            "limits": [
                {"layer": each.layer, "where": each.where, "seconds": seconds(each.nanoseconds)} for each in self.limits
            ],
            "complete": self.complete,
            "problems": list(self.problems),
            "failing_calls": [{**attrs.asdict(each), "text": str(each)} for each in self.failing],
        }

    def __str__(self) -> str:
        lines = list(self.problems[:_PROBLEMS_SHOWN])
        if len(self.problems) > _PROBLEMS_SHOWN:
            lines.append(f"and {len(self.problems) - _PROBLEMS_SHOWN:,} more of the kind")
        if self.chain:
            lines.append(" ← ".join(map(str, self.chain)))
        lines += map(str, self.failing)
        limited = "; its progress was limited by" if self.limits else ""
        words, before = _STATES[self.state]
        took = f" {before}" if self.complete and before else "; its events cover"
        lines.append(f"{words}{took} {self.wall_seconds:.1f} s{limited}")
        for each in self.limits[:_PLACES_SHOWN]:
            where = f" on {each.where}" if each.where is not None else ""
            share = each.nanoseconds / self.limited_by.total
            lines.append(f"  {share:>6.1%}  {seconds(each.nanoseconds):>8.1f} s  {each.layer.replace('_', ' ')}{where}")
        return page(lines)


_STATES: Final[dict[RunState, tuple[str, str]]] = {
    "running": ("not ended", "after"),
    "killed": ("killed", ""),
    "unknown": ("not known to have ended", ""),
    "completed": ("completed", "in"),
    "failed": ("failed", "after"),
    "stopped": ("stopped", "after"),
    "interrupted": ("interrupted", "after"),
}
"""Words for each state, and what to put before the time that it took, where the events show that."""

_GOING_ON: Final = ("running", "killed")
_STOPPED: Final = ("failed", "stopped", "interrupted")


def why(run_folder: Path) -> Explanation:
    """Explain a run from its folder. Raises `NoEventsError`, or `OSError` for files that cannot be read.

    Events end alike where a run goes on and where it was killed; `run.json` says which it is.
    """
    builder, recorded = build_view(run_folder, max_executions=0)
    view = builder.view(problems=recorded.problems(), missing_events=recorded.missing_events)
    return _explain(builder, view, recorded_state(run_document(run_folder), builder.result), None)


def explain(builder: RuntimeViewBuilder, *, now: float | None = None, problems: tuple[str, ...] = ()) -> Explanation:
    """Explain a run as `builder` knows it, at `now` on its clock, or at its last event.

    problems: what is missing of the events, where that is known.
    """
    view = builder.view(now=now, problems=problems)
    return _explain(builder, view, recorded_state({"status": "running"}, builder.result), now)


def _explain(
    builder: RuntimeViewBuilder, view: CorrelatedRuntimeView, state: RunState, now: float | None
) -> Explanation:
    limit: Limit | None = None
    chain: tuple[WaitLink, ...] = ()
    if view.complete and state in _GOING_ON:
        limit, chain = builder.chain(now)
    elif view.complete and state in _STOPPED:
        limit, chain = builder.stopped_at or builder.chain(now)
    failing = failing_calls(builder.requests.resources)
    return Explanation(state, limit, chain, view.wall_seconds, view.limited_by, view.limits, view.problems, failing)


def failing_calls(resources: Mapping[RequestResourceKey, ReplayedResource]) -> tuple[FailingCalls, ...]:
    """Those resources of which so many calls fail that they are reported, the one with most failures first."""
    failing: list[FailingCalls] = []
    for key, resource in resources.items():
        failures, recent = resource.failures, resource.recent_failed
        failed, recently = sum(failures.values()), sum(recent)
        if not failed or (failed < _FAILING_SHARE * resource.calls and recently < _FAILING_SHARE * len(recent)):
            continue
        outcome = max(failures, key=failures.__getitem__)
        failing.append(FailingCalls(str(key), resource.calls, failed, len(recent), recently, outcome))
    return tuple(sorted(failing, key=lambda each: -each.failed))

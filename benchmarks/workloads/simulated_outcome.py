"""What one iteration of a simulated pipeline reports, from its world and its events: the same for every candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.workloads.outcome import Json, Outcome, Params
from benchmarks.workloads.samples import Stopwatch, rows_hash
from benchmarks.workloads.simulated_pipelines import PIPELINES, PipelineSpec
from benchmarks.workloads.simulated_world import World
from benchmarks.workloads.timeline_metrics import derived, first_times
from benchmarks.workloads.timelines import EXCERPT, counted, entries, name_of

__all__ = ["outcome_of", "pipeline_of"]

HIDDEN: Final = "hidden_scheduler_resource_waiters"
OF_PRESSURE: Final = (
    "effective_max",
    "current_limit",
    "in_flight_count",
    "active_lease_count",
    "waiters",
    "rate_limit_ceiling",
    "consecutive_rate_limits",
    "last_outcome",
)


def pipeline_of(params: Params) -> PipelineSpec:
    """The pipeline that `params` name, with their changes."""
    return PIPELINES[str(params["pipeline"])].changed(params)


def outcome_of(
    world: World,
    watch: Stopwatch,
    rows: Sequence[Mapping[str, Any]],
    *,
    scheduler_events: Sequence[Any] = (),
    request_events: Sequence[Any] = (),
    capacity_plan: Mapping[str, Json] | None = None,
) -> Outcome:
    """One iteration, whose finished rows are `rows`."""
    spec = world.spec
    roots = spec.roots
    timeline = entries(scheduler_events, request_events)
    tasks = spec.records * spec.cells
    lost = 0 if spec.cancel_after is not None else sum(map(world.can_be_made, range(spec.records))) - len(rows)
    metrics = {**world.metrics(), **watch.each("task", tasks)}
    counts = {**world.counts(), "rows": len(rows), "rows_lost": lost}
    final_task, final_request = None, None
    if timeline:
        final_task = final_task_snapshot(scheduler_events)
        final_request = final_request_snapshot(request_events)
        limits = {str(name): int(limit) for name, limit in final_task["resource_limits"].items()}
        metrics |= {**derived(timeline, limits, roots), **first_times(timeline, roots)}
        metrics[HIDDEN] = max(metrics[HIDDEN], hidden_waiters(capacity_plan or {}))
        counts |= counted(timeline)
    return Outcome(
        wall_time_seconds=watch.wall,
        metrics=metrics,
        counts=counts,
        timeline=tuple(timeline[:EXCERPT]),
        final_task_snapshot=final_task,
        final_request_snapshot=final_request,
        output_hashes={} if lost or spec.cancel_after is not None else {"rows": rows_hash(rows)},
        capacity_plan=capacity_plan,
    )


def hidden_waiters(capacity_plan: Mapping[str, Any]) -> float:
    """The most workers that waited under their task lease, as the plan of the run says; 0 where it says nothing."""
    maxima: Mapping[str, Any] = capacity_plan.get("observed_maxima", {})
    return float(sum(maxima.get(HIDDEN, {}).values()))


def final_task_snapshot(events: Sequence[Any]) -> dict[str, Any]:
    """The last snapshot of the scheduler's stream, and how many leases its events leave held."""
    snapshot: dict[str, Any] = next(
        dict(event.snapshot) for event in reversed(events) if event.event_kind == "scheduler_job_completed"
    )
    return {**snapshot, "leased": _held(events, "task_lease")}


def final_request_snapshot(events: Sequence[Any]) -> dict[str, Any]:
    """How many leases and waiters the events leave, and the last pressure snapshot of every resource."""
    kinds = [event.event_kind for event in events]
    ended = ("request_wait_completed", "request_wait_timeout", "request_wait_cancelled")
    last = {name_of(event.request_resource_key): event.pressure_snapshot for event in events if event.pressure_snapshot}
    return {
        "leased": _held(events, "request_lease"),
        "waiters": kinds.count("request_wait_started") - sum(map(kinds.count, ended)),
        "resources": {str(name): _pressure(snapshot) for name, snapshot in last.items()},
    }


def _pressure(snapshot: Any) -> dict[str, Any]:
    """What is the same in every implementation's pressure snapshot."""
    fields = snapshot if isinstance(snapshot, Mapping) else {name: getattr(snapshot, name) for name in OF_PRESSURE}
    return {name: fields[name] for name in OF_PRESSURE}


def _held(events: Sequence[Any], lease: str) -> int:
    kinds = [event.event_kind for event in events]
    return kinds.count(f"{lease}_acquired") - kinds.count(f"{lease}_released")

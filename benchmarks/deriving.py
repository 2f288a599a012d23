"""What follows from the iterations: figures, ratios, budgets, gates. A pure function, so that a check can repeat it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from benchmarks.artifact import (
    Comparison,
    DerivedMetrics,
    GateVerdict,
    Iteration,
    Noise,
    Skipped,
    Summary,
)
from benchmarks.budgets import judge_budgets
from benchmarks.figures import judge, summarise

__all__ = ["PointKey", "derive", "key_of"]

PointKey: TypeAlias = tuple[tuple[str, object], ...]

HIDDEN: Final = "hidden_scheduler_resource_waiters"
SAME_FOR_ALL: Final = frozenset({"enqueued", "peak_in_flight", "served"})
LIMITS: Final = (
    ("wall time within 5 % of the baseline", "wall_time_seconds", 1.05),
    ("95th percentiles within 10 % of the baseline", "_p95_us", 1.10),
)


def derive(
    scenario_id: str,
    iterations: Sequence[Iteration],
    *,
    inputs: Mapping[str, object],
    skipped: Sequence[Skipped],
    noise: Noise | None,
) -> DerivedMetrics:
    """Everything that is claimed of a run with these recorded inputs."""
    candidate, baseline, smoke = str(inputs["candidate"]), str(inputs["baseline"]), inputs["profile"] == "smoke"
    gates = [_nothing_left(iterations), _equal_hashes(iterations), _ordered(iterations), _nobody_hidden(iterations)]
    if smoke:
        gates.append(_counts_repeat(iterations))
    else:
        gates.append(_same_work(iterations))
    if inputs["against"] is not None:
        gates += (_not_slower(iterations, candidate, baseline, *limit) for limit in LIMITS)
    return DerivedMetrics(
        summaries=tuple(_summaries(iterations)),
        comparisons=tuple(_comparisons(iterations, candidate)),
        budgets=judge_budgets(scenario_id, iterations, candidate, smoke=smoke),
        gates=tuple(gates),
        skipped=tuple(skipped),
        noise=noise,
    )


def key_of(point: Mapping[str, object]) -> PointKey:
    """A point as something to group by."""
    return tuple(point.items())


def _measured(each: Iteration) -> dict[str, float]:
    """The metrics of an iteration, with those that the worker measured around it."""
    return {
        **each.metrics,
        "wall_time_seconds": each.wall_time_seconds,
        "cpu_time_seconds": each.cpu_time_seconds,
        "peak_memory_bytes": float(each.peak_memory_bytes),
    }


def _by_series(iterations: Sequence[Iteration]) -> dict[tuple[PointKey, str, str], dict[int, float]]:
    """Values by iteration of every (point, candidate, metric)."""
    series: dict[tuple[PointKey, str, str], dict[int, float]] = {}
    for each in iterations:
        for metric, value in _measured(each).items():
            series.setdefault((key_of(each.point), each.candidate, metric), {})[each.index] = value
    return series


def _summaries(iterations: Sequence[Iteration]) -> list[Summary]:
    points = {key_of(each.point): each.point for each in iterations}
    return [
        Summary(candidate, points[key], metric, summarise(list(values.values())))
        for (key, candidate, metric), values in _by_series(iterations).items()
    ]


def _comparisons(iterations: Sequence[Iteration], candidate: str) -> list[Comparison]:
    """The candidate's times against everybody else's: above 1 it is ahead."""
    points = {key_of(each.point): each.point for each in iterations}
    series = _by_series(iterations)
    found: list[Comparison] = []
    for (key, name, metric), theirs in series.items():
        ours = series.get((key, candidate, metric))
        if name == candidate or ours is None or not metric.endswith(("_us", "_seconds")) or metric.endswith("_p95_us"):
            continue
        ratios = [theirs[index] / ours[index] for index in sorted(theirs.keys() & ours.keys()) if ours[index]]
        if ratios:
            verdict = judge(ratios, lambda ratio: ratio > 1)
            found.append(Comparison(candidate, name, points[key], metric, summarise(ratios), verdict))
    return found


def _nothing_left(iterations: Sequence[Iteration]) -> GateVerdict:
    """No lease and no waiter is left at the end of any iteration."""
    left = [
        f"{each.candidate} {name} {value}"
        for each in iterations
        for snapshot in (each.final_task_snapshot, each.final_request_snapshot)
        if snapshot is not None
        for name, value in snapshot.items()
        if name in ("leased", "in_flight", "waiters", "leaks") and value != 0
    ]
    return GateVerdict("no lease and no waiter left", not left, "; ".join(left[:3]))


def _equal_hashes(iterations: Sequence[Iteration]) -> GateVerdict:
    """Whoever computes the same at a point has the same hash of it."""
    seen: dict[tuple[PointKey, str], set[str]] = {}
    for each in iterations:
        for name, value in each.output_hashes.items():
            seen.setdefault((key_of(each.point), name), set()).add(value)
    differ = [f"{name} at {dict(key)}" for (key, name), values in seen.items() if len(values) > 1]
    return GateVerdict("equal hashes", None if not seen else not differ, "; ".join(differ[:3]))


def _same_work(iterations: Sequence[Iteration]) -> GateVerdict:
    """Everybody does the same work, as far as the time that it may take does not cut it short."""
    seen: dict[tuple[PointKey, str], set[int]] = {}
    for each in iterations:
        for name in SAME_FOR_ALL & each.counts.keys():
            seen.setdefault((key_of(each.point), name), set()).add(each.counts[name])
    differ = [f"{name} at {dict(key)}: {sorted(values)}" for (key, name), values in seen.items() if len(values) > 1]
    return GateVerdict("same work", None if not seen else not differ, "; ".join(differ[:3]))


def _counts_repeat(iterations: Sequence[Iteration]) -> GateVerdict:
    """Whatever is counted is the same in every iteration of a candidate."""
    seen: dict[tuple[PointKey, str, str], set[int]] = {}
    for each in iterations:
        for name, value in each.counts.items():
            seen.setdefault((key_of(each.point), each.candidate, name), set()).add(value)
    differ = [f"{name} at {dict(key)}: {sorted(values)}" for (key, _, name), values in seen.items() if len(values) > 1]
    return GateVerdict("counts repeat", not differ, "; ".join(differ[:3]))


def _nobody_hidden(iterations: Sequence[Iteration]) -> GateVerdict:
    """No running worker waits for a resource of the scheduler."""
    waiting = [each.metrics[HIDDEN] for each in iterations if HIDDEN in each.metrics]
    return GateVerdict("no hidden waiter", None if not waiting else not any(waiting))


def _not_slower(
    iterations: Sequence[Iteration], candidate: str, baseline: str, gate: str, suffix: str, limit: float
) -> GateVerdict:
    """No time that ends in `suffix` has grown beyond `limit`, as far as the iterations show it."""
    series = _by_series(iterations)
    slower: list[str] = []
    for (key, name, metric), ours in series.items():
        theirs = series.get((key, baseline, metric))
        if name != candidate or theirs is None or not metric.endswith(suffix):
            continue
        ratios = [ours[index] / theirs[index] for index in sorted(ours.keys() & theirs.keys()) if theirs[index]]
        if ratios and judge(ratios, lambda ratio: ratio <= limit) == "refuted":
            slower.append(f"{metric} at {dict(key)}: {summarise(ratios).mean:.2f} ×")
    return GateVerdict(gate, not slower, "; ".join(slower[:5]))


def _ordered(iterations: Sequence[Iteration]) -> GateVerdict:
    """The sequence of each stream of a timeline only rises."""
    with_timeline = [each for each in iterations if each.timeline]
    broken = 0
    for each in with_timeline:
        last: dict[str, int] = {}
        for entry in each.timeline:
            broken += entry.sequence <= last.get(entry.stream, -1)
            last[entry.stream] = entry.sequence
    return GateVerdict(
        "monotonic timelines", None if not with_timeline else not broken, f"{broken} out of order" if broken else ""
    )

"""What follows from the iterations: figures, ratios, budgets, gates. A pure function, so that a check can repeat it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.artifact import Comparison, DerivedMetrics, Iteration, Noise, Skipped, Summary
from benchmarks.budgets import judge_budgets
from benchmarks.figures import judge, summarise
from benchmarks.gates import judge_gates
from benchmarks.series import by_series, key_of

__all__ = ["derive"]


def derive(
    scenario_id: str,
    iterations: Sequence[Iteration],
    *,
    inputs: Mapping[str, object],
    skipped: Sequence[Skipped],
    noise: Noise | None,
) -> DerivedMetrics:
    """Everything that is claimed of a run with these recorded inputs."""
    candidate, smoke = str(inputs["candidate"]), inputs["profile"] == "smoke"
    return DerivedMetrics(
        summaries=tuple(_summaries(iterations)),
        comparisons=tuple(_comparisons(iterations, candidate)),
        budgets=judge_budgets(scenario_id, iterations, candidate, smoke=smoke),
        gates=judge_gates(scenario_id, iterations, inputs),
        skipped=tuple(skipped),
        noise=noise,
    )


def _summaries(iterations: Sequence[Iteration]) -> list[Summary]:
    points = {key_of(each.point): each.point for each in iterations}
    return [
        Summary(candidate, points[key], metric, summarise(list(values.values())))
        for (key, candidate, metric), values in by_series(iterations).items()
    ]


def _comparisons(iterations: Sequence[Iteration], candidate: str) -> list[Comparison]:
    """The candidate's times against everybody else's: above 1 it is ahead."""
    points = {key_of(each.point): each.point for each in iterations}
    series = by_series(iterations)
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

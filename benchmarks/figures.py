"""The statistics of the reports, and when a claim counts as shown.

A claim is about one number for each measured iteration, such as the ratio of two candidates that ran next to each
other. It is shown when it is true of the mean of all iterations, and still true without the fastest and the slowest
one; it is refuted when it is false of both; otherwise it is inconclusive.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Literal

import attrs

from benchmarks.workloads.samples import quantile

__all__ = ["Figures", "Verdict", "judge", "summarise", "without_extremes"]

Verdict = Literal["shown", "refuted", "inconclusive"]


@attrs.frozen
class Figures:
    """What is reported of the iterations' values."""

    mean: float
    p50: float
    p95: float
    minimum: float
    maximum: float
    standard_deviation: float
    iterations: int


def summarise(values: Sequence[float]) -> Figures:
    """The figures of one or more values."""
    ordered = sorted(values)
    return Figures(
        mean=statistics.fmean(ordered),
        p50=quantile(ordered, 0.5),
        p95=quantile(ordered, 0.95),
        minimum=ordered[0],
        maximum=ordered[-1],
        standard_deviation=statistics.stdev(ordered) if len(ordered) > 1 else 0.0,
        iterations=len(ordered),
    )


def without_extremes(values: Sequence[float]) -> Sequence[float]:
    """The values without the smallest and the largest one, as far as that leaves any."""
    return sorted(values)[1:-1] if len(values) > 2 else values


def judge(values: Sequence[float], claim: Callable[[float], bool]) -> Verdict:
    """Whether `claim` is shown by the values of the iterations."""
    all_of_them = claim(statistics.fmean(values))
    if all_of_them != claim(statistics.fmean(without_extremes(values))):
        return "inconclusive"
    return "shown" if all_of_them else "refuted"

"""The iterations of a run, sorted by what is compared with what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from benchmarks.artifact import Iteration

__all__ = ["PointKey", "by_series", "key_of", "measured"]

PointKey: TypeAlias = tuple[tuple[str, object], ...]


def key_of(point: Mapping[str, object]) -> PointKey:
    """A point as something to group by."""
    return tuple(point.items())


def measured(each: Iteration) -> dict[str, float]:
    """The metrics of an iteration, with those that the worker measured around it."""
    return {
        **each.metrics,
        "wall_time_seconds": each.wall_time_seconds,
        "cpu_time_seconds": each.cpu_time_seconds,
        "peak_memory_bytes": float(each.peak_memory_bytes),
    }


def by_series(iterations: Sequence[Iteration]) -> dict[tuple[PointKey, str, str], dict[int, float]]:
    """Values by iteration of every (point, candidate, metric)."""
    series: dict[tuple[PointKey, str, str], dict[int, float]] = {}
    for each in iterations:
        for metric, value in measured(each).items():
            series.setdefault((key_of(each.point), each.candidate, metric), {})[each.index] = value
    return series

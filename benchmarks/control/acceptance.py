"""The acceptance table: what is asked at which scenarios, and whether it was kept.

A line has a group of scenarios and bounds. It is *kept* at a scenario if every seed keeps every bound, kept *on
average* if the mean over the seeds does, else *missed*. A line without bounds is reported and asks nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final, Literal

from benchmarks.control.worlds import Measures

__all__ = ["HIGHER_IS_BETTER", "LINES", "Bound", "Line", "Summary", "Verdict", "judge", "summed_up"]

Verdict = Literal["kept", "on average", "missed", "reported"]
HIGHER_IS_BETTER: Final = frozenset({"utilisation", "jain", "neighbour"})


@dataclass(frozen=True)
class Bound:
    """At least so much of what is better high, at most so much of anything else."""

    measure: str
    value: float

    def kept_by(self, value: float) -> bool:
        """Whether a figure keeps it; a figure on the bound does."""
        if self.measure in HIGHER_IS_BETTER:
            return value >= self.value - 1e-9
        return value <= self.value + 1e-9

    def worst_of(self, values: Iterable[float]) -> float:
        """The worst of several figures."""
        return min(values) if self.measure in HIGHER_IS_BETTER else max(values)


@dataclass(frozen=True)
class Line:
    """A line of the table. group: of its scenarios, and its name."""

    group: str
    bounds: tuple[Bound, ...] = ()


@dataclass(frozen=True)
class Summary:
    """A measure over the seeds."""

    mean: float
    worst: float


def _line(group: str, **bounds: float) -> Line:
    return Line(group, tuple(Bound(measure, value) for measure, value in bounds.items()))


LINES: Final[Mapping[str, Line]] = {
    line.group: line
    for line in (
        _line("limit from 8 up", utilisation=0.95, refused=0.01),
        _line("limit below 8", utilisation=0.9, refused=0.04),
        _line("limit of 1", utilisation=0.9, refused=0.08),
        _line("24, 8, 24", utilisation=0.9, refused=0.03),
        _line("growth 8 to 24", recovery=25.0),
        _line("growth 32 to 256", recovery=15.0),
        _line("growth 16 to 500", recovery=15.0),
        _line("outage or flood", recovery=10.0, trials=1.0),
        _line("cold start", refused=0.02),
        _line("late refusals", utilisation=0.95, refused=0.013),
        _line("30 % failing fast", utilisation=0.95, refused=0.013),
        _line("drift 16 to 128", utilisation=0.93, refused=0.013),
        _line("long tails", utilisation=0.93, refused=0.013),
        _line("calls in time", utilisation=0.9, refused=0.02),
        _line("calls in fixed windows", utilisation=0.9, refused=0.04),
        _line("two clients", jain=0.95),
        _line("two clients, other gaps"),
        _line("limit behind a network"),
        _line("cold start, other"),
        _line("calls in time, other"),
        _line("24 and 8 at random"),
        _line("calls that hang"),
        _line("a neighbour that does not adapt"),
    )
}


def summed_up(runs: Sequence[Measures]) -> dict[str, Summary]:
    """Mean and worst of every measure over the seeds; one that not every seed has counts as 0 where it is missing."""
    names = dict.fromkeys(name for measures in runs for name in measures)
    found: dict[str, Summary] = {}
    for name in names:
        values = [measures.get(name, 0.0) for measures in runs]
        found[name] = Summary(fmean(values), min(values) if name in HIGHER_IS_BETTER else max(values))
    return found


def judge(line: Line, summary: Mapping[str, Summary]) -> Verdict:
    """Whether a scenario keeps the bounds of its line."""
    if not line.bounds:
        return "reported"
    if all(bound.kept_by(summary[bound.measure].worst) for bound in line.bounds):
        return "kept"
    if all(bound.kept_by(summary[bound.measure].mean) for bound in line.bounds):
        return "on average"
    return "missed"

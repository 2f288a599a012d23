"""What a scenario is: its points, what it takes, and which module runs it for which kind of candidate."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping
from typing import TypeAlias

import attrs

from benchmarks.inputs import MEASURED_ITERATIONS, Inputs, Value
from benchmarks.workloads.outcome import Json

__all__ = ["Chart", "Headline", "Kind", "Point", "Scenario", "grid"]

Kind: TypeAlias = str
"""`project`, `floor`, or the name of a peer."""

Point: TypeAlias = Mapping[str, Value]
"""One value for every axis."""


@attrs.frozen
class Headline:
    """A metric that the summary shows in a table of its own; `baseline_metric` where the peer's counterpart differs."""

    metric: str
    title: str
    unit: str = "µs"


@attrs.frozen
class Chart:
    """How a metric grows with an axis: a line for each candidate and each value of the axes in `split`, at `where`.

    per: what the metric is divided by to come to the unit.
    """

    metric: str
    axis: str
    title: str
    axis_title: str
    unit: str
    split: tuple[str, ...] = ()
    where: Mapping[str, Value] = attrs.field(factory=dict[str, Value])
    per: float = 1.0


def nothing_skipped(_kind: Kind, _point: Point) -> str | None:
    """Every candidate runs every point."""
    return None


def all_in_one_block(_point: Point) -> Hashable:
    """All points are interleaved."""
    return None


@attrs.frozen
class Scenario:
    """One family of workloads.

    axes: the values of the full grid. budget_points: those that the budgets speak of. smoke_points: those of the smoke
    profile, whose counts must repeat exactly. params: what a worker is told for a point. skips: why a kind of candidate
    does not run a point. block: points with the same value take turns with each other. peer_needs: what the peer's
    environment must have besides the peer itself. beside: who takes part besides candidate and baseline, unless the
    command line says. provider_script, clock_script: what the providers of a point and the clock do, where a scenario
    has such. charts: what the summary draws. iterations: how often it is measured unless the command line says, and the
    least that an artifact must have. remark: what its artifact says of how it is measured.
    """

    scenario_id: str
    version: str
    title: str
    axes: Mapping[str, tuple[Value, ...]]
    budget_points: tuple[Point, ...]
    smoke_points: tuple[Point, ...]
    workloads: Mapping[Kind, str]
    params: Callable[[Inputs, Point, bool], dict[str, Json]]
    headlines: tuple[Headline, ...]
    accepts: frozenset[str] = frozenset()
    skips: Callable[[Kind, Point], str | None] = nothing_skipped
    block: Callable[[Point], Hashable] = all_in_one_block
    peer_needs: tuple[str, ...] = ()
    beside: tuple[str, ...] = ("floor",)
    provider_script: Callable[[Inputs, Point], dict[str, Json]] | None = None
    clock_script: Callable[[Inputs], dict[str, Json]] | None = None
    charts: tuple[Chart, ...] = ()
    iterations: int = MEASURED_ITERATIONS
    remark: str = ""

    def chosen(self, inputs: Inputs) -> Inputs:
        """The inputs with this scenario's choices where none were given."""
        return attrs.evolve(
            inputs,
            beside=self.beside if inputs.beside is None else inputs.beside,
            iterations=self.iterations if inputs.iterations is None else inputs.iterations,
        )

    def points(self, profile: str, inputs: Inputs) -> tuple[Point, ...]:
        """The points of a profile. Given axes replace the full grid's, and narrow what the other profiles name."""
        inputs.check(self.scenario_id, self.axes, self.accepts)
        if profile == "full":
            return grid({**self.axes, **inputs.axes})
        named = self.smoke_points if profile == "smoke" else self.budget_points
        return tuple(point for point in named if all(point[axis] in values for axis, values in inputs.axes.items()))


def grid(axes: Mapping[str, tuple[Value, ...]]) -> tuple[Point, ...]:
    """Every combination of the axes' values."""
    return tuple(dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))

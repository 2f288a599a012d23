"""Which parameters keep the control line: all of them coarsely, those that come near in full, and slices.

Coarse: one seed, the provider measured for 240 seconds instead of 1,200. Full: the span of the control line, several
seeds, the worst of them counts. Slices vary one parameter of the chosen point over a finer range, in full.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from benchmarks.aimd.ours import Tuning, rules
from benchmarks.aimd.results import ControlLine, run_scenarios
from benchmarks.aimd.scenarios import Span

__all__ = ["CHOSEN", "COARSE", "Part", "Point", "grid", "measure", "neighbourhood", "slices", "sweep"]

CHOSEN: Final = Tuning(factor=0.94, successes=75, cooldown=0.25, step=1)
"""What this family recommends as the project's defaults. The ramp stays 0."""

Part: TypeAlias = Literal["grid", "neighbourhood", "factor", "successes", "cooldown", "step"]
"""Part of the sweep: all combinations coarsely, the surroundings of the choice, or one parameter alone."""

COARSE: Final = Span(60.0, 300.0)
ALMOST: Final = -0.5
"""A point that misses a line by less than this, measured coarsely, is measured in full."""

FACTORS: Final = (0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.97)
SUCCESSES: Final = (10, 25, 50, 100, 200, 400)
COOLDOWNS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
STEPS: Final = (1, 2)

NEAR_FACTORS: Final = (0.92, 0.93, 0.94, 0.95, 0.96)
NEAR_SUCCESSES: Final = (60, 75, 90, 100)
NEAR_COOLDOWNS: Final = (0.1, 0.25, 0.4)

FINE_FACTORS: Final = (0.85, 0.88, 0.9, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96)
FINE_SUCCESSES: Final = (40, 50, 60, 75, 90, 100, 110, 125)
FINE_COOLDOWNS: Final = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75)
FINE_STEPS: Final = (1, 2, 3)


@dataclass(frozen=True)
class Point:
    """One combination of parameters and what came of it."""

    tuning: Tuning
    stage: Literal["coarse", "full"]
    line: ControlLine


def grid() -> list[Tuning]:
    """Every combination of the sweep."""
    return [
        Tuning(factor, successes, cooldown, step)
        for step, cooldown, factor, successes in itertools.product(STEPS, COOLDOWNS, FACTORS, SUCCESSES)
    ]


def neighbourhood() -> list[Tuning]:
    """The surroundings of the choice, more finely."""
    return [
        Tuning(factor, successes, cooldown)
        for cooldown, factor, successes in itertools.product(NEAR_COOLDOWNS, NEAR_FACTORS, NEAR_SUCCESSES)
    ]


def slices(center: Tuning) -> dict[Part, list[Tuning]]:
    """One parameter varied at a time."""
    return {
        "factor": [replace(center, factor=value) for value in FINE_FACTORS],
        "successes": [replace(center, successes=value) for value in FINE_SUCCESSES],
        "cooldown": [replace(center, cooldown=value) for value in FINE_COOLDOWNS],
        "step": [replace(center, step=value) for value in FINE_STEPS],
    }


def measure(tuning: Tuning, seeds: Sequence[int], span: Span) -> ControlLine:
    """The control line's figures of these parameters."""
    return ControlLine.of(run_scenarios(rules(tuning), ControlLine.SCENARIOS, seeds, span))


def sweep(
    tunings: Iterable[Tuning], seeds: Sequence[int], full: Span, progress: Callable[[Point], None] = lambda point: None
) -> list[Point]:
    """Measure coarsely, and in full what comes near the control line."""
    points: list[Point] = []
    for tuning in tunings:
        point = Point(tuning, "coarse", measure(tuning, seeds[:1], COARSE))
        if point.line.margin >= ALMOST:
            point = Point(tuning, "full", measure(tuning, seeds, full))
        points.append(point)
        progress(point)
    return points

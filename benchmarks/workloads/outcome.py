"""What a workload is asked and what one iteration of it answers. Plain data: it crosses a process boundary as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = ["Json", "Outcome", "Params", "RefusedError", "Run", "number", "word"]

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"
Params: TypeAlias = Mapping[str, Json]


class RefusedError(Exception):
    """This candidate cannot run that; the message says why."""


@dataclass(frozen=True)
class Outcome:
    """One iteration.

    metrics: what was measured, by name; durations in microseconds end in `_us`. counts: what must be the same whenever
    it runs. Snapshots show that nothing is left behind. output_hashes: of what was computed, to compare candidates.
    """

    wall_time_seconds: float
    metrics: Mapping[str, float]
    counts: Mapping[str, int] = field(default_factory=dict)
    timeline: tuple[Mapping[str, Json], ...] = ()
    final_task_snapshot: Mapping[str, Json] | None = None
    final_request_snapshot: Mapping[str, Json] | None = None
    output_hashes: Mapping[str, str] = field(default_factory=dict)
    capacity_plan: Mapping[str, Json] | None = None


Run: TypeAlias = Callable[[bool], Outcome]
"""One iteration; the argument says whether it only warms up."""


def number(params: Params, name: str) -> int:
    """The int among `params` called `name`."""
    value = params[name]
    assert isinstance(value, int), f"{name} is {value!r}"
    return value


def word(params: Params, name: str) -> str:
    """The string among `params` called `name`."""
    value = params[name]
    assert isinstance(value, str), f"{name} is {value!r}"
    return value

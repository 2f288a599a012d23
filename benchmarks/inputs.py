"""The inputs of a run. Those that are None were not given; what a scenario cannot use is refused, never ignored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs

from benchmarks.errors import UsageError

__all__ = ["MEASURED_ITERATIONS", "OPTIONAL", "Inputs", "Value"]

Value = str | int
MEASURED_ITERATIONS = 5
"""The least number of measured iterations of which anything is claimed, unless a scenario says why it has less."""


@attrs.frozen
class Inputs:
    """What to run. `axes` narrows or replaces a scenario's axes; `beside` and `iterations` are its choice if None."""

    baseline: str = "peer"
    candidate: str = "here"
    beside: tuple[str, ...] | None = None
    against: str | None = None
    axes: Mapping[str, tuple[Value, ...]] = attrs.field(factory=dict[str, tuple[Value, ...]])
    warm_ups: int = 1
    iterations: int | None = None
    seed: int = 0
    output: Path = Path("out/benchmarks")
    records: int | None = None
    buffer_size: int | None = None
    row_group_concurrency: int | None = None
    task_capacity: int | None = None
    latency: Mapping[str, float] | None = None
    provider_script: Path | None = None
    clock_script: Path | None = None

    def check(self, scenario_id: str, axes: Mapping[str, tuple[Value, ...]], accepts: frozenset[str]) -> None:
        """Refuse what a scenario with these axes cannot use."""
        for name in OPTIONAL:
            if getattr(self, name) is not None and name not in accepts:
                takes = ", ".join(_flag(each) for each in OPTIONAL if each in accepts) or "none of those"
                raise UsageError(
                    f"{_flag(name)} does not apply to scenario {scenario_id!r}; of the optional inputs it takes {takes}"
                )
        for name, values in self.axes.items():
            if name not in axes:
                raise UsageError(
                    f"--axis {name} does not apply to scenario {scenario_id!r}; its axes are {', '.join(axes)}"
                )
            kind = type(axes[name][0])
            for value in values:
                if not isinstance(value, kind):
                    raise UsageError(f"--axis {name} takes values like {axes[name][0]!r}, not {value!r}")
                if kind is str and value not in axes[name]:
                    raise UsageError(f"--axis {name} takes {', '.join(map(str, axes[name]))}, not {value}")
                if isinstance(value, int) and value < 1:
                    raise UsageError(f"--axis {name} takes positive numbers, not {value}")

    def recorded(self, profile: str) -> dict[str, object]:
        """The inputs as they stand in an artifact: without a path of this machine."""
        return {
            "profile": profile,
            "baseline": _without_path(self.baseline),
            "candidate": _without_path(self.candidate),
            "against": self.against,
            "beside": [_without_path(each) for each in self.beside or ()],
            "axes": {name: list(values) for name, values in self.axes.items()},
            "warm_ups": self.warm_ups,
            "iterations": self.iterations,
            "seed": self.seed,
            **{
                name: getattr(self, name)
                for name in OPTIONAL
                if name not in ("provider_script", "clock_script") and getattr(self, name) is not None
            },
        }


OPTIONAL = (
    "records",
    "buffer_size",
    "row_group_concurrency",
    "task_capacity",
    "latency",
    "provider_script",
    "clock_script",
)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _without_path(candidate: str) -> str:
    return "checkout" if candidate.startswith("path:") else candidate

"""Results of scenarios: running them, carrying them between processes, and summing them up over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypedDict

from benchmarks.aimd.scenarios import SCENARIOS, ClientFactory, Measures, Span

__all__ = ["ControlLine", "Result", "ResultJson", "run_scenarios", "worst"]

HIGHER_IS_BETTER: Final = frozenset({"utilisation", "jain", "lowest_limit", "neighbour"})


class ResultJson(TypedDict):
    """A result in an artifact. A measure that is infinite, such as the time until what never happened, is null."""

    scenario: str
    seed: int
    measures: dict[str, float | None]


@dataclass(frozen=True)
class Result:
    """One run of one scenario."""

    scenario: str
    seed: int
    measures: Measures

    def to_json(self) -> ResultJson:
        """As it stands in an artifact."""
        measures = {name: value if math.isfinite(value) else None for name, value in self.measures.items()}
        return {"scenario": self.scenario, "seed": self.seed, "measures": measures}

    @classmethod
    def from_json(cls, data: ResultJson) -> Result:
        """The same result again."""
        measures = {name: math.inf if value is None else value for name, value in data["measures"].items()}
        return cls(data["scenario"], data["seed"], measures)


def run_scenarios(
    make: ClientFactory,
    names: Iterable[str],
    seeds: Sequence[int],
    span: Span,
    progress: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Put clients of `make` through scenarios, once for each seed."""
    results: list[Result] = []
    for name in names:
        for seed in seeds:
            result = Result(name, seed, SCENARIOS[name].run(make, seed, span))
            results.append(result)
            if progress is not None:
                progress(result)
    return results


def worst(results: Iterable[Result], scenario: str, measure: str) -> float:
    """The worst value of a measure over all seeds."""
    values = [result.measures[measure] for result in results if result.scenario == scenario]
    assert values, f"nobody ran {scenario}"
    return min(values) if measure in HIGHER_IS_BETTER else max(values)


@dataclass(frozen=True)
class ControlLine:
    """What decides about the defaults, each figure the worst over all seeds, and the line each must keep."""

    utilisation_16: float
    utilisation_128: float
    refused_16: float
    refused_128: float
    settle_16: float
    settle_128: float
    recover: float

    SCENARIOS = ("steady_16", "steady_128", "step_up")
    UTILISATION = 0.95
    REFUSED = 0.01
    SETTLE = 15.0
    RECOVER = 120.0

    @classmethod
    def of(cls, results: Sequence[Result]) -> ControlLine:
        """From results that include the three scenarios of the line."""
        return cls(
            worst(results, "steady_16", "utilisation"),
            worst(results, "steady_128", "utilisation"),
            worst(results, "steady_16", "refused"),
            worst(results, "steady_128", "refused"),
            worst(results, "steady_16", "settle_seconds"),
            worst(results, "steady_128", "settle_seconds"),
            worst(results, "step_up", "recover_seconds"),
        )

    def slack(self) -> dict[str, float]:
        """How far each figure is from its line, as a share of what the line leaves; negative where it is missed."""
        return {
            "u": (min(self.utilisation_16, self.utilisation_128) - self.UTILISATION) / (1 - self.UTILISATION),
            "r": 1 - max(self.refused_16, self.refused_128) / self.REFUSED,
            "s": 1 - max(self.settle_16, self.settle_128) / self.SETTLE,
            "c": 1 - self.recover / self.RECOVER,
        }

    @property
    def margin(self) -> float:
        """The smallest slack."""
        return min(self.slack().values())

    @property
    def missed(self) -> str:
        """A letter for each line missed: utilisation, refused, settling, climbing again. Empty if all are kept."""
        return "".join(letter for letter, slack in self.slack().items() if slack < 0)

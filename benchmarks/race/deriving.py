"""What follows from the rounds of a race: statistics, and whether the lines of acceptance are kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final

from benchmarks.artifact import Noise
from benchmarks.figures import judge, summarise
from benchmarks.race.artifact import DerivedRace, Point, RaceIteration, RaceSummary, RaceVerdict

__all__ = ["derive"]

LEAST_UTILISATION: Final = 0.86
MOST_REFUSED: Final = 0.03
JUDGED_HINTS: Final = (1.0, 5.0)
"""Seconds. With longer ones a race only shows what happens."""

Rounds = Sequence[RaceIteration]


def derive(
    iterations: Rounds, *, judged: Collection[str], ours: Collection[str], bound: str, noise: Noise | None
) -> DerivedRace:
    """Everything. judged: who is held to the lines. ours: who does not count as another. bound: the SDK's retries."""
    summaries: list[RaceSummary] = []
    verdicts: list[RaceVerdict] = []
    for point in sorted({each.point for each in iterations}):
        clients = _clients(iterations, point)
        for name, rounds in clients.items():
            measured = [each.measures() for each in rounds]
            summaries += [
                RaceSummary(name, *point, measure, summarise([each[measure] for each in measured if measure in each]))
                for measure in dict.fromkeys(measure for each in measured for measure in each)
            ]
        if point[0] in JUDGED_HINTS:
            others = {name: rounds for name, rounds in clients.items() if name not in ours}
            for name in judged:
                verdicts += [
                    RaceVerdict(name, *point, line, sum(values) / len(values), judge(values, holds))
                    for line, values, holds in _lines(clients[name], others, bound)
                ]
    return DerivedRace(tuple(summaries), tuple(verdicts), noise)


def _clients(iterations: Rounds, point: Point) -> dict[str, Rounds]:
    found: dict[str, list[RaceIteration]] = {}
    for each in iterations:
        if each.point == point:
            found.setdefault(each.candidate, []).append(each)
    return {name: sorted(rounds, key=lambda each: each.index) for name, rounds in found.items()}


def _lines(
    rounds: Rounds, others: Mapping[str, Rounds], bound: str
) -> Iterator[tuple[str, Sequence[float], Callable[[float], bool]]]:
    """Each line: what it says, its value in each round, and when it holds."""
    used = [each.provider.utilisation for each in rounds]
    yield f"utilisation at least {LEAST_UTILISATION:.2f}", used, lambda value: value >= LEAST_UTILISATION
    refused = [each.refused_share for each in rounds]
    yield f"refused share at most {MOST_REFUSED:.2f}", refused, lambda value: value <= MOST_REFUSED
    yield "no row lost", [float(each.rows_lost) for each in rounds], lambda value: value == 0
    complete = [each for each in others.values() if not any(one.rows_lost for one in each)]
    if complete:
        ahead = [mine - max(each[place].provider.utilisation for each in complete) for place, mine in enumerate(used)]
        yield "utilisation, less that of the best other client that loses no row", ahead, lambda value: value >= 0
    if bound in others:
        pairs = zip(rounds, others[bound], strict=True)
        ratios = [mine.rows_per_second / other.rows_per_second for mine, other in pairs if other.rows_finished]
        if ratios:
            yield f"rows finished a second, over those of {bound}", ratios, lambda value: value >= 1

from __future__ import annotations

import math

import pytest

from benchmarks.control.acceptance import LINES, Bound, Line, Summary, judge, summed_up
from benchmarks.control.scenarios import SCENARIOS
from benchmarks.control.split import SEEDS, SPLIT
from benchmarks.control.worlds import MEASURES


def test_every_line_has_scenarios_and_every_scenario_a_line() -> None:
    assert {scenario.group for scenario in SCENARIOS.values()} == LINES.keys()
    assert {name: scenario.name for name, scenario in SCENARIOS.items()} == dict(zip(SCENARIOS, SCENARIOS, strict=True))


def test_bounds_are_on_what_is_measured() -> None:
    assert {bound.measure for line in LINES.values() for bound in line.bounds} <= set(MEASURES)


@pytest.mark.parametrize(
    ("measure", "worse", "bound", "better"),
    [("utilisation", 0.949, 0.95, 0.951), ("jain", 0.9, 0.95, 1.0), ("refused", 0.011, 0.01, 0.009)],
)
def test_a_bound_is_kept_on_it_and_on_its_better_side(measure: str, worse: float, bound: float, better: float) -> None:
    line = Bound(measure, bound)
    assert [line.kept_by(value) for value in (worse, bound, better)] == [False, True, True]
    assert line.worst_of([better, worse, bound]) == worse


def test_what_never_happens_keeps_no_bound() -> None:
    assert not Bound("recovery", 10.0).kept_by(math.inf)


def test_runs_are_summed_up_to_mean_and_worst() -> None:
    found = summed_up([{"utilisation": 0.5, "refused": 0.25, "lost": 0.75}, {"utilisation": 1.0, "refused": 0.0}])
    assert found == {
        "utilisation": Summary(0.75, 0.5),
        "refused": Summary(0.125, 0.25),
        "lost": Summary(0.375, 0.75),
    }


@pytest.mark.parametrize(
    ("utilisation", "refused", "verdict"),
    [
        (Summary(0.96, 0.95), Summary(0.01, 0.01), "kept"),
        (Summary(0.96, 0.94), Summary(0.01, 0.01), "on average"),
        (Summary(0.96, 0.95), Summary(0.009, 0.011), "on average"),
        (Summary(0.94, 0.94), Summary(0.0, 0.0), "missed"),
        (Summary(0.99, 0.99), Summary(0.02, 0.03), "missed"),
    ],
)
def test_a_line_is_kept_with_every_seed_or_on_average_or_missed(
    utilisation: Summary, refused: Summary, verdict: str
) -> None:
    line = Line("of a test", (Bound("utilisation", 0.95), Bound("refused", 0.01)))
    assert judge(line, {"utilisation": utilisation, "refused": refused}) == verdict
    assert judge(Line("asks nothing"), {"utilisation": utilisation, "refused": refused}) == "reported"


def test_the_halves_share_nothing_and_have_everything() -> None:
    tune, report = set(SPLIT["tune"]), set(SPLIT["report"])
    assert not tune & report
    assert tune | report == SCENARIOS.keys()
    assert not set(SEEDS["tune"]) & set(SEEDS["report"])


@pytest.mark.parametrize("group", LINES)
def test_every_line_is_in_both_halves_evenly(group: str) -> None:
    tune, report = (sum(SCENARIOS[name].group == group for name in SPLIT[half]) for half in ("tune", "report"))
    assert tune > 0
    assert report > 0
    assert abs(tune - report) <= 1


def test_the_split_stays_what_it_is() -> None:
    """What was tuned on must not come to be reported: another hash, or another order, would do that."""
    swings = [name for name in SPLIT["report"] if SCENARIOS[name].group == "24, 8, 24"]
    assert swings == [
        "24-8-24 cap=32 hint=none",
        "24-8-24 cap=64 hint=none",
        "24-8-24 cap=64 hint=20",
        "24-8-24 cap=128 hint=none",
        "24-8-24 cap=128 hint=5",
        "24-8-24 cap=128 hint=20",
    ]

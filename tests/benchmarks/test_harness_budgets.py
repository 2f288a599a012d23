from __future__ import annotations

import pytest
from harness_samples import iteration, rounds

from benchmarks.budgets import BUDGETS, COUNT_BUDGETS, Budget, judge_budgets
from benchmarks.inputs import Inputs
from benchmarks.scenarios import ALL


@pytest.mark.parametrize("budget", BUDGETS, ids=lambda budget: budget.budget_id)
def test_every_line_is_measured_by_the_points_of_its_profile(budget: Budget) -> None:
    scenario = ALL[budget.measured_by]
    points = [dict(point) for point in scenario.points("budgets", Inputs())]
    for quantity in (budget.quantity, budget.per):
        if quantity is not None:
            assert dict(quantity.point) in points
            kind = "project" if quantity.side == "candidate" else quantity.side
            assert scenario.skips(kind, quantity.point) is None


@pytest.mark.parametrize("budget", COUNT_BUDGETS, ids=lambda budget: budget.budget_id)
def test_every_count_is_measured_by_the_smoke_points(budget: Budget) -> None:
    assert dict(budget.quantity.point) in [dict(point) for point in ALL["tasks"].points("smoke", Inputs())]


def test_names_are_unique() -> None:
    names = [budget.budget_id for budget in (*BUDGETS, *COUNT_BUDGETS)]
    assert len(names) == len(set(names))


def test_the_table_of_the_specification_is_there() -> None:
    wanted = {
        "cycle-strict-1-local": ("at least", 2.3),
        "cycle-strict-256-local": ("at least", 30),
        "cycle-strict-growth-local": ("at most", 1.5),
        "cycle-strict-exclusive-time": ("at most", 150),
        "cycle-strict-refused-time": ("at most", 150),
        "cycle-borrow-1-local": ("at least", 1.8),
        "cycle-borrow-256-local": ("at least", 60),
        "cycle-borrow-growth-local": ("at most", 1.5),
        "cycle-borrow-exclusive-time": ("at most", 150),
        "cycle-borrow-refused-time": ("at most", 150),
        "request-alone": ("at least", 13),
        "request-2000": ("at least", 700),
        "request-100000": ("at most", 2),
        "import": ("at most", 1.3),
    }
    there = {budget.budget_id: (budget.relation, budget.bound) for budget in BUDGETS}
    assert {name: there[name] for name in wanted} == wanted


def test_a_ratio_is_judged_pair_by_pair() -> None:
    run = rounds(peer=[70_000, 140_000, 35_000], here=[50, 100, 25])
    found = {each.budget_id: each for each in judge_budgets("requests", run, "here", smoke=False)}
    assert found["request-2000"].value == pytest.approx(1_400)
    assert found["request-2000"].verdict == "shown"
    assert found["request-2000-time"].value == pytest.approx(175 / 3)
    assert found["request-2000-time"].verdict == "refuted"
    assert not found["request-2000-time"].binding


def test_a_missed_budget_is_refuted_and_one_good_round_does_not_save_it() -> None:
    run = rounds(peer=[1_000] * 4 + [1_000_000], here=[10] * 5)
    found = {each.budget_id: each for each in judge_budgets("requests", run, "here", smoke=False)}
    assert found["request-2000"].value == pytest.approx(20_080)
    assert found["request-2000"].verdict == "inconclusive"
    slow = rounds(peer=[1_000] * 5, here=[10] * 5)
    again = {each.budget_id: each for each in judge_budgets("requests", slow, "here", smoke=False)}
    assert again["request-2000"].verdict == "refuted"


def test_what_was_not_measured_is_said() -> None:
    run = (iteration("here", 0, 0, 50.0),)
    found = {each.budget_id: each for each in judge_budgets("requests", run, "here", smoke=False)}
    assert found["request-2000"].verdict is None
    assert found["request-2000"].note == "not in this run: peer callers 2000"
    assert found["request-100000"].note == "not in this run: candidate callers 100000"

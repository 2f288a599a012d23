from __future__ import annotations

import attrs
import pytest

from benchmarks.figures import Figures, judge, summarise, without_extremes
from benchmarks.workloads.samples import Steps, digest, quantile


def test_figures_of_known_values() -> None:
    assert attrs.asdict(summarise([4.0, 1.0, 2.0, 3.0, 10.0])) == pytest.approx(
        {
            "mean": 4.0,
            "p50": 3.0,
            "p95": 8.8,
            "minimum": 1.0,
            "maximum": 10.0,
            "standard_deviation": 12.5**0.5,
            "iterations": 5,
        }
    )


def test_one_value_has_no_deviation() -> None:
    assert summarise([2.0]) == Figures(2.0, 2.0, 2.0, 2.0, 2.0, 0.0, 1)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 10.0), (0.25, 17.5), (0.5, 25.0), (0.95, 38.5), (1.0, 40.0)])
def test_quantiles_lie_between_neighbours(share: float, expected: float) -> None:
    assert quantile([10.0, 20.0, 30.0, 40.0], share) == pytest.approx(expected)


def test_extremes_are_left_out_as_far_as_that_leaves_any() -> None:
    assert without_extremes([5.0, 1.0, 3.0]) == [3.0]
    assert without_extremes([5.0, 1.0]) == [5.0, 1.0]


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([3.0, 3.0, 3.0, 3.0, 3.0], "shown"),
        ([1.0, 1.0, 1.0, 1.0, 1.0], "refuted"),
        ([1.5, 1.5, 1.5, 1.5, 40.0], "inconclusive"),
        ([2.5, 2.5, 2.5, 2.5, 0.1], "shown"),
        ([2.1, 2.1, 2.1, 2.1, 0.1], "inconclusive"),
    ],
)
def test_a_claim_must_survive_without_its_extremes(values: list[float], verdict: str) -> None:
    assert judge(values, lambda ratio: ratio >= 2) == verdict


def test_steps_report_medians_in_microseconds_and_leave_out_what_has_no_samples() -> None:
    steps = Steps()
    steps.of("select").extend([1_000, 2_000, 3_000])
    steps.of("never")
    assert steps.metrics() == {"select_us": 2.0, "select_p95_us": pytest.approx(2.9)}


def test_the_digest_tells_sequences_apart() -> None:
    assert digest([1, 2]) == digest(["1", "2"])
    assert len({digest([1, 2]), digest([2, 1]), digest([12])}) == 3

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import pytest
from harness_samples import artifact, iteration, rounds

from benchmarks.artifact import GateVerdict, Iteration, JsonObject, TimelineEntry
from benchmarks.gates import judge_gates
from benchmarks.schema import findings

POINT: Mapping[str, str | int] = {"pipeline": "heavy root"}
GOOD = attrs.evolve(
    iteration("here", 0, 0, 50.0, point=POINT),
    metrics={
        "simulated_seconds": 29.0,
        "ready_idle_gap_seconds": 0.0,
        "hidden_scheduler_resource_waiters": 0.0,
        "root_over_admission_debt": 4.0,
        "root_over_admission_while_others_wait": 0.0,
        "ready_to_lease_gap_p95_us": 3e6,
    },
    counts={
        "outbound_attempts": 120,
        "request_leases": 120,
        "request_leases_released": 120,
        "task_leases": 70,
        "task_leases_released": 70,
        "rows_lost": 0,
        "calls_above_cap": 0,
        "streams_out_of_order": 0,
        "requests_out_of_order": 0,
    },
    timeline=tuple(TimelineEntry("selected", 0.0, "scheduler", number) for number in range(3)),
)


def judged(
    *iterations: Iteration, baseline: str = "here", against: str | None = None, profile: str = "budgets"
) -> dict[str, GateVerdict]:
    inputs = {"candidate": "here", "baseline": baseline, "against": against, "profile": profile}
    return {verdict.gate: verdict for verdict in judge_gates("heavy_root", iterations, inputs)}


def broken(*iterations: Iteration, **options: Any) -> list[str]:
    return [name for name, verdict in judged(*iterations, **options).items() if verdict.passed is False]


def test_a_good_run_passes_every_gate() -> None:
    verdicts = judged(GOOD, attrs.evolve(GOOD, index=1, order=1))
    assert {name: verdict.passed for name, verdict in verdicts.items()} == {
        "no lease and no waiter left": True,
        "every lease is given back": True,
        "request leases equal outbound attempts": True,
        "no row lost, no call above its cap": True,
        "equal hashes": True,
        "monotonic timelines": True,
        "no hidden waiter": True,
        "no ready-idle gap in simulated time": True,
        "root debt within the bound": True,
        "same work": None,
    }


@pytest.mark.parametrize(
    ("counts", "gate", "note"),
    [
        ({"task_leases_released": 69}, "every lease is given back", "70 task_leases, 69 released"),
        ({"request_leases_released": 119}, "every lease is given back", "120 request_leases, 119 released"),
        (
            {"request_leases": 121, "request_leases_released": 121},
            "request leases equal outbound attempts",
            "121 leases, 120 attempts",
        ),
        ({"outbound_attempts": 121}, "request leases equal outbound attempts", "120 leases, 121 attempts"),
        ({"rows_lost": 1}, "no row lost, no call above its cap", "rows_lost 1"),
        ({"calls_above_cap": 2}, "no row lost, no call above its cap", "calls_above_cap 2"),
        ({"streams_out_of_order": 1}, "monotonic timelines", "streams_out_of_order 1"),
        ({"requests_out_of_order": 1}, "monotonic timelines", "requests_out_of_order 1"),
    ],
)
def test_a_count_that_is_wrong_breaks_its_gate(counts: dict[str, int], gate: str, note: str) -> None:
    doctored = attrs.evolve(GOOD, counts={**GOOD.counts, **counts})
    assert broken(doctored) == [gate]
    assert note in judged(doctored)[gate].note


@pytest.mark.parametrize(
    ("metric", "value", "gate"),
    [
        ("hidden_scheduler_resource_waiters", 1.0, "no hidden waiter"),
        ("ready_idle_gap_seconds", 0.01, "no ready-idle gap in simulated time"),
        ("root_over_admission_while_others_wait", 1.0, "root debt within the bound"),
    ],
)
def test_a_metric_that_is_wrong_breaks_its_gate(metric: str, value: float, gate: str) -> None:
    assert broken(attrs.evolve(GOOD, metrics={**GOOD.metrics, metric: value})) == [gate]


def test_a_gap_on_a_real_clock_is_only_shown() -> None:
    metrics = {name: value for name, value in GOOD.metrics.items() if name != "simulated_seconds"}
    doctored = attrs.evolve(GOOD, metrics={**metrics, "ready_idle_gap_seconds": 0.01})
    assert judged(doctored)["no ready-idle gap in simulated time"].passed is None


@pytest.mark.parametrize("name", ["leased", "waiters", "in_flight", "leaks"])
def test_whatever_is_left_behind_breaks_its_gate(name: str) -> None:
    left = JsonObject({name: 1})
    assert broken(attrs.evolve(GOOD, final_request_snapshot=left)) == ["no lease and no waiter left"]
    assert broken(attrs.evolve(GOOD, final_task_snapshot=left)) == ["no lease and no waiter left"]


def test_other_data_break_their_gate() -> None:
    other = attrs.evolve(GOOD, candidate="peer", output_hashes={"served": "other"})
    assert broken(GOOD, other) == ["equal hashes"]


def test_what_others_do_wrong_is_not_ours() -> None:
    wrong = {"hidden_scheduler_resource_waiters": 3.0, "ready_idle_gap_seconds": 1.0, "simulated_seconds": 1.0}
    theirs = attrs.evolve(GOOD, candidate="peer", metrics=wrong, counts={"rows_lost": 5, "requests_out_of_order": 9})
    assert broken(GOOD, theirs) == []


def test_a_timeline_out_of_order_breaks_its_gate() -> None:
    entries = tuple(
        TimelineEntry("request_lease_acquired", 0.0, stream, sequence)
        for stream, sequence in (("request", 1), ("scheduler", 1), ("request", 3), ("request", 2))
    )
    assert broken(attrs.evolve(GOOD, timeline=entries)) == ["monotonic timelines"]


def test_simulated_seconds_that_do_not_repeat_break_their_gate_in_smoke() -> None:
    again = attrs.evolve(GOOD, index=1, order=1, metrics={**GOOD.metrics, "simulated_seconds": 29.1})
    assert broken(GOOD, again, profile="smoke") == ["counts repeat"]


def heavy_roots(ours: list[float], theirs: list[float], name: str) -> list[Iteration]:
    return [
        attrs.evolve(
            GOOD, candidate=candidate, index=index, metrics={**GOOD.metrics, "ready_to_lease_gap_p95_us": value}
        )
        for candidate, values in (("here", ours), (name, theirs))
        for index, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("ours", "passed"),
    [([3.0] * 5, True), ([8.0] * 5, False), ([9.0] * 5, False), ([3.0, 3.0, 3.0, 3.0, 29.0], False)],
)
def test_the_heavy_root_must_dispatch_sooner_than_another_implementation(ours: list[float], passed: bool) -> None:
    gate = judged(*heavy_roots(ours, [8.0] * 5, "peer"), baseline="peer")
    assert gate["heavy root, ready to dispatch (p95): better than the baseline"].passed is passed


@pytest.mark.parametrize(("ours", "passed"), [([8.0] * 5, True), ([9.0] * 5, False)])
def test_the_heavy_root_must_dispatch_no_later_than_an_earlier_commit(ours: list[float], passed: bool) -> None:
    gate = judged(*heavy_roots(ours, [8.0] * 5, "ref:main"), baseline="ref:main", against="main")
    assert gate["heavy root, ready to dispatch (p95): no worse than the baseline"].passed is passed


WALL = "wall time within 5 % of the baseline"
P95 = "95th percentiles within 10 % of the baseline"


@pytest.mark.parametrize(
    ("ours", "gates"),
    [
        ([100.0] * 5, []),
        ([104.0] * 5, []),
        ([120.0] * 5, [WALL]),
        ([90.0, 90.0, 90.0, 90.0, 190.0], []),
    ],
)
def test_against_a_commit_it_may_not_be_slower(ours: list[float], gates: list[str]) -> None:
    run = artifact(rounds(peer=[100.0] * 5, here=ours), against="main")
    assert [each.gate for each in run.derived_metrics.gates if each.passed is False] == gates
    assert [each for each in findings(run) if "is broken" in each] == [
        each for each in findings(run) if any(gate in each for gate in gates)
    ]


@pytest.mark.parametrize(("ours", "gates"), [([109.0] * 5, []), ([115.0] * 5, [P95])])
def test_against_a_commit_no_percentile_may_grow(ours: list[float], gates: list[str]) -> None:
    iterations = [
        attrs.evolve(GOOD, candidate=name, index=index, metrics={"full_cycle_p95_us": value})
        for name, values in (("here", ours), ("ref:main", [100.0] * 5))
        for index, value in enumerate(values)
    ]
    assert broken(*iterations, baseline="ref:main", against="main") == gates

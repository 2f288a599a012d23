"""The adaptive rule at the scripted providers: the chosen defaults keep the control line."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from benchmarks.aimd.clients import FixedClient
from benchmarks.aimd.ours import Tuning, controllers, in_simulated_time, rules
from benchmarks.aimd.providers import ConcurrencyProvider, Schedule
from benchmarks.aimd.results import ControlLine
from benchmarks.aimd.scenarios import FULL, SCENARIOS, ClientFactory, Span, reached_at, settled_along, settled_at
from benchmarks.aimd.simulator import Answer, Client, Party, simulate
from benchmarks.aimd.sweep import CHOSEN, grid, measure, slices, sweep
from trio_sched.lowlevel import RequestAdmissionTuningConfig

SHORT = Span(30.0, 150.0)


def test_the_chosen_defaults_keep_the_control_line_with_a_fifth_to_spare() -> None:
    line = measure(CHOSEN, [1], FULL)
    assert line.missed == ""
    assert line.margin > 0.2


@pytest.mark.parametrize(
    ("tuning", "missed"),
    [
        (Tuning(factor=0.75, successes=25, cooldown=2.0), "u"),
        (Tuning(factor=0.94, successes=200, cooldown=0.25), "c"),
        (Tuning(factor=0.94, successes=75, cooldown=1.0), "us"),
    ],
)
def test_other_parameters_miss_the_lines_that_they_should(tuning: Tuning, missed: str) -> None:
    assert set(missed) <= set(measure(tuning, [1], FULL).missed)


class Recorder:
    """Passes everything on, and writes down what was decided when."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.decisions: list[tuple[float, bool, int]] = []

    @property
    def limit(self) -> int:
        return self._client.limit

    def grant(self, now: float) -> int | None:
        ticket = self._client.grant(now)
        self.decisions.append((now, ticket is not None, self._client.limit))
        return ticket

    def release(self, ticket: int, answer: Answer, now: float) -> None:
        self._client.release(ticket, answer, now)

    def wake(self, now: float) -> None:
        self._client.wake(now)

    def next_wake(self) -> float | None:
        return self._client.next_wake()


@pytest.mark.parametrize(
    "provider",
    [{}, {"retry_after": (5.0, None)}, {"floods": [(40.0, 45.0)]}, {"storms": [(40.0, 60.0)]}],
    ids=["plain", "hints", "flood", "storm"],
)
def test_the_rule_alone_decides_as_the_whole_controller_does(
    provider: dict[str, list[tuple[float, float]]],
) -> None:
    def decisions(make: ClientFactory) -> list[tuple[float, bool, int]]:
        recorder = Recorder(make(cap=64))
        simulate(ConcurrencyProvider(16, **provider), [Party(recorder)], seed=1, until=90.0)  # type: ignore[arg-type]
        return recorder.decisions

    expected = decisions(rules(CHOSEN))
    assert len(expected) > 1000
    assert in_simulated_time(lambda clock: decisions(controllers(CHOSEN, clock))) == expected


def test_storms_of_503_leave_the_limit_alone() -> None:
    measures = SCENARIOS["storms_503"].run(rules(CHOSEN), 1, SHORT)
    assert measures.pop("utilisation") == pytest.approx(1, abs=0.02)
    assert measures == {"refused": 0.0, "recover_seconds": 0.0, "lowest_limit": 16.0, "decreases": 0.0}


def test_a_storm_between_rate_limits_lowers_nothing_either() -> None:
    storm = (60.0, 80.0)
    party = Party(rules(CHOSEN)(cap=64))
    simulate(ConcurrencyProvider(16, storms=[storm]), [party], seed=1, until=120.0)
    assert party.failed > 1000
    decreases = [moment for (_, before), (moment, after) in pairwise(party.limits) if after < before]
    assert decreases
    # A call refused just before the storm is answered just after it began.
    assert not [moment for moment in decreases if storm[0] + 0.05 < moment <= storm[1]]


def test_no_call_goes_out_against_a_hint() -> None:
    assert SCENARIOS["mixed_hints"].run(rules(CHOSEN), 1, SHORT)["against_hint"] == 0


def test_two_clients_come_to_share_evenly() -> None:
    measures = SCENARIOS["two_clients"].run(rules(CHOSEN), 1, FULL)
    assert measures["jain"] > 0.99
    assert measures["utilisation"] > 0.95


@pytest.mark.parametrize("name", sorted(SCENARIOS.keys() - {"large_512"}))
def test_utilisation_and_refused_share_are_measured_at_every_provider(name: str) -> None:
    measures = SCENARIOS[name].run(rules(CHOSEN), 1, SHORT)
    assert 0 < measures["utilisation"] <= 1.02
    assert 0 <= measures["refused"] < 1


def test_two_limits_settle_together_once_the_second_has_joined() -> None:
    early, late = Party(FixedClient(8)), Party(FixedClient(8), joins_at=5.0)
    early.limits, late.limits = [(0.0, 16), (7.0, 8)], [(5.0, 24), (9.0, 9)]
    capacity = Schedule(((0.0, 16), (20.0, 32)))
    assert settled_along(capacity, 30.0, early, late) == 9.0
    assert settled_along(capacity, 8.0, early, late) == math.inf


def test_a_limit_settles_where_the_provider_comes_to_it() -> None:
    party = Party(FixedClient(24))
    party.limits = [(0.0, 24)]
    assert settled_along(Schedule(((0.0, 16), (20.0, 25))), 30.0, party) == 20.0


def test_a_ramp_spares_the_first_refusals() -> None:
    cold = SCENARIOS["cold_start"].run(rules(CHOSEN), 1, SHORT)
    ramped = SCENARIOS["cold_start_ramp_15"].run(rules(CHOSEN), 1, SHORT)
    assert ramped["refused"] < 0.02 < cold["refused"]


@pytest.mark.parametrize("name", sorted(SCENARIOS.keys() - {"large_512"}))
def test_every_scenario_measures_something_sane_and_is_deterministic(name: str) -> None:
    first = SCENARIOS[name].run(rules(CHOSEN), 1, SHORT)
    assert first == SCENARIOS[name].run(rules(CHOSEN), 1, SHORT)
    assert all(value >= 0 for value in first.values())
    # Calls that were let in before a provider shrank, or saved up in its bucket, may exceed what it offers.
    assert first.get("utilisation", 0.0) <= 1.05
    assert first["refused"] < 0.75


def test_settling_and_reaching_are_read_off_the_limits() -> None:
    party = Party(rules(CHOSEN)(cap=64))
    party.limits = [(0.0, 64), (1.0, 20), (2.0, 17), (3.0, 9), (4.0, 15)]
    assert settled_at(party, 16) == 2.0
    assert settled_at(party, 16, since=2.5) == 2.5
    assert settled_at(party, 16, since=3.0) == 4.0
    assert reached_at(party, 16, since=3.5) == 4.0
    assert reached_at(party, 100, since=0.5) == math.inf


def test_the_chosen_rule_is_the_default() -> None:
    assert RequestAdmissionTuningConfig() == CHOSEN.config()


def test_the_sweep_measures_in_full_what_comes_near() -> None:
    tunings = [CHOSEN, Tuning(factor=0.7, successes=400, cooldown=2.0)]
    points = sweep(tunings, [1], Span(60.0, 360.0))
    assert [(point.tuning, point.stage) for point in points] == [(tunings[0], "full"), (tunings[1], "coarse")]


def test_the_sweep_has_every_combination_once() -> None:
    assert len(set(grid())) == len(grid()) == 7 * 6 * 6 * 2
    assert all(CHOSEN in tunings for tunings in slices(CHOSEN).values())


def test_the_control_line_names_what_is_missed() -> None:
    kept = ControlLine(0.96, 0.97, 0.005, 0.001, 3.0, 6.0, 60.0)
    assert kept.missed == ""
    assert kept.margin == pytest.approx(0.2)
    assert ControlLine(0.96, 0.94, 0.005, 0.001, 3.0, 6.0, 60.0).missed == "u"
    assert ControlLine(0.96, 0.97, 0.011, 0.001, 16.0, 6.0, math.inf).missed == "rsc"

"""What is measured in a world, on clients whose doings can be counted by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from control_samples import EXACT, FixedClient, at_the_cap, at_the_level

from benchmarks.control.call_times import Normal
from benchmarks.control.gates import Concurrency, FixedWindow
from benchmarks.control.inspect_connections import inspect_connections
from benchmarks.control.providers import Refusals
from benchmarks.control.scenarios import SCENARIOS, along, at_once
from benchmarks.control.sdk import sdk
from benchmarks.control.simulator import Answer, Client
from benchmarks.control.told import Told
from benchmarks.control.worlds import World, play


def test_a_limit_that_is_right_uses_everything() -> None:
    assert play(World(at_once(16), EXACT, 16, 64), at_the_level, 1) == {
        "utilisation": pytest.approx(1.0),
        "refused": 0.0,
    }


def test_a_limit_that_is_too_high_is_refused_as_can_be_counted() -> None:
    """Each second one place answers, and the other is refused 20 times."""
    measures = play(World(at_once(1), EXACT, 1, 2, start=10.5, end=60.5), at_the_cap, 1)
    assert measures == {"utilisation": pytest.approx(1.0), "refused": pytest.approx(20 / 21, abs=0.002)}


@pytest.mark.parametrize(
    ("world", "span"),
    [
        (World(at_once(1), EXACT, 1, 4), (10.0, 2010.0)),
        (World(at_once(512), Normal(0.3), 512, 2048), (3.0, 18.0)),
        (World(at_once(512), Normal(0.3), 512, 2048, Refusals(hints=(20.0, None))), (3.0, 103.0)),
        (World(at_once(40), EXACT, 40, 160, gap=0.5), (15.0, 90.0)),
        (World(at_once(40), EXACT, 40, 160, start=0.0, end=60.0), (0.0, 60.0)),
    ],
)
def test_the_span_has_fifty_round_trips_and_two_thousand_calls_and_five_hints(
    world: World, span: tuple[float, float]
) -> None:
    assert world.span == pytest.approx(span)


def test_calls_in_time_are_counted_where_they_are_let_in() -> None:
    world = World(lambda rng, until: FixedWindow(30, 10.0), EXACT, 2, 8, start=20.0, end=60.0)
    assert play(world, at_the_level, 1)["utilisation"] == pytest.approx(2 * 10 / 30, abs=0.02)
    assert play(world, at_the_cap, 1)["utilisation"] == pytest.approx(1.0)


class Growing(FixedClient):
    """One more call in flight with each answer."""

    def release(self, ticket: int, answer: Answer, now: float) -> None:
        super().release(ticket, answer, now)
        self.limit += answer.kind == "success"


def test_growth_is_over_when_nine_in_ten_are_in_flight() -> None:
    world = World(along((0.0, 1), (20.0, 10)), EXACT, 10, 40, start=10.0, end=40.0, growth=(20.0, 10))
    assert play(world, at_the_cap, 1)["recovery"] == pytest.approx(0.05, abs=0.06)
    # 1, 2, 4, 8 and 9 after four round trips.
    doubling = World(at_once(10), EXACT, 10, 10, start=0.0, end=6.0, growth=(0.0, 10))
    assert play(doubling, lambda told: Growing(1), 1)["recovery"] == pytest.approx(4.0)
    assert play(doubling, lambda told: FixedClient(8), 1)["recovery"] == math.inf


def test_trials_of_an_outage_count_from_a_round_trip_after_its_start() -> None:
    """Two places ask every 0.05 s from 11 to 20, 360 times; 2 + 10 / 5 are allowed."""
    world = World(along((0.0, 2), (10.0, 0), (20.0, 2)), EXACT, 2, 8, start=5.0, end=40.0, outage=(10.0, 20.0))
    measures = play(world, at_the_level, 1)
    assert measures["trials"] == pytest.approx(360 / 4, abs=1)
    assert measures["recovery"] == 0.0
    assert measures["utilisation"] == pytest.approx(1.0, abs=0.02)


class WakesLate:
    """Sends nothing from its first refusal to second 25, then one call, and two from its answer on."""

    limit = 2

    def __init__(self) -> None:
        self._in_flight = 0
        self._allowed = 2
        self._sleeps_until: float | None = None

    def grant(self, now: float) -> int | None:
        if self._in_flight >= self._allowed or self._sleeps_until is not None:
            return None
        self._in_flight += 1
        return 0

    def release(self, ticket: int, answer: Answer, now: float) -> None:
        self._in_flight -= 1
        if answer.refused:
            self._sleeps_until, self._allowed = 25.0, 1
        elif now > 25:
            self._allowed = 2

    def wake(self, now: float) -> None:
        self._sleeps_until = None

    def next_wake(self) -> float | None:
        return self._sleeps_until


def test_recovery_from_an_outage_counts_from_the_first_answer() -> None:
    world = World(along((0.0, 2), (10.5, 0), (20.5, 2)), EXACT, 2, 8, start=5.0, end=40.0, outage=(10.5, 20.5))
    measures = play(world, lambda told: WakesLate(), 1)
    assert measures["recovery"] == pytest.approx(0.0)
    assert measures["trials"] == pytest.approx(0.0)
    assert measures["utilisation"] == pytest.approx((2 * 5.5 + 1 + 2 * 14) / (2 * 25), abs=0.02)


def test_shares_of_two_clients() -> None:
    def make(told: Told) -> Client:
        return FixedClient(1 if told.now == 0 else 3)

    world = World(at_once(4), EXACT, 4, 16, start=20.0, end=100.0, joins=10.0)
    assert play(world, make, 1)["jain"] == pytest.approx((1 + 3) ** 2 / (2 * (1 + 9)), abs=0.01)


def test_calls_that_were_given_up_for_good_are_lost() -> None:
    measures = play(World(at_once(1), EXACT, 1, 4), sdk(2), 1)
    assert 0.5 < measures["lost"] < 1
    assert "lost" not in play(World(at_once(4), EXACT, 4, 4), sdk(2), 1)


def test_hung_calls_are_counted_and_hold_their_places() -> None:
    world = World(at_once(8), EXACT, 8, 8, hung=0.1, timeout=5.0, end=2000.0)
    measures = play(world, at_the_level, 1)
    assert measures["timeouts"] == pytest.approx(0.1, abs=0.01)
    assert measures["utilisation"] == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["K=16 T=1 hint=5/none", "drift=8 T=1 hint=none", "neighbour=16 K=32 hint=1"])
def test_a_world_is_a_function_of_name_and_seed(name: str) -> None:
    world = replace(SCENARIOS[name].world, end=100.0)
    first = play(world, inspect_connections, 1, name)
    assert first == play(world, inspect_connections, 1, name)
    assert first != play(world, inspect_connections, 2, name)
    assert first != play(world, inspect_connections, 1, "another")


def test_the_gate_of_a_world_is_made_anew_for_each_run() -> None:
    made: list[Concurrency] = []

    def gate(rng: object, until: float) -> Concurrency:
        made.append(Concurrency(1))
        return made[-1]

    world = World(gate, EXACT, 1, 1, end=12.0)
    assert play(world, at_the_level, 1) == play(world, at_the_level, 1)
    assert len({id(each) for each in made}) == 2


def test_every_script_has_its_changes_within_its_span_and_a_cap_above_what_it_takes() -> None:
    for scenario in SCENARIOS.values():
        world = scenario.world
        start, end = world.span
        assert scenario.script
        assert world.cap >= world.level >= 1, scenario.name
        assert 0 <= start < end, scenario.name
        if world.outage is not None:
            assert start < world.outage[0] < world.outage[1] < end, scenario.name
        if world.growth is not None:
            assert start <= world.growth[0] < end, scenario.name

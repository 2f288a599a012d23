from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from control_samples import EXACT, FixedClient

from benchmarks.control.gates import Concurrency, FixedWindow, Gate, TokenBucket
from benchmarks.control.providers import ScriptedProvider
from benchmarks.control.rules import with_rule
from benchmarks.control.schedules import Schedule
from benchmarks.control.simulator import Answer, Party, Simulation
from benchmarks.control.told import Told
from trio_sched.lowlevel import FixedLimit, Grant, LimitTransition, RequestSample


def played(
    gate: Gate, *clients: FixedClient, until: float, up: float = 0.0, down: float = 0.0, timeout: float = 1e9
) -> list[Party]:
    parties = [Party(client) for client in clients]
    Simulation(ScriptedProvider(gate, EXACT), parties, seed=1, up=up, down=down, timeout=timeout).run(until)
    return parties


@pytest.mark.parametrize(("limit", "used"), [(8, 8 / 16), (16, 1.0)])
def test_a_fixed_limit_up_to_capacity_is_never_refused_and_uses_its_share(limit: int, used: float) -> None:
    gate = Concurrency(16)
    (party,) = played(gate, FixedClient(limit), until=500.0)
    assert party.refused == party.failed == 0
    assert gate.used(500.0) / gate.offered(0.0, 500.0) == pytest.approx(used)


def test_a_fixed_limit_above_capacity_is_refused_as_often_as_can_be_counted_by_hand() -> None:
    """The third place is refused at 0, 0.05, ... 0.95: 20 calls, of which the last is not answered by 0.98."""
    gate = Concurrency(2)
    (party,) = played(gate, FixedClient(3), until=0.98)
    assert (party.attempts, party.refused, party.succeeded, party.in_flight) == (22, 19, 0, 3)
    assert gate.used(0.98) == pytest.approx(2 * 0.98)


@pytest.mark.parametrize("limit", [1, 7, 16, 17, 40])
@pytest.mark.parametrize(
    "gate",
    [
        lambda: Concurrency(16),
        lambda: Concurrency(Schedule(((0.0, 3), (20.0, 30), (40.0, 0), (45.0, 5)))),
        lambda: TokenBucket(5.0, 10.0),
        lambda: FixedWindow(50, 7.0),
    ],
)
@pytest.mark.parametrize("gap", [0.0, 0.2])
def test_calls_are_conserved(gate: Callable[[], Gate], limit: int, gap: float) -> None:
    (party,) = played(gate(), FixedClient(limit), until=60.0, up=gap / 2, down=gap / 2)
    on_the_way = party.in_flight - (party.attempts - party.succeeded - party.refused)
    assert party.in_flight == limit
    assert on_the_way == 0 if gap == 0 else 0 <= on_the_way <= limit


def test_a_call_is_as_long_on_the_way_as_the_network_takes() -> None:
    """Sent at 0, there at 0.1, answered at 1.1, back at 1.3; so the provider is used 10 s of 13."""
    gate, client = Concurrency(4), FixedClient(1)
    played(gate, client, until=13.0, up=0.1, down=0.2)
    assert [moment for moment, _ in client.answers[:2]] == pytest.approx([1.3, 2.6])
    assert gate.used(13.0) == pytest.approx(10.0)


@pytest.mark.parametrize("gap", [0.0, 0.2])
def test_a_call_that_is_not_answered_in_time_is_given_up_and_frees_its_place(gap: float) -> None:
    gate, client = Concurrency(1), FixedClient(1)
    (party,) = played(gate, client, until=1.9, up=gap / 2, down=gap / 2, timeout=0.5)
    assert [moment for moment, _ in client.answers] == pytest.approx([0.5, 1.0, 1.5])
    assert {answer.kind for _, answer in client.answers} == {"provider_timeout"}
    assert party.timed_out == 3
    # The provider hears of it when the next call arrives.
    assert party.refused == 0
    assert gate.in_flight == 1


def test_two_parties_never_exceed_the_capacity_they_share() -> None:
    gate = Concurrency(16)
    parties = [Party(FixedClient(10)), Party(FixedClient(10), joins_at=50.5)]
    simulation = Simulation(ScriptedProvider(gate, EXACT), parties, seed=1)
    simulation.run(50.0)
    assert parties[1].attempts == 0
    simulation.run(400.0)
    # Whoever came first gives a place up and takes it again in one instant; the other finds six.
    assert parties[0].refused == 0
    assert parties[1].refused > 0
    assert gate.used(400.0) == pytest.approx(10 * 400.0 + 6 * 349.5)


def test_a_run_in_parts_is_the_same_run() -> None:
    def books(*stops: float) -> tuple[int, int, float]:
        gate, party = Concurrency(16), Party(FixedClient(20))
        simulation = Simulation(ScriptedProvider(gate, EXACT), [party], seed=3)
        for stop in stops:
            simulation.run(stop)
        return party.succeeded, party.refused, gate.used(100.0)

    assert books(100.0) == pytest.approx(books(1.0, 33.3, 70.0, 100.0))


class Sleeper:
    """Sends nothing, and wants to be woken at times of its own."""

    limit = 1

    def __init__(self, *moments: float) -> None:
        self.woken: list[float] = []
        self._moments = list(moments)

    def grant(self, now: float) -> None:
        return None

    def release(self, ticket: None, answer: Answer, now: float) -> None:
        raise AssertionError

    def wake(self, now: float) -> None:
        self.woken.append(now)
        if self._moments:
            self._moments.pop(0)

    def next_wake(self) -> float | None:
        return self._moments[0] if self._moments else None


def test_a_client_is_woken_when_it_wants_to_be() -> None:
    client = Sleeper(0.0, 1.5, 4.0, 30.0)
    Simulation(ScriptedProvider(Concurrency(1), EXACT), [Party(client)], seed=1).run(20.0)
    assert client.woken == [0.0, 1.5, 4.0]


class Briefly(FixedLimit):
    """Stops for a billionth of a billionth of a second."""

    def granted(self, now: float, in_flight: int) -> Grant:
        self.blocked_until = None
        return super().granted(now, in_flight)

    def ended(self, now: float, grant: Grant, sample: RequestSample) -> Sequence[LimitTransition]:
        self.blocked_until = now + 1e-18
        return ()


def test_a_pause_that_is_too_short_for_a_float_is_over_at_once() -> None:
    """A bucket that lacks a hair of a token asks for no time at all once the clock has gone far enough."""
    party = Party(with_rule(Briefly)(Told(1, 1)))
    Simulation(ScriptedProvider(Concurrency(0), EXACT), [party], seed=1).run(60.0)
    assert 1190 <= party.attempts <= 1210


def test_what_was_drawn_depends_on_the_seed_alone() -> None:
    def attempts(seed: int) -> list[int]:
        party = Party(FixedClient(3))
        simulation = Simulation(ScriptedProvider(Concurrency(3), EXACT, bad=0.5), [party], seed=seed)
        counts: list[int] = []
        for second in range(1, 20):
            simulation.run(float(second))
            counts.append(party.attempts)
        return counts

    random.seed(1)
    first = attempts(1)
    random.seed(2)
    assert attempts(1) == first
    assert attempts(2) != first

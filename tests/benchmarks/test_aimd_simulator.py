from __future__ import annotations

import random

import pytest

from benchmarks.aimd.clients import BurstyNeighbour, FixedClient
from benchmarks.aimd.providers import CallTime, ConcurrencyProvider, QuotaProvider, RateProvider, Schedule
from benchmarks.aimd.simulator import Answer, Party, Provider, simulate

EXACT = CallTime(mean=1.0, sigma=0.0)


def utilisation(party: Party, capacity: int, start: float, end: float) -> float:
    return party.call_seconds / (capacity * (end - start))


def test_a_fixed_limit_below_capacity_is_never_refused_and_uses_its_share() -> None:
    party = Party(FixedClient(8))
    simulate(ConcurrencyProvider(16), [party], seed=1, until=500.0, measured_from=100.0)
    assert party.refused == party.failed == 0
    assert utilisation(party, 16, 100.0, 500.0) == pytest.approx(8 / 16)


def test_a_fixed_limit_at_capacity_uses_all_of_it_and_is_never_refused() -> None:
    party = Party(FixedClient(16))
    simulate(ConcurrencyProvider(16), [party], seed=1, until=500.0, measured_from=100.0)
    assert party.refused == 0
    assert utilisation(party, 16, 100.0, 500.0) == pytest.approx(1.0)


def test_a_fixed_limit_above_capacity_is_refused_as_often_as_can_be_counted_by_hand() -> None:
    """The third place is refused at 0, 0.05, ... 0.95: 20 calls, of which the last is not answered by 0.98."""
    party = Party(FixedClient(3))
    simulate(ConcurrencyProvider(2, call_time=EXACT), [party], seed=1, until=0.98)
    assert (party.sent, party.refused, party.succeeded, party.in_flight) == (22, 19, 0, 3)
    assert party.call_seconds == pytest.approx(2 * 0.98)


def test_calls_count_for_the_part_of_them_that_is_measured() -> None:
    """Calls last from 0 to 1, 1 to 2 and 2 to 3; from 0.5 to 2.25 that is a half, a whole and a quarter."""
    party = Party(FixedClient(1))
    simulate(ConcurrencyProvider(1, call_time=EXACT), [party], seed=1, until=2.25, measured_from=0.5)
    assert party.call_seconds == pytest.approx(1.75)
    assert (party.sent, party.measured_sent, party.succeeded, party.measured_succeeded) == (3, 2, 2, 2)


@pytest.mark.parametrize("limit", [1, 7, 16, 17, 40])
@pytest.mark.parametrize(
    "provider",
    [
        ConcurrencyProvider(16),
        ConcurrencyProvider(Schedule(((0.0, 3), (20.0, 30), (40.0, 5)))),
        ConcurrencyProvider(16, storms=[(10.0, 15.0)], floods=[(30.0, 35.0)]),
        RateProvider(5.0, 10.0),
        QuotaProvider(50, 7.0),
    ],
)
def test_calls_are_conserved(provider: Provider, limit: int) -> None:
    party = Party(FixedClient(limit))
    simulate(provider, [party], seed=limit, until=60.0)
    assert party.sent == party.succeeded + party.refused + party.failed + party.in_flight
    assert party.in_flight == limit


def test_two_parties_never_exceed_the_capacity_they_share() -> None:
    parties = [Party(FixedClient(10)), Party(FixedClient(10), joins_at=50.0)]
    simulate(ConcurrencyProvider(16), parties, seed=1, until=400.0, measured_from=100.0)
    assert sum(utilisation(party, 16, 100.0, 400.0) for party in parties) == pytest.approx(1.0, abs=0.01)
    # Whoever came first gives a place up and takes it again in one instant; the other finds six.
    assert parties[0].refused == 0
    assert parties[1].refused > 0


def test_a_run_is_a_function_of_its_seed() -> None:
    def books(seed: int) -> tuple[int, float]:
        party = Party(FixedClient(20))
        simulate(ConcurrencyProvider(16), [party], seed=seed, until=100.0)
        return party.succeeded, party.call_seconds

    assert books(1) == books(1)
    assert books(1) != books(2)


def test_calls_sent_while_a_hint_lasts_are_counted() -> None:
    """Refused at 0.05 with a hint of 0.12: the calls sent at 0.05, 0.10 and 0.15 disregard it, and set new ones."""
    provider = ConcurrencyProvider(Schedule(((0.0, 0), (0.18, 1))), call_time=EXACT, retry_after=(0.12,))
    party = Party(FixedClient(1))
    simulate(provider, [party], seed=1, until=0.9)
    assert (party.sent, party.refused, party.against_hint) == (5, 4, 4)


def test_a_schedule_adds_up() -> None:
    schedule = Schedule(((0.0, 8), (600.0, 24)))
    assert schedule.integral(60.0, 1260.0) == 540 * 8 + 660 * 24
    assert schedule.integral(700.0, 800.0) == 100 * 24
    assert Schedule.constant(5).integral(1.0, 3.0) == 10


def test_hints_come_in_turn() -> None:
    provider = ConcurrencyProvider(0, retry_after=(20.0, None))
    hints = [provider.answer(0.0, random.Random(1)).retry_after for _ in range(3)]
    assert hints == [20.0, None, 20.0]


def test_storms_fail_and_floods_refuse_whatever_is_free() -> None:
    provider = ConcurrencyProvider(1, storms=[(10.0, 20.0)], floods=[(20.0, 30.0)])
    kinds = [provider.answer(moment, random.Random(1)).kind for moment in (9.9, 10.0, 19.9, 20.0, 29.9)]
    assert kinds == ["success", "provider_failure", "provider_failure", "rate_limited", "rate_limited"]


def test_a_bucket_takes_its_burst_and_then_its_rate() -> None:
    provider = RateProvider(rate=2.0, burst=3.0)
    kinds = [provider.answer(moment, random.Random(1)).kind for moment in (0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 100.0)]
    assert [kind == "success" for kind in kinds] == [True, True, True, False, True, False, True]


def test_a_quota_starts_anew_with_its_window() -> None:
    provider = QuotaProvider(quota=2, window=60.0)
    kinds = [provider.answer(moment, random.Random(1)).kind for moment in (1.0, 2.0, 3.0, 59.9, 60.0, 61.0, 62.0)]
    assert [kind == "success" for kind in kinds] == [True, True, False, False, True, True, False]


def test_the_neighbour_is_on_for_as_long_as_it_says() -> None:
    neighbour = BurstyNeighbour(4, mean_stretch=5.0, until=100.0, seed=3)
    on, moment = 0.0, 0.0
    while (wake := neighbour.next_wake()) is not None and wake < 80.0:
        on += (wake - moment) * (neighbour.limit > 0)
        moment = wake
        neighbour.wake(wake)
    on += (80.0 - moment) * (neighbour.limit > 0)
    assert 20.0 < on < 60.0
    assert neighbour.on_seconds(0.0, 80.0) == pytest.approx(on)


def test_the_neighbour_pauses_after_a_refusal() -> None:
    neighbour = BurstyNeighbour(1, mean_stretch=1.0, until=10.0, seed=1)
    start = neighbour.next_wake()
    assert start is not None
    assert neighbour.grant(start - 0.001) is None
    neighbour.wake(start)
    ticket = neighbour.grant(start)
    assert ticket is not None
    neighbour.release(ticket, Answer("rate_limited", 0.05), start)
    assert neighbour.grant(start) is None
    pause_end = neighbour.next_wake()
    assert pause_end is not None
    assert pause_end - start <= 0.75
    neighbour.wake(pause_end)
    assert (neighbour.grant(pause_end) is None) == (neighbour.limit == 0)

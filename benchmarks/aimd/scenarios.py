"""The scripted providers of family 7, and what is measured at each.

A scenario is a function of a client factory, a seed and a span, so that the same code measures this project's rule, the
peer's and a fixed limit. Measures have these names. Every scenario has the first two, and of the others those that mean
something there: where a provider counts calls, for one, there is no number of calls at once to settle at.

    utilisation      of what the provider offered while measured: call-seconds, or calls where it counts calls
    refused          share of the measured calls that were refused
    settle_seconds   until the limit first is within 10 % of what the provider takes; of two clients, both limits
                     together, from when the second joins
    recover_seconds  after the provider takes more again, until the limit is at 90 % of it; infinite if never
    jain             Jain's fairness index of the calls that two clients of ours got through, 1 is even
    against_hint     calls sent while a pause that the provider had asked for was not over
    neighbour        share of what somebody else's program wanted that it got
    lowest_limit     the lowest limit after the start
    decreases        how often the limit went down
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from benchmarks.aimd.clients import BurstyNeighbour
from benchmarks.aimd.providers import CallTime, ConcurrencyProvider, QuotaProvider, RateProvider, Schedule
from benchmarks.aimd.simulator import Client, Party, simulate

__all__ = [
    "FULL",
    "HEADROOM",
    "SCENARIOS",
    "SMOKE",
    "ClientFactory",
    "Measures",
    "Scenario",
    "Span",
    "steady",
    "step_up",
]

HEADROOM: Final = 4
"""Static cap and initial limit, as a multiple of what the provider takes."""

Measures = dict[str, float]


class ClientFactory(Protocol):
    """Makes a client with this static cap, which is its initial limit too."""

    def __call__(self, *, cap: int, now: float = 0.0, ramp: float = 0.0) -> Client: ...


@dataclass(frozen=True)
class Span:
    """Which simulated seconds are measured."""

    start: float
    end: float

    @property
    def middle(self) -> float:
        """When a provider that changes once does so."""
        return (self.start + self.end) / 2


FULL: Final = Span(60.0, 1260.0)
SMOKE: Final = Span(60.0, 360.0)


@dataclass(frozen=True)
class Scenario:
    """A scripted provider: what it does, and the function that puts a client through it."""

    name: str
    script: str
    run: Callable[[ClientFactory, int, Span], Measures] = field(repr=False)


def settled_at(party: Party, capacity: int, since: float = 0.0) -> float:
    """When the limit first was within 10 % of `capacity`, from `since` on."""
    return _first(party, since, lambda limit: 0.9 * capacity <= limit <= 1.1 * capacity)


def settled_along(capacity: Schedule, until: float, *parties: Party) -> float:
    """When the limits together first were within 10 % of what the provider took then; parties that join later count."""
    joined = max(party.joins_at for party in parties)
    moments = {since for since, _ in capacity.steps} | {moment for party in parties for moment, _ in party.limits}
    for moment in sorted({joined, *(each for each in moments if joined < each < until)}):
        takes, limit = capacity.at(moment), sum(party.limit_at(moment) for party in parties)
        if 0.9 * takes <= limit <= 1.1 * takes:
            return moment
    return math.inf


def reached_at(party: Party, capacity: int, since: float) -> float:
    """When the limit first was at least 90 % of `capacity`, from `since` on."""
    return _first(party, since, lambda limit: limit >= 0.9 * capacity)


def _first(party: Party, since: float, holds: Callable[[int], bool]) -> float:
    if party.limits[0][0] <= since and holds(party.limit_at(since)):
        return since
    return next((moment for moment, limit in party.limits if moment >= since and holds(limit)), math.inf)


def refused(*parties: Party) -> float:
    """Share of the measured calls that were refused."""
    return sum(party.measured_refused for party in parties) / sum(party.measured_sent for party in parties)


def utilisation(capacity: Schedule, span: Span, *parties: Party) -> float:
    """Share of the offered call-seconds that were used."""
    return sum(party.call_seconds for party in parties) / capacity.integral(span.start, span.end)


def steady(
    capacity: int, *, call_seconds: float = 1.0, retry_after: tuple[float | None, ...] = (None,)
) -> Callable[[ClientFactory, int, Span], Measures]:
    """A provider that takes `capacity` calls at once, for ever."""

    def run(make: ClientFactory, seed: int, span: Span) -> Measures:
        provider = ConcurrencyProvider(
            capacity, call_time=CallTime(call_seconds, 0.3 * call_seconds), retry_after=retry_after
        )
        party = Party(make(cap=HEADROOM * capacity))
        simulate(provider, [party], seed=seed, until=span.end, measured_from=span.start)
        measures = {
            "utilisation": utilisation(provider.capacity, span, party),
            "refused": refused(party),
            "settle_seconds": settled_at(party, capacity),
        }
        if any(retry_after):
            measures["against_hint"] = float(party.against_hint)
        return measures

    return run


def _one_step(before: int, after: int) -> Callable[[ClientFactory, int, Span], tuple[Party, Measures]]:
    def run(make: ClientFactory, seed: int, span: Span) -> tuple[Party, Measures]:
        capacity = Schedule(((0.0, before), (span.middle, after)))
        party = Party(make(cap=HEADROOM * max(before, after)))
        simulate(ConcurrencyProvider(capacity), [party], seed=seed, until=span.end, measured_from=span.start)
        return party, {"utilisation": utilisation(capacity, span, party), "refused": refused(party)}

    return run


def step_up(before: int, after: int) -> Callable[[ClientFactory, int, Span], Measures]:
    """A provider that takes more from the middle on."""

    def run(make: ClientFactory, seed: int, span: Span) -> Measures:
        party, measures = _one_step(before, after)(make, seed, span)
        return measures | {
            "settle_seconds": settled_at(party, before),
            "recover_seconds": reached_at(party, after, span.middle) - span.middle,
        }

    return run


def step_down(before: int, after: int) -> Callable[[ClientFactory, int, Span], Measures]:
    """A provider that takes less from the middle on."""

    def run(make: ClientFactory, seed: int, span: Span) -> Measures:
        party, measures = _one_step(before, after)(make, seed, span)
        return measures | {"settle_seconds": settled_at(party, after, span.middle) - span.middle}

    return run


def _sawtooth(make: ClientFactory, seed: int, span: Span) -> Measures:
    low, high, tooth = 8, 24, 240.0
    levels = [*range(low, high), *range(high, low, -1)]
    pause = tooth / len(levels)
    capacity = Schedule(
        tuple((index * pause, levels[index % len(levels)]) for index in range(math.ceil(span.end / pause)))
    )
    party = Party(make(cap=HEADROOM * high))
    simulate(ConcurrencyProvider(capacity), [party], seed=seed, until=span.end, measured_from=span.start)
    return {
        "utilisation": utilisation(capacity, span, party),
        "refused": refused(party),
        "settle_seconds": settled_along(capacity, span.end, party),
    }


def _bursty_neighbour(make: ClientFactory, seed: int, span: Span) -> Measures:
    provider = ConcurrencyProvider(32)
    party = Party(make(cap=HEADROOM * 32))
    bursts = BurstyNeighbour(16, mean_stretch=30.0, until=span.end, seed=seed)
    neighbour = Party(bursts)
    simulate(provider, [party, neighbour], seed=seed, until=span.end, measured_from=span.start)
    offered = provider.capacity.integral(span.start, span.end)
    return {
        "utilisation": party.call_seconds / (offered - neighbour.call_seconds),
        "refused": refused(party),
        "settle_seconds": settled_at(party, 32),
        "neighbour": neighbour.call_seconds / (16 * bursts.on_seconds(span.start, span.end)),
    }


def _cold_start(ramp: float) -> Callable[[ClientFactory, int, Span], Measures]:
    def run(make: ClientFactory, seed: int, span: Span) -> Measures:
        provider = ConcurrencyProvider(16)
        party = Party(make(cap=HEADROOM * 16, ramp=ramp))
        first_minute = Span(0.0, 60.0)
        simulate(provider, [party], seed=seed, until=first_minute.end)
        return {
            "utilisation": utilisation(provider.capacity, first_minute, party),
            "refused": refused(party),
            "settle_seconds": settled_at(party, 16),
        }

    return run


def _storms(make: ClientFactory, seed: int, span: Span) -> Measures:
    storms = [(start, start + 10.0) for start in _every(120.0, span.end)]
    provider = ConcurrencyProvider(16, storms=storms)
    party = Party(make(cap=16))
    simulate(provider, [party], seed=seed, until=span.end, measured_from=span.start)
    # Calls that a storm finds in flight end as they would have.
    lost = sum(min(end, span.end) - start - provider.call_time.residual for start, end in storms if start >= span.start)
    return {
        "utilisation": party.call_seconds / (16 * (span.end - span.start - lost)),
        "refused": refused(party),
        "recover_seconds": max(reached_at(party, 16, end) - end for _, end in storms if end < span.end),
        "lowest_limit": float(min(limit for _, limit in party.limits)),
        "decreases": float(_decreases(party)),
    }


def _flood(make: ClientFactory, seed: int, span: Span) -> Measures:
    start = span.middle
    provider = ConcurrencyProvider(16, floods=[(start, start + 10.0)])
    party = Party(make(cap=HEADROOM * 16))
    simulate(provider, [party], seed=seed, until=span.end, measured_from=span.start)
    return {
        "utilisation": utilisation(provider.capacity, span, party),
        "refused": refused(party),
        "settle_seconds": settled_at(party, 16),
        "recover_seconds": reached_at(party, 16, start + 10.0) - start - 10.0,
        "lowest_limit": float(min(limit for _, limit in party.limits)),
    }


def _every(period: float, until: float) -> list[float]:
    return [period * index for index in range(1, math.ceil(until / period))]


def _decreases(party: Party) -> int:
    limits = [limit for _, limit in party.limits]
    return sum(after < before for before, after in itertools.pairwise(limits))


def _calls_per_second(rate: float, burst: float) -> Callable[[ClientFactory, int, Span], Measures]:
    def run(make: ClientFactory, seed: int, span: Span) -> Measures:
        party = Party(make(cap=int(HEADROOM * rate)))
        provider = RateProvider(rate, burst)
        simulate(provider, [party], seed=seed, until=span.end, measured_from=span.start)
        return {
            "utilisation": party.measured_succeeded / (rate * (span.end - span.start)),
            "refused": refused(party),
        }

    return run


def _calls_per_window(quota: int, window: float) -> Callable[[ClientFactory, int, Span], Measures]:
    def run(make: ClientFactory, seed: int, span: Span) -> Measures:
        party = Party(make(cap=HEADROOM * 16))
        provider = QuotaProvider(quota, window)
        simulate(provider, [party], seed=seed, until=span.end, measured_from=span.start)
        return {
            "utilisation": party.measured_succeeded / (quota * (span.end - span.start) / window),
            "refused": refused(party),
        }

    return run


def _two_of_ours(joins_at: float) -> Callable[[ClientFactory, int, Span], Measures]:
    def run(make: ClientFactory, seed: int, span: Span) -> Measures:
        provider = ConcurrencyProvider(32)
        parties = [
            Party(make(cap=HEADROOM * 32)),
            Party(make(cap=HEADROOM * 32, now=joins_at), joins_at),
        ]
        simulate(provider, parties, seed=seed, until=span.end, measured_from=span.start)
        got = [party.measured_succeeded for party in parties]
        return {
            "utilisation": utilisation(provider.capacity, span, *parties),
            "refused": refused(*parties),
            "settle_seconds": settled_along(provider.capacity, span.end, *parties) - joins_at,
            "jain": sum(got) ** 2 / (len(got) * sum(share * share for share in got)),
        }

    return run


def _table(*scenarios: Scenario) -> Mapping[str, Scenario]:
    return {scenario.name: scenario for scenario in scenarios}


SCENARIOS: Final = _table(
    Scenario("steady_16", "takes 16 at once; refusals without a header", steady(16)),
    Scenario("steady_128", "takes 128 at once; refusals without a header", steady(128)),
    Scenario("step_up", "takes 8, from the middle on 24", step_up(8, 24)),
    Scenario("step_down", "takes 24, from the middle on 8", step_down(24, 8)),
    Scenario("sawtooth", "takes 8 to 24 and back, one more or less every 7.5 s", _sawtooth),
    Scenario(
        "bursty_neighbour", "takes 32; somebody else uses 16 of them, on and off, 30 s on average", _bursty_neighbour
    ),
    Scenario("retry_after_1_16", "takes 16; refusals ask for 1 s", steady(16, retry_after=(1.0,))),
    Scenario("retry_after_1_128", "takes 128; refusals ask for 1 s", steady(128, retry_after=(1.0,))),
    Scenario("long_retry_after", "takes 16; refusals ask for 20 s", steady(16, retry_after=(20.0,))),
    Scenario(
        "mixed_hints", "takes 16; refusals ask for 5 s and for nothing in turn", steady(16, retry_after=(5.0, None))
    ),
    Scenario("cold_start", "takes 16; the first minute, no ramp", _cold_start(0.0)),
    Scenario("cold_start_ramp_15", "the same with a ramp of 15 s", _cold_start(15.0)),
    Scenario("cold_start_ramp_60", "the same with a ramp of 60 s", _cold_start(60.0)),
    Scenario("storms_503", "takes 16, cap 16; every 2 minutes 10 s of nothing but 503", _storms),
    Scenario(
        "calls_per_second", "takes 16 calls a second, in bursts of 16, however many at once", _calls_per_second(16, 16)
    ),
    Scenario(
        "calls_per_minute",
        "takes 960 calls a minute, then refuses until the minute is over",
        _calls_per_window(960, 60.0),
    ),
    Scenario("flood_429", "takes 16; once, for 10 s, it refuses everything without a header", _flood),
    Scenario("two_clients", "takes 32; two of our programs share it, one starts 30 s later", _two_of_ours(30.0)),
    Scenario("small_4", "takes 4", steady(4)),
    Scenario("small_8", "takes 8", steady(8)),
    Scenario("large_512", "takes 512 at once, calls of 4 s", steady(512, call_seconds=4.0)),
    Scenario("short_calls", "takes 16; calls of 0.2 s", steady(16, call_seconds=0.2)),
    Scenario("long_calls", "takes 16; calls of 10 s", steady(16, call_seconds=10.0)),
)

"""What a scenario consists of, and how it is played: a provider, clients, a span, and what is measured in it.

A round trip is the mean time of a call with the network's part of it. Unless a scenario says otherwise the span begins
with the tenth round trip and has at least 50 of them and at least 2,000 calls. Measures have these names:

    utilisation   of what the provider offered in the span: the integral of min(in flight, allowed) by that of what was
                  allowed, at the provider; where it counts calls in time, the calls that it let in
    refused       share of the calls that reached the provider in the span and were refused
    recovery      round trips until 90 % of what is allowed is in flight: from the growth on; or after an outage, from
                  the first answer to a call that was sent after it; infinite if never
    trials        calls that reached the provider in an outage later than a round trip after its start, as a share of
                  the 2 + outage / 5 s that are allowed
    jain          Jain's fairness index of the calls that two clients of one kind got through
    timeouts      share of the calls of the span that were given up
    neighbour     share of what somebody else's program wanted that it got
    lost          share of the calls that ended in the span without an answer for good, because retries were used up
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from benchmarks.control.call_times import CallTime
from benchmarks.control.gates import Concurrency, Gate
from benchmarks.control.neighbours import BurstyNeighbour
from benchmarks.control.providers import Refusals, ScriptedProvider
from benchmarks.control.simulator import Party, Simulation
from benchmarks.control.told import ClientFactory, Told

__all__ = ["MEASURES", "Measures", "World", "play"]

Measures = dict[str, float]
MEASURES: Final = ("utilisation", "refused", "recovery", "trials", "jain", "timeouts", "neighbour", "lost")

WARM_UP: Final = 10
ROUND_TRIPS: Final = 50
CALLS: Final = 2000
NINETY_PERCENT: Final = 0.9

PLAIN: Final = Refusals()
"""After 50 ms, without a hint."""
MakeGate = Callable[[random.Random, float], Gate]
"""Out of a source of randomness and the time until which it is needed."""


@dataclass(frozen=True)
class World:
    """A scripted provider and its clients.

    level: what the provider usually allows at once. cap: what clients are told. start, end: the span, where it is not
    the usual one. events: times that the measures need: of growth; of start and end of an outage. gap: seconds that the
    network takes, half of them up and half down. joins: when a second client of the same kind comes. neighbour: how
    many calls somebody else's program makes at once, on and off.
    """

    gate: MakeGate = field(repr=False)
    call_time: CallTime
    level: int
    cap: int
    refusals: Refusals = PLAIN
    in_outage: Refusals | None = None
    start: float | None = None
    end: float | None = None
    growth: tuple[float, int] | None = None
    outage: tuple[float, float] | None = None
    gap: float = 0.0
    timeout: float = math.inf
    bad: float = 0.0
    hung: float = 0.0
    joins: float | None = None
    neighbour: int = 0

    @property
    def round_trip(self) -> float:
        """Seconds."""
        return self.call_time.mean + self.gap

    @property
    def span(self) -> tuple[float, float]:
        """Which simulated seconds are measured."""
        start = WARM_UP * self.round_trip if self.start is None else self.start
        if self.end is not None:
            return start, self.end
        trips = max(ROUND_TRIPS, CALLS / self.level)
        hints = [hint for hint in self.refusals.hints if hint is not None]
        return start, start + max(trips * self.round_trip, 5 * max(hints, default=0.0))

    @property
    def calls(self) -> float:
        """About how many calls one client that is never refused makes."""
        return self.level * self.span[1] / self.round_trip


def play(world: World, make: ClientFactory, seed: int, name: str = "") -> Measures:
    """Put a client of `make` through it, and measure. Worlds of different names draw differently."""
    rng = random.Random(f"{name} {seed}")
    seed = rng.getrandbits(32)
    start, end = world.span
    gate = world.gate(rng, end)
    provider = ScriptedProvider(
        gate,
        world.call_time,
        refusals=world.refusals,
        in_outage=world.in_outage,
        bad=world.bad,
        hung=world.hung,
    )
    ours = [Party(make(Told(world.cap, world.level, seed=seed)))]
    if world.joins is not None:
        ours.append(Party(make(Told(world.cap, world.level, world.joins, seed + 1)), world.joins))
    parties = list(ours)
    neighbour: BurstyNeighbour | None = None
    if world.neighbour:
        neighbour = BurstyNeighbour(world.neighbour, mean_stretch=30.0, until=end, seed=seed)
        parties.append(Party(neighbour))
    simulation = Simulation(provider, parties, seed=seed, up=world.gap / 2, down=world.gap / 2, timeout=world.timeout)
    measures: Measures = {}
    simulation.run(start)
    before = _Books.of(ours, gate, start)
    if world.growth is not None:
        moment, level = world.growth
        simulation.run(moment)
        _concurrency(gate).watch(NINETY_PERCENT * level, moment)
    if world.outage is not None:
        began, over = world.outage
        simulation.run(began + world.round_trip)
        sent = ours[0].attempts
        simulation.run(over)
        measures["trials"] = (ours[0].attempts - sent) / (2 + (over - began) / 5)
        provider.watch(over)
        _concurrency(gate).watch(NINETY_PERCENT * _concurrency(gate).schedule.at(over), over)
    simulation.run(end)
    after = _Books.of(ours, gate, end)
    if world.growth is not None:
        measures["recovery"] = (_concurrency(gate).reached_at - world.growth[0]) / world.round_trip
    if world.outage is not None:
        late = _concurrency(gate).reached_at - provider.first_answer_at
        measures["recovery"] = max(0.0, late) / world.round_trip if not math.isnan(late) else math.inf
    attempts = after.attempts - before.attempts
    measures["utilisation"] = (after.used - before.used) / gate.offered(start, end)
    measures["refused"] = (after.refused - before.refused) / attempts if attempts else 0.0
    if world.joins is not None:
        got = [now - then for now, then in zip(after.succeeded, before.succeeded, strict=True)]
        measures["jain"] = sum(got) ** 2 / max(1, len(got) * sum(share * share for share in got))
    if world.hung:
        measures["timeouts"] = (after.timed_out - before.timed_out) / attempts
    lost = after.lost - before.lost
    if lost:
        measures["lost"] = lost / (lost + sum(after.succeeded) - sum(before.succeeded))
    if neighbour is not None:
        taken = parties[-1].succeeded * world.call_time.mean
        measures["neighbour"] = taken / (world.neighbour * neighbour.on_seconds(0.0, end))
    return {name: measures[name] for name in MEASURES if name in measures}


@dataclass(frozen=True)
class _Books:
    attempts: int
    refused: int
    timed_out: int
    lost: int
    succeeded: list[int]
    used: float

    @classmethod
    def of(cls, parties: list[Party], gate: Gate, now: float) -> _Books:
        return cls(
            sum(party.attempts for party in parties),
            sum(party.refused for party in parties),
            sum(party.timed_out for party in parties),
            sum(getattr(party.client, "lost", 0) for party in parties),
            [party.succeeded for party in parties],
            gate.used(now),
        )


def _concurrency(gate: Gate) -> Concurrency:
    assert isinstance(gate, Concurrency), "only calls at once grow, or have outages"
    return gate

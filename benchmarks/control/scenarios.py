"""The scripted providers of family 7, grouped by the line of the acceptance table that they are judged by.

A group's scenarios are a grid: the numbers of the line, crossed with call times, hints, caps and network gaps. Names
are unique and say what differs: K, the provider's limit; T, the mean seconds of a call; the hint of its refusals.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from benchmarks.control.call_times import LongTail, Normal
from benchmarks.control.gates import Concurrency, FixedWindow, Gate, SlidingWindow, TokenBucket
from benchmarks.control.providers import Refusals
from benchmarks.control.schedules import Schedule, drift, phases
from benchmarks.control.worlds import MakeGate, World

__all__ = ["HEADROOM", "SCENARIOS", "Scenario"]

HEADROOM: Final = 4
"""The cap told, as a multiple of what the provider takes."""

Hints = tuple[float | None, ...]


@dataclass(frozen=True)
class Scenario:
    """A scripted provider. group: what it is judged with. script: what it does, in words."""

    name: str
    group: str
    script: str
    world: World


def at_once(level: int) -> MakeGate:
    """So many calls at once, for ever."""
    return lambda rng, until: Concurrency(level)


def along(*steps: tuple[float, int]) -> MakeGate:
    """Calls at once, along a schedule."""
    return lambda rng, until: Concurrency(Schedule(steps))


def bucket(rate: float, burst: float) -> MakeGate:
    """Calls a second, with a burst."""
    return lambda rng, until: TokenBucket(rate, burst)


def sliding(quota: int, window: float) -> MakeGate:
    """Calls in any so many seconds."""
    return lambda rng, until: SlidingWindow(quota, window)


def windows(quota: int, window: float) -> MakeGate:
    """Calls in each window of so many seconds."""
    return lambda rng, until: FixedWindow(quota, window)


def hint_name(hints: Hints) -> str:
    """As it stands in names."""
    return "/".join("none" if hint is None else f"{hint:g}" for hint in hints)


def refusing(*hints: float | None) -> Refusals:
    """Refusals with these hints in turn, after 50 ms."""
    return Refusals(hints=hints)


def hinted(hints: Hints) -> str:
    """As it stands in scripts."""
    asked = [f"{hint:g} s" for hint in hints if hint is not None]
    if not asked:
        return "refusals without a hint"
    return f"refusals ask for {' and '.join(asked)}" + (" and for nothing, in turn" if None in hints else "")


def steady() -> Iterator[Scenario]:
    """A concurrency limit from 1 to 512."""
    grid: dict[tuple[int, float, Hints, float], None] = {}
    for level in (1, 2, 3, 4, 6, 8, 16, 32, 64, 128, 256, 512):
        usual = 5.0 if level >= 256 else 1.0
        for hint in (None, 0.2, 1.0, 5.0, 20.0):
            grid[level, usual, (hint,), 0.0] = None
        for seconds in (0.05, 0.3, 2.0, 10.0, 60.0):
            if seconds < 0.3 and level > 128:
                continue
            grid[level, seconds, (None,), 0.0] = None
            grid[level, seconds, (1.0,), 0.0] = None
    for level in (4, 16, 128):
        # Ten times too long, no hint worth the name, and one that is there only sometimes.
        odd: tuple[Hints, ...] = ((10.0,), (0.0,), (5.0, None))
        for hints in odd:
            grid[level, 1.0, hints, 0.0] = None
        for seconds in (0.3, 1.0, 10.0):
            grid[level, seconds, (1.0,), 0.06] = None
    for level, seconds, hints, gap in grid:
        group = "limit of 1" if level == 1 else "limit below 8" if level < 8 else "limit from 8 up"
        if gap:
            group = "limit behind a network"
        network = ", network 60 ms" if gap else ""
        yield Scenario(
            f"K={level} T={seconds:g} hint={hint_name(hints)}{' gap' if gap else ''}",
            group,
            f"takes {level} at once, calls of {seconds:g} s{network}; {hinted(hints)}",
            World(at_once(level), Normal(seconds), level, HEADROOM * level, refusing(*hints), gap=gap),
        )


def swings() -> Iterator[Scenario]:
    """24, then 8, then 24, ten seconds each, from the first call."""
    for cap in (32, 64, 128):
        for hint in (None, 1.0, 5.0, 20.0):
            yield Scenario(
                f"24-8-24 cap={cap} hint={hint_name((hint,))}",
                "24, 8, 24",
                f"takes 24, 8, 24, ten seconds each from the first call, calls of 0.3 s, cap {cap}; {hinted((hint,))}",
                World(
                    along((0.0, 24), (10.0, 8), (20.0, 24)), Normal(0.3), 24, cap, refusing(hint), start=0.0, end=30.0
                ),
            )


def growth() -> Iterator[Scenario]:
    """More than before, while it is used."""
    for before, after in ((8, 24), (32, 256)):
        for seconds in (0.3, 1.0, 5.0):
            for hint in (None, 1.0):
                moment = 40 * seconds
                yield Scenario(
                    f"{before}-{after} T={seconds:g} hint={hint_name((hint,))}",
                    f"growth {before} to {after}",
                    f"takes {before}, after 40 round trips {after}, calls of {seconds:g} s; {hinted((hint,))}",
                    World(
                        along((0.0, before), (moment, after)),
                        Normal(seconds),
                        after,
                        HEADROOM * after,
                        refusing(hint),
                        end=2.5 * moment,
                        growth=(moment, after),
                    ),
                )
    for seconds in (0.3, 1.0, 5.0):
        for hint in (None, 1.0):
            yield Scenario(
                f"start-500 T={seconds:g} hint={hint_name((hint,))}",
                "growth 16 to 500",
                f"takes 500 from the first call, calls of {seconds:g} s; {hinted((hint,))}",
                World(
                    at_once(500),
                    Normal(seconds),
                    500,
                    HEADROOM * 500,
                    refusing(hint),
                    start=0.0,
                    end=60 * seconds,
                    growth=(0.0, 500),
                ),
            )


OUTAGES: Final[Mapping[str, tuple[str, Refusals]]] = {
    "429": ("429 without a hint", Refusals()),
    "429+2": ("429 with a hint of 2 s", Refusals(hints=(2.0,))),
    "503": ("503 without a hint", Refusals(kind="provider_failure", status=503)),
    "529": ("529 without a hint", Refusals(status=529)),
}


def outages() -> Iterator[Scenario]:
    """Nothing but refusals for a while."""
    for level, seconds in ((16, 0.3), (16, 1.0), (64, 2.0)):
        for lasts in (10.0, 30.0, 60.0):
            for kind, (words, how) in OUTAGES.items():
                began = 40 * seconds
                over = began + lasts
                yield Scenario(
                    f"outage={lasts:g} kind={kind} K={level} T={seconds:g}",
                    "outage or flood",
                    f"takes {level}, calls of {seconds:g} s; once, for {lasts:g} s, nothing but {words}",
                    World(
                        along((0.0, level), (began, 0), (over, level)),
                        Normal(seconds),
                        level,
                        HEADROOM * level,
                        in_outage=how,
                        end=over + 60 * seconds,
                        outage=(began, over),
                    ),
                )


def cold_starts() -> Iterator[Scenario]:
    """The first minute. With calls of 1 s and less it has the 50 round trips that a share of refused calls needs."""
    for level in (1, 4, 8, 16, 24, 32, 64, 128):
        for seconds in (0.3, 1.0, 5.0):
            for hint in (None, 1.0):
                yield Scenario(
                    f"cold K={level} T={seconds:g} hint={hint_name((hint,))}",
                    "cold start" if level >= 16 and seconds <= 1 else "cold start, other",
                    f"takes {level}, calls of {seconds:g} s; the first minute; {hinted((hint,))}",
                    World(
                        at_once(level), Normal(seconds), level, HEADROOM * level, refusing(hint), start=0.0, end=60.0
                    ),
                )


def late_refusals() -> Iterator[Scenario]:
    """Refusals that come later than answers."""
    for level in (16, 64):
        for seconds in (1.0, 3.0):
            for hint in (None, 1.0):
                yield Scenario(
                    f"late K={level} T={seconds:g} hint={hint_name((hint,))}",
                    "late refusals",
                    f"takes {level}, calls of {seconds:g} s; refuses after 1 to 3 s; {hinted((hint,))}",
                    World(
                        at_once(level),
                        Normal(seconds),
                        level,
                        HEADROOM * level,
                        Refusals(hints=(hint,), seconds=(1.0, 3.0)),
                    ),
                )


def failing_fast() -> Iterator[Scenario]:
    """Three calls in ten are wrong."""
    for level in (8, 16, 64):
        for seconds in (0.3, 1.0, 5.0):
            yield Scenario(
                f"bad=30% K={level} T={seconds:g}",
                "30 % failing fast",
                f"takes {level}, calls of {seconds:g} s; 30 % fail with 400 in a tenth of that",
                World(at_once(level), Normal(seconds), level, HEADROOM * level, bad=0.3),
            )


def drifting() -> Iterator[Scenario]:
    """A random walk between 16 and 128."""

    def walk(step: int, every: float) -> MakeGate:
        return lambda rng, until: Concurrency(drift(16, 128, step, every, until, rng))

    for step, every in ((4, 5.0), (8, 5.0)):
        for seconds in (0.3, 1.0):
            for hint in (None, 1.0, 20.0):
                yield Scenario(
                    f"drift={step} T={seconds:g} hint={hint_name((hint,))}",
                    "drift 16 to 128",
                    f"takes 16 to 128, every {every:g} s up to {step} more or less, calls of {seconds:g} s; "
                    f"{hinted((hint,))}",
                    World(
                        walk(step, every), Normal(seconds), 72, HEADROOM * 128, refusing(hint), end=600.0 * seconds**0.5
                    ),
                )


def long_tails() -> Iterator[Scenario]:
    """Calls of 1 to 120 s."""
    for level in (16, 64, 256):
        for median in (4.0, 10.0):
            tail = LongTail(median)
            for hint in (None, 5.0):
                yield Scenario(
                    f"tail={median:g} K={level} hint={hint_name((hint,))}",
                    "long tails",
                    f"takes {level}; calls of 1 to 120 s, half of them below {median:g} s; {hinted((hint,))}",
                    World(at_once(level), tail, level, HEADROOM * level, refusing(hint)),
                )


def rates() -> Iterator[Scenario]:
    """Calls in time instead of calls at once.

    Two kinds bind nobody. A bucket that saves up less than a second refuses a limit of calls at once that is right on
    average. And a window that asks for ten times too long asks for up to ten minutes.
    """
    honesty: tuple[tuple[str, float | None], ...] = (("none", None), ("honest", 1.0), ("x10", 10.0))
    for rate, burst, seconds in ((2, 4, 3.0), (5, 5, 1.0), (16, 16, 1.0), (16, 16, 0.3), (16, 2, 0.3), (50, 100, 1.0)):
        for name, honest in honesty:
            yield _rate(
                f"bucket={rate}/s burst={burst} T={seconds:g} hint={name}",
                "calls in time" if burst >= rate else "calls in time, other",
                f"takes {rate} a second in bursts of {burst}",
                bucket(rate, burst),
                rate,
                seconds,
                Refusals(honest=honest),
                (60.0, 660.0),
            )
    for quota, window, seconds in ((20, 1.0, 1.0), (60, 60.0, 2.0), (600, 60.0, 2.0)):
        for name, honest in honesty:
            yield _rate(
                f"sliding={quota}/{window:g}s T={seconds:g} hint={name}",
                "calls in time" if name != "x10" else "calls in time, other",
                f"takes {quota} in any {window:g} s",
                sliding(quota, window),
                quota / window,
                seconds,
                Refusals(honest=honest),
                (120.0, 1320.0),
            )
    for quota, window, seconds in (
        (20, 1.0, 1.0), (100, 10.0, 1.0), (60, 60.0, 2.0), (300, 60.0, 1.0), (960, 60.0, 1.0), (960, 60.0, 5.0),
    ):  # fmt: skip
        for name, honest in honesty:
            yield _rate(
                f"window={quota}/{window:g}s T={seconds:g} hint={name}",
                "calls in fixed windows" if name != "x10" else "calls in time, other",
                f"takes {quota} in each window of {window:g} s",
                windows(quota, window),
                quota / window,
                seconds,
                Refusals(honest=honest),
                (120.0, 1320.0),
            )


def _rate(
    name: str,
    group: str,
    script: str,
    gate: MakeGate,
    rate: float,
    seconds: float,
    refusals: Refusals,
    span: tuple[float, float],
) -> Scenario:
    level = max(1, round(rate * seconds))
    told = {None: "refusals without a hint", 1.0: "refusals say how long"}.get(
        refusals.honest, "refusals ask for ten times too long"
    )
    return Scenario(
        name,
        group,
        f"{script}, however many at once, calls of {seconds:g} s; {told}",
        World(gate, Normal(seconds), level, HEADROOM * level, refusals, start=span[0], end=span[1]),
    )


def pairs() -> Iterator[Scenario]:
    """Two clients of one kind; the second comes after 30 s, and five minutes later their shares are measured."""
    shapes = [(level, seconds, 0.06) for level in (32, 128) for seconds in (0.3, 1.0, 2.0)]
    reported = [(level, seconds, gap) for level in (32, 128) for seconds, gap in ((1.0, 0.0), (10.0, 0.06), (1.0, 0.5))]
    for group, grid in (("two clients", shapes), ("two clients, other gaps", reported)):
        for level, seconds, gap in grid:
            for hint in (None, 1.0):
                yield Scenario(
                    f"pair K={level} T={seconds:g} gap={gap:g} hint={hint_name((hint,))}",
                    group,
                    f"takes {level}; two of one kind share it, network {1000 * gap:g} ms, calls of {seconds:g} s; "
                    f"{hinted((hint,))}",
                    World(
                        at_once(level),
                        Normal(seconds),
                        level,
                        HEADROOM * level,
                        refusing(hint),
                        start=330.0,
                        end=930.0,
                        gap=gap,
                        joins=30.0,
                    ),
                )


def beyond_the_table() -> Iterator[Scenario]:
    """What no line binds, and everybody wants to know."""

    def to_and_fro(rng: random.Random, until: float) -> Gate:
        return Concurrency(phases((24, 8), 15.0, 45.0, until, rng))

    for seconds in (0.3, 1.0):
        for hint in (None, 1.0, 20.0):
            yield Scenario(
                f"swings T={seconds:g} hint={hint_name((hint,))}",
                "24 and 8 at random",
                f"takes 24 and 8 in turn, 15 to 45 s each, calls of {seconds:g} s; {hinted((hint,))}",
                World(to_and_fro, Normal(seconds), 16, 96, refusing(hint), end=600.0),
            )
    for share in (0.001, 0.005, 0.02):
        for level in (16, 64):
            yield Scenario(
                f"hung={100 * share:g}% K={level}",
                "calls that hang",
                f"takes {level}, calls of 1 s; {100 * share:g} % hold a place for 60 s and are never answered",
                World(at_once(level), Normal(1.0), level, HEADROOM * level, hung=share, timeout=60.0, end=600.0),
            )
    for level, other in ((32, 16), (64, 16)):
        for hint in (None, 1.0):
            yield Scenario(
                f"neighbour={other} K={level} hint={hint_name((hint,))}",
                "a neighbour that does not adapt",
                f"takes {level}; somebody else uses {other} of them, on and off, 30 s on average; {hinted((hint,))}",
                World(
                    at_once(level), Normal(1.0), level, HEADROOM * level, refusing(hint), end=1260.0, neighbour=other
                ),
            )


SCENARIOS: Final[Mapping[str, Scenario]] = {
    scenario.name: scenario
    for scenarios in (
        steady, swings, growth, outages, cold_starts, late_refusals, failing_fast, drifting, long_tails, rates, pairs,
        beyond_the_table,
    )
    for scenario in scenarios()
}  # fmt: skip

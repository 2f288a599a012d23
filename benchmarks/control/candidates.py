"""Who is put through the scripted providers, and with how many seeds."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from benchmarks.control.cubic import cubic
from benchmarks.control.inspect_connections import inspect_connections
from benchmarks.control.rules import aimd, evidence, fixed, with_rule
from benchmarks.control.scenarios import SCENARIOS
from benchmarks.control.sdk import sdk
from benchmarks.control.told import ClientFactory
from benchmarks.errors import UsageError
from trio_sched.lowlevel import RequestLimit

__all__ = ["CANDIDATES", "JUDGED", "PEER", "WHO", "client_factory", "scenarios_of", "seeds_of"]

CANDIDATES: Final[Mapping[str, ClientFactory]] = {
    "evidence": evidence,
    "aimd": aimd,
    "fixed": fixed,
    "inspect": inspect_connections,
    "cubic": cubic,
    "sdk-10": sdk(10),
    "sdk-2": sdk(2),
}
"""Those that run here."""
JUDGED: Final = "evidence"
PEER: Final = "peer"
"""Runs in an environment of its own."""
WHO: Final[Mapping[str, str]] = {
    "evidence": "this project's default",
    "aimd": 'this project\'s `limit="aimd"`',
    "fixed": 'this project\'s `limit="fixed"`, told what the provider usually allows',
    "inspect": "the adaptive connections of inspect_ai, as documented",
    "cubic": "CUBIC (RFC 9438), calls in flight as its window",
    "sdk-10": "as many calls at once as the cap says, ten retries of the OpenAI SDK",
    "sdk-2": "the same with the SDK's default of two retries",
    "peer": "the controller of data-designer-engine, with its defaults",
}
OTHERS_SEEDS: Final = 1
"""What is refused most of its calls costs minutes a seed."""
CALLS_OF_THE_PEER: Final = 20_000
"""It takes some forty times as long for each call."""


def seeds_of(candidate: str, seeds: tuple[int, ...]) -> tuple[int, ...]:
    """Those of `seeds` that a candidate gets: all if it is judged, fewer if it is there for comparison."""
    if candidate == JUDGED or candidate not in WHO:
        return seeds
    return seeds[:OTHERS_SEEDS]


def scenarios_of(candidate: str, names: Sequence[str]) -> list[str]:
    """Those of `names` that a candidate plays: all; the peer the shorter ones, and the shortest of each line."""
    if candidate != PEER:
        return list(names)
    calls = {name: SCENARIOS[name].world.calls for name in names}
    lines = dict.fromkeys(SCENARIOS[name].group for name in names)
    shortest = {min((name for name in names if SCENARIOS[name].group == line), key=calls.__getitem__) for line in lines}
    return [name for name in names if calls[name] <= CALLS_OF_THE_PEER or name in shortest]


def client_factory(name: str) -> ClientFactory:
    """That of a candidate: its name, or MODULE:CALLABLE for a rule that the callable makes of (effective_max, now)."""
    if name in CANDIDATES:
        return CANDIDATES[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise UsageError(f"there is no candidate {name!r}; there are {', '.join(WHO)}, and MODULE:CALLABLE")
    try:
        make: Callable[[int, float], RequestLimit] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"there is no rule {name!r}: {error}") from None
    return with_rule(make)

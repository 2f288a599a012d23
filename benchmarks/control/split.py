"""Which half of the scenarios and seeds constants may be chosen on, and which half is reported.

The scenarios of a line are put in the order of a hash of their names, and go to the two halves in turn. So each line
has both halves, nobody chose which, and the split is the same on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final, Literal, get_args

from benchmarks.control.acceptance import LINES
from benchmarks.control.scenarios import SCENARIOS

__all__ = ["HALVES", "SEEDS", "SPLIT", "Half"]

Half = Literal["tune", "report"]
HALVES: Final[tuple[Half, ...]] = get_args(Half)
SEEDS: Final[Mapping[Half, tuple[int, ...]]] = {"tune": (1, 2, 3, 4, 5), "report": (101, 102, 103, 104, 105)}


def _split() -> dict[Half, tuple[str, ...]]:
    halves: dict[Half, set[str]] = {"tune": set(), "report": set()}
    for group in LINES:
        names = sorted((name for name, each in SCENARIOS.items() if each.group == group), key=_hash)
        for place, name in enumerate(names):
            halves[HALVES[place % 2]].add(name)
    return {half: tuple(name for name in SCENARIOS if name in names) for half, names in halves.items()}


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


SPLIT: Final[Mapping[Half, tuple[str, ...]]] = _split()
"""The names of the scenarios of each half, in their order."""

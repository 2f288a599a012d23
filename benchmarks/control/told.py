"""What a client is told when it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from benchmarks.control.simulator import Client

__all__ = ["ClientFactory", "Told"]


@dataclass(frozen=True)
class Told:
    """cap: the most calls it may have in flight. now: when it starts.

    level: what the provider usually allows, for a client that knows. seed: for what it draws.
    """

    cap: int
    level: int
    now: float = 0.0
    seed: int = 0


ClientFactory: TypeAlias = Callable[[Told], Client]

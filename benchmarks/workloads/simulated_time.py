"""Trio on a clock that jumps to the next deadline, so that hours take as long as their work."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar
from unittest import mock

import trio
import trio.testing

__all__ = ["in_simulated_time"]

T = TypeVar("T")


def in_simulated_time(main: Callable[[], Awaitable[T]], order_seed: int) -> T:
    """Run `main` on the mock clock, with Trio's choice of task order fixed by a seed."""
    # Trio has no public way to fix its order; this is the one that Hypothesis' own support for Trio uses.
    with (
        mock.patch("trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING", new=True),
        mock.patch("trio._core._run._r", new=random.Random(order_seed)),
    ):
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

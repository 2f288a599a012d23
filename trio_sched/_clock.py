"""The clock that stamps what is granted."""

from __future__ import annotations

from time import perf_counter

import trio

__all__ = ["run_clock"]


def run_clock() -> float:
    """The clock of the Trio run this is called in, in seconds, or the performance counter outside one."""
    try:
        return trio.current_time()
    except RuntimeError:
        return perf_counter()

"""The clock that stamps what is granted."""

from __future__ import annotations

from time import perf_counter

import trio
from trio.lowlevel import in_trio_run

__all__ = ["run_clock"]


def run_clock() -> float:
    """The clock of the Trio run this is called in, in seconds, or the performance counter outside one."""
    return trio.current_time() if in_trio_run() else perf_counter()

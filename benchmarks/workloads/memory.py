"""How much memory this process has resident, and how that went over a run."""

from __future__ import annotations

import resource
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

__all__ = ["MEGABYTE", "forget_peak", "growth", "resident"]

MEGABYTE: Final = 1_000_000
STATUS: Final = Path("/proc/self/status")
CLEAR_REFS: Final = Path("/proc/self/clear_refs")


def resident(name: str = "VmRSS") -> int:
    """Bytes resident now (`VmRSS`) or at most (`VmHWM`); where the system does not say, the most there ever was."""
    if STATUS.exists():
        for line in STATUS.read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget_peak() -> None:
    """Let the peak start again at what is resident now, where the system can."""
    try:
        CLEAR_REFS.write_text("5")
    except OSError:
        return


def growth(samples: Sequence[int]) -> int:
    """Bytes by which the last fifth of the samples lies above the second, which is the first that is warm.

    Medians, because an allocator gives back what it has when it likes. Never below 0.
    """
    fifth = max(1, len(samples) // 5)
    if len(samples) < 2 * fifth:
        return 0
    warm, last = statistics.median(samples[fifth : 2 * fifth]), statistics.median(samples[-fifth:])
    return max(0, round(last - warm))

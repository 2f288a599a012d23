"""Durations of single steps, in nanoseconds, and what is reported of them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

__all__ = ["Steps", "Stopwatch", "clock", "digest", "quantile", "rows_hash", "since"]

HASH_BYTES: Final = 8

clock: Final = time.perf_counter_ns


def since(start: int) -> float:
    """Seconds since `clock()` gave `start`."""
    return (clock() - start) / 1e9


class Stopwatch:
    """Seconds since it was made, or until it was stopped: on the wall, and of all processors in this process."""

    def __init__(self) -> None:
        self._wall = clock()
        self._cpu = time.process_time_ns()
        self.wall = self.cpu = 0.0

    def stop(self) -> None:
        """Read both clocks."""
        self.cpu = (time.process_time_ns() - self._cpu) / 1e9
        self.wall = since(self._wall)

    def each(self, name: str, parts: int) -> dict[str, float]:
        """Both times of each of so many parts, in microseconds, as the metrics `name_us` and `name_cpu_us`."""
        return {f"{name}_us": self.wall * 1e6 / parts, f"{name}_cpu_us": self.cpu * 1e6 / parts}


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of an ordered, non-empty sequence lies, interpolated between neighbours."""
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


class Steps:
    """Samples of the steps of one cycle, by name."""

    def __init__(self) -> None:
        self._samples: dict[str, list[int]] = {}

    def of(self, step: str) -> list[int]:
        """The list to which the samples of `step` are appended."""
        return self._samples.setdefault(step, [])

    def metrics(self) -> dict[str, float]:
        """The median and the 95th percentile of every step that has samples, in microseconds."""
        found: dict[str, float] = {}
        for step, samples in self._samples.items():
            if samples:
                ordered = sorted(samples)
                found[f"{step}_us"] = quantile(ordered, 0.5) / 1e3
                found[f"{step}_p95_us"] = quantile(ordered, 0.95) / 1e3
        return found


def digest(parts: Iterable[object]) -> str:
    """A hash of a sequence of values by their text."""
    seen = hashlib.sha256()
    for part in parts:
        seen.update(f"{part}\n".encode())
    return seen.hexdigest()[:16]


def rows_hash(rows: Iterable[Mapping[str, Any]]) -> str:
    """A hash of finished rows, whatever their order and that of their columns; it keeps none of them.

    The sum of the hashes of all rows, so a row that is there twice counts twice.
    """
    total = 0
    for row in rows:
        line = json.dumps(dict(row), sort_keys=True).encode()
        total += int.from_bytes(hashlib.sha256(line).digest()[:HASH_BYTES], "big")
    return f"{total % 256**HASH_BYTES:0{2 * HASH_BYTES}x}"

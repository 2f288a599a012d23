"""What the harness ran on, and how steady it was; without the name of a host and without a path."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from benchmarks.artifact import JsonObject, Noise
from benchmarks.figures import summarise

__all__ = ["command_line", "load_average", "machine", "noise"]

STEADY = 0.05
LOUD = 0.15


def machine() -> JsonObject:
    """Processor, memory and system."""
    return JsonObject(
        {
            "processor": _line(Path("/proc/cpuinfo"), "model name") or platform.machine(),
            "processors": os.cpu_count(),
            "memory": _line(Path("/proc/meminfo"), "MemTotal"),
            "system": platform.system(),
        }
    )


def command_line(arguments: Sequence[str], module: str = "benchmarks") -> tuple[str, ...]:
    """The command that was given, folders outside of the checkout left out."""
    return "python", "-m", module, *(_without_folder(argument) for argument in arguments)


def load_average() -> float | None:
    """The load of the last minute, where the system knows it."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def noise(calibrations: Sequence[float], before: float | None, after: float | None) -> Noise:
    """What the calibrations say of the machine."""
    figures = summarise(calibrations)
    spread = figures.standard_deviation / figures.mean
    if spread < STEADY:
        note = f"the machine was steady: a fixed piece of work varied by {spread:.1%}"
    elif spread < LOUD:
        note = f"the machine was a little uneven: a fixed piece of work varied by {spread:.1%}"
    else:
        note = f"the machine was uneven: a fixed piece of work varied by {spread:.1%}; trust ratios, not microseconds"
    return Noise(figures, before, after, note)


def _line(source: Path, name: str) -> str | None:
    if source.exists():
        for line in source.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(name):
                return " ".join(line.partition(":")[2].split())
    return None


def _without_folder(argument: str) -> str:
    name, equals, value = argument.rpartition("=")
    prefix, colon, folder = value.rpartition(":")
    if folder.startswith((os.sep, "~", "..")):
        return f"{name}{equals}{prefix}{colon}FOLDER"
    return argument

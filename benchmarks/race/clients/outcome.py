"""What a client of the race says when it is over; the standard library alone."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

__all__ = ["FIRST", "Told", "race", "second"]

FIRST = "row {number}"
"""The first call of a row."""
MEGABYTE = 1_000_000


def second(answer: str) -> str:
    """The second call of a row, which needs the answer of the first."""
    return f"Finish: {answer}"


@dataclass(frozen=True)
class Told:
    """base_url: of the provider, without a slash at its end. cap: calls at once at most. rows: how many."""

    base_url: str
    cap: int
    rows: int


@dataclass(frozen=True)
class Outcome:
    """What the client itself saw; wall_seconds and processor_seconds are without imports."""

    rows_finished: int
    rows_lost: int
    wall_seconds: float
    processor_seconds: float
    peak_memory_megabytes: float
    runtime: dict[str, str]


def race(work: Callable[[Told], int], packages: Sequence[str]) -> None:
    """Let `work` do the rows and say how many it finished; print the outcome, with the versions of `packages`.

    The outcome goes to what was standard output at the start; whatever a library prints goes to standard error.
    """
    base_url, cap, rows = sys.argv[1:]
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    told = Told(base_url, int(cap), int(rows))
    started, processor_before = time.perf_counter(), _processor_seconds()
    finished = work(told)
    outcome = Outcome(
        rows_finished=finished,
        rows_lost=told.rows - finished,
        wall_seconds=time.perf_counter() - started,
        processor_seconds=_processor_seconds() - processor_before,
        peak_memory_megabytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEGABYTE,
        runtime={"python": platform.python_version(), **{name: _version(name) for name in packages}},
    )
    print(json.dumps(asdict(outcome)), file=answers, flush=True)


def _processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "from its checkout"

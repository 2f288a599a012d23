"""The process on the other side of the harness: prepares one workload, runs it when asked, answers in JSON lines.

    harness -> {"do": "prepare", "workload": "benchmarks.workloads.tasks_here", "params": {...}}
    worker  -> {"runtime": {...}}                        or {"refused": "why"} or {"failed": "traceback"}
    harness -> {"do": "iterate", "warm_up": false}
    worker  -> {"outcome": {...}, "cpu_time_seconds": ..., "peak_memory_bytes": ..., "calibration_seconds": ...}
    harness -> (end of input)

It needs the standard library alone, because it also runs in the environments of other implementations. Answers go
to what was standard output when it started; whatever else is printed goes to standard error.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import json
import os
import platform
import sys
import time
import traceback
from dataclasses import asdict
from typing import Any

from benchmarks.workloads.memory import forget_peak, resident
from benchmarks.workloads.outcome import Json, RefusedError, Run

PACKAGES = ("trio_sched", "trio", "attrs", "anyio", "aiometer", "data-designer-engine")
CALIBRATION_ROUNDS = 100_000


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    worker = Worker()
    for line in sys.stdin:
        print(json.dumps(worker.answer(json.loads(line))), file=answers, flush=True)


class Worker:
    """One workload."""

    def __init__(self) -> None:
        self._run: Run | None = None
        self._memory_before = 0

    def answer(self, request: dict[str, Any]) -> dict[str, Json]:
        """Carry out one request."""
        try:
            if request["do"] == "prepare":
                return self.prepare(request["workload"], request["params"])
            return self.iterate(warm_up=request["warm_up"])
        except (ImportError, AttributeError) as error:
            if self._run is not None:
                return {"failed": traceback.format_exc()}
            return {"refused": f"{type(error).__name__}: {error}"}
        except RefusedError as refusal:
            return {"refused": str(refusal)}
        except Exception:
            return {"failed": traceback.format_exc()}

    def prepare(self, workload: str, params: dict[str, Json]) -> dict[str, Json]:
        """Import the workload and let it prepare itself."""
        module = importlib.import_module(workload)
        gc.collect()
        self._memory_before = resident()
        self._run = module.prepare(params)
        return {"runtime": runtime()}

    def iterate(self, *, warm_up: bool) -> dict[str, Json]:
        """Run it once."""
        assert self._run is not None, "prepare comes first"
        gc.collect()
        calibration = calibrate()
        forget_peak()
        cpu = time.process_time()
        outcome = self._run(warm_up)
        cpu = time.process_time() - cpu
        return {
            "outcome": asdict(outcome),
            "cpu_time_seconds": cpu,
            "peak_memory_bytes": max(0, resident("VmHWM") - self._memory_before),
            "calibration_seconds": calibration,
        }


def runtime() -> dict[str, Json]:
    """What this process runs on, without a path in it."""
    versions: dict[str, Json] = {"python": f"{platform.python_implementation()} {platform.python_version()}"}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def calibrate() -> float:
    """Seconds that a fixed piece of work takes now: how fast the machine happens to be."""
    start = time.perf_counter()
    total = 0
    for number in range(CALIBRATION_ROUNDS):
        total += number & 3
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

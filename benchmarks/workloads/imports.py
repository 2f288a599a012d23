"""How long an import takes in an interpreter that has just started."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.workloads.outcome import Outcome, Params, Run, number, word
from benchmarks.workloads.samples import Steps, clock, since

__all__ = ["prepare"]

PROGRAM = "import time; start = time.perf_counter_ns(); import {module}; print(time.perf_counter_ns() - start)"


def prepare(params: Params) -> Run:
    """Import the module that `params` name, often."""
    program = PROGRAM.format(module=word(params, "imported"))
    import_once(program)

    def run(_warm_up: bool) -> Outcome:
        steps, start = Steps(), clock()
        samples = steps.of("import")
        for _ in range(number(params, "interpreters")):
            samples.append(import_once(program))
        return Outcome(wall_time_seconds=since(start), metrics=steps.metrics(), counts={"imports": len(samples)})

    return run


def import_once(program: str) -> int:
    """Nanoseconds of one import."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    return int(done.stdout)

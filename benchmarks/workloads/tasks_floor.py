"""Scenario family 1 on bare Trio: a unit of one limiter, taken and given back. There is no queue and no fairness."""

from __future__ import annotations

import trio

from benchmarks.workloads.outcome import Outcome, Params, Run, number
from benchmarks.workloads.samples import Steps, clock, since

__all__ = ["prepare"]


def prepare(params: Params) -> Run:
    """The workload on bare Trio."""
    cycles = number(params, "cycles")

    def run(_warm_up: bool) -> Outcome:
        limiter = trio.CapacityLimiter(number(params, "task_capacity"))
        steps = Steps()
        samples = steps.of("open_cycle")
        begin = clock()
        for _ in range(cycles):
            start = clock()
            lease = object()
            limiter.acquire_on_behalf_of_nowait(lease)
            limiter.release_on_behalf_of(lease)
            samples.append(clock() - start)
        return Outcome(
            wall_time_seconds=since(begin),
            metrics=steps.metrics(),
            counts={"open_cycles": cycles},
            final_task_snapshot={"leased": int(limiter.borrowed_tokens), "queued_total": 0},
        )

    return run

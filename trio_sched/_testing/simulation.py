"""Whole runs in simulated time: hours of latency and cooldown in the time that the computing takes.

The clock jumps whenever every task sleeps. So nothing may run in a thread meanwhile, where the clock cannot see it:
files are written and sync columns are called in Trio's own thread.

Trio runs tasks that are ready at the same moment in random order. In a simulation many are, and a limit that learns
from who is refused first learns something else in another order. So the order is drawn from a seed here.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from os import PathLike

import trio
import trio.testing

from trio_sched._blocking import inline
from trio_sched._events.sinks import AnyAdmissionEventSink
from trio_sched._pipeline.columns import PipelineStep
from trio_sched._pipeline.config import RunConfig
from trio_sched._pipeline.models import Model
from trio_sched._pipeline.result import RunResult
from trio_sched._pipeline.resume import ResumeMode
from trio_sched._pipeline.run import run
from trio_sched._pipeline.sources import Row

__all__ = ["simulate"]


def simulate(
    steps: Sequence[PipelineStep],
    *,
    output: str | PathLike[str],
    rows: Iterable[Row] | str | PathLike[str] | None = None,
    records: int | None = None,
    models: Mapping[str, Model] | None = None,
    config: RunConfig | None = None,
    resume: ResumeMode = "never",
    event_sink: AnyAdmissionEventSink | None = None,
) -> RunResult:
    """`trio_sched.run` from its beginning to its end, in simulated time. For tests: call it outside of Trio.

    Takes what `trio_sched.run` takes and raises what it raises; times in the result are in simulated seconds. A column
    that waits for anything but Trio's clock, such as a socket or a thread, does not belong here. The same run takes
    the same time again; `config.seed` chooses the order of tasks that are ready at the same moment.
    """
    with _seeded_order(0 if config is None else config.seed):
        return trio.run(
            partial(
                run,
                steps,
                output=output,
                rows=rows,
                records=records,
                models=models,
                config=config,
                resume=resume,
                event_sink=event_sink,
                blocking=inline,
            ),
            clock=trio.testing.MockClock(autojump_threshold=0),
        )


@contextmanager
def _seeded_order(seed: int) -> Generator[None, None, None]:
    """Trio chooses the order of tasks by a seed."""
    # Trio has no public way to fix it. Hypothesis' own support for Trio uses these two names; without them the order
    # stays random, and only a simulation's times change from run to run.
    scheduler = import_module("trio._core._run")
    fixed: dict[str, object] = {"_ALLOW_DETERMINISTIC_SCHEDULING": True, "_r": random.Random(seed)}
    before = {name: getattr(scheduler, name) for name in fixed if hasattr(scheduler, name)}
    for name in before:
        setattr(scheduler, name, fixed[name])
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(scheduler, name, value)

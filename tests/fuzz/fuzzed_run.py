"""Runs a pipeline of a seed to its end, however often it is cancelled on the way, and keeps what its owners held.

Everything follows from the seed: the pipeline, its faults, the sizes, the limits, the policy of task admission, the
steps at which it is cancelled, the jumps of the clock, and the order in which Trio runs tasks.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import attrs
import trio
import trio._core._run
import trio.testing
from fuzzed_faults import FaultBook
from fuzzed_pipeline import Calls, FuzzedPipeline, Row, build_steps, draw_pipeline
from limit_rules import RULES
from sequential import rows_sequentially

import trio_sched as ts
from trio_sched._request.config import RequestAdmissionConfig
from trio_sched._request.controller import AdaptiveRequestAdmissionController
from trio_sched._scheduler.row_group_admission import AdaptiveRowGroupTargetConfig, RowGroupConfig
from trio_sched._task.bounded_borrow import BoundedBorrowTaskAdmissionPolicyConfig
from trio_sched._task.controller import TaskAdmissionConfig, TaskAdmissionController
from trio_sched._task.resolver import TaskSchedulingResolver
from trio_sched.lowlevel import InMemoryAdmissionEventSink, inline

__all__ = ["Attempt", "FuzzedRun", "in_seeded_order", "simulated"]


@contextmanager
def in_seeded_order(seed: int) -> Generator[None, None, None]:
    """Trio runs tasks in an order that follows from the seed.

    Trio has no public way to choose the order. This is the one that its own tests of that order use; importing
    Hypothesis, which `conftest.py` does, has switched on that the order follows from these random numbers alone.
    """
    order = trio._core._run._r
    before = order.getstate()
    order.seed(seed)
    try:
        yield
    finally:
        order.setstate(before)


@attrs.define(eq=False)
class Attempt:
    """One attempt at the dataset: both event streams, the owners of leases, and the result unless it was cancelled."""

    sink: InMemoryAdmissionEventSink = attrs.field(factory=InMemoryAdmissionEventSink)
    tasks: list[TaskAdmissionController] = attrs.field(factory=list[TaskAdmissionController])
    requests: list[AdaptiveRequestAdmissionController] = attrs.field(factory=list[AdaptiveRequestAdmissionController])
    calls: Calls = attrs.field(factory=Calls)
    result: ts.RunResult | None = None


@attrs.frozen
class ImpatientTuning(ts.RequestAdmissionTuningConfig):
    """A tuning whose requests give up waiting after a time."""

    queue_wait_timeout_seconds: float | None = None

    def with_limits(self, **limits: Any) -> RequestAdmissionConfig:
        return super().with_limits(**limits, default_queue_wait_timeout_seconds=self.queue_wait_timeout_seconds)


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope before the given step of any task."""

    def __init__(self, step: int, scope: trio.CancelScope) -> None:
        self._left = step
        self._scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._left -= 1
        if self._left == 0:
            self._scope.cancel()


@attrs.frozen
class FuzzedRun:
    """The run of a seed. cancel_at: at which step of each attempt it is cancelled; the last one is left alone."""

    seed: int
    pipeline: FuzzedPipeline
    records: int
    config: ts.RunConfig
    row_groups: RowGroupConfig
    borrow: BoundedBorrowTaskAdmissionPolicyConfig | None
    fault_share: float
    cancel_at: tuple[int, ...]
    clock_jumps: tuple[float, ...]

    @classmethod
    def of(cls, seed: int) -> FuzzedRun:
        """Everything that the seed says."""
        rng = random.Random(seed)
        # With random numbers of its own, so that the rest of a seed stays what it was.
        rule = random.Random(f"{seed} rule").choice(("aimd", "aimd", "evidence", "evidence", "fixed", "hostile"))
        pipeline = draw_pipeline(rng, seed)
        max_row_groups = rng.randint(1, 5)
        adaptive = AdaptiveRowGroupTargetConfig(rng.randint(1, max_row_groups)) if rng.random() < 0.4 else None
        return cls(
            seed=seed,
            pipeline=pipeline if rule == "aimd" else pipeline.under(RULES[rule](seed)),
            records=_draw_records(rng, at_least=int(pipeline.input_rows)),
            config=_draw_config(rng, is_tuned=rule == "aimd"),
            row_groups=RowGroupConfig(max_row_groups, adaptive, rng.choice((None, None, 1, 12))),
            borrow=_draw_borrow(rng),
            fault_share=rng.choice((0.05, 0.3, 0.8)),
            cancel_at=tuple(int(10 ** rng.uniform(0, 3.3)) for _ in range(rng.choice((0, 0, 1, 2, 4)))),
            clock_jumps=tuple(rng.choice((0.1, 5, 300)) for _ in range(rng.choice((0, 0, 2)))),
        )

    def input_rows(self) -> list[Row] | None:
        """The rows that it is given, if it does not begin from scratch."""
        if not self.pipeline.input_rows:
            return None
        return [{"n": n, "given": "x" * (n % 4)} for n in range(self.records)]

    async def expected(self) -> tuple[list[Row], Calls]:
        """The rows of a plain sequential run, and what it called."""
        calls = Calls()
        steps = build_steps(self.pipeline, FaultBook(self.seed, 0), calls, self.config.buffer_size)
        rows = await rows_sequentially(
            steps,
            records=self.records,
            rows=self.input_rows() or (),
            seed=self.config.seed,
            buffer_size=self.config.buffer_size,
        )
        return rows, calls

    async def attempts(self, output: Path) -> list[Attempt]:
        """Run it, resume it after every cancellation, and leave the last attempt alone."""
        book = FaultBook(self.seed, self.fault_share)
        made: list[Attempt] = []
        for step in (*self.cancel_at, sys.maxsize):
            made.append(await self._attempt(output, book, step))
            if made[-1].result is not None:
                break
        return made

    async def _attempt(self, output: Path, book: FaultBook, cancel_at: int) -> Attempt:
        attempt = Attempt()
        steps = build_steps(self.pipeline, book, attempt.calls, self.config.buffer_size)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._let_clock_jump)
            with self._configured(attempt), trio.CancelScope() as scope:
                canceller = CancelAtStep(cancel_at, scope)
                trio.lowlevel.add_instrument(canceller)
                try:
                    attempt.result = await ts.run(
                        steps,
                        output=output,
                        rows=self.input_rows(),
                        records=None if self.pipeline.input_rows else self.records,
                        config=self.config,
                        resume="if-possible",
                        event_sink=attempt.sink,
                        blocking=inline,
                    )
                finally:
                    trio.lowlevel.remove_instrument(canceller)
            nursery.cancel_scope.cancel()
        return attempt

    @contextmanager
    def _configured(self, attempt: Attempt) -> Generator[None, None, None]:
        """Choose what a user cannot, and keep the owners of leases."""

        def task_config(resolver: TaskSchedulingResolver, *, submission_capacity: int) -> TaskAdmissionConfig:
            return TaskAdmissionConfig(submission_capacity, resolver.resource_limits, bounded_borrow=self.borrow)

        def task_admission(config: TaskAdmissionConfig, *, clock: Callable[[], float]) -> TaskAdmissionController:
            attempt.tasks.append(TaskAdmissionController(config, clock=clock))
            return attempt.tasks[-1]

        def request_admission(config: RequestAdmissionConfig, **told: Any) -> AdaptiveRequestAdmissionController:
            attempt.requests.append(AdaptiveRequestAdmissionController(config, **told))
            return attempt.requests[-1]

        def row_groups(*_: object, **__: object) -> RowGroupConfig:
            return self.row_groups

        with (
            patch("trio_sched._pipeline.capacity.default_task_admission", task_config),
            patch("trio_sched._pipeline.attempt.TaskAdmissionController", task_admission),
            patch("trio_sched._pipeline.attempt.AdaptiveRequestAdmissionController", request_admission),
            patch("trio_sched._pipeline.capacity.RowGroupConfig", row_groups),
        ):
            yield

    async def _let_clock_jump(self) -> None:
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        for seconds in self.clock_jumps:
            await trio.sleep(3)
            clock.jump(seconds)


def _draw_records(rng: random.Random, *, at_least: int) -> int:
    return rng.choice((at_least, 1, rng.randint(2, 30), rng.randint(2, 30), rng.randint(2, 30)))


def _draw_config(rng: random.Random, *, is_tuned: bool) -> ts.RunConfig:
    config = ts.RunConfig(
        buffer_size=rng.choice((1, 2, 3, 5, 8, 40)),
        submission_capacity=rng.choice((1, 2, 3, 8, 1024)),
        max_attempts=rng.choice((3, 5, 8)),
        max_outage_seconds=None,
        stop_error_rate=None,
        seed=rng.randrange(1000),
        request_admission=ImpatientTuning(
            multiplicative_decrease_factor=rng.choice((0.5, 0.94)),
            successes_until_increase=rng.choice((1, 5, 75)),
            cooldown_seconds=rng.choice((0.0, 0.25, 3.0)),
            startup_ramp_seconds=rng.choice((0.0, 0.0, 10.0)),
            queue_wait_timeout_seconds=rng.choice((None, None, 0.5, 30.0)),
        ),
        write_events="none" if rng.random() >= 0.1 else rng.choice(("all", "summary")),
    )
    return config if is_tuned else attrs.evolve(config, request_admission=None)


def _draw_borrow(rng: random.Random) -> BoundedBorrowTaskAdmissionPolicyConfig | None:
    """The terms of bounded borrow, or None for strict fair sharing."""
    if rng.random() < 0.3:
        return None
    return BoundedBorrowTaskAdmissionPolicyConfig(
        default_borrow_ceiling=rng.choice((None, None, 0, 2)),
        dynamic_borrow_reserve_fraction=rng.choice((0.0, 0.0, 0.3)),
        strict_share_rounding=rng.choice(("ceil", "floor")),
        repay_on_withheld_peer_pressure=rng.random() < 0.8,
    )


def simulated(main: Any, *args: object) -> None:
    """Run on a clock that jumps ahead whenever nothing else is left to do."""
    trio.run(main, *args, clock=trio.testing.MockClock(autojump_threshold=0))

"""Nobody waits under a task lease for capacity of the scheduler; if somebody did, a figure would show it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from scheduler_samples import CHAIN, FAN, Setup, Work, nothing, simulate

from trio_sched._scheduler.events import SchedulerEventContext
from trio_sched._scheduler.worker import Workers
from trio_sched.lowlevel import (
    GraphNode,
    InMemoryAdmissionEventSink,
    RowDrop,
    SchedulerAdmissionEvent,
    Task,
    TaskAdmissionConfig,
    TaskAdmissionLease,
)


async def a_second(task: Task) -> Sequence[RowDrop]:
    await trio.sleep(1)
    return ()


def waiters_of(setup: Setup) -> dict[str, int]:
    return dict(setup.scheduler.observed_maxima().hidden_scheduler_resource_waiters)


@pytest.mark.parametrize("nodes", [CHAIN, FAN])
@pytest.mark.parametrize("capacity", [1, 3, 100])
@pytest.mark.parametrize("work", [nothing, a_second])
def test_no_worker_waits_before_it_works(nodes: Sequence[GraphNode], capacity: int, work: Work) -> None:
    async def main() -> None:
        setup = Setup(work, nodes, records=50, admission=TaskAdmissionConfig(capacity))
        await setup.scheduler.run()
        assert waiters_of(setup) == {}

    simulate(main)


def test_a_loop_that_is_woken_at_every_event_finds_nobody_waiting() -> None:
    """However often it looks between the start of a worker and its first step."""

    class Waking(InMemoryAdmissionEventSink):
        def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
            if event.event_kind != "scheduler_job_started":
                setups[0].scheduler.admission_changed()

    setups: list[Setup] = []

    async def main() -> None:
        setups.append(Setup(a_second, records=50, sink=Waking()))
        await setups[0].scheduler.run()
        assert waiters_of(setups[0]) == {}

    simulate(main)


class WaitingWorkers:
    """Mutants of a worker: after its start it waits for one of two units of a limiter that admission knows nothing of.

    before: while it does not even hold its lease in a `with` block; else when the generator is about to be called.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, before: bool) -> None:
        limiter = trio.CapacityLimiter(2)
        run, call = Workers._run, Workers._call_generator

        async def run_later(
            self: Workers,
            task: Task,
            lease: TaskAdmissionLease,
            execution: SchedulerEventContext,
            scope: trio.CancelScope | None,
        ) -> None:
            async with limiter:
                await run(self, task, lease, execution, scope)

        async def call_later(self: Workers, task: Task, lease: TaskAdmissionLease) -> Sequence[RowDrop]:
            async with limiter:
                return await call(self, task, lease)

        if before:
            monkeypatch.setattr(Workers, "_run", run_later)
        else:
            monkeypatch.setattr(Workers, "_call_generator", call_later)


@pytest.mark.parametrize("before", [True, False])
def test_workers_that_wait_after_their_start_are_counted(monkeypatch: pytest.MonkeyPatch, before: bool) -> None:
    WaitingWorkers(monkeypatch, before=before)

    async def main() -> None:
        setup = Setup(a_second, records=10, buffer_size=10)
        await setup.scheduler.run()
        # Eight wait. Two go on a second later, in one wake-up or in two, and by then the others are known to wait.
        assert waiters_of(setup)["submission"] >= 4

    simulate(main)

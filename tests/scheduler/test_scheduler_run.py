"""The scheduler over a graph of one's own, without the pipeline on top."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Sequence

import pytest
import trio
import trio.testing
from scheduler_samples import CHAIN, Runner, Setup, Store, nothing, simulate, two_row_groups

from trio_sched import TrioSchedError
from trio_sched.lowlevel import (
    AsyncTaskScheduler,
    ColumnGenerator,
    ExecutionGraph,
    Failure,
    FairTaskQueue,
    FixedRowGroupPlan,
    PolicyStateDelta,
    QueueView,
    RowFailure,
    RowGroup,
    SchedulableTask,
    SchedulerAdmissionEvent,
    SchedulerResult,
    SchedulerStalledError,
    Task,
    TaskAdmissionConfig,
    TaskAdmissionLease,
    TaskAdmissionPolicyDecision,
    TaskAdmissionView,
    TaskSchedulingResolver,
    scheduler_event_stream,
)


async def test_every_task_runs_once_and_every_row_group_is_written() -> None:
    ran: Counter[Task] = Counter()

    async def work(task: Task) -> Sequence[RowFailure]:
        ran[task] += 1
        await trio.lowlevel.checkpoint()
        return ()

    setup = Setup(work)
    result = await setup.scheduler.run()
    assert set(ran.values()) == {1}
    assert len(ran) == 4 + 20 + 20
    assert (result.row_groups, result.rows, result.dropped_rows, result.cancelled) == (4, 20, 0, False)
    assert sorted(setup.store.written) == [(index, (0, 1, 2, 3, 4)) for index in range(4)]
    setup.assert_nothing_held()


def test_row_groups_stay_under_their_hard_cap_and_end_out_of_order() -> None:
    open_groups: set[int] = set()
    most = 0

    async def work(task: Task) -> Sequence[RowFailure]:
        nonlocal most
        open_groups.add(task.row_group)
        await trio.sleep(10 if task.row_group == 0 else 1)
        most = max(most, len(open_groups))
        return ()

    async def main() -> None:
        setup = Setup(work)
        setup.store.before_write = lambda row_group: open_groups.discard(row_group.index)
        await setup.scheduler.run()
        assert most == 2
        assert [index for index, _ in setup.store.written] == [1, 2, 3, 0]

    simulate(main)


def test_submission_capacity_bounds_the_workers() -> None:
    running = most = 0

    async def work(task: Task) -> Sequence[RowFailure]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(1)
        running -= 1
        return ()

    async def main() -> None:
        setup = Setup(work, admission=TaskAdmissionConfig(3), config=two_row_groups(4))
        await setup.scheduler.run()
        assert most == 3
        assert setup.scheduler.observed_maxima().task_leases_by_resource == {"submission": 3}

    simulate(main)


def test_failed_rows_are_dropped_with_their_downstream_work() -> None:
    error = LookupError("row 3 is bad")

    async def work(task: Task) -> Sequence[RowFailure]:
        if task.column == "b" and task.row_index == 3:
            raise error
        if task.column == "a" and task.row_group == 1:
            return [RowFailure(0, error)]
        return ()

    async def main() -> None:
        setup = Setup(work)
        result = await setup.scheduler.run()
        assert result.dropped_rows == 5
        assert dict(setup.store.written) == {0: (0, 1, 2, 4), 1: (1, 2, 4), 2: (0, 1, 2, 4), 3: (0, 1, 2, 4)}
        assert sorted((cause.column, cause.rows) for cause in result.drop_causes) == [("a", 1), ("b", 4)]
        assert result.first_non_retryable_error is error
        # Of a task that fails, and of one that names the rows which it did not make.
        assert setup.kinds()["non_retryable_dropped"] == 5
        setup.assert_nothing_held()

    simulate(main)


def test_deferred_tasks_run_again_and_nothing_is_lost() -> None:
    class Busy(Exception):
        pass

    tries: Counter[Task] = Counter()

    async def work(task: Task) -> Sequence[RowFailure]:
        tries[task] += 1
        if task.column == "b" and tries[task] <= 6:
            raise Busy
        return ()

    async def main() -> None:
        setup = Setup(work, classify=lambda _: Failure("preserved", "rate_limited"))
        result = await setup.scheduler.run()
        assert (result.rows, result.dropped_rows) == (20, 0)
        assert setup.kinds()["retry_deferred"] == setup.kinds()["salvage_redispatched"] == 120
        assert all(event.diagnostics["error"] == "Busy" for event in setup.events("retry_deferred"))
        assert all(event.diagnostics == {} for event in setup.events("salvage_redispatched"))
        executions = {
            event.task_execution_id for event in setup.sink.scheduler_events if event.event_kind == "worker_spawned"
        }
        assert "0:0:cell:b@7" in executions
        setup.assert_nothing_held()

    simulate(main)


def test_request_cancel_from_a_thread_keeps_what_is_complete() -> None:
    async def main() -> None:
        async def work(task: Task) -> Sequence[RowFailure]:
            if task.row_group == 2:
                await trio.to_thread.run_sync(setup.scheduler.request_cancel)
                await trio.sleep_forever()
            return ()

        setup = Setup(work, config=two_row_groups(1))
        result = await setup.scheduler.run()
        assert result.cancelled
        assert [index for index, _ in setup.store.written] == [0, 1]
        assert setup.kinds()["cancelled"] == 1
        setup.assert_nothing_held()

    trio.run(main)


def test_cancelling_the_caller_releases_every_lease() -> None:
    async def work(task: Task) -> Sequence[RowFailure]:
        await trio.sleep(1000)
        return ()

    async def main() -> None:
        setup = Setup(work)
        with trio.move_on_after(1) as scope:
            await setup.scheduler.run()
        assert scope.cancelled_caught
        assert setup.kinds()["cancelled"] == 2
        setup.assert_nothing_held()

    simulate(main)


def test_an_error_of_the_store_ends_the_run_with_its_cause() -> None:
    async def main() -> None:
        setup = Setup(nothing, config=two_row_groups(1))

        def full(row_group: RowGroup) -> None:
            raise OSError(28, "No space left on device")

        setup.store.before_write = full
        with pytest.raises(OSError, match="No space left"):
            await setup.scheduler.run()
        setup.assert_nothing_held()

    simulate(main)


def test_an_error_of_the_plan_ends_the_run_with_its_cause_alone() -> None:
    async def work(task: Task) -> Sequence[RowFailure]:
        await trio.sleep(1)
        return ()

    class Broken:
        left = 3

        async def next_row_group(self) -> RowGroup | None:
            self.left -= 1
            if not self.left:
                raise LookupError("no more")
            return RowGroup(2 - self.left, 0, 5)

    async def main() -> None:
        for _ in range(20):
            setup = Setup(work, plan=Broken(), config=two_row_groups(5))
            with pytest.raises(LookupError):
                await setup.scheduler.run()
            setup.assert_nothing_held()

    simulate(main)


async def test_the_leak_report_is_able_to_fail() -> None:
    setup = Setup(nothing)
    scheduled = TaskSchedulingResolver({"b": ColumnGenerator()}).schedulable(Task("b", 7, 7, "cell"))
    assert isinstance(setup.admission.try_acquire(scheduled, FairTaskQueue().view()), TaskAdmissionLease)
    await setup.scheduler.run()
    (leak,) = setup.admission.leak_report()
    assert leak.task_id == "7:7:cell:b"
    assert "7:7:cell:b" in str(leak)
    final = setup.sink.scheduler_events[-1]
    assert final.event_kind == "scheduler_job_completed"
    assert final.snapshot is not None
    assert final.snapshot["leased_resources"] == {"submission": 1}


class PlainWaiting:
    """A policy that lets nothing run before a given time, or ever."""

    def __init__(self, until: float | None) -> None:
        self.until = until

    def evaluate(
        self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
    ) -> TaskAdmissionPolicyDecision:
        if self.until is None or trio.current_time() < self.until:
            return TaskAdmissionPolicyDecision(False, "policy_denial", self.until)
        return TaskAdmissionPolicyDecision(True)

    def on_acquire(self, lease: TaskAdmissionLease, decision: TaskAdmissionPolicyDecision) -> PolicyStateDelta:
        return PolicyStateDelta()

    def on_release(self, lease: TaskAdmissionLease) -> PolicyStateDelta:
        return PolicyStateDelta()


def test_the_dispatcher_wakes_when_a_policy_said_to_ask_again() -> None:
    async def main() -> None:
        setup = Setup(nothing, policy=PlainWaiting(until=trio.current_time() + 5))
        began = trio.current_time()
        result = await setup.scheduler.run()
        assert result.rows == 20
        assert trio.current_time() == pytest.approx(began + 5)
        assert setup.kinds()["admission_blocked"] >= 1

    simulate(main)


def test_a_policy_that_names_times_gone_by_is_asked_once_a_second() -> None:
    class Late(PlainWaiting):
        asked = 0

        def evaluate(
            self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
        ) -> TaskAdmissionPolicyDecision:
            self.asked += 1
            assert self.asked < 1000, "it is asked without a pause"
            decision = super().evaluate(item, queue_view, admission_view)
            return decision if decision.allowed else TaskAdmissionPolicyDecision(False, "policy_denial", 0.0)

    async def main() -> None:
        policy = Late(until=trio.current_time() + 30)
        setup = Setup(nothing, policy=policy)
        began = trio.current_time()
        result = await setup.scheduler.run()
        assert result.rows == 20
        assert 30 <= trio.current_time() - began <= 31.5

    simulate(main)


def test_the_dispatcher_wakes_for_a_policy_that_names_a_time_while_something_runs() -> None:
    class OneAtFirst(PlainWaiting):
        """Lets one task run before the time."""

        def evaluate(
            self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
        ) -> TaskAdmissionPolicyDecision:
            if not admission_view.leased_resources:
                return TaskAdmissionPolicyDecision(True)
            return super().evaluate(item, queue_view, admission_view)

    async def main() -> None:
        began = trio.current_time()
        started: list[float] = []

        async def work(task: Task) -> Sequence[RowFailure]:
            started.append(trio.current_time() - began)
            await trio.sleep(100)
            return ()

        setup = Setup(work, CHAIN[:1], records=4, buffer_size=1, policy=OneAtFirst(until=began + 5))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(setup.scheduler.run)
            await trio.sleep(0.5)
            setup.scheduler.admission_changed()
        assert started == pytest.approx([0, 5, 100, 105])

    simulate(main)


def test_the_dispatcher_wakes_for_a_raised_limit() -> None:
    async def work(task: Task) -> Sequence[RowFailure]:
        await trio.sleep(10)
        return ()

    async def main() -> None:
        setup = Setup(work, admission=TaskAdmissionConfig(1))
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(setup.scheduler.run)
            await trio.testing.wait_all_tasks_blocked()
            setup.admission.set_limit("submission", 2)
            setup.scheduler.admission_changed()
            await trio.testing.wait_all_tasks_blocked()
            assert setup.kinds()["worker_spawned"] == 2
            assert trio.current_time() == began
            setup.scheduler.request_cancel()

    simulate(main)


def test_a_queue_that_nothing_can_move_fails_with_an_explanation() -> None:
    async def main() -> None:
        setup = Setup(nothing, policy=PlainWaiting(until=None))
        with pytest.raises(SchedulerStalledError, match=r"queued tasks can never run: policy_denial \("):
            await setup.scheduler.run()
        setup.assert_nothing_held()

    simulate(main)


async def test_a_scheduler_runs_once() -> None:
    setup = Setup(nothing)
    await setup.scheduler.run()
    with pytest.raises(TrioSchedError, match="runs once"):
        await setup.scheduler.run()


class MemorySink:
    def __init__(self) -> None:
        self.samples: list[int] = []

    def accepts_scheduler_event(self, kind: str) -> bool:
        return kind == "row_group_checkpointed"

    def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
        self.samples.append(tracemalloc.get_traced_memory()[0])


async def test_ten_thousand_rows_by_three_columns_in_flat_memory() -> None:
    setup = Setup(nothing)
    sink = MemorySink()
    scheduler = AsyncTaskScheduler(
        ExecutionGraph(CHAIN),
        TaskSchedulingResolver({node.column: ColumnGenerator() for node in CHAIN}),
        Runner(nothing),
        FixedRowGroupPlan(10_000, 100),
        Store(),
        admission=setup.admission,
        classify=lambda _: Failure("non_retryable", "x"),
        events=scheduler_event_stream(sink),
    )
    tracemalloc.start()
    try:
        result: SchedulerResult = await scheduler.run()
    finally:
        tracemalloc.stop()
    assert result.rows == 10_000
    warm, rest = sink.samples[10:30], sink.samples[30:]
    assert max(rest) < max(warm) + 200_000

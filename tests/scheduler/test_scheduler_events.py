"""Each kind of scheduler event comes from the transition that it names, on edges and not once per turn."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import trio
from scheduler_samples import FAN, Runner, Setup, context_of, nothing, simulate, two_row_groups

from trio_sched._scheduler.dispatch import Dispatcher
from trio_sched._scheduler.worker import Workers
from trio_sched.lowlevel import (
    InMemoryAdmissionEventSink,
    PolicyStateDelta,
    QueueView,
    RowDrop,
    SchedulableTask,
    Task,
    TaskAdmissionConfig,
    TaskAdmissionController,
    TaskAdmissionLease,
    TaskAdmissionPolicy,
    TaskAdmissionPolicyDecision,
    TaskAdmissionView,
)


async def ten_seconds(task: Task) -> Sequence[RowDrop]:
    await trio.sleep(10)
    return ()


def test_a_backlog_is_told_when_it_forms_and_when_it_is_gone() -> None:
    async def main() -> None:
        setup = Setup(ten_seconds, records=5, admission=TaskAdmissionConfig(2))
        await setup.scheduler.run()
        kinds = [
            event.event_kind
            for event in setup.sink.scheduler_events
            if event.event_kind in ("admission_blocked", "queue_drained", "queue_empty")
        ]
        assert kinds == ["queue_empty", "admission_blocked", "queue_drained", "queue_empty"]
        (blocked,) = setup.events("admission_blocked")
        assert blocked.reason_or_result == "no_capacity"
        assert blocked.diagnostics["queued"] == 3

    simulate(main)


def test_an_empty_queue_is_told_once_however_long_it_stays_so() -> None:
    async def main() -> None:
        setup = Setup(ten_seconds, records=50)
        await setup.scheduler.run()
        assert setup.kinds()["queue_empty"] == 1
        assert setup.kinds()["admission_blocked"] == 0

    simulate(main)


class Capping:
    """Lets each group run one task at a time while another group is queued."""

    def evaluate(
        self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
    ) -> TaskAdmissionPolicyDecision:
        if admission_view.running_counts_by_group.get(item.group.key, 0):
            return TaskAdmissionPolicyDecision(False, "group_cap")
        return TaskAdmissionPolicyDecision(True)

    def on_acquire(self, lease: TaskAdmissionLease, decision: TaskAdmissionPolicyDecision) -> PolicyStateDelta:
        return PolicyStateDelta()

    def on_release(self, lease: TaskAdmissionLease) -> PolicyStateDelta:
        return PolicyStateDelta()


def test_a_capped_group_is_told_once_while_it_is_capped() -> None:
    async def main() -> None:
        setup = Setup(ten_seconds, FAN, records=5, policy=Capping())
        await setup.scheduler.run()
        told = setup.events("group_capped")
        assert sorted(str(event.diagnostics["group"]) for event in told) == ["local/default/b", "local/default/c"]
        assert {event.reason_or_result for event in told} == {"group_cap"}

    simulate(main)


def test_a_lease_that_comes_back_twice_is_told() -> None:
    async def main() -> None:
        taken: list[TaskAdmissionLease] = []

        class Watching(Capping):
            def on_acquire(self, lease: TaskAdmissionLease, decision: TaskAdmissionPolicyDecision) -> PolicyStateDelta:
                taken.append(lease)
                return PolicyStateDelta()

        async def work(task: Task) -> Sequence[RowDrop]:
            if task == Task("b", 0, 0, "cell"):
                assert setup.admission.release(taken[0]).reason == "duplicate"
            return ()

        setup = Setup(work, policy=Watching())
        await setup.scheduler.run()
        (told,) = setup.events("release_diagnostic")
        assert (told.reason_or_result, told.diagnostics) == ("duplicate", {"count": 1})
        final = setup.events("scheduler_job_completed")[0]
        assert final.snapshot is not None
        assert final.snapshot["release_diagnostics"] == {"duplicate": 1}

    simulate(main)


def test_health_snapshots_come_at_intervals_and_hold_the_state() -> None:
    async def main() -> None:
        setup = Setup(ten_seconds, records=50, admission=TaskAdmissionConfig(3))
        await setup.scheduler.run()
        told = setup.events("scheduler_health_snapshot")
        times = [event.captured_at_monotonic for event in told]
        assert all(later - earlier >= 10 for earlier, later in itertools.pairwise(times))
        assert len(told) > 5
        snapshot = told[3].snapshot
        assert snapshot is not None
        assert snapshot["active_leases_by_resource"] == snapshot["leased_resources"] == {"submission": 3}
        assert set(snapshot) == {
            "queued_total",
            "queued_by_group",
            "queued_resource_demand_by_group",
            "running_by_group",
            "resource_limits",
            "resources_available",
            "leased_resources",
            "leased_resources_by_group",
            "active_leases_by_resource",
            "release_diagnostics",
            "policy_debt",
        }

    simulate(main)


def test_the_way_of_one_task_is_told_in_order() -> None:
    async def main() -> None:
        setup = Setup(nothing, records=1, config=two_row_groups(1))
        await setup.scheduler.run()
        kinds = [event.event_kind for event in setup.sink.scheduler_events if event.task_id == "0:0:cell:b"]
        assert kinds == [
            "dependency_ready",
            "ready_enqueued",
            "selected",
            "task_lease_acquired",
            "worker_spawned",
            "task_completed",
            "task_lease_released",
        ]
        assert [event.sequence for event in setup.sink.scheduler_events] == list(
            range(1, len(setup.sink.scheduler_events) + 1)
        )

    simulate(main)


class CannotStart(Workers):
    def start(self, task: Task, lease: TaskAdmissionLease, execution: object) -> None:
        raise OSError("no more tasks")


class OneTask:
    """A dispatcher with one ready task, and what it told."""

    def __init__(
        self, policy: TaskAdmissionPolicy | None = None, sink: InMemoryAdmissionEventSink | None = None
    ) -> None:
        self.sink = InMemoryAdmissionEventSink() if sink is None else sink
        self.admission = TaskAdmissionController(policy=policy)
        context = context_of(FAN, self.sink, self.admission)
        self.queue = context.queue
        self.dispatcher = Dispatcher(context, CannotStart(context, Runner(nothing)))
        context.tracker.open_row_group(0, 1)
        self.dispatcher.offer_ready()

    def kinds(self) -> Sequence[str]:
        return [event.event_kind for event in self.sink.scheduler_events][3:]


async def test_a_worker_that_cannot_be_spawned_gives_its_lease_back_and_is_told() -> None:
    one = OneTask()
    with pytest.raises(OSError, match="no more tasks"):
        one.dispatcher.dispatch()
    assert one.kinds() == ["task_lease_acquired", "worker_spawn_failed", "task_lease_released"]
    assert one.admission.leak_report() == ()


async def test_a_stale_selection_gives_its_lease_back_and_is_told() -> None:
    class Withdrawing(Capping):
        def on_acquire(self, lease: TaskAdmissionLease, decision: TaskAdmissionPolicyDecision) -> PolicyStateDelta:
            one.queue.discard(lease.item.task_id)
            return PolicyStateDelta()

    one = OneTask(Withdrawing())
    assert one.dispatcher.dispatch() == 0
    assert one.kinds() == ["task_lease_acquired", "stale_selection", "task_lease_released"]
    assert one.admission.leak_report() == ()


async def test_a_task_that_is_refused_after_all_is_told() -> None:
    class Wavering(Capping):
        asked = 0

        def evaluate(
            self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
        ) -> TaskAdmissionPolicyDecision:
            self.asked += 1
            return TaskAdmissionPolicyDecision(self.asked == 1, None if self.asked == 1 else "policy_denial")

    one = OneTask(Wavering())
    one.dispatcher.dispatch()
    assert one.kinds() == ["admission_denied"]
    assert one.sink.scheduler_events[-1].reason_or_result == "policy_denial"


async def test_events_of_a_task_name_no_execution_before_it_is_leased_and_the_same_one_afterwards() -> None:
    one = OneTask()
    with pytest.raises(OSError, match="no more tasks"):
        one.dispatcher.dispatch()
    events = one.sink.scheduler_events
    task_id = events[0].task_id
    executions = [(event.event_kind, event.task_execution_id) for event in events if event.task_id == task_id]
    assert executions[2:4] == [("selected", None), ("task_lease_acquired", f"{task_id}@1")]
    assert {execution for _, execution in executions[:3]} == {None}
    assert {execution for _, execution in executions[3:]} == {f"{task_id}@1"}
    correlations = {event.captured_correlation for event in events[3:]}
    assert [each.task_execution_id for each in correlations if each is not None] == [f"{task_id}@1"]

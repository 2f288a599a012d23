"""Every kind of the scheduler's stream is emitted: a few scripted runs bring about all of them between them.

A kind that is added to the literal and emitted nowhere fails here, and so does an event of a kind that is not in it.
Each stream is replayed as well, and has to give its run's final snapshot.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import attrs
import pytest
import trio
import trio.testing

from trio_sched._events.records import SCHEDULER_EVENT_KINDS
from trio_sched._observe.scheduler_replay import SchedulerReplay
from trio_sched._scheduler.context import SchedulerContext
from trio_sched._scheduler.dispatch import Dispatcher
from trio_sched._scheduler.events import SchedulerEvents
from trio_sched._scheduler.health import HealthMonitor
from trio_sched._scheduler.retry import RetryBook
from trio_sched._scheduler.worker import Workers
from trio_sched.lowlevel import (
    AdaptiveRowGroupTargetConfig,
    AsyncTaskScheduler,
    BoundedBorrowTaskAdmissionPolicyConfig,
    ColumnGenerator,
    ExecutionGraph,
    Failure,
    FixedRowGroupPlan,
    GraphNode,
    InMemoryAdmissionEventSink,
    PolicyStateDelta,
    ProviderModelKey,
    ProviderModelPressureSnapshot,
    QueueView,
    RequestPressureSnapshot,
    RequestResourceKey,
    RowFailure,
    RowGroup,
    RowGroupConfig,
    SchedulableTask,
    SchedulerAdmissionEvent,
    SchedulerConfig,
    Task,
    TaskAdmissionConfig,
    TaskAdmissionController,
    TaskAdmissionLease,
    TaskAdmissionPolicyDecision,
    TaskAdmissionView,
    TaskSchedulingResolver,
    scheduler_event_stream,
)
from trio_sched.metadata import SchedulingMetadata

GRAPH = ExecutionGraph([GraphNode("a", "from_scratch"), GraphNode("b", "cell", ("a",)), GraphNode("c", "cell", ("a",))])


class PassingError(Exception):
    pass


def classify(error: Exception) -> Failure:
    if isinstance(error, PassingError):
        return Failure("retryable", "provider_failure")
    return Failure("non_retryable", "unexpected_exception")


class Calling(ColumnGenerator):
    """A generator that calls one model."""

    def __init__(self, model_id: str) -> None:
        self._model_id = model_id

    def get_scheduling_metadata(self) -> SchedulingMetadata:
        return SchedulingMetadata.model("provider", self._model_id, "chat", weight=4)


class Store:
    def open(self, row_group: RowGroup) -> None:
        pass

    async def write(self, row_group: RowGroup, living_rows: Sequence[int]) -> None:
        await trio.lowlevel.checkpoint()


class PassesOneAndAll:
    """A policy that allows everything. Subclasses misbehave."""

    def evaluate(
        self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
    ) -> TaskAdmissionPolicyDecision:
        return TaskAdmissionPolicyDecision(True)

    def on_acquire(self, lease: TaskAdmissionLease, decision: TaskAdmissionPolicyDecision) -> PolicyStateDelta:
        return PolicyStateDelta()

    def on_release(self, lease: TaskAdmissionLease) -> PolicyStateDelta:
        return PolicyStateDelta()


ASKED_AGAIN_ABOUT_THE_SECOND = 4
"""Each task is asked about twice; while the first runs, something is under way that lets the second be asked anew."""


class ChangesItsMind(PassesOneAndAll):
    """Allows a task when it is asked first, and refuses it when that is to be acted on."""

    def __init__(self) -> None:
        self._asked = 0

    def evaluate(
        self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
    ) -> TaskAdmissionPolicyDecision:
        self._asked += 1
        changed = self._asked == ASKED_AGAIN_ABOUT_THE_SECOND
        return TaskAdmissionPolicyDecision(not changed, "policy_denial" if changed else None)


class GivesBackTwice(PassesOneAndAll):
    """Releases every lease as soon as it is granted, so that its owner releases it once more."""

    def __init__(self) -> None:
        self.leases: list[TaskAdmissionLease] = []

    def on_acquire(self, lease: TaskAdmissionLease, decision: TaskAdmissionPolicyDecision) -> PolicyStateDelta:
        self.leases.append(lease)
        return PolicyStateDelta()


class UnderPressure:
    """One endpoint has waiters, the other none."""

    def snapshot(self, resource: RequestResourceKey) -> RequestPressureSnapshot | None:
        waiters = 3 if resource.model_id == "busy" else 0
        return RequestPressureSnapshot(0.0, 1, resource, 4, 4, 0, 0, waiters, None, 0.0, None, 0, None, {})

    def snapshots(self) -> Mapping[RequestResourceKey, RequestPressureSnapshot]:
        return {}

    def global_snapshot(self, provider: str, model: str) -> ProviderModelPressureSnapshot | None:
        return None

    def global_snapshots(self) -> Mapping[ProviderModelKey, ProviderModelPressureSnapshot]:
        return {}


Work = Callable[[Task], Awaitable[Sequence[RowFailure]]]


async def a_second(task: Task) -> Sequence[RowFailure]:
    await trio.sleep(1)
    return ()


@attrs.define(eq=False)
class Stage:
    """A scheduler and what it is made of, with everything at a default that a scenario does not change."""

    work: Work = a_second
    admission: TaskAdmissionController = attrs.field(factory=lambda: TaskAdmissionController(TaskAdmissionConfig()))
    config: SchedulerConfig = attrs.field(factory=SchedulerConfig)
    generators: Mapping[str, ColumnGenerator] = attrs.field(factory=lambda: dict.fromkeys("abc", ColumnGenerator()))
    pressure: UnderPressure | None = None
    sink: InMemoryAdmissionEventSink = attrs.field(factory=InMemoryAdmissionEventSink)

    async def run(self, task: Task) -> Sequence[RowFailure]:
        return await self.work(task)

    def scheduler(self) -> AsyncTaskScheduler:
        return AsyncTaskScheduler(
            GRAPH,
            TaskSchedulingResolver(self.generators),
            self,
            FixedRowGroupPlan(12, 4),
            Store(),
            admission=self.admission,
            classify=classify,
            config=self.config,
            pressure=self.pressure,
            events=scheduler_event_stream(self.sink),
        )

    async def kinds(self) -> set[str]:
        """What a whole run tells; its stream is replayed on the way."""
        await self.scheduler().run()
        replay = SchedulerReplay()
        for event in self.sink.scheduler_events:
            replay.apply(event)
        assert replay.snapshot() == self.sink.scheduler_events[-1].snapshot
        return {event.event_kind for event in self.sink.scheduler_events}


async def tight_row_groups() -> set[str]:
    row_groups = RowGroupConfig(max_concurrent=2, adaptive=AdaptiveRowGroupTargetConfig(initial=1))
    return await Stage(config=SchedulerConfig(row_groups=row_groups)).kinds()


async def tasks_that_fail_once_or_for_good() -> set[str]:
    seen: set[Task] = set()

    async def work(task: Task) -> Sequence[RowFailure]:
        await trio.sleep(1)
        if task.column == "b" and task.row_index == 0:
            raise ValueError
        if task.column == "b" and task not in seen:
            seen.add(task)
            raise PassingError
        return ()

    return await Stage(work).kinds()


async def a_group_that_may_not_borrow() -> set[str]:
    config = TaskAdmissionConfig(4, bounded_borrow=BoundedBorrowTaskAdmissionPolicyConfig(default_borrow_ceiling=0))
    generators = {"a": ColumnGenerator(), "b": ColumnGenerator(), "c": ColumnGenerator()}
    return await Stage(admission=TaskAdmissionController(config), generators=generators).kinds()


async def two_endpoints_one_of_them_under_pressure() -> set[str]:
    generators = {"a": ColumnGenerator(), "b": Calling("busy"), "c": Calling("idle")}
    resolver = TaskSchedulingResolver(generators)
    admission = TaskAdmissionController(TaskAdmissionConfig(4, resolver.resource_limits))
    return await Stage(admission=admission, generators=generators, pressure=UnderPressure()).kinds()


async def a_policy_that_changes_its_mind() -> set[str]:
    return await Stage(admission=TaskAdmissionController(policy=ChangesItsMind())).kinds()


async def a_lease_that_comes_back_twice() -> set[str]:
    policy = GivesBackTwice()
    admission = TaskAdmissionController(policy=policy)

    async def work(task: Task) -> Sequence[RowFailure]:
        await trio.sleep(1)
        if task.column == "c":
            lease = next(each for each in policy.leases if each.item.payload == task)
            admission.release(lease)
        return ()

    stage = Stage(work, admission)
    await stage.scheduler().run()
    last = stage.sink.scheduler_events[-1].snapshot
    assert last is not None
    assert last["release_diagnostics"] == {"duplicate": 12}
    return {event.event_kind for event in stage.sink.scheduler_events}


async def a_run_that_is_cancelled() -> set[str]:
    stage = Stage()
    with trio.move_on_after(0.5):
        await stage.scheduler().run()
    return {event.event_kind for event in stage.sink.scheduler_events}


async def a_selection_that_is_overtaken_and_a_spawn_that_fails() -> set[str]:
    class Overtaking(InMemoryAdmissionEventSink):
        def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
            super().emit_scheduler_event(event)
            if event.event_kind == "task_lease_acquired" and event.task_lease_id == 1 and event.task_id is not None:
                context.queue.discard(event.task_id)

    class CannotStart(Workers):
        def start(self, task: Task, lease: TaskAdmissionLease, execution: object) -> None:
            raise MemoryError

    sink = Overtaking()
    admission = TaskAdmissionController()
    config = SchedulerConfig()
    context = SchedulerContext(
        graph=GRAPH,
        resolver=TaskSchedulingResolver(dict.fromkeys("abc", ColumnGenerator())),
        admission=admission,
        classify=classify,
        events=SchedulerEvents(scheduler_event_stream(sink), "run"),
        retries=RetryBook(config.retry),
        health=HealthMonitor(config.health),
        report=lambda _: None,
    )
    dispatcher = Dispatcher(context, CannotStart(context, Stage()))
    for row_group in range(2):
        context.tracker.open_row_group(row_group, 4)
    dispatcher.offer_ready()
    with pytest.raises(MemoryError):
        dispatcher.dispatch()
    assert admission.leak_report() == ()
    return {event.event_kind for event in sink.scheduler_events}


SCENARIOS = (
    tight_row_groups,
    tasks_that_fail_once_or_for_good,
    a_group_that_may_not_borrow,
    two_endpoints_one_of_them_under_pressure,
    a_policy_that_changes_its_mind,
    a_lease_that_comes_back_twice,
    a_run_that_is_cancelled,
    a_selection_that_is_overtaken_and_a_spawn_that_fails,
)


async def test_these_runs_emit_every_kind(autojump_clock: trio.testing.MockClock) -> None:
    emitted: set[str] = set()
    for scenario in SCENARIOS:
        emitted |= await scenario()
    assert emitted == set(SCHEDULER_EVENT_KINDS)

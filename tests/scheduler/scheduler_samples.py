"""A scheduler with everything it needs, and small parts that the tests of the scheduler share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

import trio
import trio.testing

from trio_sched._scheduler.context import SchedulerContext
from trio_sched._scheduler.events import SchedulerEvents
from trio_sched._scheduler.health import HealthMonitor
from trio_sched._scheduler.retry import RetryBook
from trio_sched.lowlevel import (
    AsyncTaskScheduler,
    ColumnGenerator,
    ExecutionGraph,
    Failure,
    FixedRowGroupPlan,
    GraphNode,
    InMemoryAdmissionEventSink,
    RequestPressureSnapshotProvider,
    RowDrop,
    RowGroup,
    RowGroupConfig,
    RowGroupPlan,
    RowGroupStore,
    SchedulerAdmissionEvent,
    SchedulerConfig,
    Task,
    TaskAdmissionConfig,
    TaskAdmissionController,
    TaskAdmissionPolicy,
    TaskSchedulingResolver,
    scheduler_event_stream,
)

CHAIN = (GraphNode("a", "from_scratch"), GraphNode("b", "cell", ("a",)), GraphNode("c", "cell", ("b",)))
FAN = (GraphNode("a", "from_scratch"), GraphNode("b", "cell", ("a",)), GraphNode("c", "cell", ("a",)))
Work = Callable[[Task], Awaitable[Sequence[RowDrop]]]


def two_row_groups(max_concurrent: int = 2) -> SchedulerConfig:
    return SchedulerConfig(row_groups=RowGroupConfig(max_concurrent=max_concurrent))


def simulate(main: Callable[[], Awaitable[None]]) -> None:
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def nothing(task: Task) -> Sequence[RowDrop]:
    return ()


class Runner:
    def __init__(self, work: Work) -> None:
        self._work = work

    async def run(self, task: Task) -> Sequence[RowDrop]:
        return await self._work(task)


class Store:
    def __init__(self) -> None:
        self.written: list[tuple[int, tuple[int, ...]]] = []
        self.before_write: Callable[[RowGroup], None] = lambda _: None

    def open(self, row_group: RowGroup) -> None:
        pass

    async def write(self, row_group: RowGroup, living_rows: Sequence[int]) -> None:
        await trio.lowlevel.checkpoint()
        self.before_write(row_group)
        self.written.append((row_group.index, tuple(living_rows)))


def dropping(_: Exception) -> Failure:
    return Failure("non_retryable", "unexpected_exception")


def context_of(
    nodes: Sequence[GraphNode], sink: InMemoryAdmissionEventSink, admission: TaskAdmissionController
) -> SchedulerContext:
    """What the parts of a run share, for a part that is tested by itself; nobody reads its reports."""
    config = SchedulerConfig()
    return SchedulerContext(
        graph=ExecutionGraph(nodes),
        resolver=TaskSchedulingResolver({node.column: ColumnGenerator() for node in nodes}),
        admission=admission,
        classify=dropping,
        events=SchedulerEvents(scheduler_event_stream(sink), "run"),
        retries=RetryBook(config.retry),
        health=HealthMonitor(config.health),
        report=lambda _: None,
    )


class Setup:
    """A scheduler of two row groups of five rows at a time, made anew for every test."""

    def __init__(
        self,
        work: Work,
        nodes: Sequence[GraphNode] = CHAIN,
        *,
        records: int = 20,
        buffer_size: int = 5,
        plan: RowGroupPlan | None = None,
        admission: TaskAdmissionConfig | None = None,
        policy: TaskAdmissionPolicy | None = None,
        generators: Mapping[str, ColumnGenerator] | None = None,
        classify: Callable[[Exception], Failure] = dropping,
        config: SchedulerConfig | None = None,
        pressure: RequestPressureSnapshotProvider | None = None,
        store: RowGroupStore | None = None,
        sink: InMemoryAdmissionEventSink | None = None,
    ) -> None:
        self.sink = InMemoryAdmissionEventSink() if sink is None else sink
        resolver = TaskSchedulingResolver(generators or {node.column: ColumnGenerator() for node in nodes})
        if admission is None:
            admission = TaskAdmissionConfig(resource_limits=resolver.resource_limits)
        self.admission = TaskAdmissionController(admission, policy)
        self.store = Store()
        self.scheduler = AsyncTaskScheduler(
            ExecutionGraph(nodes),
            resolver,
            Runner(work),
            plan if plan is not None else FixedRowGroupPlan(records, buffer_size),
            store if store is not None else self.store,
            admission=self.admission,
            classify=classify,
            config=config if config is not None else two_row_groups(),
            pressure=pressure,
            events=scheduler_event_stream(self.sink),
        )

    def events(self, kind: str) -> list[SchedulerAdmissionEvent]:
        return [event for event in self.sink.scheduler_events if event.event_kind == kind]

    def kinds(self) -> Counter[str]:
        return Counter(event.event_kind for event in self.sink.scheduler_events)

    def assert_nothing_held(self) -> None:
        assert self.admission.leak_report() == ()
        kinds = self.kinds()
        assert kinds["task_lease_acquired"] == kinds["task_lease_released"]
        assert all(limiter.tasks_waiting == 0 for limiter in self.admission.limiter_statistics().values())

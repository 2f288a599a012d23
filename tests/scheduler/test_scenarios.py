"""Random pipelines over the real scheduler on the mock clock, against what a plain model says must come of them.

A scenario is a random graph (chains, fans, batch, ordered and `after` nodes), random sizes and limits, and a table that
says how each attempt of each task ends. The model replays the table row by row, without any concurrency. At the end of
every run the invariants 1 to 3 and 8 to 10 of the project's reliability rules are checked.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import attrs
import trio
import trio.testing
from examples import share_of_profile
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_endings import ROUNDS, Ending, Fault, check_result, check_units, ended, scheduler_over

from trio_sched._observe.scheduler_replay import SchedulerReplay
from trio_sched.lowlevel import (
    BoundedBorrowTaskAdmissionPolicyConfig,
    ExecutionGraph,
    GraphNode,
    InMemoryAdmissionEventSink,
    RowDrop,
    RowGroup,
    SchedulerResult,
    Task,
    TaskAdmissionConfig,
    TaskAdmissionController,
    stable_task_id,
)


@attrs.frozen
class Scenario:
    nodes: tuple[GraphNode, ...]
    records: int
    buffer_size: int
    row_groups: int
    capacity: int
    faults: int
    seed: int
    cancel_after: float | None

    def number(self, *key: object) -> int:
        return int.from_bytes(hashlib.blake2b(repr((self.seed, key)).encode(), digest_size=4).digest(), "big")

    def ending(self, task: Task, attempt: int) -> Ending:
        """How an attempt ends: a pure function of the scenario, so every schedule meets the same faults."""
        number = self.number(stable_task_id(task), attempt) % 1000
        if number >= self.faults:
            return "done"
        if task.row_index is None:
            kinds: tuple[Ending, ...] = ("preserved", "retryable", "preserved", "drops", "filters", "failed")
        else:
            kinds = ("preserved", "retryable", "preserved", "failed")
        return kinds[number % len(kinds)]

    def chosen_row(self, task: Task) -> int:
        return self.number("row", stable_task_id(task)) % self.buffer_size

    def seconds(self, task: Task, attempt: int) -> float:
        return (self.number("time", stable_task_id(task), attempt) % 50) / 10


@st.composite
def graphs(draw: st.DrawFn) -> tuple[GraphNode, ...]:
    roots = draw(st.integers(1, 2))
    nodes = [GraphNode(f"n{i}", "from_scratch", ordered=draw(st.booleans()) and i == 1) for i in range(roots)]
    for i in range(roots, draw(st.integers(roots + 1, 6))):
        earlier = [node.column for node in nodes]
        writers = [node.column for node in nodes if node.outputs]
        needs = draw(st.lists(st.sampled_from(writers), min_size=1, max_size=2, unique=True))
        after = draw(st.lists(st.sampled_from(earlier), max_size=1))
        ordered = draw(st.integers(0, 3)) == 0
        column = f"n{i}"
        if draw(st.integers(0, 2)) == 0:
            outputs = () if draw(st.booleans()) else (column,)
            nodes.append(GraphNode(column, "batch", tuple(needs), outputs, ordered, tuple(after)))
        else:
            nodes.append(GraphNode(column, "cell", tuple(needs), ordered=ordered, after=tuple(after)))
    return tuple(nodes)


scenarios = st.builds(
    Scenario,
    nodes=graphs(),
    records=st.integers(0, 9),
    buffer_size=st.integers(1, 4),
    row_groups=st.integers(1, 3),
    capacity=st.integers(1, 6),
    faults=st.sampled_from([0, 100, 300, 600]),
    seed=st.integers(0, 2**32),
    cancel_after=st.none(),
)


class World:
    """Runs a scenario and writes down everything that can be seen from outside."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.graph = ExecutionGraph(scenario.nodes)
        self.ordered = {node.column for node in scenario.nodes if node.ordered}
        self.attempts: Counter[Task] = Counter()
        self.completed: Counter[Task] = Counter()
        self.running: Counter[str] = Counter()
        self.begun: dict[str, list[tuple[int, int]]] = {column: [] for column in self.ordered}
        self.written: dict[int, tuple[int, ...]] = {}
        self.open_now = 0
        self.sink = InMemoryAdmissionEventSink()
        self.admission = TaskAdmissionController(
            TaskAdmissionConfig(scenario.capacity, bounded_borrow=BoundedBorrowTaskAdmissionPolicyConfig())
        )
        self.scheduler = scheduler_over(
            self, scenario.records, scenario.buffer_size, scenario.row_groups, self.admission, self.sink
        )

    async def run(self, task: Task) -> Sequence[RowDrop]:
        scenario = self.scenario
        self.attempts[task] += 1
        attempt = self.attempts[task]
        if task.column in self.ordered:
            assert not self.running[task.column], "two tasks of an ordered node at once"
            self.begun[task.column].append((task.row_group, task.row_index or 0))
        self.running[task.column] += 1
        assert sum(self.running.values()) <= scenario.capacity
        try:
            await trio.sleep(scenario.seconds(task, attempt))
        finally:
            self.running[task.column] -= 1
        ending = scenario.ending(task, attempt)
        row = scenario.chosen_row(task)
        if ending in ("drops", "filters") and row not in self.scheduler.living_rows(task.row_group):
            ending = "done"
        rejected = ended(ending, row)
        self.completed[task] += 1
        return rejected

    def open(self, row_group: RowGroup) -> None:
        self.open_now += 1
        assert self.open_now <= self.scenario.row_groups

    async def write(self, row_group: RowGroup, living_rows: Sequence[int]) -> None:
        await trio.sleep(0.1)
        assert row_group.index not in self.written
        self.written[row_group.index] = tuple(living_rows)
        self.open_now -= 1

    def check_what_always_holds(self) -> None:
        """Invariants 1, 2, 3 and 8, whatever way the run ended."""
        assert self.admission.leak_report() == ()
        check_units(self.admission)
        assert self.admission.view().resources_available == self.admission.view().resource_limits
        events = self.sink.scheduler_events
        held: dict[int, str | None] = {}
        waiting: set[str | None] = set()
        replay = SchedulerReplay()
        for event in events:
            replay.apply(event)
            if event.event_kind == "ready_enqueued":
                waiting.add(event.task_id)
            elif event.event_kind == "worker_spawned":
                waiting.discard(event.task_id)
            elif event.event_kind == "task_lease_acquired":
                assert event.task_lease_id is not None
                held[event.task_lease_id] = event.task_id
            elif event.event_kind == "task_lease_released":
                assert event.task_lease_id is not None
                del held[event.task_lease_id]
            # A task that runs never waits in the queue too: hidden waiters for scheduler resources are zero.
            if event.event_kind == "ready_enqueued":
                assert event.task_id not in held.values()
        assert not held
        assert events[-1].event_kind == "scheduler_job_completed"
        assert replay.snapshot() == events[-1].snapshot

    def check_the_end(self, result: SchedulerResult) -> None:
        """Invariants 9 and 10: which rows are durable follows from the table of endings alone."""
        scenario = self.scenario
        check_result(result, self.written, scenario.records, scenario.buffer_size)
        for cause in result.drop_causes:
            assert isinstance(cause.first_error, Fault)
            assert cause.first_error.ending != "preserved"
        for task, times in self.completed.items():
            assert times == 1, f"{task} completed {times} times"
        for task, attempts in self.attempts.items():
            assert attempts <= self.attempts_of(task)
        for index, rows in self.written.items():
            for node in scenario.nodes:
                for row in rows:
                    whole = node.task_type != "cell"
                    task = Task(node.column, index, None if whole else row, node.task_type)
                    assert self.completed[task] == 1
                    assert self.attempts[task] == self.attempts_of(task)
        for begun in self.begun.values():
            assert begun == sorted(begun)

    def attempts_of(self, task: Task) -> int:
        """How often a task runs whose row nobody else rejects."""
        attempt = retried = 0
        while True:
            attempt += 1
            ending = self.scenario.ending(task, attempt)
            retried += ending == "retryable"
            if ending not in ("preserved", "retryable") or retried > ROUNDS:
                return attempt


def simulated(scenario: Scenario) -> tuple[World, SchedulerResult]:
    found: list[tuple[World, SchedulerResult]] = []

    async def main() -> None:
        world = World(scenario)
        async with trio.open_nursery() as nursery:
            if scenario.cancel_after is not None:
                nursery.start_soon(cancel_later, world, scenario.cancel_after)
            found.append((world, await world.scheduler.run()))
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return found[0]


async def cancel_later(world: World, seconds: float) -> None:
    await trio.sleep(seconds)
    world.scheduler.request_cancel()


@settings(max_examples=share_of_profile(1.5))
@given(scenarios)
def test_every_row_is_durable_or_dropped_once_and_every_task_runs_as_often_as_the_model_says(
    scenario: Scenario,
) -> None:
    world, result = simulated(scenario)
    assert not result.cancelled
    world.check_what_always_holds()
    world.check_the_end(result)


@settings(max_examples=share_of_profile(0.5))
@given(scenarios, st.integers(1, 4))
def test_a_run_with_more_at_once_drops_the_same_rows(scenario: Scenario, more: int) -> None:
    """Where no task of a row group sees another row, what becomes of a row depends on its own tasks alone."""
    nodes = tuple(node for node in scenario.nodes if node.task_type == "from_scratch")
    cells = tuple(GraphNode(f"c{i}", "cell", (nodes[0].column,)) for i in range(3))
    scenario = attrs.evolve(scenario, nodes=(*nodes[:1], *cells))
    wider = attrs.evolve(scenario, capacity=scenario.capacity + more, row_groups=scenario.row_groups + more)
    assert simulated(scenario)[0].written == simulated(wider)[0].written


@settings(max_examples=share_of_profile(0.75))
@given(scenarios, st.floats(0, 20))
def test_a_run_that_is_cancelled_at_any_moment_leaves_nothing_behind(scenario: Scenario, seconds: float) -> None:
    world, result = simulated(attrs.evolve(scenario, cancel_after=seconds))
    world.check_what_always_holds()
    if result.cancelled:
        assert result.row_groups <= len(world.written)
        assert result.rows == sum(map(len, list(world.written.values())[: result.row_groups]))
    else:
        world.check_the_end(result)

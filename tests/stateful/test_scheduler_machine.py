"""The scheduler's loop, workers and row groups under random histories, one step at a time on a mock clock.

Every worker and every write waits until a rule says how it ends, so a history decides in which order things happen, and
what happens at one instant. After each rule the run has gone on until nothing moves, and what must hold then is checked
against a small model: which tasks are done, which rows are rejected, and what must therefore be queued, run, wait for
another attempt or be written. The numbers are those of the invariants in the project's rules of reliability.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Final

import attrs
import trio
from examples import share_of_profile
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from scripted_endings import ROUNDS, Ending, check_result, check_units, ended, scheduler_over
from trio_portal import TrioPortal

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

LONG_ENOUGH: Final = 40.0
"""Seconds after which every deferred task is due."""

ROOT = GraphNode("root", "from_scratch")
GRAPHS: Final[dict[str, tuple[GraphNode, ...]]] = {
    "chain": (ROOT, GraphNode("a", "cell", ("root",)), GraphNode("b", "cell", ("a",))),
    "fan": (
        ROOT,
        GraphNode("a", "cell", ("root",)),
        GraphNode("b", "cell", ("root",)),
        GraphNode("c", "cell", ("a", "b")),
    ),
    "two roots and a batch": (
        ROOT,
        GraphNode("other", "from_scratch"),
        GraphNode("a", "cell", ("root",)),
        GraphNode("all", "batch", ("a", "other")),
    ),
    "batch beside cells": (
        ROOT,
        GraphNode("a", "cell", ("root",)),
        GraphNode("all", "batch", ("root",)),
        GraphNode("late", "batch", ("all",), (), after=("a",)),
    ),
    "ordered": (
        ROOT,
        GraphNode("a", "cell", ("root",)),
        GraphNode("story", "cell", ("root",), ordered=True),
        GraphNode("sum", "batch", ("story", "a"), ordered=True),
    ),
}


@attrs.define(eq=False)
class Work:
    """One attempt that waits for its end. stopped: it was cancelled, and holds out until it is let go."""

    task: Task
    ended: trio.Event = attrs.field(factory=trio.Event)
    ending: Ending = "done"
    row: int = 0
    stopped: bool = False


class World:
    """What a run does, and a model of what must come of it."""

    def __init__(self, nodes: Sequence[GraphNode], records: int, buffer_size: int, *, holds_out: bool) -> None:
        self.graph = ExecutionGraph(nodes)
        self.records = records
        self.buffer_size = buffer_size
        self.groups = -(-records // buffer_size)
        self.holds_out = holds_out
        self.work: dict[Task, Work] = {}
        self.writes: dict[int, trio.Event] = {}
        self.opened: list[int] = []
        self.written: dict[int, tuple[int, ...]] = {}
        self.done: set[Task] = set()
        self.lost: dict[int, set[int]] = {}
        self.rounds: Counter[Task] = Counter()
        self.begun: dict[str, list[Task]] = {node.column: [] for node in nodes}

    async def run(self, task: Task) -> Sequence[RowDrop]:
        assert task not in self.work, "two attempts of a task at once"
        assert task not in self.done, "a finished task runs again"
        assert self.has_inputs(task), "a task without its inputs"
        node = self.graph.nodes[task.column]
        if node.ordered:
            assert all(each.column != task.column for each in self.work), "two tasks of an ordered node at once"
        self.begun[task.column].append(task)
        work = self.work[task] = Work(task)
        try:
            try:
                await work.ended.wait()
            except trio.Cancelled:
                if self.holds_out:
                    work.stopped = True
                    with trio.CancelScope(shield=True):
                        await work.ended.wait()
                raise
        finally:
            del self.work[task]
        return ended(work.ending, work.row)

    def open(self, row_group: RowGroup) -> None:
        self.opened.append(row_group.index)
        self.lost[row_group.index] = set()

    async def write(self, row_group: RowGroup, living_rows: Sequence[int]) -> None:
        assert all(each.row_group != row_group.index for each in self.work), "written while a worker runs"
        assert list(living_rows) == self.active_rows(row_group.index)
        done = self.writes[row_group.index] = trio.Event()
        try:
            await done.wait()
        finally:
            del self.writes[row_group.index]
        self.written[row_group.index] = tuple(living_rows)

    # The model

    def size(self, row_group: int) -> int:
        return min(self.buffer_size, self.records - row_group * self.buffer_size)

    def active_rows(self, row_group: int) -> list[int]:
        return [row for row in range(self.size(row_group)) if row not in self.lost[row_group]]

    def is_needless(self, task: Task) -> bool:
        if task.row_index is None:
            return not self.active_rows(task.row_group)
        return task.row_index in self.lost[task.row_group]

    def tasks(self, node: GraphNode, row_group: int, rows: Sequence[int]) -> list[Task]:
        cells: Sequence[int | None] = rows if node.task_type == "cell" else (None,)
        return [Task(node.column, row_group, row, node.task_type) for row in cells]

    def has_inputs(self, task: Task) -> bool:
        """Whether everything that the task waits for is done, of its own row or of every active one."""
        rows = self.active_rows(task.row_group) if task.row_index is None else [task.row_index]
        node = self.graph.nodes[task.column]
        sources = {
            source.column: source
            for source in self.graph.nodes.values()
            if set(source.outputs) & set(node.needs) or source.column in node.after
        }
        return all(
            each in self.done for source in sources.values() for each in self.tasks(source, task.row_group, rows)
        )

    def unfinished(self, row_group: int) -> list[Task]:
        rows = self.active_rows(row_group)
        nodes = self.graph.nodes.values() if rows else ()
        return [task for node in nodes for task in self.tasks(node, row_group, rows) if task not in self.done]

    def end(self, work: Work, ending: Ending, row: int) -> None:
        """Let an attempt end, and say what becomes of its rows."""
        task = work.task
        active = self.active_rows(task.row_group)
        if ending in ("drops", "filters") and (task.row_index is not None or not active):
            ending = "failed"
        work.ending, work.row = ending, active[row % len(active)] if active else 0
        work.ended.set()
        if work.stopped or self.is_needless(task):
            return
        if ending == "retryable":
            self.rounds[task] += 1
        lost = self.lost[task.row_group]
        if ending == "failed" or (ending == "retryable" and self.rounds[task] > ROUNDS):
            lost.update(active if task.row_index is None else (task.row_index,))
        elif ending not in ("preserved", "retryable"):
            self.done.add(task)
            if ending != "done":
                lost.add(work.row)


@settings(max_examples=share_of_profile(0.6), stateful_step_count=30)
class SchedulerMachine(RuleBasedStateMachine):
    @initialize(
        graph=st.sampled_from(sorted(GRAPHS)),
        records=st.integers(1, 12),
        buffer_size=st.integers(1, 4),
        row_groups=st.integers(1, 3),
        capacity=st.sampled_from([1, 2, 3, 6]),
        borrows=st.booleans(),
        holds_out=st.booleans(),
        order_seed=st.integers(0, 100),
    )
    def start(
        self,
        graph: str,
        records: int,
        buffer_size: int,
        row_groups: int,
        capacity: int,
        borrows: bool,
        holds_out: bool,
        order_seed: int,
    ) -> None:
        self.world = world = World(GRAPHS[graph], records, buffer_size, holds_out=holds_out)
        self.row_groups = row_groups
        self.sink = InMemoryAdmissionEventSink()
        self.replay = SchedulerReplay()
        self.replayed = 0
        self.outcome: SchedulerResult | BaseException | None = None
        self.is_cancelled = False
        self.is_asked_to_stop = False
        borrow = BoundedBorrowTaskAdmissionPolicyConfig() if borrows else None
        self.admission = TaskAdmissionController(TaskAdmissionConfig(capacity, bounded_borrow=borrow))
        self.scheduler = scheduler_over(world, records, buffer_size, row_groups, self.admission, self.sink)
        self.run_scope = trio.CancelScope()
        self.portal = TrioPortal(self.run, order_seed=order_seed)

    async def run(self) -> None:
        try:
            with self.run_scope:
                self.outcome = await self.scheduler.run()
            if self.outcome is None:
                self.is_cancelled = True
        except Exception as error:
            self.outcome = error

    @property
    def is_over(self) -> bool:
        return self.is_cancelled or self.outcome is not None

    @property
    def goes_on(self) -> bool:
        return not self.is_over and not self.is_asked_to_stop

    def work_beside_other_work(self) -> list[Work]:
        """Attempts at cells of rows of which something else runs, is queued, or waits for another attempt."""
        under_way = Counter(
            tuple(task_id.split(":")[:2])
            for task_id in (*map(id_of, self.world.work), *self.replay.queued, *self.replay.deferred)
        )
        return [
            work
            for task, work in self.world.work.items()
            if task.row_index is not None and under_way[tuple(id_of(task).split(":")[:2])] > 1
        ]

    # What may happen

    @precondition(lambda self: self.world.work)
    @rule(
        ends=st.lists(
            st.tuples(
                st.integers(0, 100),
                st.sampled_from(["done", "done", "done", "preserved", "retryable", "failed", "drops", "filters"]),
                st.integers(0, 2),
            ),
            min_size=1,
            max_size=8,
        )
    )
    def attempts_end_at_one_instant(self, ends: list[tuple[int, Ending, int]]) -> None:
        def step() -> None:
            for number, ending, row in ends:
                left = [work for work in self.world.work.values() if not work.ended.is_set()]
                if left:
                    self.world.end(left[number % len(left)], ending, row)

        self.portal.do(step)

    @precondition(lambda self: self.work_beside_other_work())
    @rule(number=st.integers(0, 100))
    def a_row_is_rejected_while_more_of_it_is_under_way(self, number: int) -> None:
        works = self.work_beside_other_work()
        self.portal.do(lambda: self.world.end(works[number % len(works)], "failed", 0))

    @precondition(lambda self: self.world.work)
    @rule(number=st.integers(0, 100), ending=st.sampled_from(["preserved", "retryable"]), times=st.integers(2, 4))
    def attempts_of_a_task_end_alike(self, number: int, ending: Ending, times: int) -> None:
        """One after the other, as soon as each is due."""
        tasks = list(self.world.work)
        task = tasks[number % len(tasks)]
        for _ in range(times):
            work = self.world.work.get(task)
            if work is None:
                break  # Its row was rejected, or others are before it.
            self.portal.do(partial(self.world.end, work, ending, 0))
            self.portal.do(lambda: None, seconds=LONG_ENOUGH)

    @precondition(lambda self: self.replay.deferred)
    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, LONG_ENOUGH]))
    def time_passes(self, seconds: float) -> None:
        self.portal.do(lambda: None, seconds=seconds)

    @precondition(lambda self: self.world.writes)
    @rule(number=st.integers(0, 100))
    def a_row_group_is_written(self, number: int) -> None:
        writes = list(self.world.writes.values())
        self.portal.do(writes[number % len(writes)].set)

    @precondition(lambda self: self.goes_on)
    @rule(limit=st.integers(1, 6))
    def a_limit_changes(self, limit: int) -> None:
        def step() -> None:
            self.admission.set_limit("submission", limit)
            self.scheduler.admission_changed()

        self.portal.do(step)

    @precondition(lambda self: self.goes_on)
    @rule(by_request=st.booleans(), luck=st.integers(0, 9))
    def the_run_is_cancelled(self, by_request: bool, luck: int) -> None:
        """From the thread of the rules, or by a scope around the run; seldom, as little can happen then."""
        if luck:
            return
        self.is_asked_to_stop = True
        if by_request:
            self.scheduler.request_cancel()
        self.portal.do((lambda: None) if by_request else self.run_scope.cancel)

    @precondition(lambda self: self.is_over)
    @rule()
    def the_run_stays_over(self) -> None:
        told = len(self.sink.scheduler_events)
        self.portal.do(lambda: None, seconds=LONG_ENOUGH)
        assert len(self.sink.scheduler_events) == told

    # What must hold

    @invariant()
    def the_run_has_not_failed(self) -> None:
        if isinstance(getattr(self, "outcome", None), BaseException):
            raise AssertionError("the run failed") from self.outcome  # type: ignore[misc]  # seen to be an exception

    @invariant()
    def units_are_held_or_free(self) -> None:
        """1: of every resource, and nobody waits at a limiter."""
        check_units(self.admission)

    @invariant()
    def whoever_holds_a_lease_works(self) -> None:
        """2, 3: each lease is that of an attempt at work, and the other way round. So no worker waits for anything."""
        assert sorted(held.task_id for held in self.admission.leak_report()) == sorted(map(id_of, self.world.work))
        assert not self.scheduler.observed_maxima().hidden_scheduler_resource_waiters

    @invariant()
    def events_replay_to_what_is_there(self) -> None:
        """8, at every step: what is held, and how often each lease was released."""
        for event in self.sink.scheduler_events[self.replayed :]:
            self.replay.apply(event)
        self.replayed = len(self.sink.scheduler_events)
        assert self.replay.leased_resources() == self.admission.view().leased_resources
        assert len(self.replay.leases) == len(self.world.work)

    @invariant()
    def whatever_can_go_on_is_under_way(self) -> None:
        """4: nothing is queued while a unit is free, and each task that has its inputs is known to somebody."""
        if not self.goes_on:
            return
        if self.replay.queued:
            assert self.admission.view().resources_available["submission"] <= 0
        known = {*self.replay.queued, *map(id_of, self.world.work), *self.replay.deferred}
        for row_group in self.open_row_groups():
            for task in self.world.unfinished(row_group):
                if self.world.has_inputs(task) and not self.world.graph.nodes[task.column].ordered:
                    assert id_of(task) in known, task

    @invariant()
    def nothing_is_queued_or_deferred_in_vain(self) -> None:
        if not self.goes_on:
            return
        unfinished = {id_of(task) for group in self.open_row_groups() for task in self.world.unfinished(group)}
        assert unfinished >= {*self.replay.queued, *self.replay.deferred}

    @invariant()
    def rows_are_rejected_as_the_model_says(self) -> None:
        """10: and by nothing else."""
        if self.goes_on:
            for row_group in self.open_row_groups():
                assert list(self.scheduler.living_rows(row_group)) == self.world.active_rows(row_group)

    @invariant()
    def row_groups_are_opened_and_written_in_time(self) -> None:
        world = self.world
        assert len(world.opened) - len(world.written) <= self.row_groups
        if not self.goes_on:
            return
        assert len(world.opened) - len(world.written) == min(self.row_groups, world.groups - len(world.written))
        for row_group in self.open_row_groups():
            is_busy = any(task.row_group == row_group for task in world.work)
            assert (row_group in world.writes) == (not world.unfinished(row_group) and not is_busy)

    @invariant()
    def ordered_nodes_begin_in_order(self) -> None:
        for column, begun in self.world.begun.items():
            if self.world.graph.nodes[column].ordered:
                places = [(task.row_group, task.row_index or 0) for task in begun]
                assert places == sorted(places)

    def open_row_groups(self) -> list[int]:
        return [row_group for row_group in self.world.opened if row_group not in self.world.written]

    def teardown(self) -> None:
        """The rest goes well. Whatever was done before, the run ends and leaves nothing behind."""
        if not hasattr(self, "portal"):
            return
        try:
            if not isinstance(self.outcome, BaseException):
                self.finish()
                self.check_the_end()
        finally:
            for work in self.world.work.values():
                self.portal.do(work.ended.set)
            self.portal.close()

    def finish(self) -> None:
        for _ in range(400):
            if self.is_over:
                return

            def step() -> None:
                for work in list(self.world.work.values()):
                    self.world.end(work, "done", 0)
                for write in self.world.writes.values():
                    write.set()

            self.portal.do(step, seconds=LONG_ENOUGH)
            self.the_run_has_not_failed()
        raise AssertionError("the run does not end")

    def check_the_end(self) -> None:
        """1, 2, 8, 10, 11: no lease and no waiter is left, and every row is durable or rejected, once."""
        self.units_are_held_or_free()
        self.whoever_holds_a_lease_works()
        self.events_replay_to_what_is_there()
        assert not self.world.work
        assert self.admission.leak_report() == ()
        last = self.sink.scheduler_events[-1]
        assert last.event_kind == "scheduler_job_completed"
        assert last.snapshot is not None
        # That a limit was changed from outside, the events do not say.
        own = last.snapshot.keys() - {"resource_limits", "resources_available"}
        replayed = self.replay.snapshot()
        assert {key: replayed[key] for key in own} == {key: last.snapshot[key] for key in own}
        kinds = Counter(event.event_kind for event in self.sink.scheduler_events)
        assert kinds["task_lease_acquired"] == kinds["task_lease_released"]
        world = self.world
        if self.outcome is None or isinstance(self.outcome, BaseException) or self.outcome.cancelled:
            assert self.is_asked_to_stop
            return
        check_result(self.outcome, world.written, world.records, world.buffer_size)
        for row_group, rows in world.written.items():
            assert list(rows) == world.active_rows(row_group)
            assert not world.unfinished(row_group)


def id_of(task: Task) -> str:
    return stable_task_id(task)


TestSchedulerMachine = SchedulerMachine.TestCase

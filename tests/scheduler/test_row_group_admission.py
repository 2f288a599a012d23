"""How many row groups are in flight: the hard cap, the adaptive target, the guard on rows, and lazy planning."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

import pytest
import trio
from scheduler_samples import Setup, simulate

from trio_sched._scheduler.row_group_admission import RowGroupTarget
from trio_sched.lowlevel import (
    AdaptiveRowGroupTargetConfig,
    ColumnGenerator,
    FixedRowGroupPlan,
    GraphNode,
    RowDrop,
    RowGroup,
    RowGroupConfig,
    SchedulerConfig,
    SchedulingMetadata,
    Task,
    TaskAdmissionConfig,
)


def adaptive(maximum: int, rows: int | None = None) -> SchedulerConfig:
    return SchedulerConfig(row_groups=RowGroupConfig(maximum, AdaptiveRowGroupTargetConfig(1), rows))


class OfOneModel(ColumnGenerator):
    def get_scheduling_metadata(self) -> SchedulingMetadata:
        return SchedulingMetadata.model("p", "m", weight=3)


async def a_second(task: Task) -> Sequence[RowDrop]:
    await trio.sleep(1)
    return ()


def test_the_target_grows_by_one_when_another_row_group_could_be_put_to_use() -> None:
    target = RowGroupTarget(RowGroupConfig(3, AdaptiveRowGroupTargetConfig(1)))
    target.opened(0)
    assert not target.grow(in_flight=1, queued=0, has_free_capacity=True), "row group 0 has not shown what it brings"
    target.task_ended(0)
    assert not target.grow(in_flight=1, queued=1, has_free_capacity=True)
    assert not target.grow(in_flight=1, queued=0, has_free_capacity=False)
    assert not target.grow(in_flight=0, queued=0, has_free_capacity=True)
    assert target.block_reason == "target"
    assert target.grow(in_flight=1, queued=0, has_free_capacity=True)
    assert not target.grow(in_flight=1, queued=0, has_free_capacity=True)
    target.opened(1)
    target.task_ended(0)
    assert not target.grow(in_flight=2, queued=0, has_free_capacity=True), "row group 1 has not shown what it brings"
    target.task_ended(1)
    assert target.grow(in_flight=2, queued=0, has_free_capacity=True)
    target.opened(2)
    target.task_ended(2)
    assert not target.grow(in_flight=3, queued=0, has_free_capacity=True)
    assert (target.value, target.block_reason) == (3, "hard_cap")


def test_a_row_group_that_begins_with_a_call_is_put_to_use_as_soon_as_it_is_open() -> None:
    target = RowGroupTarget(RowGroupConfig(4, AdaptiveRowGroupTargetConfig(1)), begins_with_calls=True)
    assert not target.grow(in_flight=1, queued=0, has_free_capacity=True), "none is open yet"
    target.opened(0)
    assert target.grow(in_flight=1, queued=0, has_free_capacity=True)
    assert not target.grow(in_flight=1, queued=0, has_free_capacity=True), "the second is not open yet"
    target.opened(1)
    assert not target.grow(in_flight=2, queued=1, has_free_capacity=True)
    assert target.grow(in_flight=2, queued=0, has_free_capacity=True)


@pytest.mark.parametrize(("ordered", "most"), [(False, 6), (True, 1)])
def test_calls_at_the_root_fill_their_endpoint_with_row_groups(*, ordered: bool, most: int) -> None:
    async def main() -> None:
        nodes = [GraphNode("a", "from_scratch", ordered=ordered), GraphNode("b", "cell", ("a",))]
        generators = {"a": OfOneModel(), "b": ColumnGenerator()}
        setup = Setup(a_second, nodes, records=200, config=adaptive(20), generators=generators)
        with trio.move_on_after(0.5):
            await setup.scheduler.run()
        roots = [event for event in setup.events("task_lease_acquired") if event.captured_correlation]
        assert len(roots) == most
        # One more stands ready, since its root is queued.
        assert setup.scheduler.observed_maxima().row_groups_in_flight <= most + 1

    simulate(main)


def test_an_adaptive_run_starts_low_grows_to_the_hard_cap_and_never_shrinks() -> None:
    async def main() -> None:
        setup = Setup(a_second, records=100, config=adaptive(4))
        result = await setup.scheduler.run()
        assert result.rows == 100
        targets = [event.diagnostics["target"] for event in setup.events("row_group_admission_target_changed")]
        assert targets == [2, 3, 4]
        assert setup.scheduler.observed_maxima().row_groups_in_flight == 4
        reasons = {event.reason_or_result for event in setup.events("row_group_admission_blocked")}
        assert reasons == {"target", "hard_cap"}
        assert set(setup.scheduler.row_group_admission.blocked_reasons) == {"target", "hard_cap"}

    simulate(main)


def test_a_backlog_of_the_stage_itself_keeps_the_target_low() -> None:
    async def main() -> None:
        setup = Setup(a_second, records=100, admission=TaskAdmissionConfig(2), config=adaptive(4))
        await setup.scheduler.run()
        assert setup.scheduler.observed_maxima().row_groups_in_flight < 4

    simulate(main)


def test_a_fixed_run_is_at_its_cap_at_once_and_changes_no_target() -> None:
    async def main() -> None:
        setup = Setup(a_second, records=100)
        await setup.scheduler.run()
        assert setup.kinds()["row_group_admission_target_changed"] == 0
        assert {event.reason_or_result for event in setup.events("row_group_admission_blocked")} == {"hard_cap"}
        assert len(setup.events("row_group_admission_blocked")) <= 19, "at most once for each that waits, and the end"

    simulate(main)


def test_the_guard_on_admitted_rows_lets_a_large_row_group_run_alone() -> None:
    sizes = [3, 50, 2, 2, 3]
    in_flight: dict[int, int] = {}
    most = 0

    class Plan:
        made = 0

        async def next_row_group(self) -> RowGroup | None:
            if self.made == len(sizes):
                return None
            self.made += 1
            return RowGroup(self.made - 1, sum(sizes[: self.made - 1]), sizes[self.made - 1])

    async def work(task: Task) -> Sequence[RowDrop]:
        nonlocal most
        in_flight[task.row_group] = sizes[task.row_group]
        assert sum(in_flight.values()) <= 5 or len(in_flight) == 1
        most = max(most, len(in_flight))
        await trio.sleep(1)
        return ()

    async def main() -> None:
        config = SchedulerConfig(row_groups=RowGroupConfig(3, max_admitted_rows=5))
        setup = Setup(work, plan=Plan(), config=config)
        setup.store.before_write = lambda row_group: in_flight.__delitem__(row_group.index)
        result = await setup.scheduler.run()
        assert (result.rows, most) == (60, 2)
        assert "max_admitted_rows" in {event.reason_or_result for event in setup.events("row_group_admission_blocked")}

    simulate(main)


def test_row_groups_are_asked_for_when_there_is_room_for_them() -> None:
    class Counting(FixedRowGroupPlan):
        asked = 0

        async def next_row_group(self) -> RowGroup | None:
            Counting.asked += 1
            return await super().next_row_group()

    async def main() -> None:
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            setup = Setup(a_second, plan=Counting(1_000_000 * 10, 10))
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 1_000_000
        with trio.move_on_after(0.5):
            await setup.scheduler.run()
        assert Counting.asked == 2
        assert setup.kinds()["row_group_admitted"] == 2

    simulate(main)


def test_start_offsets_reach_the_row_groups() -> None:
    starts: list[int] = []

    async def main() -> None:
        setup = Setup(a_second, plan=FixedRowGroupPlan(7, 3, start_offset=100))
        setup.store.before_write = lambda row_group: starts.append(row_group.start)
        await setup.scheduler.run()
        assert sorted(starts) == [100, 103, 106]

    simulate(main)


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match=r"^AdaptiveRowGroupTargetConfig.initial must be at most RowGroupConfig"):
        RowGroupConfig(2, AdaptiveRowGroupTargetConfig(3))
    with pytest.raises(ValueError, match=r"^RowGroupConfig.max_concurrent must be a positive int, got 0$"):
        RowGroupConfig(0)

"""A run that cannot go on fails and says why; one that only waits goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import trio
from scheduler_samples import CHAIN, Setup, simulate

from trio_sched.lowlevel import (
    Failure,
    NoProgressError,
    ProviderModelKey,
    ProviderModelPressureSnapshot,
    RequestDomain,
    RequestPressureSnapshot,
    RequestResourceKey,
    RowDrop,
    RowGroup,
    RowGroupConfig,
    SchedulerConfig,
    Task,
    TaskAdmissionConfig,
)

CONFIG = SchedulerConfig(row_groups=RowGroupConfig(1), no_progress_seconds=100)


def test_a_generator_that_never_returns_is_explained() -> None:
    async def work(task: Task) -> Sequence[RowDrop]:
        if task.column == "b":
            await trio.sleep_forever()
        return ()

    async def main() -> None:
        setup = Setup(work, records=5, admission=TaskAdmissionConfig(2), config=CONFIG)
        began = trio.current_time()
        with pytest.raises(NoProgressError) as caught:
            await setup.scheduler.run()
        assert trio.current_time() - began == pytest.approx(100)
        explanation = caught.value.explanation
        assert explanation.queued == 3
        assert explanation.refusals == {"no_capacity": 1}
        assert [holder.task_id for holder in explanation.holders] == ["0:0:cell:b", "0:1:cell:b"]
        assert [holder.held_seconds for holder in explanation.holders] == pytest.approx([100, 100])
        assert explanation.open_row_groups == (0,)
        text = str(caught.value)
        assert text.startswith(
            "no task has ended and none could be started for 100 s, with 3 queued; look at what runs"
        )
        assert "refused for no_capacity: local/default/b" in text
        assert "running: 0:0:cell:b has run for 100 s and holds 1 of submission" in text
        setup.assert_nothing_held()

    simulate(main)


def test_a_store_that_never_returns_is_explained() -> None:
    class Stuck:
        def open(self, row_group: RowGroup) -> None:
            pass

        async def write(self, row_group: RowGroup, living_rows: Sequence[int]) -> None:
            await trio.sleep_forever()

    async def work(task: Task) -> Sequence[RowDrop]:
        return ()

    async def main() -> None:
        setup = Setup(work, records=5, config=CONFIG, store=Stuck())
        with pytest.raises(NoProgressError, match="being written: row group 0"):
            await setup.scheduler.run()

    simulate(main)


def test_a_plan_that_never_answers_is_explained() -> None:
    class Silent:
        async def next_row_group(self) -> RowGroup | None:
            await trio.Event().wait()
            return None

    async def work(task: Task) -> Sequence[RowDrop]:
        return ()

    async def main() -> None:
        with pytest.raises(NoProgressError, match="the source of rows has not handed out another"):
            await Setup(work, plan=Silent(), config=CONFIG).scheduler.run()

    simulate(main)


def test_work_that_ends_now_and_then_is_progress_and_so_is_a_task_that_is_due_later() -> None:
    tries = 0

    async def work(task: Task) -> Sequence[RowDrop]:
        nonlocal tries
        await trio.sleep(90)
        if task.column == "b":
            tries += 1
            if tries < 4:
                raise ConnectionError
        return ()

    async def main() -> None:
        setup = Setup(
            work, records=1, config=CONFIG, classify=lambda _: Failure("preserved", "rate_limited", 100_000.0)
        )
        result = await setup.scheduler.run()
        assert (result.rows, tries) == (1, 4)

    simulate(main)


def test_no_bound_waits_for_ever() -> None:
    async def work(task: Task) -> Sequence[RowDrop]:
        await trio.sleep_until(trio.current_time() + 1e7)
        return ()

    async def main() -> None:
        config = SchedulerConfig(no_progress_seconds=None)
        assert (await Setup(work, records=1, config=config).scheduler.run()).rows == 1

    simulate(main)


class Cooling:
    """Request pressure of one endpoint with waiters, which cools down until a given time."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.sequence = 1
        self.key = RequestResourceKey("p", "m", RequestDomain.CHAT)

    def snapshot(self, resource: RequestResourceKey) -> RequestPressureSnapshot | None:
        now = trio.current_time()
        return RequestPressureSnapshot(
            captured_at=now,
            sequence=self.sequence,
            resource=self.key,
            effective_max=1,
            current_limit=1,
            in_flight_count=0,
            active_lease_count=0,
            waiters=1,
            blocked_until_monotonic=self.until if self.until > now else None,
            cooldown_remaining_seconds=max(0.0, self.until - now),
            rate_limit_ceiling=1,
            consecutive_rate_limits=1,
            last_outcome="rate_limited",
            leak_diagnostics={},
        )

    def snapshots(self) -> Mapping[RequestResourceKey, RequestPressureSnapshot]:
        seen = self.snapshot(self.key)
        assert seen is not None
        return {self.key: seen}

    def global_snapshot(self, provider: str, model: str) -> ProviderModelPressureSnapshot | None:
        return None

    def global_snapshots(self) -> Mapping[ProviderModelKey, ProviderModelPressureSnapshot]:
        return {}


def test_a_cooldown_that_will_end_is_no_stall() -> None:
    async def work(task: Task) -> Sequence[RowDrop]:
        await trio.sleep(3650)
        return ()

    async def main() -> None:
        cooling = Cooling(trio.current_time() + 3600)
        result = await Setup(work, records=1, config=CONFIG, pressure=cooling, nodes=CHAIN[:1]).scheduler.run()
        assert result.rows == 1

    simulate(main)


@pytest.mark.parametrize("_again", range(12))  # Trio draws which of two tasks that wake together goes first.
def test_a_cooldown_that_ends_at_the_moment_of_the_look_is_no_stall(_again: int) -> None:
    async def work(task: Task) -> Sequence[RowDrop]:
        await trio.sleep(250)
        return ()

    async def main() -> None:
        # The guard of 100 s looks at 100 s, when requests are new to it, and at 200 s.
        cooling = Cooling(trio.current_time() + 200)

        async def grant() -> None:
            await trio.sleep_until(cooling.until)
            cooling.sequence += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(grant)
            setup = Setup(work, records=1, config=CONFIG, pressure=cooling, nodes=CHAIN[:1])
            assert (await setup.scheduler.run()).rows == 1

    simulate(main)


def test_requests_that_come_and_go_within_one_task_are_progress_until_they_stop() -> None:
    async def work(task: Task) -> Sequence[RowDrop]:
        for _ in range(60):
            await trio.sleep(10)
            requests.sequence += 1
        if task.row_group == 1:
            await trio.sleep_forever()
        return ()

    requests = Cooling(until=0.0)

    async def main() -> None:
        began = trio.current_time()
        setup = Setup(work, records=2, buffer_size=1, config=CONFIG, pressure=requests, nodes=CHAIN[:1])
        with pytest.raises(NoProgressError, match=r"1:\*:from_scratch:a has run for"):
            await setup.scheduler.run()
        assert [row_group for row_group, _ in setup.store.written] == [0]
        stopped_after = trio.current_time() - began - 1200
        assert 100 <= stopped_after <= 200

    simulate(main)

"""Stopping: from any thread at any moment, Ctrl-C, and generators that do not want to stop."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Sequence

import pytest
import trio
import trio.testing
from scheduler_samples import Setup, Store, nothing, simulate, two_row_groups

from trio_sched.lowlevel import RowDrop, RowGroup, Task


def test_a_run_cancelled_before_it_starts_does_nothing() -> None:
    async def main() -> None:
        setup = Setup(nothing)
        setup.scheduler.request_cancel()
        result = await setup.scheduler.run()
        assert result.cancelled
        assert (result.row_groups, setup.kinds()["worker_spawned"]) == (0, 0)
        assert setup.events("scheduler_job_completed")[0].reason_or_result == "cancelled"

    simulate(main)


class SlowStore(Store):
    """Writes for some seconds, which no cancellation shortens, as in a worker thread; None fails after one."""

    def __init__(self, *seconds: float | None) -> None:
        super().__init__()
        self._seconds = seconds

    async def write(self, row_group: RowGroup, living_rows: Sequence[int]) -> None:
        seconds = self._seconds[row_group.index]
        with trio.CancelScope(shield=True):
            await trio.sleep(1 if seconds is None else seconds)
        if seconds is None:
            raise OSError("no space left")
        self.written.append((row_group.index, tuple(living_rows)))


def test_what_is_written_while_a_run_is_cancelled_is_durable_and_counted() -> None:
    async def main() -> None:
        store = SlowStore(2, 3)
        setup = Setup(nothing, records=10, store=store)
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                await trio.sleep(1)
                setup.scheduler.request_cancel()

            nursery.start_soon(stop)
            result = await setup.scheduler.run()
        assert result.cancelled
        assert [row_group for row_group, _ in store.written] == [0, 1]
        assert (result.row_groups, result.rows) == (2, 10)
        assert setup.kinds()["row_group_checkpointed"] == 2

    simulate(main)


def test_what_is_written_while_a_run_fails_is_durable_and_told() -> None:
    async def main() -> None:
        setup = Setup(nothing, records=10, store=SlowStore(2, None))
        with pytest.raises(OSError, match="no space left"):
            await setup.scheduler.run()
        assert setup.kinds()["row_group_checkpointed"] == 1

    simulate(main)


def test_asking_after_the_end_changes_nothing() -> None:
    setups: list[Setup] = []

    async def main() -> None:
        setup = Setup(nothing)
        setups.append(setup)
        result = await setup.scheduler.run()
        setup.scheduler.request_cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert not result.cancelled

    simulate(main)
    setups[0].scheduler.request_cancel()


def test_many_threads_may_ask_at_once_and_often() -> None:
    async def main() -> None:
        async def work(task: Task) -> Sequence[RowDrop]:
            await trio.sleep(60)
            return ()

        setup = Setup(work)

        def ask_often() -> None:
            for _ in range(100):
                setup.scheduler.request_cancel()

        threads = [threading.Thread(target=ask_often) for _ in range(8)]
        for thread in threads:
            thread.start()
        result = await setup.scheduler.run()
        for thread in threads:
            thread.join()
        assert result.cancelled
        setup.assert_nothing_held()

    trio.run(main)


@pytest.mark.parametrize("where", ["generator", "plan", "store", "after a checkpoint"])
def test_ctrl_c_ends_the_run_as_itself(where: str) -> None:
    setups: list[Setup] = []

    class Plan:
        made = 0

        async def next_row_group(self) -> RowGroup | None:
            if where == "plan" and self.made == 2:
                signal.raise_signal(signal.SIGINT)
            self.made += 1
            return RowGroup(self.made - 1, 0, 3)

    async def work(task: Task) -> Sequence[RowDrop]:
        if where == "after a checkpoint":
            await trio.lowlevel.checkpoint()
        if task.row_group == 1 and where in ("generator", "after a checkpoint"):
            signal.raise_signal(signal.SIGINT)
        return ()

    def interrupted(row_group: RowGroup) -> None:
        if where == "store":
            signal.raise_signal(signal.SIGINT)

    async def main() -> None:
        setup = Setup(work, plan=Plan(), config=two_row_groups(1))
        setup.store.before_write = interrupted
        setups.append(setup)
        await setup.scheduler.run()

    with pytest.raises(KeyboardInterrupt):
        simulate(main)
    setups[0].assert_nothing_held()
    assert setups[0].events("scheduler_job_completed")[0].reason_or_result == "interrupted"


def test_a_generator_that_swallows_its_cancellation_does_not_keep_the_run() -> None:
    async def work(task: Task) -> Sequence[RowDrop]:
        with contextlib.suppress(trio.Cancelled):
            await trio.Event().wait()
        return ()

    async def main() -> None:
        setup = Setup(work)
        with trio.move_on_after(1) as scope:
            await setup.scheduler.run()
        assert scope.cancelled_caught
        setup.assert_nothing_held()

    simulate(main)


def test_tasks_that_a_generator_spawned_end_with_it() -> None:
    left = 0

    async def helper() -> None:
        nonlocal left
        left += 1
        try:
            await trio.sleep_forever()
        finally:
            left -= 1

    async def work(task: Task) -> Sequence[RowDrop]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(helper)
            await trio.sleep(1)
            if task.row_index != 1:
                nursery.cancel_scope.cancel()
            raise LookupError("inside a nursery") if task.row_index == 2 else trio.TooSlowError

    async def main() -> None:
        setup = Setup(work)
        with trio.move_on_after(30):
            result = await setup.scheduler.run()
            assert result.dropped_rows == 20
        assert left == 0
        setup.assert_nothing_held()

    simulate(main)


def test_generators_that_never_checkpoint_let_the_run_be_cancelled_between_them() -> None:
    ran = 0

    async def main() -> None:
        async def work(task: Task) -> Sequence[RowDrop]:
            nonlocal ran
            ran += 1
            if ran == 50:
                setup.scheduler.request_cancel()
            return ()

        setup = Setup(work, records=100_000)
        result = await setup.scheduler.run()
        assert result.cancelled
        assert ran < 500
        setup.assert_nothing_held()

    simulate(main)


def test_a_generator_that_raises_while_it_is_cancelled_still_gives_its_lease_back() -> None:
    async def work(task: Task) -> Sequence[RowDrop]:
        try:
            await trio.Event().wait()
        except trio.Cancelled:
            raise LookupError("on the way out") from None
        return ()

    async def main() -> None:
        setup = Setup(work)
        with trio.move_on_after(1):
            await setup.scheduler.run()
        setup.assert_nothing_held()

    simulate(main)

"""Waiters that are granted together wake one after another, and none of them is forgotten."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
import trio
import trio.testing
from request_samples import SUCCESS, config, item

from trio_sched._request.controller import AdaptiveRequestAdmissionController
from trio_sched._request.leases import RequestAdmissionError, RequestAdmissionLease
from trio_sched._request.supervisor import PATIENCE

CALLERS = 5


class Batches(trio.abc.Instrument):
    """Counts Trio's batches: all tasks that are ready run in one."""

    def __init__(self) -> None:
        self.number = 0

    def before_io_wait(self, timeout: float) -> None:
        self.number += 1


@attrs.define(eq=False)
class Crowd:
    """Callers who wait while as many leases are held, and in which batch each of them went on.

    slept: for how many seconds each of them was left asleep on its lease.
    """

    controller: AdaptiveRequestAdmissionController
    batches: Batches
    held: list[RequestAdmissionLease]
    scopes: list[trio.CancelScope] = attrs.field(factory=list[trio.CancelScope])
    served: list[tuple[int, int]] = attrs.field(factory=list[tuple[int, int]])
    refused: list[int] = attrs.field(factory=list[int])
    slept: list[float] = attrs.field(factory=list[float])

    async def call(self, number: int) -> None:
        with self.scopes[number]:
            try:
                lease = await self.controller.acquire_async(item())
            except RequestAdmissionError:
                self.refused.append(self.batches.number)
                return
            self.served.append((self.batches.number, number))
            self.slept.append(trio.current_time() - lease.acquired_at)
            self.controller.release(lease, SUCCESS)
            await trio.lowlevel.checkpoint()

    def release(self, leases: int) -> None:
        for _ in range(leases):
            self.controller.release(self.held.pop(), SUCCESS)

    def release_all(self) -> None:
        self.release(len(self.held))


async def with_crowd(change: Callable[[Crowd], None], callers: int = CALLERS) -> Crowd:
    """What becomes of the crowd when `change` happens to it within one step of another task."""
    batches = Batches()
    trio.lowlevel.add_instrument(batches)
    async with AdaptiveRequestAdmissionController(config()) as controller:
        controller.register(provider_name="openai", model_id="gpt", alias="a", max_parallel_requests=callers)
        held = [await controller.acquire_async(item()) for _ in range(callers)]
        crowd = Crowd(controller, batches, held, [trio.CancelScope() for _ in range(callers)])
        async with trio.open_nursery() as nursery:
            for number in range(callers):
                nursery.start_soon(crowd.call, number)
                await trio.testing.wait_all_tasks_blocked()
            change(crowd)
        crowd.release_all()
        assert controller.leak_report() == ()
        trio.lowlevel.remove_instrument(batches)
    return crowd


async def test_waiters_that_are_granted_together_run_in_turn_and_in_the_order_of_the_grants() -> None:
    crowd = await with_crowd(Crowd.release_all)
    first = crowd.served[0][0]
    assert crowd.served == [(first + place, place) for place in range(CALLERS)]


@pytest.mark.parametrize("cancelled", [(0,), (1,), (CALLERS - 1,), (0, 1), (1, 3), tuple(range(CALLERS))])
async def test_one_that_is_cancelled_between_its_grant_and_its_turn_has_its_lease_and_wakes_the_next(
    cancelled: tuple[int, ...],
) -> None:
    def change(crowd: Crowd) -> None:
        crowd.release_all()
        for number in cancelled:
            crowd.scopes[number].cancel()

    crowd = await with_crowd(change)
    assert [number for _, number in crowd.served] == list(range(CALLERS))
    assert [scope.cancelled_caught for scope in crowd.scopes] == [n in cancelled for n in range(CALLERS)]


async def test_one_that_is_cancelled_before_its_grant_is_skipped_and_wakes_nobody() -> None:
    def change(crowd: Crowd) -> None:
        crowd.scopes[1].cancel()
        crowd.release_all()

    crowd = await with_crowd(change)
    assert [number for _, number in crowd.served] == [0, 2, 3, 4]


async def test_waiters_that_are_refused_together_run_in_one_batch() -> None:
    def change(crowd: Crowd) -> None:
        crowd.controller.close_endpoint(item().resource.provider_model_key, "its key was refused")

    crowd = await with_crowd(change)
    assert len(crowd.refused) == CALLERS
    assert len(set(crowd.refused)) == 1


async def test_those_who_wait_for_their_turn_when_the_others_are_refused_still_get_their_leases() -> None:
    def change(crowd: Crowd) -> None:
        crowd.release(2)
        crowd.controller.close_endpoint(item().resource.provider_model_key, "its key was refused")

    crowd = await with_crowd(change)
    assert [number for _, number in crowd.served] == [0, 1]
    assert len(crowd.refused) == CALLERS - 2


async def test_where_each_batch_takes_long_nobody_sleeps_on_a_lease_for_longer_than_the_patience(
    mock_clock: trio.testing.MockClock,
) -> None:
    batch_seconds = PATIENCE / 4

    def change(crowd: Crowd) -> None:
        crowd.release_all()
        trio.lowlevel.spawn_system_task(use_time, crowd)

    async def use_time(crowd: Crowd) -> None:
        while len(crowd.served) < 50:
            await trio.lowlevel.checkpoint()
            mock_clock.jump(batch_seconds)

    crowd = await with_crowd(change, callers=50)
    assert sorted(number for _, number in crowd.served) == list(range(50))
    assert max(crowd.slept) < PATIENCE + 3 * batch_seconds
    assert len({batch for batch, _ in crowd.served}) >= PATIENCE // batch_seconds

"""Leases for worker threads: real threads, but nothing that depends on how fast they are."""

from __future__ import annotations

import re
import threading

import pytest
import trio
from request_samples import SUCCESS, config, item

from trio_sched._request.attempt import RequestAdmissionUsageError
from trio_sched._request.controller import AdaptiveRequestAdmissionController
from trio_sched._request.leases import RequestAdmissionError, RequestAdmissionLease


def make(cap: int) -> AdaptiveRequestAdmissionController:
    controller = AdaptiveRequestAdmissionController(config())
    controller.register(provider_name="openai", model_id="gpt", alias="a", max_parallel_requests=cap)
    return controller


async def waiters_reach(controller: AdaptiveRequestAdmissionController, count: int) -> None:
    """Until `count` threads wait; every turn lets the threads' messages in."""
    while sum(snapshot.waiters for snapshot in controller.pressure.snapshots().values()) < count:
        await trio.lowlevel.checkpoint()


async def test_on_the_trio_thread_it_says_what_to_call() -> None:
    async with make(1) as controller:
        message = "acquire_sync would block the Trio thread; await acquire_async there, or call it from a worker thread"
        with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$") as caught:
            controller.acquire_sync(item())
        assert isinstance(caught.value, RequestAdmissionUsageError)
        assert controller.leak_report() == ()


async def test_in_a_thread_of_somebody_else_it_says_what_to_call() -> None:
    errors: list[str] = []

    def stranger(controller: AdaptiveRequestAdmissionController) -> None:
        try:
            controller.acquire_sync(item())
        except RequestAdmissionUsageError as error:
            errors.append(str(error))

    async with make(1) as controller:
        thread = threading.Thread(target=stranger, args=(controller,))
        thread.start()
        await trio.to_thread.run_sync(thread.join)
    message = (
        "acquire_sync works in threads started by trio.to_thread.run_sync, and this is none of them; "
        "call it there, or await acquire_async on the Trio thread"
    )
    assert errors == [message]


async def test_a_thread_gets_a_lease_and_gives_it_back() -> None:
    def work() -> int:
        lease = controller.acquire_sync(item())
        trio.from_thread.run_sync(controller.release, lease, SUCCESS)
        return lease.lease_id

    async with make(1) as controller:
        assert await trio.to_thread.run_sync(work) == 1
        assert controller.leak_report() == ()


async def test_a_thread_that_gets_none_raises_what_a_task_would() -> None:
    async with make(1) as controller:
        held = await controller.acquire_async(item())
        with pytest.raises(RequestAdmissionError, match=r"^no request lease for openai/gpt/chat: queue_timeout$"):
            await trio.to_thread.run_sync(controller.acquire_sync, item(timeout=0))
        controller.release(held, SUCCESS)


async def test_32_threads_cancelled_while_they_wait_leak_nothing() -> None:
    cancelled: list[bool] = []

    def work() -> None:
        try:
            controller.acquire_sync(item())
        except trio.Cancelled:
            cancelled.append(True)
            raise

    limiter = trio.CapacityLimiter(32)
    async with make(1) as controller:
        held = await controller.acquire_async(item())
        async with trio.open_nursery() as nursery:
            for _ in range(32):
                nursery.start_soon(lambda: trio.to_thread.run_sync(work, limiter=limiter))
            await waiters_reach(controller, 32)
            nursery.cancel_scope.cancel()
        assert len(cancelled) == 32
        controller.release(held, SUCCESS)
        assert controller.leak_report() == ()
        lease = controller.try_acquire(item(timeout=0))
        assert isinstance(lease, RequestAdmissionLease)
        controller.release(lease, SUCCESS)


async def test_32_threads_share_few_places_and_are_cancelled_half_way() -> None:
    in_flight = 0
    peak = 0
    done = 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal in_flight, peak, done
        for _ in range(4):
            lease = controller.acquire_sync(item())
            with lock:
                in_flight += 1
                peak = max(peak, in_flight)
            with lock:
                in_flight -= 1
                done += 1
            trio.from_thread.run_sync(controller.release, lease, SUCCESS)

    limiter = trio.CapacityLimiter(32)
    async with make(3) as controller:
        async with trio.open_nursery() as nursery:
            for _ in range(32):
                nursery.start_soon(lambda: trio.to_thread.run_sync(work, limiter=limiter))
            while done < 40:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert 1 <= peak <= 3
        assert controller.leak_report() == ()
        snapshots = controller.pressure.snapshots()
        assert all(snapshot.in_flight_count == snapshot.waiters == 0 for snapshot in snapshots.values())

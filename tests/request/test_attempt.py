from __future__ import annotations

import re

import pytest
import trio
import trio.testing
from request_samples import CHAT, config, item

from trio_sched._events.sinks import InMemoryAdmissionEventSink
from trio_sched._request.attempt import RequestAdmissionUsageError
from trio_sched._request.controller import AdaptiveRequestAdmissionController
from trio_sched._request.leases import RequestAdmissionError, RequestAdmissionLease
from trio_sched._resources.request import RequestReleaseOutcome


def make(cap: int = 2, sink: InMemoryAdmissionEventSink | None = None) -> AdaptiveRequestAdmissionController:
    controller = AdaptiveRequestAdmissionController(config(), event_sink=sink)
    controller.register(provider_name="openai", model_id="gpt", alias="a", max_parallel_requests=cap)
    return controller


def outcomes(sink: InMemoryAdmissionEventSink) -> list[str | None]:
    return [event.reason_or_outcome for event in sink.request_events if event.event_kind == "request_lease_released"]


class RateLimitError(Exception):
    status_code = 429


async def test_a_block_that_ends_well_is_a_success() -> None:
    sink = InMemoryAdmissionEventSink()
    async with make(sink=sink) as controller:
        async with controller.admit(item()) as lease:
            assert [leak.lease_id for leak in controller.leak_report()] == [lease.lease_id]
        assert controller.leak_report() == ()
    assert outcomes(sink) == ["success"]


async def test_an_error_is_classified_and_leaves_as_itself() -> None:
    sink = InMemoryAdmissionEventSink()
    error = RateLimitError()
    async with make(sink=sink) as controller:
        with pytest.raises(RateLimitError) as caught:
            async with controller.admit(item()):
                raise error
        assert caught.value is error
        await trio.testing.wait_all_tasks_blocked()
        snapshot = controller.pressure.snapshot(CHAT)
        assert snapshot is not None
        assert snapshot.current_limit == 1
    assert outcomes(sink) == ["rate_limited"]


async def test_a_cancelled_attempt_is_local_and_cancelled() -> None:
    sink = InMemoryAdmissionEventSink()
    async with make(sink=sink) as controller:
        with trio.CancelScope() as scope:
            async with controller.admit(item()):
                scope.cancel()
                await trio.sleep_forever()
        assert controller.leak_report() == ()
    assert outcomes(sink) == ["local_cancelled"]


async def test_leaving_a_cancelled_attempt_does_not_checkpoint() -> None:
    async with make() as controller:
        admitted = controller.admit(item())
        await admitted.__aenter__()
        with trio.testing.assert_no_checkpoints():
            await admitted.__aexit__(None, None, None)


async def test_an_error_that_cannot_be_classified_still_gives_the_lease_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_exc: BaseException) -> RequestReleaseOutcome:
        raise LookupError

    monkeypatch.setattr("trio_sched._request.attempt.classify_exception", broken)
    sink = InMemoryAdmissionEventSink()
    async with make(sink=sink) as controller:
        with pytest.raises(LookupError) as caught:
            async with controller.admit(item()):
                raise RateLimitError
        assert isinstance(caught.value.__context__, RateLimitError)
        assert controller.leak_report() == ()
    assert outcomes(sink) == ["unexpected_exception"]


async def test_an_attempt_admitted_again_is_refused() -> None:
    async with make() as controller, controller.admit(item()) as lease:
        message = (
            "this code runs inside an attempt on openai/gpt/chat that already holds lease "
            f"{lease.lease_id}; an outbound attempt is admitted once, so leave that block first"
        )
        with pytest.raises(RequestAdmissionUsageError, match=f"^{re.escape(message)}$"):
            async with controller.admit(item()):
                pass
        with pytest.raises(RequestAdmissionUsageError, match=f"^{re.escape(message)}$"):
            await controller.acquire_async(item())
        assert len(controller.leak_report()) == 1


async def test_a_block_is_entered_by_one_task_at_a_time() -> None:
    message = "this block is open already for an attempt on openai/gpt/chat; make one for each attempt"
    async with make() as controller:
        shared = controller.admit(item())

        async def second() -> None:
            with pytest.raises(RequestAdmissionUsageError, match=f"^{message}$"):
                await shared.__aenter__()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(second)
            async with shared:
                await trio.testing.wait_all_tasks_blocked()
        assert controller.leak_report() == ()
        async with shared:
            pass


async def test_a_block_whose_wait_was_cancelled_may_be_entered_again() -> None:
    async with make(cap=1) as controller:
        waiting = controller.admit(item())
        held = controller.try_acquire(item())
        assert isinstance(held, RequestAdmissionLease)
        with trio.move_on_after(0):
            await waiting.__aenter__()
        controller.release(held, RequestReleaseOutcome("success"))
        async with waiting as lease:
            assert [leak.lease_id for leak in controller.leak_report()] == [lease.lease_id]


async def test_a_second_controller_is_no_way_around() -> None:
    async with make() as controller, make() as other, controller.admit(item()):
        with pytest.raises(RequestAdmissionUsageError):
            await other.acquire_async(item())


async def test_a_task_of_the_attempt_belongs_to_it_until_the_attempt_ends() -> None:
    refusals: list[bool] = []
    ended = trio.Event()

    async def child() -> None:
        with pytest.raises(RequestAdmissionUsageError):
            await controller.acquire_async(item())
        refusals.append(True)
        await ended.wait()
        async with controller.admit(item()):
            refusals.append(False)

    async with make() as controller, trio.open_nursery() as nursery:
        async with controller.admit(item()):
            nursery.start_soon(child)
            await trio.testing.wait_all_tasks_blocked()
        ended.set()
    assert refusals == [True, False]


async def test_attempts_one_after_the_other_are_fine() -> None:
    async with make(cap=1) as controller:
        for _ in range(3):
            async with controller.admit(item()):
                pass


async def test_a_refused_attempt_leaves_no_trace() -> None:
    async with make(cap=1) as controller:
        controller.try_acquire(item())
        with pytest.raises(RequestAdmissionError):
            async with controller.admit(item(timeout=0)):
                raise AssertionError("never admitted")
        with pytest.raises(RequestAdmissionError):
            await controller.acquire_async(item(timeout=0))

"""Refusals that no waiting changes: an endpoint that was closed, and a caller that does not wait."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_sched.lowlevel import (
    AdaptiveRequestAdmissionController,
    InMemoryAdmissionEventSink,
    ProviderModelKey,
    RequestAdmissionDenied,
    RequestAdmissionError,
    RequestAdmissionItem,
    RequestAdmissionLease,
    RequestDomain,
    RequestGroupSpec,
    RequestReleaseOutcome,
    RequestResourceKey,
)

CHAT = RequestResourceKey("openai", "gpt", RequestDomain.CHAT)
CALL = RequestAdmissionItem(CHAT, RequestGroupSpec(CHAT))
IMPATIENT = RequestAdmissionItem(CHAT, RequestGroupSpec(CHAT), 0)


def register(controller: AdaptiveRequestAdmissionController, alias: str = "a", cap: int = 1) -> None:
    controller.register(provider_name="openai", model_id="gpt", alias=alias, max_parallel_requests=cap)


async def test_an_endpoint_is_closed_for_good_registering_it_again_included() -> None:
    async with AdaptiveRequestAdmissionController() as controller:
        register(controller)
        held = controller.try_acquire(CALL)
        assert isinstance(held, RequestAdmissionLease)
        controller.close_endpoint(ProviderModelKey("openai", "gpt"), "its quota is used up")
        for alias, cap in (("a", 1), ("a", 8), ("b", 8)):
            register(controller, alias, cap)
            denied = controller.try_acquire(CALL)
            assert isinstance(denied, RequestAdmissionDenied)
            assert (denied.reason, denied.diagnostics) == (
                "endpoint_closed",
                {"explanation": "its quota is used up"},
            )
        assert controller.release(held, RequestReleaseOutcome("success")).released


async def test_a_timeout_of_zero_never_waits_not_even_for_what_is_released_in_the_same_step() -> None:
    sink = InMemoryAdmissionEventSink()
    controller = AdaptiveRequestAdmissionController(event_sink=sink)
    register(controller)
    async with controller, trio.open_nursery() as nursery:
        held = controller.try_acquire(CALL)
        assert isinstance(held, RequestAdmissionLease)

        async def release() -> None:
            controller.release(held, RequestReleaseOutcome("success"))

        nursery.start_soon(release)
        with trio.testing.assert_checkpoints(), pytest.raises(RequestAdmissionError) as refused:
            await controller.acquire_async(IMPATIENT)
        assert refused.value.decision.reason == "queue_timeout"
    kinds = [event.event_kind for event in sink.request_events]
    assert "request_wait_timeout" in kinds
    assert "request_queue_formed" not in kinds

"""Every kind of the request stream is emitted: a scripted afternoon of a controller under each rule brings them about.

A kind that is added to the literal and emitted nowhere fails here, and so does an event of a kind that is not in it.
"""

from __future__ import annotations

import trio
import trio.testing

from trio_sched._events.records import REQUEST_EVENT_KINDS
from trio_sched.lowlevel import (
    AdaptiveRequestAdmissionController,
    InMemoryAdmissionEventSink,
    RequestAdmissionConfig,
    RequestAdmissionError,
    RequestAdmissionItem,
    RequestDomain,
    RequestGroupSpec,
    RequestReleaseOutcome,
    RequestResourceKey,
)

CHAT = RequestResourceKey("provider", "model", RequestDomain.CHAT)
UNKNOWN = RequestResourceKey("provider", "unknown", RequestDomain.CHAT)
SUCCESS = RequestReleaseOutcome("success")
REFUSED = RequestReleaseOutcome("rate_limited")
FAILED = RequestReleaseOutcome("provider_failure")
NO_ACCESS = RequestReleaseOutcome("provider_failure", None, 401)
ABOUT_OUTAGES = ("request_outage_started", "request_trial_started", "request_outage_ended")


def item(key: RequestResourceKey = CHAT, timeout: float | None = None) -> RequestAdmissionItem:
    return RequestAdmissionItem(key, RequestGroupSpec(key), timeout)


async def test_a_controller_emits_every_kind(autojump_clock: trio.testing.MockClock) -> None:
    sink, seen = InMemoryAdmissionEventSink(), InMemoryAdmissionEventSink()
    config = RequestAdmissionConfig(successes_until_increase=1, cooldown_seconds=5, multiplicative_decrease_factor=0.5)

    async def call(controller: AdaptiveRequestAdmissionController, outcome: RequestReleaseOutcome) -> None:
        lease = await controller.acquire_async(item())
        controller.model_request_started(lease)
        await trio.sleep(1)
        controller.model_request_completed(lease, outcome)
        controller.release(lease, outcome)
        if outcome is not SUCCESS:
            assert controller.release(lease, outcome).reason == "duplicate"

    async def give_up(controller: AdaptiveRequestAdmissionController) -> None:
        try:
            with trio.move_on_after(0.5):
                await controller.acquire_async(item(timeout=0.1))
        except RequestAdmissionError:
            with trio.move_on_after(0.1):
                await controller.acquire_async(item())

    async with AdaptiveRequestAdmissionController(config, event_sink=sink) as controller:
        for cap in (5, 4):
            controller.register(provider_name="provider", model_id="model", alias="a", max_parallel_requests=cap)
        controller.try_acquire(item(UNKNOWN))
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(call, controller, SUCCESS)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(give_up, controller)
        for _ in range(2):
            await call(controller, REFUSED)
        for _ in range(4):
            await call(controller, SUCCESS)

    async with AdaptiveRequestAdmissionController(event_sink=seen) as controller:
        controller.register(provider_name="provider", model_id="model", alias="a", max_parallel_requests=4)
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(call, controller, SUCCESS)
        for outcome in (*[REFUSED] * 5, SUCCESS, SUCCESS):
            await call(controller, outcome)
    assert [event.event_kind for event in seen.request_events if event.event_kind in ABOUT_OUTAGES] == [
        "request_trial_started",
        "request_outage_started",
        *["request_trial_started"] * 4,
        "request_outage_ended",
    ]
    assert not set(ABOUT_OUTAGES) & {event.event_kind for event in sink.request_events}

    unanswered = InMemoryAdmissionEventSink()
    async with AdaptiveRequestAdmissionController(event_sink=unanswered) as controller:
        controller.register(provider_name="provider", model_id="model", alias="a", max_parallel_requests=4)
        for outcome in (FAILED, FAILED, FAILED, SUCCESS, NO_ACCESS, NO_ACCESS):
            await call(controller, outcome)
    assert [event.event_kind for event in unanswered.request_events if "endpoint" in event.event_kind] == [
        "request_endpoint_not_answering",
        "request_endpoint_answering",
        "request_endpoint_not_answering",
        "request_endpoint_closed",
    ]

    kinds = {event.event_kind for each in (sink, seen, unanswered) for event in each.request_events}
    assert kinds == set(REQUEST_EVENT_KINDS)
    for each in (sink, seen, unanswered):
        assert [event.sequence for event in each.request_events] == list(range(1, len(each.request_events) + 1))

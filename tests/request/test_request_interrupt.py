"""Ctrl-C while admission keeps its books: whatever it was doing is finished first."""

from __future__ import annotations

import contextlib
import signal
import sys
from types import FrameType

import pytest
import trio
import trio.testing
from request_samples import CHAT, config, item

from trio_sched._util import single_error
from trio_sched.lowlevel import (
    AdaptiveRequestAdmissionController,
    RequestAdmissionError,
    RequestAdmissionEvent,
    RequestAdmissionLease,
    RequestReleaseOutcome,
)

WATCHED = ("_request/core.py", "_request/limit_updates.py", "_request/limit_state.py")


class InterruptAt:
    """A trace function that presses Ctrl-C at the given line, counted from 1, of what the supervisor changes."""

    def __init__(self, line: int) -> None:
        self.left = line

    def __call__(self, frame: FrameType, event: str, argument: object) -> InterruptAt | None:
        if not frame.f_code.co_filename.replace("\\", "/").endswith(WATCHED):
            return None
        if event == "line" and trio.lowlevel.current_task().name == "trio_sched request supervisor":
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(signal.SIGINT)
        return self


class RateLimitError(Exception):
    status_code = 429


async def client(controller: AdaptiveRequestAdmissionController) -> None:
    with contextlib.suppress(RateLimitError):
        async with controller.admit(item()):
            await trio.sleep(1)
            raise RateLimitError
    async with controller.admit(item()):
        await trio.sleep(1)


class PressesCtrlC:
    """A sink that is struck while it takes the refusal of whoever waits when the controller is left."""

    def emit_request_event(self, event: RequestAdmissionEvent) -> None:
        if event.reason_or_outcome == "shutdown":
            signal.raise_signal(signal.SIGINT)


def test_in_a_sink_while_the_controller_is_left() -> None:
    controller = AdaptiveRequestAdmissionController(config(), event_sink=PressesCtrlC())
    controller.register(provider_name="openai", model_id="gpt", alias="gpt", max_parallel_requests=1)
    ended: list[str] = []

    async def wait_in_vain() -> None:
        with pytest.raises(RequestAdmissionError):
            await controller.acquire_async(item())
        ended.append("refused")

    async def main() -> None:
        held = controller.try_acquire(item())
        assert isinstance(held, RequestAdmissionLease)
        async with trio.open_nursery() as nursery:
            await controller.__aenter__()
            nursery.start_soon(wait_in_vain)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(KeyboardInterrupt):
                await controller.__aexit__(None, None, None)
            controller.release(held, RequestReleaseOutcome("rate_limited"))
            await trio.lowlevel.checkpoint()
            ended.append("alive")

    trio.run(main)
    assert sorted(ended) == ["alive", "refused"]
    snapshot = controller.pressure.snapshot(CHAT)
    assert snapshot is not None
    assert snapshot.consecutive_rate_limits == 1


def test_at_every_line_of_the_supervisors_work() -> None:
    line = 0
    pressed = True
    while pressed:
        line += 1
        controller = AdaptiveRequestAdmissionController(config())
        controller.register(provider_name="openai", model_id="gpt", alias="gpt", max_parallel_requests=2)
        interrupt, traced = InterruptAt(line), sys.gettrace()

        async def main(controller: AdaptiveRequestAdmissionController = controller) -> None:
            with single_error():
                async with controller, trio.open_nursery() as nursery:
                    for _ in range(3):
                        nursery.start_soon(client, controller)

        sys.settrace(interrupt)
        try:
            with contextlib.suppress(KeyboardInterrupt):
                trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
        finally:
            sys.settrace(traced)
        pressed = interrupt.left <= 0
        assert controller.leak_report() == ()
        assert all(seen.waiters == 0 for seen in controller.pressure.snapshots().values())
    assert line > 50


class StrikesTheSupervisor:
    """A sink that is struck by Ctrl-C once, while it takes an event from the supervisor."""

    struck = False

    def emit_request_event(self, event: RequestAdmissionEvent) -> None:
        if not self.struck and trio.lowlevel.current_task().name == "trio_sched request supervisor":
            self.struck = True
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("shielded_from_outside", [False, True])
def test_in_a_sink_of_the_supervisor_leaves_nobody_waiting_behind_a_shield(shielded_from_outside: bool) -> None:
    sink = StrikesTheSupervisor()
    reasons: list[str] = []

    async def main() -> None:
        with trio.CancelScope() as outer, single_error():
            controller = AdaptiveRequestAdmissionController(event_sink=sink)
            controller.register(provider_name="openai", model_id="gpt", alias="gpt", max_parallel_requests=4)
            async with controller:
                with contextlib.suppress(RateLimitError):
                    async with controller.admit(item()):
                        raise RateLimitError
                if shielded_from_outside:
                    outer.cancel()
                with trio.CancelScope(shield=True), trio.fail_after(60):
                    for _ in range(2):
                        with pytest.raises(RequestAdmissionError) as refused:
                            await controller.acquire_async(item())
                        reasons.append(refused.value.decision.reason)

    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert sink.struck
    assert reasons == ["shutdown", "shutdown"]

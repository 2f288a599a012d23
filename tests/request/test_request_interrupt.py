"""Ctrl-C while admission keeps its books: whatever it was doing is finished first."""

from __future__ import annotations

import contextlib
import signal
import sys
from types import FrameType

import trio
import trio.testing
from request_samples import config, item

from trio_sched._unwrap import single_error
from trio_sched.lowlevel import AdaptiveRequestAdmissionController


class InterruptAt:
    """A trace function that presses Ctrl-C at the given line, counted from 1, of what the supervisor changes."""

    def __init__(self, line: int) -> None:
        self.left = line

    def __call__(self, frame: FrameType, event: str, argument: object) -> InterruptAt | None:
        if not frame.f_code.co_filename.replace("\\", "/").endswith(("_request/core.py", "_request/adaptation.py")):
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

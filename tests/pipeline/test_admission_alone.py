"""Request admission alone: three lines around one's own calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
import trio
import trio.testing

import trio_sched as ts
from trio_sched.lowlevel import InMemoryAdmissionEventSink

WRITER = ts.Model("p", "m", max_parallel_requests=3)
EMBEDDER = ts.Model("p", "m", max_parallel_requests=5, domain="embedding")


class RateLimitError(Exception):
    status_code = 429


def mocked(main: Callable[[], Awaitable[None]]) -> None:
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_calls_stay_under_the_cap_that_domains_share() -> None:
    in_flight = most = 0

    async def one(admission: ts.RequestAdmission, model: ts.Model) -> None:
        nonlocal in_flight, most
        async with admission.request(model):
            in_flight += 1
            most = max(most, in_flight)
            await trio.sleep(1)
            in_flight -= 1

    async def main() -> None:
        async with ts.open_admission(WRITER, EMBEDDER) as admission:
            async with trio.open_nursery() as nursery:
                for number in range(12):
                    nursery.start_soon(one, admission, (WRITER, EMBEDDER)[number % 2])
            assert admission.controller.leak_report() == ()
        assert most == 3
        assert trio.current_time() >= 4

    mocked(main)


def test_what_happens_in_the_block_is_classified_and_leaves_as_it_is() -> None:
    async def main() -> None:
        sink = InMemoryAdmissionEventSink()
        tuning = ts.RequestAdmissionTuningConfig(cooldown_seconds=2)
        async with ts.open_admission(WRITER, tuning=tuning, event_sink=sink) as admission:
            with pytest.raises(RateLimitError):
                async with admission.request(WRITER):
                    raise RateLimitError
            began = trio.current_time()
            async with admission.request(WRITER):
                assert trio.current_time() == pytest.approx(began + 2)
            with trio.move_on_after(1):
                async with admission.request(WRITER):
                    await trio.sleep_forever()
        outcomes = Counter(
            event.reason_or_outcome for event in sink.request_events if event.event_kind == "request_lease_released"
        )
        assert outcomes == {"rate_limited": 1, "success": 1, "local_cancelled": 1}

    mocked(main)


def test_a_wait_can_be_bounded() -> None:
    async def main() -> None:
        async with ts.open_admission(ts.Model("p", "m", max_parallel_requests=1)) as admission:
            model = ts.Model("p", "m")
            async with admission.request(model), trio.open_nursery() as nursery:

                async def impatient() -> None:
                    with pytest.raises(ts.RequestAdmissionError) as caught:
                        async with admission.request(model, queue_wait_timeout_seconds=3):
                            raise AssertionError("must not be admitted")
                    assert caught.value.decision.reason == "queue_timeout"

                # A task of its own: within the block, asking again would be asking for a second lease.
                trio.lowlevel.spawn_system_task(impatient)
                await trio.sleep(5)
                nursery.cancel_scope.cancel()

    mocked(main)


async def test_a_model_that_admission_was_not_opened_with() -> None:
    async with ts.open_admission(WRITER) as admission:
        with pytest.raises(ts.UnknownNameError, match=r"names the model 'p/n', which does not exist; did you mean"):
            admission.request(ts.Model("p", "n"))


async def test_what_is_no_model_is_refused_by_its_type() -> None:
    writer = cast("ts.Model", "writer")
    async with ts.open_admission(WRITER) as admission:
        with pytest.raises(ts.InvalidTypeError, match=r"^model of admission.request must be a Model .*, got 'writer'$"):
            admission.request(writer)
    with pytest.raises(ts.InvalidTypeError, match=r"^each argument of open_admission must be a Model, got 'writer'$"):
        async with ts.open_admission(WRITER, writer):
            raise AssertionError("must not be opened")


async def test_an_error_of_the_block_is_not_wrapped() -> None:
    with pytest.raises(LookupError):
        async with ts.open_admission(WRITER):
            raise LookupError

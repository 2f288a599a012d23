"""Hours of refusals cost time and nothing else: no row is lost, nothing spins, and the run comes to its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

import trio_sched as ts
from trio_sched.lowlevel import InMemoryAdmissionEventSink, RequestAdmissionConfig, inline

HOUR = 3600.0
REFUSING = 6 * HOUR
ROWS = 20
STEPS_PER_TURN = 30
"""Steps of all tasks for one attempt, or one wait, of a row: it takes some ten, and a few times that is no spinning."""


class RateLimitError(Exception):
    status_code = 429

    def __init__(self, retry_after: str | None) -> None:
        self.headers = {} if retry_after is None else {"retry-after": retry_after}
        super().__init__("too many requests")


class Steps(trio.abc.Instrument):
    """Counts the steps of all tasks."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


@attrs.frozen
class ImpatientTuning(ts.RequestAdmissionTuningConfig):
    """A tuning whose requests give up waiting after a time."""

    queue_wait_timeout_seconds: float = 120.0

    def with_limits(self, **limits: Any) -> RequestAdmissionConfig:
        return super().with_limits(**limits, default_queue_wait_timeout_seconds=self.queue_wait_timeout_seconds)


@attrs.define
class Ended:
    """A run that ended: its result, its events, the steps it took, and how long in simulated seconds."""

    result: ts.RunResult
    sink: InMemoryAdmissionEventSink
    steps: int
    seconds: float

    def count(self, kind: str) -> int:
        kinds: list[str] = [event.event_kind for event in self.sink.scheduler_events]
        kinds.extend(event.event_kind for event in self.sink.request_events)
        return kinds.count(kind)

    def assert_whole(self) -> None:
        result = self.result
        assert result.status == "completed"
        assert (result.records, result.dropped, result.leaks) == (ROWS, 0, ())
        assert [row["asked"] for row in result.rows()] == list(range(ROWS))
        assert self.count("non_retryable_dropped") == 0


def run(
    ask: Callable[[int], Awaitable[int]], tuning: ts.RequestAdmissionTuningConfig, output: Path, *, cap: int
) -> Ended:
    """Ask for every row, in simulated time."""

    @ts.column(needs=["number"], model=ts.Model("p", "m", max_parallel_requests=cap, timeout=None))
    async def asked(row: dict[str, int], model: ts.ModelHandle) -> int:
        return await model.call(ask, row["number"])

    steps, sink = Steps(), InMemoryAdmissionEventSink()

    async def main() -> tuple[ts.RunResult, float]:
        start = trio.current_time()
        result = await ts.run(
            [asked],
            rows=[{"number": number} for number in range(ROWS)],
            output=output,
            config=ts.RunConfig(buffer_size=5, request_admission=tuning),
            event_sink=sink,
            blocking=inline,
        )
        return result, trio.current_time() - start

    result, seconds = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), instruments=[steps])
    return Ended(result, sink, steps.count, seconds)


@pytest.mark.parametrize(
    ("retry_after", "cooldown", "window"),
    [("90", 0.25, 90.0), ("86400", 0.25, 300.0), (None, 60.0, 60.0)],
    ids=["a hint each time", "a hint of a day, cut to what is believed", "no hint, a cooldown of our own"],
)
def test_a_provider_that_refuses_for_hours_costs_no_row(
    tmp_path: Path, retry_after: str | None, cooldown: float, window: float
) -> None:
    refused = 0

    async def ask(number: int, opens_at: float) -> int:
        nonlocal refused
        await trio.sleep(0.5)
        if trio.current_time() < opens_at:
            refused += 1
            raise RateLimitError(retry_after)
        return number

    tuning = ts.RequestAdmissionTuningConfig(cooldown_seconds=cooldown)
    ended = run(partial(ask, opens_at=REFUSING), tuning, tmp_path / "out", cap=8)
    ended.assert_whole()
    assert REFUSING <= ended.seconds <= REFUSING + window + 60
    # One try for each cooldown, and a few more while the limit comes down from the cap.
    windows = REFUSING / window
    assert windows / 2 <= refused <= 1.5 * windows + 8
    assert ended.count("request_rate_limited") == refused
    assert ended.count("request_lease_acquired") == refused + ROWS
    assert ended.steps <= STEPS_PER_TURN * (refused + ROWS)


def test_a_local_queue_timeout_that_comes_again_for_hours_costs_no_row(tmp_path: Path) -> None:
    async def ask(number: int) -> int:
        await trio.sleep(REFUSING if number == 0 else 0.5)
        return number

    ended = run(ask, ImpatientTuning(), tmp_path / "out", cap=1)
    ended.assert_whole()
    assert REFUSING <= ended.seconds <= REFUSING + 300
    timeouts = ended.count("request_wait_timeout")
    # Each time a row waits for two minutes, and then outside the queue for half a minute at most.
    waiting = ended.result.capacity_plan.observed_maxima.request_waiters_by_resource
    assert max(waiting.values()) > 0
    assert REFUSING / 150 <= timeouts <= (ROWS - 1) * REFUSING / 120
    assert ended.count("request_lease_acquired") == ROWS
    assert ended.steps <= STEPS_PER_TURN * (timeouts + ROWS)


def test_a_cooldown_longer_than_the_guard_against_stalls_allows_is_none(tmp_path: Path) -> None:
    guarded = ts.RunConfig().no_progress_seconds
    assert guarded is not None
    assert guarded < HOUR

    async def ask(number: int) -> int:
        if trio.current_time() < REFUSING:
            raise RateLimitError(None)
        return number

    ended = run(ask, ts.RequestAdmissionTuningConfig(cooldown_seconds=HOUR), tmp_path / "out", cap=1)
    ended.assert_whole()
    assert ended.count("request_rate_limited") == REFUSING / HOUR

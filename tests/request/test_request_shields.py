"""Cancelled from outside, at every step of a program whose callers wait behind a shield: it ends, and nothing is lost.

The supervisor alone ends stops, and a cancellation reaches it before it reaches whoever is shielded. Each program here
is run once to count its steps, and then again for each of them, with the cancellation just before that step, and with a
second one soon after. The clock is Trio's mock clock; a program that would hang is let out by a watchdog, and fails.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import attrs
import pytest
import trio
import trio.testing
from request_samples import item

import trio_sched as ts
from trio_sched._request.config import RequestAdmissionConfig
from trio_sched._request.limit import LimitName
from trio_sched._util import leaves_of
from trio_sched.lowlevel import (
    AdaptiveRequestAdmissionController,
    RequestAdmissionError,
    inline,
)

FULL: Final = os.environ.get("TRIO_SCHED_FUZZ") == "full"

Way: TypeAlias = Literal["scope", "sibling", "interrupt", "interrupt within"]

WAYS: Final[tuple[Way, ...]] = ("scope", "sibling", "interrupt", "interrupt within")
"""Ctrl-C strikes the main task. Where that one is inside of admission, admission itself is not cancelled."""
LIMITS: Final[tuple[LimitName, ...]] = ("evidence", "aimd", "fixed")
HINT: Final = 2.0
"""Seconds that every refusal asks for."""
TAKES: Final = 0.1
"""Seconds of one call."""
ATTEMPTS: Final = 3
OUTAGE: Final = 3.0
"""Seconds after which the provider answers, in a program that nobody cancels."""


class RefusedError(Exception):
    status_code = 429

    def __init__(self) -> None:
        super().__init__()
        self.headers = {"retry-after": str(HINT)}


class SiblingError(Exception):
    """Something else in the same nursery fails."""


@attrs.define(eq=False)
class Play(trio.abc.Instrument):
    """One performance of a program: cancelled `times` times from step `at` on, or never.

    ends: how callers ended. shields: the scopes that hold the cancellation off.
    """

    way: Way = "scope"
    at: int = 0
    times: int = 1
    steps: int = 0
    cancelled_at: float | None = None
    hung: bool = False
    ended_at: float = 0.0
    ends: Counter[str] = attrs.field(factory=Counter[str])
    shields: list[trio.CancelScope] = attrs.field(factory=list[trio.CancelScope])
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    sibling: trio.Event = attrs.field(factory=trio.Event)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1
        if self.at and self.steps in (self.at, self.at + 7 * (self.times - 1)):
            if self.cancelled_at is None:
                self.cancelled_at = trio.current_time()
            match self.way:
                case "scope":
                    self.scope.cancel()
                case "sibling":
                    self.sibling.set()
                case _:
                    signal.raise_signal(signal.SIGINT)

    @contextmanager
    def shielded(self, shield: bool) -> Generator[None, None, None]:
        with trio.CancelScope(shield=shield) as scope:
            self.shields.append(scope)
            yield

    async def provider(self, value: object = None) -> object:
        await trio.sleep(TAKES)
        if trio.current_time() < OUTAGE:
            raise RefusedError
        return value

    async def watch(self) -> None:
        await trio.sleep(120)
        self.hung = True
        for scope in self.shields:
            scope.shield = False

    async def fail(self) -> None:
        await self.sibling.wait()
        raise SiblingError


Program: TypeAlias = Callable[[Play, LimitName, bool], Awaitable[None]]


def perform(program: Program, limit: LimitName, play: Play, *, shield: bool) -> Play:
    """Run `program`; whatever the cancellation raises is taken, and nothing else."""

    async def main() -> None:
        trio.lowlevel.spawn_system_task(play.watch)
        trio.lowlevel.add_instrument(play)
        try:
            with play.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(play.fail)

                    async def performance() -> None:
                        await program(play, limit, shield)
                        nursery.cancel_scope.cancel()

                    if play.way == "interrupt":
                        nursery.start_soon(performance)
                    else:
                        await performance()
        finally:
            trio.lowlevel.remove_instrument(play)
            play.ended_at = trio.current_time()

    try:
        # Trio has no public way to fix its order; this is the one that Hypothesis' own support for Trio uses.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING", True)
            patch.setattr("trio._core._run._r", random.Random(0))
            trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    except BaseException as error:
        if not is_of_the_cancellation(error):
            raise
    return play


def is_of_the_cancellation(error: BaseException) -> bool:
    return all(isinstance(leaf, SiblingError | KeyboardInterrupt) for leaf in leaves_of(error))


async def one_call(play: Play, attempt: Callable[[], Awaitable[object]], *, shield: bool) -> None:
    """A caller with a few attempts."""
    end = "cancelled"
    try:
        with play.shielded(shield):
            for _ in range(ATTEMPTS):
                try:
                    await attempt()
                except RefusedError:
                    end = "refused"
                else:
                    end = "served"
                    break
    except RequestAdmissionError as error:
        end = error.decision.reason
    finally:
        play.ends[end] += 1


async def with_controller(play: Play, limit: LimitName, shield: bool) -> None:
    controller = AdaptiveRequestAdmissionController(RequestAdmissionConfig(limit=limit))
    controller.register(provider_name="openai", model_id="gpt", alias="a", max_parallel_requests=2)

    async def attempt() -> None:
        async with controller.admit(item()):
            await play.provider()

    try:
        async with controller, trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(partial(one_call, play, attempt, shield=shield and number != 2))
    finally:
        assert_given_back(controller)


async def with_open_admission(play: Play, limit: LimitName, shield: bool) -> None:
    model = ts.Model("openai", "gpt", max_parallel_requests=2)
    controller: AdaptiveRequestAdmissionController | None = None
    try:
        async with ts.open_admission(model, limit=limit) as admission:
            controller = admission.controller

            async def attempt() -> None:
                async with admission.request(model):
                    await play.provider()

            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(partial(one_call, play, attempt, shield=shield))
    finally:
        if controller is not None:
            assert_given_back(controller)


def assert_given_back(controller: AdaptiveRequestAdmissionController) -> None:
    assert controller.leak_report() == ()
    for snapshot in controller.pressure.snapshots().values():
        assert (snapshot.in_flight_count, snapshot.waiters) == (0, 0)
    for endpoint in controller.pressure.global_snapshots().values():
        assert endpoint.aggregate_in_flight == 0


def longest(way: Way) -> float:
    """Seconds from the cancellation to the end: the hint in force, or where admission goes on, one for each attempt."""
    return (ATTEMPTS if way == "interrupt within" else 1) * HINT + (ATTEMPTS + 1) * TAKES


def check(play: Play, *, shield: bool, callers: int) -> None:
    """What holds of every performance."""
    assert not play.hung, "it would never have ended"
    if play.cancelled_at is None:
        assert play.ends == {"served": callers} or "refused" in play.ends
    else:
        assert play.ended_at - play.cancelled_at <= longest(play.way)
        assert set(play.ends) <= {"served", "refused", "shutdown", "cancelled"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shield", [True, False], ids=["shielded", "plain"])
@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("program", [with_controller, with_open_admission])
def test_at_every_step(program: Program, limit: LimitName, shield: bool, way: Way) -> None:
    whole = perform(program, limit, Play(), shield=shield)
    check(whole, shield=shield, callers=4)
    seen: Counter[str] = Counter()
    for at in range(1, whole.steps + 1):
        play = perform(program, limit, Play(way, at, times=1 + at % 2), shield=shield)
        check(play, shield=shield, callers=4)
        seen += play.ends
    if not shield:
        assert seen["cancelled"] > 0
    elif limit != "fixed" and way != "interrupt within":
        assert seen["shutdown"] > 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shield", [True, False], ids=["shielded", "plain"])
@pytest.mark.parametrize("limit", LIMITS)
def test_a_whole_run(limit: LimitName, shield: bool, way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run has more steps: every seventh of them, and all of them in the fuzz session."""
    controllers: list[AdaptiveRequestAdmissionController] = []
    folders = itertools.count()

    def admission(config: RequestAdmissionConfig, **more: Any) -> AdaptiveRequestAdmissionController:
        controllers.append(AdaptiveRequestAdmissionController(config, **more))
        return controllers[-1]

    monkeypatch.setattr("trio_sched._pipeline.attempt.AdaptiveRequestAdmissionController", admission)

    async def with_a_run(play: Play, limit: LimitName, shield: bool) -> None:
        @ts.column(needs=["x"], model=ts.Model("openai", "gpt", max_parallel_requests=2, limit=limit))
        async def y(row: dict[str, object], model: ts.ModelHandle) -> object:
            with play.shielded(shield):
                return await model.call(play.provider, row["x"])

        config = ts.RunConfig(max_attempts=ATTEMPTS, stop_error_rate=None)
        rows = [{"x": number} for number in range(4)]
        result = await ts.run([y], rows=rows, output=tmp_path / str(next(folders)), config=config, blocking=inline)
        play.ends["served"] += result.records
        assert result.leaks == ()

    whole = perform(with_a_run, limit, Play(), shield=shield)
    assert whole.ends == {"served": 4}
    for at in range(1, whole.steps + 1, 1 if FULL else 7):
        play = perform(with_a_run, limit, Play(way, at, times=1 + at % 2), shield=shield)
        assert not play.hung, "it would never have ended"
        assert play.cancelled_at is not None
        assert play.ended_at - play.cancelled_at <= longest(way), at
    for controller in controllers:
        assert_given_back(controller)

"""Under a rule that cannot be believed, admission goes on: nothing raises, nothing stays closed, no cap is passed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import pytest
import trio
import trio.testing
from limit_rules import hostile
from request_samples import CHAT, GPT, RATE_LIMITED, SUCCESS, item

from trio_sched._request.config import RequestAdmissionConfig
from trio_sched._request.controller import AdaptiveRequestAdmissionController
from trio_sched._request.leases import RequestAdmissionLease
from trio_sched._request.limit import Grant, LimitTransition, RequestSample


class Rule:
    """A limit of four. Each test breaks something of it."""

    def __init__(self, effective_max: int, now: float) -> None:
        self.until: float | None = None
        self.deadline: float | None = None

    @property
    def current_limit(self) -> int:
        return 4

    @property
    def blocked_until(self) -> float | None:
        return self.until

    def next_deadline(self) -> float | None:
        return self.deadline

    def granted(self, now: float, in_flight: int) -> Grant:
        return Grant(0, in_flight, 4)

    def ended(self, now: float, grant: Grant, sample: RequestSample) -> Sequence[LimitTransition]:
        return ()

    def advance(self, now: float) -> Sequence[LimitTransition]:
        return ()


class StopsWithoutDeadline(Rule):
    def ended(self, now: float, grant: Grant, sample: RequestSample) -> Sequence[LimitTransition]:
        self.until = now + 5.0 if self.until is None else self.until
        return ()


class StopsWithADeadlineThatIsNone(StopsWithoutDeadline):
    def next_deadline(self) -> float | None:
        return None if self.until is None else math.nan


class StopsWithADeadlineThatHasPassed(StopsWithoutDeadline):
    def next_deadline(self) -> float | None:
        return None if self.until is None else self.until - 5.0


class NeverEndsItsStop(StopsWithoutDeadline):
    def next_deadline(self) -> float | None:
        return self.until


class CannotBeReadInAStop(NeverEndsItsStop):
    def advance(self, now: float) -> Sequence[LimitTransition]:
        self.broken = True
        return ()

    @property
    def blocked_until(self) -> float | None:
        if getattr(self, "broken", False):
            raise RuntimeError("not now")
        return self.until


class RaisesWhenTimePasses(NeverEndsItsStop):
    def advance(self, now: float) -> Sequence[LimitTransition]:
        raise RuntimeError("not now")


class CannotTellItsCeiling(Rule):
    @property
    def ceiling(self) -> int:
        raise RuntimeError("not now")

    @property
    def epoch(self) -> int:
        raise RuntimeError("not now")


class TellsWhatIsNoKind(Rule):
    def ended(self, now: float, grant: Grant, sample: RequestSample) -> Sequence[LimitTransition]:
        kind: Any = "expanded"
        return (LimitTransition(kind, 4, 5),)


class IgnoresTheCap(Rule):
    def set_effective_max(self, effective_max: int) -> Sequence[LimitTransition]:
        return ()


class RaisesAtTheCap(Rule):
    def set_effective_max(self, effective_max: int) -> Sequence[LimitTransition]:
        raise RuntimeError("not now")


RULES: Final[list[Callable[[int, float], Rule]]] = [
    StopsWithoutDeadline,
    StopsWithADeadlineThatIsNone,
    StopsWithADeadlineThatHasPassed,
    NeverEndsItsStop,
    CannotBeReadInAStop,
    RaisesWhenTimePasses,
    CannotTellItsCeiling,
    TellsWhatIsNoKind,
    IgnoresTheCap,
    RaisesAtTheCap,
]


def register(controller: AdaptiveRequestAdmissionController, cap: int) -> None:
    controller.register(provider_name="openai", model_id="gpt", alias="a", max_parallel_requests=cap)


@pytest.mark.parametrize("rule", RULES)
async def test_whoever_waits_is_served_within_the_stop(
    rule: Callable[[int, float], Rule], autojump_clock: trio.testing.MockClock
) -> None:
    controller = AdaptiveRequestAdmissionController(RequestAdmissionConfig(limit=rule))
    register(controller, 8)
    begun = trio.current_time()

    async def call() -> None:
        lease = await controller.acquire_async(item())
        await trio.sleep(1)
        assert controller.release(lease, RATE_LIMITED).released

    async with controller:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(call)
    assert trio.current_time() - begun <= 7.0
    assert controller.leak_report() == ()


@pytest.mark.parametrize("rule", RULES)
def test_a_lower_cap_is_kept(rule: Callable[[int, float], Rule]) -> None:
    controller = AdaptiveRequestAdmissionController(RequestAdmissionConfig(limit=rule))
    register(controller, 8)
    decision = controller.try_acquire(item())
    assert isinstance(decision, RequestAdmissionLease)
    register(controller, 2)
    snapshot = controller.pressure.snapshot(CHAT)
    assert snapshot is not None
    assert (snapshot.current_limit, snapshot.effective_max) == (2, 2)
    assert controller.release(decision, SUCCESS).released
    endpoint = controller.pressure.global_snapshot(GPT.provider_name, GPT.model_id)
    assert endpoint is not None
    assert endpoint.aggregate_in_flight == 0


@pytest.mark.parametrize("seed", range(40))
def test_every_call_is_served_whatever_the_rule_says(seed: int) -> None:
    async def main() -> None:
        controller = AdaptiveRequestAdmissionController(RequestAdmissionConfig(limit=hostile(seed)))
        register(controller, 3)
        served = 0

        async def call(number: int) -> None:
            nonlocal served
            lease = await controller.acquire_async(item())
            await trio.sleep(0.5)
            controller.release(lease, RATE_LIMITED if number % 3 else SUCCESS)
            served += 1

        async with controller:
            with trio.fail_after(1000):
                async with trio.open_nursery() as nursery:
                    for number in range(30):
                        nursery.start_soon(call, number)
        assert served == 30
        assert controller.leak_report() == ()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

"""Whole storms of callers on the mock clock, in an order that a seed fixes: whatever happens, everything is given back.

The provider of these tests counts for itself how many calls are inside it, so an over-admission cannot hide.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio
import trio.testing
from limit_rules import RULE_NAMES, RULES
from request_samples import CHAT, EMBEDDING, GPT, SUCCESS, OnlyKinds, config, item, rate_limited

from trio_sched._events.sinks import InMemoryAdmissionEventSink
from trio_sched._request.config import RequestAdmissionConfig
from trio_sched._request.controller import AdaptiveRequestAdmissionController
from trio_sched._request.leases import RequestAdmissionError, RequestAdmissionLease
from trio_sched._resources.identity import RequestResourceKey
from trio_sched._resources.request import RequestPressureSnapshot

FULL = os.environ.get("TRIO_SCHED_FUZZ") == "full"
SEEDS = range(400) if FULL else range(6)
CALLERS = 2000 if FULL else 600
STORMS = [("aimd", seed) for seed in SEEDS] + [
    (rule, seed) for rule in RULE_NAMES if rule != "aimd" for seed in (SEEDS if FULL else (0, 1))
]
"""Rule and seed of each storm over every rule."""


def under(rule: str, seed: int) -> RequestAdmissionConfig:
    return config(successes=10) if rule == "aimd" else RequestAdmissionConfig(limit=RULES[rule](seed))


def run_seeded(seed: int, main: Callable[[random.Random], Awaitable[None]]) -> None:
    """Run `main` on the mock clock with Trio's choice of task order fixed by `seed`, which also seeds its argument."""
    # Trio has no public way to fix its order; this is the one that Hypothesis' own support for Trio uses.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING", True)
        patch.setattr("trio._core._run._r", random.Random(seed))
        trio.run(main, random.Random(seed), clock=trio.testing.MockClock(autojump_threshold=0))


class ProviderError(Exception):
    """What a scripted provider answers instead of a result."""

    def __init__(self, status_code: int) -> None:
        super().__init__(status_code)
        self.status_code = status_code


@attrs.define
class Provider:
    """Refuses above `limit` calls in flight; fails now and then."""

    rng: random.Random
    limit: int
    failure_rate: float = 0.0
    in_flight: int = 0
    peak: int = 0
    seen: Counter[str] = attrs.field(factory=Counter[str])

    async def call(self) -> None:
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            if self.in_flight > self.limit:
                await trio.sleep(0.05)
                self.seen["refused"] += 1
                raise ProviderError(429)
            await trio.sleep(self.rng.uniform(0.5, 1.5))
            if self.rng.random() < self.failure_rate:
                self.seen["failed"] += 1
                raise ProviderError(503)
            self.seen["served"] += 1
        finally:
            self.in_flight -= 1


def controller_for(
    cap: int, settings: RequestAdmissionConfig | None = None, sink: InMemoryAdmissionEventSink | None = None
) -> AdaptiveRequestAdmissionController:
    controller = AdaptiveRequestAdmissionController(settings or config(), event_sink=sink)
    register(controller, cap)
    return controller


def register(controller: AdaptiveRequestAdmissionController, cap: int) -> None:
    controller.register(provider_name="openai", model_id="gpt", alias="a", max_parallel_requests=cap)


def pressure_of(
    controller: AdaptiveRequestAdmissionController, resource: RequestResourceKey = CHAT
) -> RequestPressureSnapshot:
    snapshot = controller.pressure.snapshot(resource)
    assert snapshot is not None
    return snapshot


def assert_all_given_back(controller: AdaptiveRequestAdmissionController) -> None:
    assert controller.leak_report() == ()
    for snapshot in controller.pressure.snapshots().values():
        assert snapshot.in_flight_count == 0
        assert snapshot.waiters == 0
        assert snapshot.leak_diagnostics == {}
    for endpoint in controller.pressure.global_snapshots().values():
        assert endpoint.aggregate_in_flight == 0


@pytest.mark.parametrize(("rule", "seed"), STORMS)
def test_callers_cancelled_at_any_moment_lose_and_leak_nothing(rule: str, seed: int) -> None:
    async def main(rng: random.Random) -> None:
        sink = InMemoryAdmissionEventSink()
        controller = controller_for(16, under(rule, seed), sink)
        provider = Provider(rng, limit=9, failure_rate=0.05)
        ends: Counter[str] = Counter()

        async def caller(resource: RequestResourceKey, patience: float, queue_wait: float | None) -> None:
            with trio.move_on_after(patience) as scope:
                try:
                    async with controller.admit(item(resource, timeout=queue_wait)):
                        await provider.call()
                    ends["served"] += 1
                except ProviderError as error:
                    ends[f"status {error.status_code}"] += 1
                except RequestAdmissionError as error:
                    ends[error.decision.reason] += 1
            ends["cancelled"] += scope.cancelled_caught

        async def meddler() -> None:
            for _ in range(10):
                await trio.sleep(rng.uniform(0, 4))
                register(controller, rng.randint(4, 20))

        async with controller, trio.open_nursery() as nursery:
            nursery.start_soon(meddler)
            for _ in range(CALLERS):
                resource = CHAT if rng.random() < 0.7 else EMBEDDING
                # Whole seconds, so that deadlines, grants and the ends of cooldowns fall into the same tick.
                patience = rng.choice([0.0, 1.0, 2.0, 5.0, 40.0, math.inf])
                queue_wait = rng.choice([None, None, None, 0.0, 1.0, 3.0])
                nursery.start_soon(caller, resource, patience, queue_wait)
                if rng.random() < 0.02:
                    await trio.sleep(rng.choice([0.0, 0.5, 1.0]))
        assert_all_given_back(controller)
        assert sum(ends.values()) == CALLERS
        assert ends["served"] == provider.seen["served"]
        assert ends["status 429"] == provider.seen["refused"]
        assert min(ends["served"], ends["cancelled"], ends["queue_timeout"], ends["status 429"]) > 0
        told = Counter(event.event_kind for event in sink.request_events)
        assert told["request_lease_acquired"] == told["request_lease_released"] == told["request_wait_completed"]
        gone = told["request_wait_timeout"] + told["request_wait_cancelled"]
        assert told["request_wait_started"] == told["request_wait_completed"] + gone
        times = [event.captured_at_monotonic for event in sink.request_events]
        assert times == sorted(times)

    run_seeded(seed, main)


@pytest.mark.parametrize("rule", RULE_NAMES)
def test_who_sets_the_total_of_a_domain(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor, for what was learned; whoever comes first, for time that has passed; and a registration."""
    set_by: Counter[str] = Counter()
    registering = False
    real: property = vars(trio.CapacityLimiter)["total_tokens"]
    controller = controller_for(16, under(rule, 3))
    core = controller._core

    def set_total(limiter: trio.CapacityLimiter, total: float) -> None:
        for domain in core.ledger.domains.values():
            if domain.limiter is limiter:
                due = core._limits._deadlines.get(domain, math.inf)
                task = trio.lowlevel.current_task().name
                if task == "trio_sched request supervisor":
                    set_by["the supervisor"] += 1
                elif registering:
                    set_by["a registration"] += 1
                elif due <= trio.current_time():
                    set_by["time"] += 1
                else:
                    set_by[task] += 1
        real.__set__(limiter, total)

    monkeypatch.setattr(trio.CapacityLimiter, "total_tokens", property(real.__get__, set_total))

    async def main(rng: random.Random) -> None:
        nonlocal registering
        provider = Provider(rng, limit=9, failure_rate=0.05)

        async def caller(resource: RequestResourceKey) -> None:
            with trio.move_on_after(rng.choice([1.0, 5.0, math.inf])), contextlib.suppress(ProviderError):
                async with controller.admit(item(resource)):
                    await provider.call()

        async with controller, trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(caller, CHAT if rng.random() < 0.7 else EMBEDDING)
                if rng.random() < 0.1:
                    await trio.sleep(rng.choice([0.25, 0.5, 1.0]))
                if number % 50 == 49:
                    registering = True
                    register(controller, rng.randint(4, 20))
                    registering = False

    run_seeded(3, main)
    assert set(set_by) <= {"the supervisor", "a registration", "time"}
    assert set_by["the supervisor"] > 0
    assert set_by["a registration"] > 0


@attrs.define
class Moment:
    """At which point of its life a caller is cancelled."""

    before: int = 0
    queued: int = 0
    at_grant: int = 0
    held: int = 0


@pytest.mark.parametrize("seed", SEEDS)
def test_cancelled_before_queued_at_the_grant_and_while_held(seed: int) -> None:
    async def main(rng: random.Random) -> None:
        controller = controller_for(3)
        seen = Moment()

        async def caller(scope: trio.CancelScope, leases: list[RequestAdmissionLease]) -> None:
            with scope:
                lease = await controller.acquire_async(item())
                leases.append(lease)
                try:
                    await trio.sleep_forever()
                finally:
                    controller.release(lease, SUCCESS)

        async with controller:
            for _ in range(60):
                holders = [controller.try_acquire(item()) for _ in range(3)]
                scopes = [trio.CancelScope() for _ in range(8)]
                leases: list[list[RequestAdmissionLease]] = [[] for _ in scopes]
                async with trio.open_nursery() as nursery:
                    if rng.random() < 0.3:
                        scopes[0].cancel()
                        seen.before += 1
                    for scope, got in zip(scopes, leases, strict=True):
                        nursery.start_soon(caller, scope, got)
                    await trio.testing.wait_all_tasks_blocked()
                    queued = rng.randrange(8)
                    scopes[queued].cancel()
                    seen.queued += 1
                    before = {leak.lease_id for leak in controller.leak_report()}
                    for holder in holders:
                        assert isinstance(holder, RequestAdmissionLease)
                        controller.release(holder, SUCCESS)
                    granted = {leak.lease_id for leak in controller.leak_report()} - before
                    assert len(granted) == 3
                    victim = rng.randrange(8)
                    scopes[victim].cancel()
                    await trio.testing.wait_all_tasks_blocked()
                    assert leases[queued] == []
                    assert {lease.lease_id for lease in leases[victim]} <= granted
                    assert granted <= {lease.lease_id for got in leases for lease in got}
                    seen.at_grant += bool(leases[victim])
                    for scope, got in zip(scopes, leases, strict=True):
                        seen.held += bool(got)
                        scope.cancel()
                assert_all_given_back(controller)
        assert min(seen.before, seen.queued, seen.at_grant, seen.held) > 0

    run_seeded(seed, main)


def test_a_burst_of_refusals_is_one_decrease_however_it_arrives() -> None:
    async def main(rng: random.Random) -> None:
        sink = OnlyKinds("request_limit_decreased", "request_rate_limited")
        controller = controller_for(64, sink=sink)

        async def caller() -> None:
            with contextlib.suppress(ProviderError):
                async with controller.admit(item()):
                    await trio.sleep(rng.uniform(0.0, 0.9))
                    raise ProviderError(429)

        async with controller, trio.open_nursery() as nursery:
            for _ in range(64):
                nursery.start_soon(caller)
        told = Counter(event.event_kind for event in sink.request_events)
        assert told == {"request_rate_limited": 64, "request_limit_decreased": 1}
        assert pressure_of(controller).current_limit == 32

    run_seeded(3, main)


def test_bursts_of_leases_of_different_epochs_are_one_decrease_each() -> None:
    async def main(_rng: random.Random) -> None:
        sink = OnlyKinds("request_limit_decreased")
        controller = controller_for(8, sink=sink)
        async with controller:
            old = [await controller.acquire_async(item()) for _ in range(5)]
            controller.release(old[0], rate_limited(1.0))
            await trio.sleep(2.0)
            assert pressure_of(controller).current_limit == 4
            for lease in old[1:4]:
                controller.release(lease, rate_limited(1.0))
            await trio.sleep(2.0)
            assert pressure_of(controller).current_limit == 4
            new = [await controller.acquire_async(item()) for _ in range(3)]
            for lease in (new[0], old[4], new[1], new[2]):
                controller.release(lease, rate_limited(1.0))
            await trio.sleep(2.0)
            assert pressure_of(controller).current_limit == 2
        assert [event.diagnostics["current"] for event in sink.request_events] == [4, 2]

    run_seeded(0, main)


def test_a_storm_of_failures_leaves_the_limit_alone() -> None:
    async def main(rng: random.Random) -> None:
        controller = controller_for(12)
        provider = Provider(rng, limit=100, failure_rate=1.0)

        async def caller() -> None:
            with contextlib.suppress(ProviderError):
                async with controller.admit(item()):
                    await provider.call()

        async with controller, trio.open_nursery() as nursery:
            for _ in range(300):
                nursery.start_soon(caller)
        assert provider.seen == {"failed": 300}
        assert provider.peak == 12
        assert pressure_of(controller).current_limit == 12
        assert pressure_of(controller).rate_limit_ceiling is None

    run_seeded(1, main)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cap_that_moves_under_load_is_kept_at_every_grant(seed: int) -> None:
    async def main(rng: random.Random) -> None:
        controller = controller_for(10)
        caps: list[int] = [10]
        served = 0

        async def caller() -> None:
            nonlocal served
            async with controller.admit(item()):
                snapshot = controller.pressure.global_snapshot("openai", "gpt")
                assert snapshot is not None
                served += 1
                await trio.sleep(rng.uniform(0.1, 1.0))

        async def operator() -> None:
            for _ in range(20):
                await trio.sleep(rng.uniform(0.1, 2.0))
                before = pressure_of(controller).in_flight_count
                caps.append(rng.randint(1, 24))
                register(controller, caps[-1])
                after = pressure_of(controller)
                assert after.in_flight_count <= max(before, caps[-1])
                assert after.in_flight_count >= min(caps[-1], before + after.waiters)

        async with controller, trio.open_nursery() as nursery:
            nursery.start_soon(operator)
            for _ in range(CALLERS):
                nursery.start_soon(caller)
        assert served == CALLERS
        assert controller.pressure.maxima().in_flight_by_endpoint[GPT] <= max(caps)
        assert_all_given_back(controller)

    run_seeded(seed, main)


def test_an_exhausted_endpoint_refuses_the_rest_and_keeps_what_runs() -> None:
    async def main(rng: random.Random) -> None:
        controller = controller_for(5)
        ends: Counter[str] = Counter()

        async def caller() -> None:
            try:
                async with controller.admit(item()):
                    await trio.sleep(1.0)
                ends["served"] += 1
            except RequestAdmissionError as error:
                ends[error.decision.reason] += 1

        async with controller, trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(caller)
            await trio.sleep(2.5)
            controller.close_endpoint(GPT, "insufficient_quota")
        assert ends == {"served": 15, "endpoint_closed": 85}
        assert_all_given_back(controller)

    run_seeded(0, main)


def test_a_shutdown_in_the_middle_of_a_storm_refuses_waiters_and_lets_holders_finish() -> None:
    async def main(_rng: random.Random) -> None:
        controller = controller_for(7)
        ends: Counter[str] = Counter()

        async def caller() -> None:
            try:
                lease = await controller.acquire_async(item())
            except RequestAdmissionError as error:
                ends[error.decision.reason] += 1
            else:
                await trio.sleep(1.0)
                ends[controller.release(lease, SUCCESS).reason] += 1

        async with trio.open_nursery() as nursery:
            async with controller:
                for _ in range(200):
                    nursery.start_soon(caller)
                await trio.testing.wait_all_tasks_blocked()
            assert len(controller.leak_report()) == 7
        assert ends == {"released": 7, "shutdown": 193}
        assert_all_given_back(controller)

    run_seeded(0, main)


def test_a_hundred_thousand_waiters_are_all_served() -> None:
    count = 100_000

    async def main(_rng: random.Random) -> None:
        controller = controller_for(64)
        order: list[int] = []

        async def caller() -> None:
            lease = await controller.acquire_async(item())
            await trio.lowlevel.cancel_shielded_checkpoint()
            order.append(lease.lease_id)
            controller.release(lease, SUCCESS)

        async with controller:
            async with trio.open_nursery() as nursery:
                for _ in range(count):
                    nursery.start_soon(caller)
            assert controller.pressure.maxima().waiters_by_resource[CHAT] > count - 200
            assert sorted(order) == list(range(1, count + 1))
        assert_all_given_back(controller)

    run_seeded(0, main)

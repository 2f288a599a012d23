"""The executor on the real controller: simulated providers on the mock clock, faults and cancellations by seed."""

from __future__ import annotations

import os
import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import pytest
import trio
from trio.testing import MockClock

from trio_sched._events.records import RequestAdmissionEvent
from trio_sched._events.sinks import InMemoryAdmissionEventSink
from trio_sched._executor import ModelRequest, ModelRequestExecutor, QuotaExhaustedError, RequestRetryConfig
from trio_sched._request.config import RequestAdmissionConfig
from trio_sched._request.controller import AdaptiveRequestAdmissionController
from trio_sched._request.leases import RequestAdmissionError
from trio_sched._resources.identity import ProviderModelKey, RequestDomain, RequestResourceKey

FULL = os.environ.get("TRIO_SCHED_FUZZ") == "full"
SEEDS = range(300 if FULL else 8)
CALLS = 1000 if FULL else 400

WRITER = ProviderModelKey("openai", "writer")
JUDGE = ProviderModelKey("anthropic", "judge")
CAPS = {WRITER: 16, JUDGE: 6}
RESOURCES = [
    RequestResourceKey("openai", "writer", RequestDomain.CHAT),
    RequestResourceKey("openai", "writer", RequestDomain.EMBEDDING),
    RequestResourceKey("anthropic", "judge", RequestDomain.CHAT),
]


class ProviderError(Exception):
    """Shaped as an SDK's."""

    def __init__(self, status: int, *, retry_after: float | None = None, code: str | None = None) -> None:
        super().__init__(status)
        self.status_code = status
        self.code = code
        self.response = SimpleNamespace(headers={} if retry_after is None else {"retry-after": str(retry_after)})


class Provider:
    """Both endpoints: refuses above a limit it does not tell, and fails in every other way now and then."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.attempts: Counter[RequestResourceKey] = Counter()
        self.in_flight: Counter[ProviderModelKey] = Counter()
        self.refused_at: dict[RequestResourceKey, float] = {}
        self.quiet_until: defaultdict[RequestResourceKey, float] = defaultdict(float)
        self.exhausted: set[ProviderModelKey] = set()
        self.faults: Counter[str] = Counter()

    def call(self, resource: RequestResourceKey, name: str) -> Callable[[], Awaitable[str]]:
        attempt = 0

        async def once() -> str:
            nonlocal attempt
            attempt += 1
            dice = random.Random(f"{self.seed}/{name}/{attempt}")
            endpoint = resource.provider_model_key
            self.attempts[resource] += 1
            self.in_flight[endpoint] += 1
            assert self.in_flight[endpoint] <= CAPS[endpoint], "more in flight than the static cap"
            now = trio.current_time()
            # At the instant of the refusal itself, a lease may have been handed over a moment before it.
            # A health check asks under a domain of its own, with a limit of its own.
            in_time = now == self.refused_at.get(resource) or now >= self.quiet_until[resource]
            assert in_time or endpoint in self.exhausted, "called during a cooldown"
            try:
                return await self._answer(resource, name, dice)
            finally:
                self.in_flight[endpoint] -= 1

        return once

    async def _answer(self, resource: RequestResourceKey, name: str, dice: random.Random) -> str:
        endpoint = resource.provider_model_key
        if int(name) % 50 == 7:
            raise self._fault("bug", ValueError())
        if endpoint in self.exhausted:
            await trio.sleep(0.01)
            raise self._fault("exhausted", ProviderError(429, code="insufficient_quota"))
        if self.in_flight[endpoint] > CAPS[endpoint] // 2:
            await trio.sleep(0.01)
            wait = dice.choice([None, 0.5, 3.0])
            if wait is not None:
                now = self.refused_at[resource] = trio.current_time()
                self.quiet_until[resource] = max(self.quiet_until[resource], now + wait)
            raise self._fault("limited", ProviderError(429, retry_after=wait))
        roll = dice.random()
        await trio.sleep(dice.uniform(0.05, 2.0))
        if roll < 0.08:
            raise self._fault("failed", ProviderError(500))
        if roll < 0.14:
            await trio.sleep(5)
            raise self._fault("timeout", TimeoutError())
        if roll < 0.15:
            await trio.sleep(1000)
        return name

    def _fault(self, kind: str, error: Exception) -> Exception:
        self.faults[kind] += 1
        return error


def controller(sink: InMemoryAdmissionEventSink) -> AdaptiveRequestAdmissionController:
    admission = AdaptiveRequestAdmissionController(
        RequestAdmissionConfig(successes_until_increase=20, cooldown_seconds=0.25), event_sink=sink
    )
    for endpoint, cap in CAPS.items():
        admission.register(
            provider_name=endpoint.provider_name, model_id=endpoint.model_id, alias="x", max_parallel_requests=cap
        )
    return admission


def assert_settled(
    admission: AdaptiveRequestAdmissionController, provider: Provider, events: list[RequestAdmissionEvent]
) -> None:
    """Nothing is held, nobody waits, and every attempt had exactly one lease with its events in order."""
    assert admission.leak_report() == ()
    for snapshot in admission.pressure.snapshots().values():
        assert (snapshot.in_flight_count, snapshot.active_lease_count, snapshot.waiters) == (0, 0, 0)
    assert not +provider.in_flight
    by_lease: defaultdict[int, list[str]] = defaultdict(list)
    attempts: dict[str, int] = {}
    for event in events:
        kind = event.event_kind
        if event.request_lease_id is not None and kind in {
            "request_lease_acquired", "model_request_started", "model_request_completed", "request_lease_released",
        }:  # fmt: skip
            by_lease[event.request_lease_id].append(kind)
            assert event.request_attempt_id is not None
            assert attempts.setdefault(event.request_attempt_id, event.request_lease_id) == event.request_lease_id
    assert all(
        kinds
        == ["request_lease_acquired", "model_request_started", "model_request_completed", "request_lease_released"]
        for kinds in by_lease.values()
    )
    assert len(by_lease) == len(attempts) == sum(provider.attempts.values())


@pytest.mark.parametrize("seed", SEEDS)
def test_every_attempt_is_one_lease_whatever_happens(seed: int) -> None:
    async def main() -> None:
        sink = InMemoryAdmissionEventSink()
        provider = Provider(seed)
        results: Counter[str] = Counter()
        dice = random.Random(seed)

        async def caller(number: int, resource: RequestResourceKey, start: float, patience: float) -> None:
            await trio.sleep(start)
            queue_wait = 20.0 if number % 10 == 0 else None
            request = ModelRequest(
                resource,
                provider.call(resource, str(number)),
                queue_wait_timeout_seconds=queue_wait,
                attempt_timeout_seconds=30.0,
            )
            with trio.move_on_after(patience) as scope:
                try:
                    assert await executor.execute(request) == str(number)
                    results["ok"] += 1
                except (ProviderError, TimeoutError, trio.TooSlowError, ValueError, RequestAdmissionError) as error:
                    results[type(error).__name__] += 1
            results["cancelled"] += scope.cancelled_caught

        async with controller(sink) as admission:
            executor = ModelRequestExecutor(
                admission, retry=RequestRetryConfig(max_attempts=12), rng=random.Random(seed)
            )
            async with trio.open_nursery() as nursery:
                for number in range(CALLS):
                    patience = dice.uniform(0, 30) if dice.random() < 0.2 else float("inf")
                    nursery.start_soon(caller, number, dice.choice(RESOURCES), dice.uniform(0, 20), patience)
        assert_settled(admission, provider, sink.request_events)
        assert sum(results.values()) == CALLS
        assert results["ok"] > CALLS // 2
        for expected in ("cancelled", "ValueError"):
            assert results[expected], f"the seed never made a call end as {expected}"
        for fault in ("limited", "failed", "timeout", "bug"):
            assert provider.faults[fault], f"the seed never made the provider do {fault}"

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_a_used_up_quota_ends_one_endpoint_and_no_other(autojump_clock: MockClock) -> None:
    sink = InMemoryAdmissionEventSink()
    provider = Provider(0)
    results: Counter[tuple[ProviderModelKey, str]] = Counter()
    refusals: set[str] = set()

    async def caller(number: int, resource: RequestResourceKey) -> None:
        end = "ok"
        try:
            await executor.execute(ModelRequest(resource, provider.call(resource, str(number))))
        except (QuotaExhaustedError, RequestAdmissionError, ProviderError, TimeoutError, ValueError) as error:
            end = type(error).__name__
            if isinstance(error, RequestAdmissionError):
                refusals.add(str(error))
        results[resource.provider_model_key, end] += 1

    async with controller(sink) as admission:
        executor = ModelRequestExecutor(admission, retry=RequestRetryConfig(max_attempts=50))
        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(caller, number, RESOURCES[number % 3])
            await trio.sleep(10)
            provider.exhausted.add(WRITER)
    assert_settled(admission, provider, sink.request_events)
    kinds = [
        event.event_kind
        for event in sink.request_events
        if event.diagnostics.get("model_id") == WRITER.model_id
        or (event.request_resource_key is not None and event.request_resource_key.provider_model_key == WRITER)
    ]
    closed = kinds.index("request_endpoint_closed")
    doubted = closed - kinds[closed::-1].index("request_endpoint_not_answering")
    # A trial that ends by a bug of the caller shows nothing, and another one goes.
    assert 1 <= kinds[doubted:closed].count("request_lease_acquired") <= 3
    assert "request_lease_acquired" not in kinds[closed:]
    assert results[WRITER, "QuotaExhaustedError"] >= 1
    assert results[WRITER, "RequestAdmissionError"] > 50
    assert results[JUDGE, "ok"] > 80
    assert results[JUDGE, "RequestAdmissionError"] == 0
    assert refusals == {
        f"no request lease for {resource}: endpoint_closed "
        "(it refuses access: HTTP 429, insufficient_quota, test_admission_real.ProviderError, twice)"
        for resource in RESOURCES[:2]
    }


async def test_a_rate_limited_call_waits_out_the_cooldown_and_no_longer(autojump_clock: MockClock) -> None:
    sink = InMemoryAdmissionEventSink()
    starts: list[float] = []

    async def call() -> str:
        starts.append(trio.current_time())
        if len(starts) == 1:
            raise ProviderError(429, retry_after=30)
        return "ok"

    async with controller(sink) as admission:
        assert await ModelRequestExecutor(admission).execute(ModelRequest(RESOURCES[0], call)) == "ok"
    assert starts == [0.0, 30.0]


async def test_the_exact_events_of_a_call_that_needs_three_attempts(autojump_clock: MockClock) -> None:
    sink = InMemoryAdmissionEventSink()
    left: list[Exception | None] = [ProviderError(429, retry_after=2), ProviderError(500), None]

    async def call() -> str:
        await trio.sleep(1)
        error = left.pop(0)
        if error is not None:
            raise error
        return "ok"

    async with controller(sink) as admission:
        sink.request_events.clear()
        executor = ModelRequestExecutor(admission, rng=random.Random(1))
        await executor.execute(ModelRequest(RESOURCES[0], call))
    seen = [
        (event.event_kind, event.request_attempt_id, event.request_lease_id, event.reason_or_outcome)
        for event in sink.request_events
        if event.request_lease_id is not None and event.event_kind.startswith(("model_request", "request_lease"))
    ]
    assert seen == [
        ("request_lease_acquired", "1.1", 1, None),
        ("model_request_started", "1.1", 1, None),
        ("model_request_completed", "1.1", 1, "rate_limited"),
        ("request_lease_released", "1.1", 1, "rate_limited"),
        ("request_lease_acquired", "1.2", 2, None),
        ("model_request_started", "1.2", 2, None),
        ("model_request_completed", "1.2", 2, "provider_failure"),
        ("request_lease_released", "1.2", 2, "provider_failure"),
        ("request_lease_acquired", "1.3", 3, None),
        ("model_request_started", "1.3", 3, None),
        ("model_request_completed", "1.3", 3, "success"),
        ("request_lease_released", "1.3", 3, "success"),
    ]
    times = {(event.event_kind, event.request_attempt_id): event.captured_at_monotonic for event in sink.request_events}
    assert times["model_request_started", "1.2"] == 3.0
    pause = times["model_request_started", "1.3"] - times["model_request_completed", "1.2"]
    assert pause == pytest.approx(random.Random(1).uniform(0, 0.5))


async def test_a_check_does_not_touch_the_limit_of_the_domain(autojump_clock: MockClock) -> None:
    async def refused() -> str:
        raise ProviderError(429)

    async with controller(InMemoryAdmissionEventSink()) as admission:
        executor = ModelRequestExecutor(admission, retry=RequestRetryConfig(max_attempts=2))
        with pytest.raises(ProviderError):
            await executor.check_model(ModelRequest(RESOURCES[0], refused))
        await trio.testing.wait_all_tasks_blocked()
        checked = RequestResourceKey("openai", "writer", RequestDomain.HEALTHCHECK)
        snapshot = admission.pressure.snapshot(checked)
        assert snapshot is not None
        assert snapshot.last_outcome == "rate_limited"
        assert admission.pressure.snapshot(RESOURCES[0]) is None


async def test_admitting_again_inside_an_attempt_raises_on_the_real_controller(autojump_clock: MockClock) -> None:
    async with controller(InMemoryAdmissionEventSink()) as admission:
        executor = ModelRequestExecutor(admission)

        async def inner() -> str:
            return "never"

        async def outer() -> str:
            return await executor.execute(ModelRequest(RESOURCES[2], inner))

        with pytest.raises(RuntimeError, match="an outbound attempt is admitted once"):
            await executor.execute(ModelRequest(RESOURCES[0], outer))
        assert admission.leak_report() == ()
        assert await executor.execute(ModelRequest(RESOURCES[0], inner)) == "never"

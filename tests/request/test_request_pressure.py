from __future__ import annotations

from collections.abc import Callable
from typing import cast

import attrs
import pytest
from request_samples import CHAT, CLAUDE, EMBEDDING, GPT, OTHER, RATE_LIMITED, SUCCESS, Bench, config, rate_limited

from trio_sched._request.pressure import RequestAdmissionMaxima, RequestPressure, RequestPressureSnapshotProvider
from trio_sched._resources.identity import RequestDomain, RequestResourceKey
from trio_sched._resources.request import ProviderModelPressureSnapshot, RequestPressureSnapshot


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def pressure(bench: Bench, clock: Callable[[], float]) -> RequestPressure:
    ledger = bench.core.ledger
    return RequestPressure(ledger.endpoints, ledger.domains, bench.core.queue.queued_in, clock)


def test_a_resource_never_asked_for_has_none() -> None:
    clock = Clock()
    provider: RequestPressureSnapshotProvider = pressure(Bench(), clock)
    assert provider.snapshot(CHAT) is None
    assert provider.snapshots() == {}
    assert provider.global_snapshot("nobody", "nothing") is None


def test_a_snapshot_tells_everything_at_one_instant() -> None:
    bench, clock = Bench(cap=4), Clock()
    leases = [bench.lease() for _ in range(3)]
    bench.release(leases[0], rate_limited(8.0), 1.0)
    bench.wait(2.0)
    clock.now = 3.0
    assert pressure(bench, clock).snapshot(CHAT) == RequestPressureSnapshot(
        captured_at=3.0,
        sequence=6,
        resource=CHAT,
        effective_max=4,
        current_limit=2,
        in_flight_count=2,
        active_lease_count=2,
        waiters=1,
        blocked_until_monotonic=9.0,
        cooldown_remaining_seconds=6.0,
        rate_limit_ceiling=4,
        consecutive_rate_limits=1,
        last_outcome="rate_limited",
        leak_diagnostics={},
    )


def test_repr_tells_endpoints_and_limits() -> None:
    bench, clock = Bench(cap=4), Clock()
    leases = [bench.lease() for _ in range(3)]
    bench.release(leases[0], rate_limited(8.0), 1.0)
    bench.wait(2.0)
    told = repr(pressure(bench, clock))
    assert f"{GPT} 2 of 4 in flight" in told
    assert f"{CHAT} limit 2, 1 waiting" in told


def test_an_endpoint_adds_up_its_domains() -> None:
    bench, clock = Bench(cap=4), Clock()
    bench.register(6, 0.0, alias="b")
    bench.register(2, 0.0, endpoint=CLAUDE)
    bench.lease(resource=CHAT)
    bench.lease(resource=CHAT)
    bench.lease(resource=EMBEDDING)
    gone = bench.lease(resource=RequestResourceKey("openai", "gpt", RequestDomain.IMAGE))
    bench.release(gone, SUCCESS, 0.0)
    view = pressure(bench, clock)
    expected = ProviderModelPressureSnapshot(
        captured_at=0.0,
        sequence=6,
        provider_model=GPT,
        static_cap=4,
        aggregate_in_flight=3,
        aggregate_active_lease_count=3,
        aliases=("a", "b"),
        raw_caps={"a": 4, "b": 6},
        domains={RequestDomain.CHAT: 2, RequestDomain.EMBEDDING: 1},
    )
    assert view.global_snapshot("openai", "gpt") == expected
    assert set(view.global_snapshots()) == {GPT, CLAUDE}
    assert view.global_snapshots()[GPT] == expected
    assert set(view.snapshots()) == {CHAT, EMBEDDING, gone.item.resource}


def test_a_query_changes_nothing_not_even_an_overdue_cooldown() -> None:
    bench, clock = Bench(cap=4), Clock()
    bench.release(bench.lease(), RATE_LIMITED, 0.0)
    clock.now = 1.5
    view = pressure(bench, clock)
    first = view.snapshot(CHAT)
    assert first is not None
    assert first.blocked_until_monotonic is None
    assert first.cooldown_remaining_seconds == 0.0
    assert view.snapshot(CHAT) == first
    view.snapshots()
    view.global_snapshots()
    assert bench.core.next_deadline() == 1.0
    assert bench.core.ledger.domains[CHAT].limiter.total_tokens == 0


def test_the_sequence_counts_state_changes() -> None:
    bench, clock = Bench(cap=1), Clock()
    view = pressure(bench, clock)

    def sequence(resource: RequestResourceKey = CHAT) -> int:
        snapshot = view.snapshot(resource)
        assert snapshot is not None
        return snapshot.sequence

    lease = bench.lease()
    bench.register(3, 0.0, endpoint=CLAUDE)
    bench.lease(resource=OTHER)
    other = sequence(OTHER)
    seen = [sequence()]
    waiter = bench.wait()
    seen.append(sequence())
    bench.core.withdraw(waiter, 0.0)
    seen.append(sequence())
    bench.release(lease, RATE_LIMITED, 0.0)
    seen.append(sequence())
    bench.core.advance(1.0)
    seen.append(sequence())
    bench.core.release(lease, SUCCESS, 1.0)
    seen.append(sequence())
    assert seen == sorted(set(seen))
    assert sequence(OTHER) == other


def test_pictures_cannot_be_changed() -> None:
    bench, clock = Bench(cap=4), Clock()
    bench.lease()
    view = pressure(bench, clock)
    snapshot, endpoint = view.snapshot(CHAT), view.global_snapshot("openai", "gpt")
    assert snapshot is not None
    assert endpoint is not None
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        snapshot.waiters = 3  # type: ignore[misc]  # on purpose
    for mapping in (snapshot.leak_diagnostics, endpoint.domains, endpoint.raw_caps, view.snapshots()):
        with pytest.raises(TypeError):
            cast("dict[object, object]", mapping)["x"] = 1
    bench.lease()
    assert endpoint.domains == {RequestDomain.CHAT: 1}


def test_maxima_remember_the_most_at_once() -> None:
    bench, clock = Bench(cap=5), Clock()
    leases = [bench.lease(resource=resource) for resource in (CHAT, CHAT, CHAT, EMBEDDING, EMBEDDING)]
    waiters = [bench.wait(resource=CHAT) for _ in range(2)]
    for waiter in waiters:
        bench.core.withdraw(waiter, 0.0)
    bench.core.withdraw(bench.wait(resource=CHAT), 0.0)
    bench.wait(resource=EMBEDDING)
    for lease in leases:
        bench.release(lease, RATE_LIMITED, 0.0)
    bench.core.advance(1.0)
    bench.lease(1.0)
    maxima = pressure(bench, clock).maxima()
    assert maxima.in_flight_by_resource == {CHAT: 3, EMBEDDING: 3}
    assert maxima.in_flight_by_endpoint == {GPT: 5}
    assert maxima.waiters_by_resource == {CHAT: 2, EMBEDDING: 1}
    assert maxima.current_limit_by_resource == {CHAT: 5, EMBEDDING: 5}


def test_maxima_of_what_never_was_are_absent() -> None:
    bench, clock = Bench(config(initial_limits={CHAT: 1}, successes=1), cap=2), Clock()
    bench.register(2, 0.0, endpoint=CLAUDE)
    bench.core.close_endpoint(CLAUDE, "quota", 0.0)
    bench.refusal(resource=OTHER)
    assert pressure(bench, clock).maxima() == RequestAdmissionMaxima({}, {}, {}, {OTHER: 2})
    bench.release(bench.lease(), SUCCESS, 0.0)
    bench.release(bench.lease(), RATE_LIMITED, 0.0)
    maxima = pressure(bench, clock).maxima()
    assert maxima == RequestAdmissionMaxima({CHAT: 1}, {GPT: 1}, {}, {OTHER: 2, CHAT: 2})

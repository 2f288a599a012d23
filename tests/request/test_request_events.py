"""What the request stage tells: which events, in which order, with which facts; and nothing when nobody listens."""

from __future__ import annotations

import attrs
from request_samples import (
    CHAT,
    EMBEDDING,
    GPT,
    RATE_LIMITED,
    SUCCESS,
    UNKNOWN,
    Bench,
    OnlyKinds,
    config,
    item,
    rate_limited,
)

from trio_sched._events.sinks import request_event_stream
from trio_sched._request.core import RequestAdmissionCore
from trio_sched._resources.identity import RuntimeCorrelation
from trio_sched._resources.request import RequestEventContext, RequestReleaseOutcome

CORRELATION = RuntimeCorrelation("run", 0, "answer", "cell", "model", "hash", "execution-1")


def test_registration_and_cap_changes() -> None:
    bench = Bench(cap=4)
    bench.register(4, 1.0)
    (again,) = bench.take_events()
    assert (again.event_kind, again.request_resource_key, again.pressure_snapshot) == (
        "request_resource_registered",
        None,
        None,
    )
    assert again.diagnostics == {
        "provider_name": "openai",
        "model_id": "gpt",
        "alias": "a",
        "max_parallel_requests": 4,
        "static_cap": 4,
        "limit": "aimd",
    }
    bench.lease()
    bench.take_events()
    bench.register(2, 2.0, alias="b")
    registered, endpoint, domain, lowered = bench.take_events()
    assert registered.diagnostics["alias"] == "b"
    assert endpoint.event_kind == domain.event_kind == "request_effective_cap_changed"
    assert endpoint.diagnostics == {"provider_name": "openai", "model_id": "gpt", "previous": 4, "current": 2}
    assert domain.request_resource_key == CHAT
    assert domain.diagnostics == {"previous": 4, "current": 2}
    assert domain.pressure_snapshot is not None
    assert domain.pressure_snapshot.effective_max == 2
    assert lowered.event_kind == "request_limit_decreased"


def test_an_immediate_grant_records_a_wait_of_no_length() -> None:
    bench = Bench(cap=1)
    asked = item(context=RequestEventContext(CORRELATION, "execution-1", "attempt-3"))
    bench.core.try_lease(asked, 2.0, None, CORRELATION)
    started, completed, acquired = bench.take_events()
    assert [event.event_kind for event in (started, completed, acquired)] == [
        "request_wait_started",
        "request_wait_completed",
        "request_lease_acquired",
    ]
    assert completed.diagnostics == {"waited_seconds": 0.0}
    assert started.request_lease_id is None
    assert acquired.request_lease_id == completed.request_lease_id == 1
    for event in (started, completed, acquired):
        assert event.captured_at_monotonic == 2.0
        assert event.request_resource_key == event.request_group_key == CHAT
        assert event.request_attempt_id == "attempt-3"
        assert event.captured_correlation == CORRELATION
        assert event.pressure_snapshot is not None
    assert started.pressure_snapshot is not None
    assert started.pressure_snapshot.in_flight_count == 0
    assert acquired.pressure_snapshot is not None
    assert acquired.pressure_snapshot.in_flight_count == 1


def test_a_queue_forms_and_drains() -> None:
    bench = Bench(cap=1)
    lease = bench.lease()
    bench.take_events()
    bench.wait(1.0)
    second = bench.wait(1.0)
    assert bench.kinds() == ["request_queue_formed", "request_wait_started", "request_wait_started"]
    bench.core.withdraw(second, 2.0)
    bench.core.record_withdrawal(second, "queue_timeout", 2.0)
    (timeout,) = bench.take_events()
    assert (timeout.event_kind, timeout.reason_or_outcome) == ("request_wait_timeout", "queue_timeout")
    assert timeout.diagnostics == {"waited_seconds": 1.0}
    bench.release(lease, RequestReleaseOutcome("provider_failure", provider_status=500), 4.0)
    released, completed, acquired, drained = bench.take_events()
    assert (released.event_kind, released.reason_or_outcome) == ("request_lease_released", "provider_failure")
    assert released.diagnostics == {"held_seconds": 4.0, "provider_status": 500}
    assert completed.diagnostics == {"waited_seconds": 3.0}
    assert acquired.request_lease_id == 2
    assert drained.event_kind == "request_queue_drained"
    bench.release(bench.core.ledger.leases[2], SUCCESS, 6.5)
    (released,) = bench.take_events()
    assert released.diagnostics == {"held_seconds": 2.5}


def test_refusals() -> None:
    bench = Bench(cap=1)
    bench.refusal(resource=UNKNOWN)
    (unknown,) = bench.take_events()
    assert (unknown.event_kind, unknown.reason_or_outcome) == ("request_acquire_denied", "hard_policy_denial")
    assert (unknown.request_resource_key, unknown.pressure_snapshot) == (UNKNOWN, None)
    bench.lease()
    bench.take_events()
    bench.core.deny(item(), "queue_timeout", 1.0)
    started, timeout = bench.take_events()
    assert (started.event_kind, timeout.event_kind) == ("request_wait_started", "request_wait_timeout")
    assert timeout.diagnostics == {"waited_seconds": 0.0}
    bench.wait(1.0)
    bench.take_events()
    bench.core.close_endpoint(GPT, "quota", 3.0)
    closed, drained, denied = bench.take_events()
    assert (closed.event_kind, closed.request_resource_key) == ("request_endpoint_closed", None)
    assert closed.diagnostics == {
        "provider_name": GPT.provider_name,
        "model_id": GPT.model_id,
        "because": "quota",
        "denies_with": "endpoint_closed",
    }
    assert drained.event_kind == "request_queue_drained"
    assert (denied.event_kind, denied.reason_or_outcome) == ("request_acquire_denied", "endpoint_closed")
    assert denied.diagnostics == {"waited_seconds": 2.0}


def test_a_rate_limit_is_emitted_when_it_is_applied() -> None:
    bench = Bench(cap=4)
    leases = [bench.lease() for _ in range(2)]
    bench.take_events()
    bench.core.release(leases[0], rate_limited(3.0), 1.0)
    assert bench.kinds() == ["request_lease_released"]
    bench.apply_all(1.5)
    limited, lowered = bench.take_events()
    assert (limited.event_kind, limited.reason_or_outcome) == ("request_rate_limited", "rate_limited")
    assert limited.request_lease_id == 1
    assert limited.diagnostics == {
        "retry_after_seconds": 3.0,
        "blocked_until_monotonic": 4.0,
        "lease_epoch": 0,
        "epoch": 1,
    }
    assert lowered.event_kind == "request_limit_decreased"
    assert lowered.diagnostics == {"cause": "decreased", "previous": 4, "current": 2, "rate_limit_ceiling": 4}
    for event in (limited, lowered):
        assert event.pressure_snapshot is not None
        assert event.pressure_snapshot.current_limit == 2
        assert event.pressure_snapshot.cooldown_remaining_seconds == 2.5
    bench.release(leases[1], RATE_LIMITED, 2.0)
    assert bench.kinds() == ["request_lease_released", "request_rate_limited"]


def test_recovery_is_told() -> None:
    bench = Bench(config(successes=1, initial_limits={CHAT: 2}), cap=3)
    bench.release(bench.lease(), RATE_LIMITED, 0.0)
    bench.take_events()
    bench.core.advance(1.0)
    assert bench.kinds() == []
    for expected in (
        ["request_limit_increased"],
        ["request_limit_increased", "request_soft_ceiling_recovered", "request_fully_recovered"],
        [],
    ):
        lease = bench.lease(1.0)
        bench.take_events()
        bench.release(lease, SUCCESS, 1.0)
        assert bench.kinds() == ["request_lease_released", *expected]


def test_misuse_is_told() -> None:
    bench = Bench()
    lease = bench.lease()
    bench.release(lease, SUCCESS, 1.0)
    bench.take_events()
    bench.core.release(lease, SUCCESS, 2.0)
    (event,) = bench.take_events()
    assert (event.event_kind, event.reason_or_outcome, event.request_lease_id) == (
        "request_release_diagnostic",
        "duplicate",
        1,
    )
    assert event.pressure_snapshot is not None
    assert event.pressure_snapshot.leak_diagnostics == {"duplicate": 1}


def test_pictures_are_of_their_own_resource() -> None:
    bench = Bench(cap=4)
    bench.lease(resource=CHAT)
    bench.lease(resource=EMBEDDING)
    for event in bench.take_events():
        assert event.pressure_snapshot is not None
        assert event.pressure_snapshot.resource == event.request_resource_key


def test_only_wanted_kinds_are_built_and_numbered() -> None:
    bench = Bench(cap=1, sink=OnlyKinds("request_lease_acquired", "request_rate_limited"))
    lease = bench.lease()
    bench.wait()
    bench.release(lease, RATE_LIMITED, 1.0)
    bench.core.release(attrs.evolve(lease, controller_generation=5), SUCCESS, 1.0)
    events = bench.take_events()
    assert [(event.event_kind, event.sequence) for event in events] == [
        ("request_lease_acquired", 1),
        ("request_rate_limited", 2),
    ]


def test_without_a_sink_nothing_is_built() -> None:
    core = RequestAdmissionCore(config(), request_event_stream(None), 1)
    bench = Bench()
    bench.core = core
    bench.register(2, 0.0)
    leases = [bench.lease() for _ in range(2)]
    waiter = bench.wait()
    bench.release(leases[0], RATE_LIMITED, 1.0)
    core.withdraw(waiter, 2.0)
    core.record_withdrawal(waiter, "cancellation", 2.0)
    core.record_model_request("model_request_started", leases[1], None, 2.0)
    core.shutdown(3.0)
    assert bench.take_events() == []


def test_events_of_a_lease_name_its_holder_and_those_of_another_with_its_number_another() -> None:
    bench = Bench()
    lease = bench.lease()
    other = attrs.evolve(lease, controller_generation=5, captured_correlation=CORRELATION)
    bench.core.release(other, SUCCESS, 1.0)
    bench.core.release(lease, SUCCESS, 1.0)
    of_lease = [event for event in bench.take_events() if event.request_lease_id == lease.lease_id]
    assert [(event.event_kind, event.captured_correlation) for event in of_lease] == [
        ("request_wait_completed", None),
        ("request_lease_acquired", None),
        ("request_release_diagnostic", CORRELATION),
        ("request_lease_released", None),
    ]

"""The synchronous core by hand: grants, refusals, verdicts, caps and the end, with the time passed in."""

from __future__ import annotations

import math

import attrs
import pytest
from request_samples import (
    CHAT,
    CLAUDE,
    EMBEDDING,
    FAILED,
    GPT,
    OTHER,
    RATE_LIMITED,
    SUCCESS,
    UNKNOWN,
    Bench,
    config,
    item,
    rate_limited,
)

from trio_sched._request.leases import RequestAdmissionDenied, RequestAdmissionLease
from trio_sched._request.limit import Grant
from trio_sched._request.queue import RequestWaiter
from trio_sched._resources.identity import RequestDomain, RequestResourceKey
from trio_sched._resources.request import RequestOutcomeKind, RequestReleaseOutcome

IMAGE = RequestResourceKey("openai", "gpt", RequestDomain.IMAGE)


def granted(waiter: RequestWaiter) -> RequestAdmissionLease:
    assert isinstance(waiter.decision, RequestAdmissionLease)
    return waiter.decision


def refused(waiter: RequestWaiter) -> RequestAdmissionDenied:
    assert isinstance(waiter.decision, RequestAdmissionDenied)
    return waiter.decision


def test_a_lease_says_what_it_was_granted_under() -> None:
    bench = Bench(config(initial_limits={CHAT: 3}), cap=8)
    lease = bench.core.try_lease(item(), 2.5, "worker")
    assert lease == RequestAdmissionLease(1, item(), 2.5, 3, 8, 1, Grant(0, 1, 3), "worker", None)
    assert bench.core.ledger.leases == {1: lease}


def test_lease_ids_count_up() -> None:
    bench = Bench()
    assert [bench.lease().lease_id for _ in range(3)] == [1, 2, 3]


def test_the_static_cap_binds_all_domains_together() -> None:
    bench = Bench(cap=3)
    leases = [bench.lease(resource=CHAT), bench.lease(resource=CHAT), bench.lease(resource=EMBEDDING)]
    assert bench.refusal(resource=IMAGE).reason == "no_capacity"
    bench.release(leases[0], SUCCESS, 1.0)
    bench.lease(resource=IMAGE)
    assert bench.refusal(resource=CHAT).reason == "no_capacity"


def test_a_domain_limit_leaves_the_endpoint_to_others() -> None:
    bench = Bench(config(initial_limits={CHAT: 1}), cap=3)
    bench.lease(resource=CHAT)
    assert bench.refusal(resource=CHAT).reason == "no_capacity"
    bench.lease(resource=EMBEDDING)


def test_a_clamp_lowers_the_effective_maximum() -> None:
    bench = Bench(config(max_limit_clamps={CHAT: 2}), cap=8)
    assert bench.lease().effective_max == 2
    bench.lease()
    assert bench.refusal().reason == "no_capacity"
    assert bench.lease(resource=EMBEDDING).effective_max == 8


def test_a_clamp_above_the_cap_means_the_cap() -> None:
    bench = Bench(config(max_limit_clamps={CHAT: 20}, initial_limits={CHAT: 30}), cap=2)
    lease = bench.lease()
    assert (lease.current_adaptive_limit, lease.effective_max) == (2, 2)


def test_an_unregistered_endpoint_is_denied_and_leaves_no_trace() -> None:
    bench = Bench()
    denied = bench.refusal(resource=UNKNOWN)
    assert denied == RequestAdmissionDenied(
        item(UNKNOWN),
        "hard_policy_denial",
        diagnostics={"explanation": "nobody/nothing is not registered; call register() for it first"},
    )
    assert UNKNOWN not in bench.core.ledger.domains


def test_release_gives_back_once_and_names_every_misuse() -> None:
    bench = Bench(cap=2)
    lease = bench.lease()
    results = [
        bench.core.release(attrs.evolve(lease, controller_generation=99), SUCCESS, 1.0),
        bench.core.release(attrs.evolve(lease, lease_id=2), SUCCESS, 1.0),
        bench.core.release(attrs.evolve(lease, lease_id=0), SUCCESS, 1.0),
        bench.core.release(attrs.evolve(lease, lease_id=-1), SUCCESS, 1.0),
        bench.core.release(attrs.evolve(lease, acquired_at=9.0), SUCCESS, 1.0),
        bench.core.release(attrs.evolve(lease), SUCCESS, 1.0),
        bench.core.release(lease, SUCCESS, 1.0),
        bench.core.release(lease, RATE_LIMITED, 1.0),
    ]
    assert [(result.released, result.reason) for result in results] == [
        (False, "wrong_controller_generation"),
        (False, "unknown_lease"),
        (False, "unknown_lease"),
        (False, "unknown_lease"),
        (False, "stale_lease"),
        (True, "released"),
        (False, "duplicate"),
        (False, "duplicate"),
    ]
    snapshot = bench.pressure()
    assert snapshot.leak_diagnostics == {
        "wrong_controller_generation": 1,
        "unknown_lease": 3,
        "stale_lease": 1,
        "duplicate": 2,
    }
    assert snapshot.in_flight_count == 0
    assert snapshot.last_outcome == "success"
    assert snapshot.consecutive_rate_limits == 0
    assert not bench.core.updates


def test_a_foreign_lease_on_an_unseen_resource_is_refused_quietly() -> None:
    bench = Bench()
    lease = RequestAdmissionLease(1, item(UNKNOWN), 0.0, 1, 1, 7)
    assert bench.core.release(lease, SUCCESS, 1.0).reason == "wrong_controller_generation"
    assert bench.kinds() == ["request_release_diagnostic"]


def test_a_waiter_gets_the_lease_that_a_release_frees() -> None:
    bench = Bench(cap=1)
    lease = bench.lease()
    first, second = bench.wait(1.0), bench.wait(2.0)
    assert first.decision is None
    bench.release(lease, SUCCESS, 3.0)
    assert bench.woken() == [first]
    assert granted(first).acquired_at == 3.0
    bench.release(granted(first), SUCCESS, 4.0)
    assert bench.woken() == [second]
    assert bench.pressure().waiters == 0


def test_a_newcomer_does_not_pass_a_waiter() -> None:
    bench = Bench(cap=1)
    lease = bench.lease()
    waiter = bench.wait()
    assert bench.refusal().reason == "queued_waiters_ahead"
    bench.release(lease, SUCCESS, 1.0)
    assert bench.refusal(1.0).reason == "no_capacity"
    assert bench.woken() == [waiter]


def test_a_newcomer_of_another_domain_does_not_pass_either() -> None:
    bench = Bench(cap=1)
    lease = bench.lease(resource=EMBEDDING)
    waiter = bench.wait(resource=CHAT)
    assert bench.refusal(resource=IMAGE).reason == "queued_waiters_ahead"
    bench.release(lease, SUCCESS, 1.0)
    assert bench.refusal(resource=IMAGE).reason == "no_capacity"
    assert bench.woken() == [waiter]


def test_waiters_that_could_not_go_anyway_are_not_ahead() -> None:
    bench = Bench(config(initial_limits={CHAT: 1}), cap=2)
    bench.lease(resource=CHAT)
    bench.wait(resource=CHAT)
    embedding = bench.lease(resource=EMBEDDING)
    assert bench.refusal(resource=EMBEDDING).reason == "no_capacity"
    bench.release(embedding, SUCCESS, 1.0)
    bench.lease(resource=EMBEDDING)
    assert bench.woken() == []


def test_waiters_that_share_an_endpoint_take_turns() -> None:
    bench = Bench(cap=1)
    lease = bench.lease()
    chats = [bench.wait(resource=CHAT) for _ in range(2)]
    embeddings = [bench.wait(resource=EMBEDDING) for _ in range(2)]
    order: list[RequestWaiter] = []
    for _ in range(4):
        bench.release(lease, SUCCESS, 1.0)
        (waiter,) = bench.woken()
        order.append(waiter)
        lease = granted(waiter)
    assert order == [chats[0], embeddings[0], chats[1], embeddings[1]]


def test_several_places_are_filled_at_once() -> None:
    bench = Bench(cap=1)
    bench.lease()
    waiters = [bench.wait() for _ in range(5)]
    bench.register(4, 1.0)
    assert bench.woken() == waiters[:3]


def test_a_withdrawn_waiter_is_gone() -> None:
    bench = Bench(cap=1)
    lease = bench.lease()
    first, second = bench.wait(), bench.wait()
    bench.core.withdraw(first, 1.0)
    denied = bench.core.record_withdrawal(first, "cancellation", 1.0)
    assert denied.reason == "cancellation"
    assert bench.pressure().waiters == 1
    bench.release(lease, SUCCESS, 2.0)
    assert bench.woken() == [second]
    assert first.decision is None


def test_only_a_queued_waiter_can_be_withdrawn() -> None:
    bench = Bench(cap=1)
    lease = bench.lease()
    waiter = bench.wait()
    bench.release(lease, SUCCESS, 1.0)
    with pytest.raises(AssertionError, match=r"^only a queued waiter can be withdrawn"):
        bench.core.withdraw(waiter, 2.0)


def test_a_rate_limit_closes_its_domain_until_the_verdict_and_then_until_the_cooldown_ends() -> None:
    bench = Bench(cap=4)
    leases = [bench.lease() for _ in range(2)]
    bench.core.release(leases[0], rate_limited(3.0), 10.0)
    assert len(bench.core.updates) == 1
    pending = bench.refusal(10.0)
    assert (pending.reason, pending.available_after_monotonic, pending.retry_after_seconds) == ("cooldown", 13.0, 3.0)
    assert pending.snapshot is not None
    assert pending.snapshot.current_limit == 4
    assert pending.snapshot.blocked_until_monotonic == 13.0
    assert bench.core.next_deadline() == math.inf
    bench.apply_all(10.0)
    denied = bench.refusal(11.0)
    assert (denied.reason, denied.available_after_monotonic, denied.retry_after_seconds) == ("cooldown", 13.0, 2.0)
    assert bench.core.next_deadline() == 13.0
    assert bench.pressure(now=11.0).current_limit == 2
    assert bench.lease(13.0).grant.epoch == 1
    assert bench.core.next_deadline() == math.inf


def test_a_rate_limit_leaves_other_domains_open() -> None:
    bench = Bench(cap=4)
    bench.release(bench.lease(), RATE_LIMITED, 0.0)
    bench.lease(resource=EMBEDDING)
    assert bench.pressure(EMBEDDING).current_limit == 4


def test_the_end_of_a_cooldown_serves_waiters_with_nobody_releasing() -> None:
    bench = Bench(cap=4)
    bench.release(bench.lease(), RATE_LIMITED, 0.0)
    waiters = [bench.wait(0.5) for _ in range(3)]
    bench.core.advance(0.9)
    assert bench.woken() == []
    bench.core.advance(1.0)
    assert bench.woken() == waiters[:2]


def test_a_burst_of_one_epoch_is_one_decrease() -> None:
    bench = Bench(cap=16)
    leases = [bench.lease() for _ in range(16)]
    for lease in leases:
        bench.core.release(lease, RATE_LIMITED, 1.0)
    bench.apply_all(1.0)
    snapshot = bench.pressure(now=1.0)
    assert snapshot.current_limit == 8
    assert snapshot.consecutive_rate_limits == 16
    assert snapshot.rate_limit_ceiling == 16


def test_a_stale_rate_limit_extends_the_cooldown_and_lowers_nothing() -> None:
    bench = Bench(cap=16)
    old = [bench.lease() for _ in range(2)]
    bench.release(old[0], RATE_LIMITED, 0.0)
    bench.core.advance(1.0)
    new = bench.lease(1.0)
    bench.release(old[1], rate_limited(8.0), 2.0)
    assert bench.pressure(now=2.0).current_limit == 8
    assert bench.pressure(now=2.0).blocked_until_monotonic == 10.0
    bench.release(new, RATE_LIMITED, 3.0)
    assert bench.pressure(now=3.0).current_limit == 4
    assert bench.pressure(now=3.0).blocked_until_monotonic == 10.0


def test_two_pending_verdicts_announce_the_later_end() -> None:
    bench = Bench(cap=4)
    leases = [bench.lease() for _ in range(3)]
    bench.core.release(leases[0], rate_limited(9.0), 0.0)
    bench.core.release(leases[1], rate_limited(3.0), 0.0)
    assert bench.refusal(0.0).available_after_monotonic == 9.0
    bench.core.apply(bench.core.updates.popleft(), 0.0)
    assert bench.core.next_deadline() == math.inf
    assert bench.refusal(0.0).reason == "cooldown"
    bench.core.apply(bench.core.updates.popleft(), 0.0)
    assert bench.core.next_deadline() == 9.0


def test_the_earliest_of_several_deadlines_comes_first_and_touches_nobody_else() -> None:
    bench = Bench(cap=4)
    bench.release(bench.lease(resource=CHAT), rate_limited(5.0), 0.0)
    bench.release(bench.lease(resource=EMBEDDING), rate_limited(1.0), 0.0)
    assert bench.core.next_deadline() == 1.0
    before = bench.pressure(CHAT).sequence
    bench.core.advance(1.0)
    assert bench.pressure(CHAT, 1.0).sequence == before
    assert bench.core.next_deadline() == 5.0
    bench.core.advance(5.0)
    assert bench.core.next_deadline() == math.inf


def test_a_ramp_stands_still_under_a_pending_verdict() -> None:
    bench = Bench(config(ramp=4.0), cap=5)
    lease = bench.lease(0.0)
    assert bench.core.next_deadline() == 1.0
    bench.core.release(lease, RATE_LIMITED, 0.5)
    assert bench.core.next_deadline() == math.inf
    bench.core.advance(3.0)
    assert bench.pressure(now=3.0).current_limit == 1
    bench.apply_all(3.0)
    assert bench.pressure(now=3.0).rate_limit_ceiling == 1


def test_an_old_announcement_does_not_outlive_its_verdict() -> None:
    bench = Bench(cap=8)
    bench.release(bench.lease(), rate_limited(9.0), 0.0)
    bench.core.advance(9.0)
    bench.core.release(bench.lease(9.0), rate_limited(2.0), 10.0)
    assert bench.refusal(10.0).available_after_monotonic == 12.0
    bench.apply_all(10.0)
    bench.core.advance(12.0)
    assert bench.core.deny(item(), "queue_timeout", 13.0).available_after_monotonic is None


def test_a_late_verdict_counts_from_the_release() -> None:
    bench = Bench(cap=4)
    bench.core.release(bench.lease(), rate_limited(1.0), 0.0)
    bench.wait(0.5)
    denied = bench.refusal(4.0)
    assert (denied.available_after_monotonic, denied.retry_after_seconds) == (4.0, 0.0)
    bench.apply_all(5.0)
    assert len(bench.woken()) == 1
    assert bench.core.next_deadline() == math.inf


def test_successes_under_a_pending_verdict_do_not_count() -> None:
    bench = Bench(config(initial_limits={CHAT: 3}, successes=1), cap=4)
    leases = [bench.lease() for _ in range(2)]
    bench.core.release(leases[0], RATE_LIMITED, 0.0)
    bench.core.release(leases[1], SUCCESS, 0.0)
    assert len(bench.core.updates) == 1
    bench.apply_all(0.0)
    assert bench.pressure().current_limit == 1


def test_growth_that_was_due_before_a_rate_limit_is_applied_before_it() -> None:
    bench = Bench(config(initial_limits={CHAT: 5}, successes=1, factor=0.9), cap=10)
    leases = [bench.lease() for _ in range(2)]
    bench.core.release(leases[0], SUCCESS, 0.0)
    bench.core.release(leases[1], RATE_LIMITED, 0.0)
    bench.apply_all(0.0)
    snapshot = bench.pressure()
    assert (snapshot.current_limit, snapshot.rate_limit_ceiling) == (5, 6)


def test_growth_serves_waiters() -> None:
    bench = Bench(config(initial_limits={CHAT: 1}, successes=1), cap=4)
    lease = bench.lease()
    waiters = [bench.wait() for _ in range(3)]
    bench.release(lease, SUCCESS, 1.0)
    assert bench.woken() == waiters[:2]


def test_ordinary_successes_ring_nobody() -> None:
    bench = Bench(config(successes=1), cap=2)
    for _ in range(10):
        assert bench.core.release(bench.lease(), SUCCESS, 1.0).released
    assert not bench.core.updates


@pytest.mark.parametrize(
    "kind", ["provider_failure", "provider_timeout", "local_cancelled", "local_timeout", "unexpected_exception"]
)
def test_only_rate_limits_lower(kind: RequestOutcomeKind) -> None:
    bench = Bench(cap=8)
    for _ in range(50):
        # An answer in between, without which the endpoint would not answer.
        bench.release(bench.lease(), RequestReleaseOutcome(kind, retry_after_seconds=5.0), 1.0)
        bench.release(bench.lease(), RequestReleaseOutcome("provider_failure", None, 400), 1.0)
    bench.release(bench.lease(), RequestReleaseOutcome(kind, retry_after_seconds=5.0), 1.0)
    snapshot = bench.pressure(now=1.0)
    assert snapshot.current_limit == 8
    assert snapshot.blocked_until_monotonic is None
    assert snapshot.last_outcome == kind
    assert bench.core.next_deadline() == math.inf


def test_a_ramp_opens_place_by_place() -> None:
    bench = Bench(config(ramp=4.0), cap=5)
    bench.lease(10.0)
    waiters = [bench.wait(10.0) for _ in range(4)]
    assert bench.core.next_deadline() == 11.0
    bench.core.advance(11.0)
    assert bench.woken() == waiters[:1]
    bench.core.advance(13.5)
    assert bench.woken() == waiters[1:3]
    bench.core.advance(14.0)
    assert bench.woken() == waiters[3:]
    assert bench.core.next_deadline() == math.inf


def test_time_passes_with_every_operation() -> None:
    bench = Bench(config(ramp=4.0), cap=5)
    lease = bench.lease(0.0)
    waiters = [bench.wait(0.0) for _ in range(3)]
    bench.release(lease, SUCCESS, 2.0)
    assert bench.woken() == waiters
    assert isinstance(bench.core.try_lease(item(), 4.0), RequestAdmissionLease)


def test_lowering_a_cap_revokes_nothing_and_admits_nothing() -> None:
    bench = Bench(cap=4)
    leases = [bench.lease() for _ in range(4)]
    waiter = bench.wait()
    bench.register(2, 1.0)
    assert bench.pressure(now=1.0).current_limit == 2
    for lease in leases[:2]:
        bench.release(lease, SUCCESS, 2.0)
        assert bench.woken() == []
    bench.release(leases[2], SUCCESS, 3.0)
    assert bench.woken() == [waiter]
    assert granted(waiter).effective_max == 2


def test_a_cap_is_the_smallest_over_the_aliases() -> None:
    bench = Bench(cap=4)
    bench.register(2, 0.0, alias="b")
    bench.lease()
    bench.lease()
    assert bench.refusal().reason == "no_capacity"
    bench.register(3, 0.0, alias="b")
    bench.lease()
    assert bench.refusal().reason == "no_capacity"
    bench.register(9, 0.0, alias="b")
    bench.lease()
    assert bench.refusal().reason == "no_capacity"


def test_a_higher_cap_does_not_undo_what_a_rate_limit_taught() -> None:
    bench = Bench(cap=4)
    bench.release(bench.lease(), RATE_LIMITED, 0.0)
    bench.register(10, 1.0)
    assert bench.pressure(now=1.0).current_limit == 2
    assert bench.pressure(now=1.0).effective_max == 10


def test_registering_again_lets_time_pass_first() -> None:
    bench = Bench(cap=4)
    bench.release(bench.lease(), RATE_LIMITED, 0.0)
    waiter = bench.wait(0.5)
    bench.register(10, 1.0)
    assert bench.woken() == [waiter]


def test_a_cap_that_a_clamp_hides_changes_nothing_for_the_domain() -> None:
    bench = Bench(config(max_limit_clamps={CHAT: 2}), cap=4)
    bench.lease()
    sequence = bench.pressure().sequence
    bench.register(3, 1.0)
    assert bench.kinds() == ["request_resource_registered", "request_effective_cap_changed"]
    assert bench.pressure().sequence == sequence


def test_a_higher_cap_serves_waiters_of_domains_that_a_clamp_holds_where_they_are() -> None:
    bench = Bench(config(max_limit_clamps={CHAT: 2, EMBEDDING: 2}), cap=2)
    for _ in range(2):
        bench.lease(resource=EMBEDDING)
    waiters = [bench.wait(resource=CHAT) for _ in range(3)]
    bench.register(3, 1.0)
    assert bench.woken() == waiters[:1]
    bench.register(9, 2.0)
    assert bench.woken() == waiters[1:2]


def test_closing_an_endpoint_refuses_its_waiters_and_all_who_come() -> None:
    bench = Bench(cap=1)
    bench.register(1, 0.0, endpoint=CLAUDE)
    lease = bench.lease()
    other = bench.lease(resource=OTHER)
    waiter, elsewhere = bench.wait(), bench.wait(resource=OTHER)
    sequence = bench.core.ledger.endpoints[GPT].sequence
    bench.core.close_endpoint(GPT, "insufficient_quota", 1.0)
    assert bench.core.ledger.endpoints[GPT].sequence > sequence
    assert bench.woken() == [waiter]
    assert refused(waiter).reason == "endpoint_closed"
    assert refused(waiter).diagnostics == {"explanation": "insufficient_quota"}
    bench.release(lease, SUCCESS, 2.0)
    assert bench.refusal(2.0).diagnostics == {"explanation": "insufficient_quota"}
    assert bench.refusal(2.0, EMBEDDING).reason == "endpoint_closed"
    bench.release(other, SUCCESS, 2.0)
    assert bench.woken() == [elsewhere]


def test_shutdown_refuses_everybody_and_takes_leases_back() -> None:
    bench = Bench(cap=1)
    bench.register(1, 0.0, endpoint=CLAUDE)
    lease = bench.lease()
    bench.lease(resource=OTHER)
    waiters = [bench.wait(), bench.wait(resource=EMBEDDING), bench.wait(resource=OTHER)]
    bench.core.shutdown(1.0)
    assert bench.woken() == waiters
    assert [refused(waiter).reason for waiter in waiters] == ["shutdown"] * 3
    assert bench.pressure().waiters == 0
    for resource in (CHAT, UNKNOWN):
        denied = bench.refusal(1.0, resource)
        assert (denied.reason, denied.diagnostics) == ("shutdown", {})
    bench.release(lease, RATE_LIMITED, 2.0)
    bench.core.close_endpoint(GPT, "quota", 2.0)
    denied = bench.refusal(2.0)
    assert (denied.reason, denied.available_after_monotonic, denied.diagnostics) == ("shutdown", None, {})
    assert bench.refusal(9.0).reason == "shutdown"


def test_a_timeout_tells_when_the_cooldown_ends() -> None:
    bench = Bench(cap=4)
    bench.release(bench.lease(), rate_limited(30.0), 0.0)
    waiter = bench.wait(1.0)
    bench.core.withdraw(waiter, 3.0)
    denied = bench.core.record_withdrawal(waiter, "queue_timeout", 3.0)
    assert (denied.reason, denied.available_after_monotonic, denied.retry_after_seconds) == (
        "queue_timeout",
        30.0,
        27.0,
    )


def test_a_refusal_for_want_of_room_knows_no_time() -> None:
    bench = Bench(cap=1)
    bench.lease()
    denied = bench.refusal(1.0)
    assert (denied.available_after_monotonic, denied.retry_after_seconds) == (None, None)
    assert denied.snapshot == bench.pressure(now=1.0)


def test_failures_keep_their_status_out_of_the_limit() -> None:
    bench = Bench(cap=2)
    bench.release(bench.lease(), FAILED, 1.0)
    assert bench.pressure().last_outcome == "provider_failure"

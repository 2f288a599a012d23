from __future__ import annotations

import attrs

from trio_sched._errors import TrioSchedError
from trio_sched._request.leases import (
    LeakedRequestLease,
    RequestAdmissionDenied,
    RequestAdmissionError,
    RequestAdmissionLease,
)
from trio_sched._resources.identity import RequestDomain, RequestResourceKey, RuntimeCorrelation
from trio_sched._resources.request import RequestAdmissionItem, RequestEventContext, RequestGroupSpec

CHAT = RequestResourceKey("openai", "gpt", RequestDomain.CHAT)
ITEM = RequestAdmissionItem(CHAT, RequestGroupSpec(CHAT))
LEASE = RequestAdmissionLease(7, ITEM, 3.5, 4, 8, 1)
CORRELATION = RuntimeCorrelation("run", 1, "answer", "cell", "model", "hash", "execution-9")


def test_field_names_and_order() -> None:
    assert [field.name for field in attrs.fields(RequestAdmissionLease)][:6] == [
        "lease_id",
        "item",
        "acquired_at",
        "current_adaptive_limit",
        "effective_max",
        "controller_generation",
    ]
    assert [field.name for field in attrs.fields(RequestAdmissionDenied)] == [
        "item",
        "reason",
        "retry_after_seconds",
        "available_after_monotonic",
        "snapshot",
        "diagnostics",
    ]


def test_a_lease_is_a_value_and_no_context_manager() -> None:
    assert attrs.evolve(LEASE) == LEASE
    assert hash(attrs.evolve(LEASE)) == hash(LEASE)
    assert not hasattr(LEASE, "__enter__")
    assert not hasattr(LEASE, "__aenter__")


def test_the_error_carries_its_decision_and_says_why() -> None:
    denied = RequestAdmissionDenied(ITEM, "queue_timeout")
    error = RequestAdmissionError(denied)
    assert isinstance(error, TrioSchedError)
    assert error.decision is denied
    assert str(error) == "no request lease for openai/gpt/chat: queue_timeout"
    explained = RequestAdmissionDenied(ITEM, "hard_policy_denial", diagnostics={"explanation": "quota exhausted"})
    assert str(RequestAdmissionError(explained)) == (
        "no request lease for openai/gpt/chat: hard_policy_denial (quota exhausted)"
    )


def test_a_leak_names_whatever_is_known_of_its_holder() -> None:
    nobody = LeakedRequestLease.of(LEASE)
    assert str(nobody) == "lease 7 on openai/gpt/chat held by an unnamed caller"
    assert nobody.held_since == 3.5
    item = attrs.evolve(ITEM, event_context=RequestEventContext(None, "execution-1", "attempt-2"))
    somebody = LeakedRequestLease.of(attrs.evolve(LEASE, item=item, holder="worker", captured_correlation=CORRELATION))
    assert somebody == LeakedRequestLease(7, CHAT, 3.5, "worker", "execution-1", "attempt-2", CORRELATION)
    assert str(somebody) == (
        "lease 7 on openai/gpt/chat held by task worker, task execution execution-1, attempt attempt-2"
    )
    by_correlation = LeakedRequestLease.of(attrs.evolve(LEASE, captured_correlation=CORRELATION))
    assert by_correlation.task_execution_id == "execution-9"
    assert by_correlation.request_attempt_id is None

"""Any of this project's limit rules as a client of the simulation."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.control.simulator import Answer, Client
from benchmarks.control.told import ClientFactory, Told
from trio_sched.lowlevel import AimdLimit, EvidenceLimit, FixedLimit, Grant, RequestLimit, RequestSample

__all__ = ["RuleClient", "aimd", "evidence", "fixed", "with_rule"]


class RuleClient:
    """A rule with a count of what is in flight. A ticket is the rule's grant, with the time of it."""

    def __init__(self, rule: RequestLimit) -> None:
        self._rule = rule
        self._in_flight = 0
        self.next_wake = rule.next_deadline

    @property
    def limit(self) -> int:
        """The rule's present limit."""
        return self._rule.current_limit

    def grant(self, now: float) -> tuple[Grant, float] | None:
        """A ticket while there is room and nothing is stopped."""
        rule = self._rule
        if self._in_flight >= rule.current_limit or rule.blocked_until is not None:
            return None
        self._in_flight += 1
        return rule.granted(now, self._in_flight), now

    def release(self, ticket: tuple[Grant, float], answer: Answer, now: float) -> None:
        """Report to the rule. A refused call asks again through admission, where callers always wait."""
        self._in_flight -= 1
        rule = self._rule
        deadline = rule.next_deadline()
        if deadline is not None and now >= deadline:
            rule.advance(now)
        grant, sent_at = ticket
        rule.ended(
            now,
            grant,
            RequestSample(answer.kind, answer.hint, now - sent_at, None, self._in_flight, answer.refused),
        )

    def wake(self, now: float) -> None:
        """A deadline of the rule has come."""
        self._rule.advance(now)


def with_rule(make: Callable[[int, float], RequestLimit]) -> ClientFactory:
    """Clients with the rule that `make` gives for an effective maximum and a time."""

    def client(told: Told) -> Client:
        return RuleClient(make(told.cap, told.now))

    return client


evidence = with_rule(EvidenceLimit)
aimd = with_rule(AimdLimit)


def fixed(told: Told) -> Client:
    """A client of somebody who knows what the provider usually allows."""
    return RuleClient(FixedLimit(told.cap, level=told.level))

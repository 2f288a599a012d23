"""A discrete-event simulation of clients that call one provider, with always enough callers waiting.

Time is a number that jumps from event to event; nothing sleeps and nothing depends on the machine. A *client* stands
for one program: it hands out tickets as its own limit allows, and learns how each call ended. The *provider* decides,
at the moment a call is sent, how the call ends and when. The simulation carries tickets and answers between the two and
keeps the books of what really happened, so that no side grades itself.

                      grant -> ticket                     answer(now) -> kind, seconds
        Client  ---------------------------> simulate --------------------------------> Provider
          ^                                      |                                         ^
          |   release(ticket, answer)            |  after answer.seconds                   |  finished
          +--------------------------------------+-----------------------------------------+

A client is asked for tickets until it refuses, each time a call of its own ends and each time it wanted to be woken.
Events of one instant happen in the order in which they were scheduled, so a run is a function of its arguments.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

__all__ = ["Answer", "AnswerKind", "Client", "Party", "Provider", "simulate"]

AnswerKind = Literal["success", "rate_limited", "provider_failure"]


class Answer(NamedTuple):
    """How a call ends, and how long after it was sent."""

    kind: AnswerKind
    seconds: float
    retry_after: float | None = None


class Client(Protocol):
    """One program's admission: what may be sent now, and what it makes of the answers."""

    @property
    def limit(self) -> int:
        """How many calls it would have in flight if nothing paused it."""
        ...

    def grant(self, now: float) -> int | None:
        """A ticket for one more call, or None."""
        ...

    def release(self, ticket: int, answer: Answer, now: float) -> None:
        """The call of `ticket` ended."""
        ...

    def wake(self, now: float) -> None:
        """Time passed until `now`."""
        ...

    def next_wake(self) -> float | None:
        """When it wants to be woken though none of its calls ended."""
        ...


class Provider(Protocol):
    """What is on the other side of the wire."""

    def answer(self, now: float, rng: random.Random) -> Answer:
        """Decide on a call that is sent now."""
        ...

    def finished(self, answer: Answer, now: float) -> None:
        """The call of this answer is over."""
        ...


@dataclass
class Party:
    """A client and the books of what it did. Figures without `measured` count from the start.

    joins_at: when it starts to call. call_seconds: time that successful calls spent in flight while measured; those
    still in flight at the end included. against_hint: calls sent while a pause that the provider had asked for was not
    over. limits: every limit it went through, with the time.
    """

    client: Client
    joins_at: float = 0.0
    sent: int = 0
    succeeded: int = 0
    refused: int = 0
    failed: int = 0
    in_flight: int = 0
    measured_sent: int = 0
    measured_refused: int = 0
    measured_succeeded: int = 0
    call_seconds: float = 0.0
    against_hint: int = 0
    limits: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])
    hint_ends_at: float = 0.0
    wakes_at: float | None = None

    def note_limit(self, now: float) -> None:
        """Write the limit down if it moved."""
        limit = self.client.limit
        if not self.limits or self.limits[-1][1] != limit:
            self.limits.append((now, limit))

    def limit_at(self, moment: float) -> int:
        """The limit that was in force at `moment`."""
        return next(limit for since, limit in reversed(self.limits) if since <= moment)


class _Call(NamedTuple):
    ticket: int
    answer: Answer
    sent_at: float


def simulate(
    provider: Provider, parties: Sequence[Party], *, seed: int, until: float, measured_from: float = 0.0
) -> None:
    """Let `parties` call `provider` from second 0 to `until`, and fill in their books."""
    rng = random.Random(seed)
    events: list[tuple[float, int, Party, _Call | None]] = []
    scheduled = 0
    for party in parties:
        events.append((party.joins_at, scheduled, party, None))
        scheduled += 1
    heapq.heapify(events)
    while events and events[0][0] < until:
        now, _, party, call = heapq.heappop(events)
        client = party.client
        if call is None:
            client.wake(now)
        else:
            provider.finished(call.answer, now)
            client.release(call.ticket, call.answer, now)
            _book_end(party, call, now, measured_from)
        party.note_limit(now)
        while (ticket := client.grant(now)) is not None:
            answer = provider.answer(now, rng)
            assert answer.seconds > 0, "an answer takes time"
            _book_start(party, now, measured_from)
            heapq.heappush(events, (now + answer.seconds, scheduled, party, _Call(ticket, answer, now)))
            scheduled += 1
        wake = client.next_wake()
        if wake is not None and wake != party.wakes_at:
            assert wake > now, f"a wake-up at {wake} was asked for at {now}"
            heapq.heappush(events, (wake, scheduled, party, None))
            scheduled += 1
        party.wakes_at = wake
    for _, _, party, call in events:
        if call is not None and call.answer.kind == "success":
            party.call_seconds += max(0.0, until - max(call.sent_at, measured_from))


def _book_start(party: Party, now: float, measured_from: float) -> None:
    party.sent += 1
    party.in_flight += 1
    if now < party.hint_ends_at:
        party.against_hint += 1
    if now >= measured_from:
        party.measured_sent += 1


def _book_end(party: Party, call: _Call, now: float, measured_from: float) -> None:
    answer = call.answer
    party.in_flight -= 1
    if answer.kind == "success":
        party.succeeded += 1
        party.call_seconds += max(0.0, now - max(call.sent_at, measured_from))
        if now >= measured_from:
            party.measured_succeeded += 1
    elif answer.kind == "rate_limited":
        party.refused += 1
        if call.sent_at >= measured_from:
            party.measured_refused += 1
        if answer.retry_after is not None:
            party.hint_ends_at = max(party.hint_ends_at, now + answer.retry_after)
    else:
        party.failed += 1

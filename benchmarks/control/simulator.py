"""A discrete-event simulation of clients that call one provider, with always enough callers waiting.

Time is a number that jumps from event to event; nothing sleeps and nothing depends on the machine. A *client* stands
for one program: it hands out tickets as its own limit allows, and learns how each call ended. The *provider* decides,
when a call arrives, how the call ends and when. The simulation carries tickets and answers between the two, `up`
seconds there and `down` seconds back, and keeps the books of what really happened, so that no side grades itself.

                      grant -> ticket                     arrive(now) -> kind, seconds
        Client  ---------------------------> Simulation ------------------------------> Provider
          ^                                      |                                         ^
          |   release(ticket, answer)            |  after answer.seconds                   |  leave
          +--------------------------------------+-----------------------------------------+

A client is asked for tickets until it refuses, each time a call of its own ends and each time it wanted to be woken.
A call that is not answered within `timeout` seconds is given up, and its place at the provider becomes free when the
provider hears of that. Events of one instant happen in the order in which they were scheduled, so a run is a function
of its arguments.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

__all__ = ["GIVEN_UP", "Answer", "AnswerKind", "Client", "Party", "Provider", "Simulation", "Ticket"]

AnswerKind = Literal["success", "rate_limited", "provider_failure", "provider_timeout"]

Ticket = Any
"""What a client wants to see again when its call has ended."""


class Answer(NamedTuple):
    """How a call ends, and how long after its arrival. hint: seconds. refused: turned away, so it held no place."""

    kind: AnswerKind
    seconds: float
    hint: float | None = None
    refused: bool = False
    status: int = 200


GIVEN_UP = Answer("provider_timeout", math.inf, status=0)
"""What a client sees of a call that was not answered in time."""


class Client(Protocol):
    """One program's admission: what may be sent now, and what it makes of the answers."""

    @property
    def limit(self) -> int:
        """How many calls it would have in flight if nothing paused it."""
        ...

    def grant(self, now: float) -> Ticket | None:
        """A ticket for one more call, or None."""
        ...

    def release(self, ticket: Ticket, answer: Answer, now: float) -> None:
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

    def arrive(self, now: float, rng: random.Random) -> Answer:
        """Decide on a call that arrives now."""
        ...

    def leave(self, now: float) -> None:
        """A call that was not refused is over."""
        ...

    def answered(self, sent_at: float, answer: Answer, now: float) -> None:
        """An answer, unlike a refusal, has come back to the client."""
        ...


@dataclass(eq=False)
class Party:
    """A client and the books of what it did. joins_at: when it starts to call. Attempts count when they arrive."""

    client: Client
    joins_at: float = 0.0
    attempts: int = 0
    refused: int = 0
    succeeded: int = 0
    failed: int = 0
    timed_out: int = 0
    in_flight: int = 0
    wakes_at: float | None = field(default=None, repr=False)


WAKE, DONE, ARRIVE, LEAVE, BACK = range(5)
"""What happens: a client wakes; a call ends here and there at once; arrives; leaves the provider; comes back."""
ENDS = (DONE, BACK)

_Event = tuple[float, int, int, Party, Any, Answer, float]


class Simulation:
    """`parties` call `provider`. `run` may be called again, to look at the books in between."""

    def __init__(
        self,
        provider: Provider,
        parties: Sequence[Party],
        *,
        seed: int,
        up: float = 0.0,
        down: float = 0.0,
        timeout: float = math.inf,
    ) -> None:
        self.provider = provider
        self.parties = tuple(parties)
        self.now = 0.0
        self._rng = random.Random(seed)
        self._up = up
        self._down = down
        self._timeout = timeout
        self._events: list[_Event] = []
        self._scheduled = 0
        for party in parties:
            party.wakes_at = party.joins_at
            self._events.append((party.joins_at, self._scheduled, WAKE, party, None, GIVEN_UP, 0.0))
            self._scheduled += 1
        heapq.heapify(self._events)

    def run(self, until: float) -> None:
        """Let everything happen that happens before `until`."""
        events, rng, timeout = self._events, self._rng, self._timeout
        up, down, distant = self._up, self._down, self._up > 0 or self._down > 0
        scheduled = self._scheduled
        push, pop = heapq.heappush, heapq.heappop
        arrive, leave, answered = self.provider.arrive, self.provider.leave, self.provider.answered
        while events and events[0][0] < until:
            now, _, what, party, ticket, answer, sent_at = pop(events)
            client = party.client
            if what in ENDS:
                party.in_flight -= 1
                if answer.refused:
                    party.refused += 1
                else:
                    if what == DONE:
                        leave(now)
                    if answer.kind == "success":
                        party.succeeded += 1
                        answered(sent_at, answer, now)
                    elif answer.kind == "provider_timeout":
                        party.timed_out += 1
                    else:
                        party.failed += 1
                client.release(ticket, answer, now)
            elif what == ARRIVE:
                answer = arrive(now, rng)
                party.attempts += 1
                seconds = answer.seconds
                if now + seconds + down > sent_at + timeout:
                    if not answer.refused:
                        push(events, (sent_at + timeout + up, scheduled, LEAVE, party, None, answer, sent_at))
                        scheduled += 1
                    push(events, (sent_at + timeout, scheduled, BACK, party, ticket, GIVEN_UP, sent_at))
                else:
                    if not answer.refused:
                        push(events, (now + seconds, scheduled, LEAVE, party, None, answer, sent_at))
                        scheduled += 1
                    push(events, (now + seconds + down, scheduled, BACK, party, ticket, answer, sent_at))
                scheduled += 1
                continue
            elif what == LEAVE:
                leave(now)
                continue
            elif party.wakes_at == now:
                party.wakes_at = None
                client.wake(now)
            else:
                continue
            grant = client.grant
            while (ticket := grant(now)) is not None:
                party.in_flight += 1
                if distant:
                    push(events, (now + up, scheduled, ARRIVE, party, ticket, GIVEN_UP, now))
                else:
                    answer = arrive(now, rng)
                    party.attempts += 1
                    if answer.seconds > timeout:
                        answer = GIVEN_UP
                        push(events, (now + timeout, scheduled, DONE, party, ticket, answer, now))
                    else:
                        push(events, (now + answer.seconds, scheduled, DONE, party, ticket, answer, now))
                scheduled += 1
            wake = client.next_wake()
            if wake != party.wakes_at:
                if wake is not None:
                    # A hint may be so short that it is over at once.
                    assert wake >= now, f"a wake-up at {wake} was asked for at {now}"
                    push(events, (wake, scheduled, WAKE, party, None, GIVEN_UP, 0.0))
                    scheduled += 1
                party.wakes_at = wake
        self._scheduled = scheduled
        self.now = until

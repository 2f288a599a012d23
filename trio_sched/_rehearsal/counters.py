"""What a rehearsal provider counts, and the frozen views of it that are read in process and over HTTP.

Every request is counted once when it arrives and, if it was accepted, once when it is over. So at every moment

    requests = accepted + refused
    accepted = answered + failed + abandoned + in_flight

hold for a provider as a whole and for each of its domains and phases: a `Tally` keeps what cannot be derived and
derives the rest. A request belongs to the phase in which it arrived, also when it is over in a later one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal

import attrs

__all__ = ["CountersView", "Ending", "RefusalReason", "Tally", "TallyView"]

RefusalReason = Literal["concurrency", "rate", "window", "quota", "flood", "outage", "key", "unreachable"]
"""The limit that a request was above, or that every request is refused: a flood with 429, an outage with 503 or 529, a
key with 401 or 403, a provider that cannot be reached without a reply."""

Ending = Literal["answer", "error", "malformed", "hang", "bad_request", "abandoned"]
"""How an accepted request was over: what became of it, or that its client left before."""

_FAILURES: tuple[Ending, ...] = ("error", "malformed", "hang", "bad_request")


@attrs.frozen(kw_only=True)
class TallyView:
    """The counts of one provider, domain or phase.

    refused: by reason (`concurrency`, `rate`, `window`, `quota`, `flood`, `outage`, `key`, `unreachable`); zero
    entries are absent.
    failed: by kind (`error`, `malformed`, `hang`, `bad_request`); zero entries are absent. A hang counts as failed once
    its client has left.
    abandoned: requests whose client left while they were served.
    """

    requests: int
    accepted: int
    refused: Mapping[str, int]
    answered: int
    failed: Mapping[str, int]
    abandoned: int
    in_flight: int
    max_in_flight: int


@attrs.frozen(kw_only=True)
class CountersView(TallyView):
    """The counts of one provider since it was opened, also across scripts.

    phase: the name of the phase in force.
    by_domain, by_phase: the same counts for each domain (`chat`, `embedding`) and phase that has seen a request.
    """

    provider: str
    phase: str
    by_domain: Mapping[str, TallyView]
    by_phase: Mapping[str, TallyView]


@attrs.define(eq=False)
class Tally:
    """The counts as they are made."""

    accepted: int = 0
    max_in_flight: int = 0
    refused: Counter[RefusalReason] = attrs.field(factory=Counter[RefusalReason])
    endings: Counter[Ending] = attrs.field(factory=Counter[Ending])

    @property
    def in_flight(self) -> int:
        """Requests accepted and not over."""
        return self.accepted - sum(self.endings.values())

    def refuse(self, reason: RefusalReason) -> None:
        """Count a request that was refused as it arrived."""
        self.refused[reason] += 1

    def accept(self) -> None:
        """Count a request that was accepted as it arrived."""
        self.accepted += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)

    def finish(self, ending: Ending) -> None:
        """Count an accepted request as over."""
        self.endings[ending] += 1

    def view(self) -> TallyView:
        """The counts now."""
        return TallyView(
            requests=self.accepted + sum(self.refused.values()),
            accepted=self.accepted,
            refused={reason: count for reason, count in self.refused.items() if count},
            answered=self.endings["answer"],
            failed={ending: self.endings[ending] for ending in _FAILURES if self.endings[ending]},
            abandoned=self.endings["abandoned"],
            in_flight=self.in_flight,
            max_in_flight=self.max_in_flight,
        )

"""One rehearsal provider: who is in flight, what the script says now, and the verdict on every request that arrives.

Plain synchronous code with the time passed in, so that every script can be played through without a server or a clock.
A request takes two calls:

    verdict = provider.arrive("chat", now)      # Accepted holds a slot; Refused holds nothing
    provider.depart(verdict, "answer")          # gives the slot back, exactly once

`arrive` first lets the phases that are due start, then asks the limits in this order: the quota, a slot, room in the
window, a token. A request that is refused costs neither a token nor room. A lower concurrency limit takes nothing back;
it only grants nothing until the number in flight has fallen below it. The limits are the provider's: its models and
domains share them.

A phase starts with the request that finds it due, but one that is due by time has started at that time, so how a limit
moves in it does not depend on when somebody asks.

A provider that is gone for a while is one that nobody can ask. Whoever serves it asks when that begins and ends
(`gone_at`), and is called as phases start, for this may move that moment.

Every request is counted once when it arrives and, if it was accepted, once when it is over. So at every moment

    requests = accepted + refused
    accepted = answered + failed + abandoned + in_flight

hold for a provider as a whole and for each of its domains and phases: a `Tally` keeps what cannot be derived and
derives the rest. A request belongs to the phase in which it arrived, also when it is over in a later one.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import attrs

from trio_sched import _validation as check
from trio_sched._errors import InvalidValueError
from trio_sched._rehearsal.script import KEY_STATUSES, Fate, Phase, RehearsalScript, draw

__all__ = [
    "Accepted",
    "CountersView",
    "Ending",
    "FixedWindow",
    "Provider",
    "RefusalReason",
    "Refused",
    "Tally",
    "TallyView",
    "TokenBucket",
    "Verdict",
    "open_providers",
]

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


@attrs.define(eq=False)
class TokenBucket:
    """Tokens come back at `rate` per second up to `burst`; full at first, at time 0."""

    rate: float
    burst: int
    tokens: float = attrs.field(init=False)
    filled_at: float = attrs.field(default=0.0, kw_only=True)

    def __attrs_post_init__(self) -> None:
        self.tokens = self.burst

    def take(self, now: float) -> bool:
        """Take a token, if there is one."""
        self.tokens = min(self.burst, self.tokens + (now - self.filled_at) * self.rate)
        self.filled_at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def like(self, phase: Phase) -> bool:
        """Whether it is the bucket that the phase asks for."""
        return (self.rate, self.burst) == (phase.requests_per_second, phase.burst)


@attrs.define(eq=False)
class FixedWindow:
    """At most `quota` requests in each window of `seconds`; the first window starts at time 0."""

    quota: int
    seconds: float
    taken: int = attrs.field(default=0, init=False)
    index: int = attrs.field(default=0, init=False)

    def has_room(self, now: float, used_seconds: Callable[[float], float]) -> bool:
        """Whether one more fits. used_seconds: how many seconds' worth others have used up to a time."""
        index = int(now // self.seconds)
        if index != self.index:
            self.index = index
            self.taken = 0
        by_others = used_seconds(now) - used_seconds(index * self.seconds)
        return self.taken + 1 + by_others * self.quota / self.seconds <= self.quota

    def take(self) -> None:
        """Count one request in; `has_room` has found room for it."""
        self.taken += 1

    def like(self, phase: Phase) -> bool:
        """Whether it is the window that the phase asks for."""
        return (self.quota, self.seconds) == (phase.requests_per_window, phase.window_seconds)


_REASONS: dict[int, RefusalReason] = {429: "flood", **dict.fromkeys(KEY_STATUSES, "key")}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@attrs.frozen
class Refused:
    """A refusal, to be sent after `seconds`. limit: how many could have been in flight, where that is the reason."""

    reason: RefusalReason
    phase: Phase
    seconds: float
    limit: int | None = None


@attrs.frozen(eq=False)
class Accepted:
    """A slot, held until the request departs, which its latency lets happen after `seconds`."""

    domain: str
    phase: Phase
    seconds: float
    fate: Fate


Verdict: TypeAlias = "Accepted | Refused"


class Provider:
    """The state of one provider.

    Invariants: `_total.in_flight == len(_slots)`; the same sums hold over `_by_domain` and over `_by_phase`; the phase
    index only rises until the script is replaced.

    on_change: called whenever a phase or a script has started.
    """

    __slots__ = (
        "_accepted",
        "_accepted_before",
        "_bucket",
        "_by_domain",
        "_by_phase",
        "_index",
        "_limits_began_at",
        "_name",
        "_phase_started_at",
        "_received",
        "_script",
        "_slots",
        "_started_at",
        "_total",
        "_window",
        "on_change",
    )

    def __init__(self, name: str, script: RehearsalScript) -> None:
        self._name = name
        self._bucket: TokenBucket | None = None
        self._window: FixedWindow | None = None
        self.on_change: Callable[[], None] | None = None
        self._slots: set[Accepted] = set()
        self._total = Tally()
        self._by_domain: defaultdict[str, Tally] = defaultdict(Tally)
        self._by_phase: defaultdict[str, Tally] = defaultdict(Tally)
        self.replace_script(script)

    def __repr__(self) -> str:
        return f"<Provider {self._name!r} in phase {self.phase.name!r}, {len(self._slots)} in flight>"

    @property
    def name(self) -> str:
        """The provider's name."""
        return self._name

    @property
    def script(self) -> RehearsalScript:
        """The script in force."""
        return self._script

    @property
    def phase(self) -> Phase:
        """The phase in force. It moves on when a request arrives, not by looking."""
        return self._script.phases[self._index]

    def replace_script(self, script: RehearsalScript) -> None:
        """Start another script from its first phase. Whoever is in flight stays so, and the counters go on."""
        self._script = script
        self._received = 0
        self._accepted = 0
        self._started_at: float | None = None
        self._start_phase(0, 0.0)
        self._changed()

    def gone_at(self, now: float) -> tuple[bool, float]:
        """Whether nobody is there, and when that may change by time alone.

        Lets the phases start that are due by time. A script that begins with nobody there begins now.
        """
        if self._started_at is None and self.phase.gone_until:
            self._begin(now)
        self._advance(now, counts=False)
        if self._started_at is None:
            return False, math.inf
        back_at = self._phase_started_at + self.phase.gone_until
        if now < back_at:
            return True, min(back_at, self._due_at(self._index + 1))
        index, due_at = self._index + 1, self._phase_started_at
        while (due_at := max(due_at, self._due_at(index))) < math.inf and not self._script.phases[index].gone_until:
            index += 1
        return False, due_at

    @property
    def must_count(self) -> bool:
        """Whether requests are counted though nobody is there, since their number starts the next phase."""
        following = self._script.phases[self._index + 1 : self._index + 2]
        return self.phase.unreachable and bool(following) and following[0].after_seconds is None

    def arrive(self, domain: str, now: float) -> Verdict:
        """Count a request in, and accept or refuse it."""
        if self._started_at is None:
            self._begin(now)
        self._advance(now)
        phase = self.phase
        self._received += 1
        refused = self._refused(phase, now)
        tallies = (self._total, self._by_domain[domain], self._by_phase[phase.name])
        if refused is not None:
            for tally in tallies:
                tally.refuse(refused.reason)
            return refused
        self._accepted += 1
        latency, quantile = draw(self._script.seed, self._received)
        fate = phase.fate(quantile)
        accepted = Accepted(domain, phase, 0.0 if fate == "bad_request" else phase.latency.at(latency), fate)
        self._slots.add(accepted)
        for tally in tallies:
            tally.accept()
        return accepted

    def depart(self, accepted: Accepted, ending: Ending) -> None:
        """Give the slot back and count the request as over. A second time is an error in the caller: KeyError."""
        self._slots.remove(accepted)
        for tally in (self._total, self._by_domain[accepted.domain], self._by_phase[accepted.phase.name]):
            tally.finish(ending)

    def counters(self) -> CountersView:
        """The counts now."""
        return CountersView(
            **attrs.asdict(self._total.view(), recurse=False),
            provider=self._name,
            phase=self.phase.name,
            by_domain={domain: tally.view() for domain, tally in self._by_domain.items()},
            by_phase={phase: tally.view() for phase, tally in self._by_phase.items()},
        )

    def _begin(self, now: float) -> None:
        """Start the script's clock."""
        self._started_at = now
        self._start_phase(0, now)
        self._changed()

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()

    def _due_at(self, index: int) -> float:
        """When the phase is due by time, or infinity."""
        if index >= len(self._script.phases) or self._started_at is None:
            return math.inf
        after = self._script.phases[index].after_seconds
        return math.inf if after is None else self._started_at + after

    def _is_due(self, phase: Phase, now: float) -> bool:
        if phase.after_seconds is None or self._started_at is None:
            return False
        # Sum and difference round differently, and who waits for the one must not find that it is not yet time.
        return now - self._started_at >= phase.after_seconds or self._started_at + phase.after_seconds <= now

    def _advance(self, now: float, *, counts: bool = True) -> None:
        """Start every phase that is due. counts: also by the number of requests."""
        before = self._index
        self._start_due(now, counts)
        if self._index != before:
            self._changed()

    def _start_due(self, now: float, counts: bool) -> None:
        while self._index + 1 < len(self._script.phases):
            following = self._script.phases[self._index + 1]
            if self._is_due(following, now):
                due_at = min(now, max(self._phase_started_at, self._due_at(self._index + 1)))
            elif not counts:
                return
            elif (following.after_requests is not None and self._received >= following.after_requests) or (
                following.after_accepted is not None and self._accepted >= following.after_accepted
            ):
                due_at = now
            else:
                return
            self._start_phase(self._index + 1, due_at)

    def _start_phase(self, index: int, at: float) -> None:
        self._index = index
        self._phase_started_at = at
        phase = self.phase
        per_second, per_window = phase.requests_per_second, phase.requests_per_window
        keeps = phase.keeps_state and index > 0
        if not keeps:
            self._limits_began_at = at
            self._accepted_before = self._accepted
        if per_second is None:
            self._bucket = None
        elif not (keeps and self._bucket is not None and self._bucket.like(phase)):
            self._bucket = TokenBucket(per_second, phase.burst, filled_at=at - self._limits_began_at)
        if per_window is None:
            self._window = None
        elif not (keeps and self._window is not None and self._window.like(phase)):
            self._window = FixedWindow(per_window, phase.window_seconds)

    def _refused(self, phase: Phase, now: float) -> Refused | None:
        """Why the request may not be served, or None, and then it has taken a token and room in the window."""
        elapsed = now - self._limits_began_at
        if now - self._phase_started_at < phase.gone_until:
            return Refused("unreachable", phase, phase.refusal_seconds)
        if phase.refuse_all:
            return Refused(_REASONS.get(phase.refusal_status, "outage"), phase, phase.refusal_seconds)
        if phase.quota is not None and self._accepted - self._accepted_before >= phase.quota:
            return Refused("quota", phase, phase.refusal_seconds)
        limit = phase.limit_at(elapsed, self._script.seed)
        if limit is not None and len(self._slots) >= limit:
            return Refused("concurrency", phase, phase.refusal_seconds, limit)

        def used(until: float) -> float:
            return phase.used_by_neighbour(until, self._script.seed)

        if self._window is not None and not self._window.has_room(elapsed, used):
            return Refused("window", phase, phase.refusal_seconds)
        # What a neighbour uses is time in which the bucket does not refill.
        if self._bucket is not None and not self._bucket.take(elapsed - used(elapsed)):
            return Refused("rate", phase, phase.refusal_seconds)
        if self._window is not None:
            self._window.take()
        return None


def open_providers(scripts: Mapping[str, RehearsalScript]) -> dict[str, Provider]:
    """A provider for each script, under names that a path can have."""
    if not scripts:
        raise InvalidValueError("providers", dict(scripts), "at least one script by name")
    for name in scripts:
        if not _NAME.fullmatch(check.check_text("the name of a provider", name)) or name == "v1":
            raise InvalidValueError("the name of a provider", name, "letters, digits, '_', '-' or '.', and not 'v1'")
    return {name: Provider(name, script) for name, script in scripts.items()}

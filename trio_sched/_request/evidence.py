"""The limit of one request resource, learned by evidence: it counts what the provider accepts.

*Two facts* stand in for the constants of AIMD. When a provider refuses a burst, the calls that it accepted are still in
flight. Their number is its limit, so one permit is withdrawn for each refused call and nothing is multiplied. And one
call alone proves a level, its *witness*: the first that was granted with the level fully in use. Earlier calls say
nothing about the level, and a refusal may take longer than an answer. So a limit that is not used does not grow. A
witness may be slow by chance: when a few rounds of calls of the same level were answered before it, they prove it too.

*Search.* `current_limit` is the level in force, `refused_at` the lowest level that is believed to be refused. Below
that, each proof raises the level half-way to it. Where nothing is known to be refused, the step triples with each
proof, up to the level itself (binary search and maximum probing, as in BIC-TCP). The search stops once at `peak`, the
highest level that was proven lately.

*Probes are paid for.* One below `refused_at`, the rule asks for one more when it has the credit for it. Each answer
earns a share of a credit, and a refused probe costs a whole one. So curiosity costs the same share of calls whatever
the limit is. After a refusal, a tenth of the level stays free for a few rounds, as room for other clients.

*Falling.* The first refusal in a row withdraws one permit and stops nobody, whatever its hint. Each further one, with
nothing accepted in between, withdraws twice as many. That may be too many, so afterwards the search goes back, half of
the way to where the row began. At half of that level, the number of calls may not be the reason: it may be a rate limit
or an outage. Then everything stops for a moment, and a single *trial* call goes first. If it is answered, all others
follow. If it is refused, the number was not the reason, so now everybody waits for the hint, or for pauses that grow,
until the next trial. A trial that fails in another way shows nothing, and the next one pauses as well; one that hangs
makes room for one more call. After an outage the level is half of the peak.

*Doubt.* A rate limit refuses late, when more was proven than it can bear. A row of refusals raises the doubt; a probe
that is refused alone lowers it. In doubt the rule pays for a probe before it, and it asks for 1, 1, 2, 3, ... more.

*Rates.* An outage that comes again, and costs more refusals than a few in a hundred calls, is not one: the provider
counts calls in time. What it bears at once is then, by Little's law, the time that answered calls took divided by the
time that passed from the end of one outage to the end of the next, waiting included. That is the *sustained* level. The
limit returns to it after each refusal, and only above it, it pays: for the probe, and for all refusals that follow. The
rule was wrong where a probe up to that level is refused alone, as by a limit of calls at once. It was wrong too where
the sustained level was kept, an outage came all the same, and less was answered than that level promised. Then outages
are real, and from now on they have to cost twice as much before they count as a rate. And a rate would have shown
itself by now where nothing was refused for longer than the outages were apart: then it is asked for one more for
nothing, and forgotten once it bears clearly more.

*Timeouts.* A call that nobody answered in time was not served. One in twenty is tolerated; beyond that, as long as
other calls are answered, a timeout counts as a refusal without a hint.

                     refused: 1, then 2, 4, ... withdrawn          refused at half of the first level
      +--------+  --------------------------------->  +---------+  ------------------------>  +---------+
      |  open  |                                      | falling |                             | stopped | <-------+
      +--------+  <---------------------------------  +---------+                             +---------+         |
        ^  |  ^         accepted: half-way back                                                    | pause over   |
        |  |  |                                                                                    v              |
        +--+  |      answered, or not refused for as long as the pause                         +-------+ refused: |
   proof: up  +------------------------------------------------------------------------------- | trial | pause    |
   to search            after an outage: at half of the peak, or at the sustained level        +-------+ grows ---+

*Epochs.* What one burst says is one piece of news. A grant carries the number of the news that was the latest then. A
refusal of a call that was granted before the latest news only withdraws its permit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

from trio_sched import _validation as check
from trio_sched._request.limit import Grant, LimitTransition, LimitTransitionKind, RequestSample
from trio_sched._util import doubled

__all__ = ["DEFAULT_INITIAL_LIMIT", "EvidenceLimit"]

DEFAULT_INITIAL_LIMIT: Final = 16
"""One burst of this size reveals the limit of a provider that accepts less."""
CREDIT_PER_ANSWER: Final = 0.008
"""The share of calls that probes may cost."""
SHORTEST_ROUNDS: Final = 8
"""Between two probes, in rounds of `current_limit` answers, however large the level is."""
LONGEST_ROUNDS: Final = 30
"""The same, however small the level is: at 4 and below, growth is worth more than its share."""
HURRY: Final = 2
"""After a fall, and where a rate is known, answers earn so many times their share: at 24 and 8, .92 used, not .88."""
HURRIED_PROBES: Final = 8
"""Refused probes for which a fall is remembered: what the provider took away may come back."""
GROWTH: Final = 3
"""By what the step grows from proof to proof: from 4 to 500 in ten round trips."""
SPARED: Final = 10
"""After a refusal, one permit in so many stays free for a few rounds."""
PATIENT_ROUNDS: Final = 3
"""Rounds of answers that prove a level before its witness: with calls of up to 2 minutes 0.98 is used, without 0.89."""
FIRST_PAUSE: Final = 0.25
"""Seconds that the first stop of a row lasts: it asks whether the number of calls was the reason."""
SECOND_PAUSE: Final = 1.0
"""Seconds that the second one lasts; from then on they double. From 0.5, an outage of 10 s costs 5 trials, not 4."""
LONGEST_PAUSE: Final = 5.0
"""Seconds: an outage costs one call in 5 s, and its end is noticed within 5 s."""
MOST_DOUBT: Final = 4
"""Rows of refusals that are remembered."""
CAREFUL: Final = 4
"""Where probes are paid for in advance, one asks for at most one part in so many of the level."""
TOLERATED_REFUSALS: Final = 1 / 50
"""The share of refused calls between outages beyond which these count as a rate: 600 in 60 s, 1 % refused, not 7 %."""
ROUNDED_UP: Final = 0.75
"""Added before the sustained level is cut to a whole number: what was not asked for was not answered, so mostly up."""
KEPT: Final = 7 / 8
"""Of the sustained level, what a rate lets pass: with an outage of 10 s in each minute, 0.87 is used, not 0.35."""
CLEAN_CYCLES: Final = 3
"""Without a refusal for so many times as the outages were apart, a known rate is asked for one more for nothing."""
MOST_DEBT: Final = 8.0
"""Credits that refusals by a rate may cost in advance: at 60 calls a minute, 2.5 % refused, not 6 %."""
OVERDUE: Final = 3
"""A trial that is out for so many times as long as answers took lately hangs, and one more call may go."""
REMEMBERED: Final = 0.99
"""Of the longest recent answer, from one answer to the next."""
MOST_CREDIT: Final = 2.0
"""Credits, and timeouts, that can be saved up."""
TOLERATED_TIMEOUTS: Final = 1 / 20
"""The share of calls that may time out without consequence."""

_OURS: Final = frozenset({"local_cancelled", "unexpected_exception"})
_TIMEOUTS: Final = frozenset({"provider_timeout", "local_timeout"})


class EvidenceLimit:
    """The rule for one request resource. effective_max: at least 1. now: seconds.

    initial_limit: where the limit starts, by default 16, or at the effective maximum where that is lower.
    """

    __slots__ = (
        "_accepted",
        "_answered_since",
        "_balance",
        "_confirmed",
        "_credit",
        "_cycle",
        "_cycle_began",
        "_doubt",
        "_fell_from",
        "_had_outage",
        "_hurried",
        "_longest",
        "_overdue",
        "_paid",
        "_patience",
        "_peak",
        "_probed_last",
        "_proven",
        "_refused_at",
        "_refused_in_a_row",
        "_refused_last",
        "_served",
        "_step",
        "_stops",
        "_sustained",
        "_tolerated",
        "_trial",
        "_trial_rank",
        "_witness",
        "blocked_until",
        "current_limit",
        "effective_max",
        "epoch",
    )

    def __init__(self, effective_max: int, now: float = 0.0, *, initial_limit: int | None = None) -> None:
        check.check_int("EvidenceLimit.effective_max", effective_max, minimum=1)
        if initial_limit is not None:
            check.check_int("EvidenceLimit.initial_limit", initial_limit, minimum=1)
        self.effective_max: int = effective_max
        self.current_limit: int = min(effective_max, DEFAULT_INITIAL_LIMIT if initial_limit is None else initial_limit)
        self.blocked_until: float | None = None
        self.epoch: int = 0
        self._refused_at = math.inf
        # The highest level whose witness was answered, lowered with the level; and the highest lately.
        self._proven = 0
        self._peak = 0
        self._witness: Grant | None = None
        # Calls of the witness's level that were answered since it went out.
        self._answered_since = 0
        # Refusals since the last acceptance, the level at the first of them, and how many of them stopped everything.
        self._refused_in_a_row = 0
        self._fell_from = 0
        self._stops = 0
        # In flight at the latest news, less those of its burst that were refused since.
        self._accepted = math.inf
        self._credit = 1.0
        self._step = max(1, self.current_limit // 2)
        self._doubt = 0
        self._hurried = 0
        # Probes that were paid for since the latest refusal.
        self._paid = 0
        # Whether the latest refusal was that of a probe, with nothing refused before it.
        self._confirmed = False
        # Since the end of the latest outage: its time, the seconds of answered calls, what is tolerated less refusals.
        self._had_outage = False
        self._cycle_began = now
        self._served = 0.0
        self._balance = 0.0
        self._tolerated = TOLERATED_REFUSALS
        # What a rate bears at once, 0 while no rate is known, and the time between its outages.
        self._sustained = 0
        self._cycle = 0.0
        # When something was refused, and when a probe was made.
        self._refused_last = now
        self._probed_last = now
        self._patience = 1.0
        self._trial: Literal["none", "due", "out"] = "none"
        # When the trial has been out for too long, how many calls were in flight with it, and what answers took lately.
        self._overdue: float | None = None
        self._trial_rank = 0
        self._longest = 0.0

    def __repr__(self) -> str:
        return (
            f"<EvidenceLimit {self.current_limit}/{self.effective_max}, refused at {self._refused_at}, "
            f"blocked until {self.blocked_until}>"
        )

    @property
    def ceiling(self) -> int | None:
        """The lowest level that is believed to be refused, or None."""
        return None if self._refused_at == math.inf else int(self._refused_at)

    def granted(self, now: float, in_flight: int) -> Grant:
        """A call goes out. If it is the trial, nothing else goes out until it has ended, or was not refused in time."""
        trial = self._trial == "due"
        grant = Grant(self.epoch, in_flight, self.current_limit, trial)
        if self._witness is None and in_flight >= self.current_limit:
            self._witness, self._answered_since = grant, 0
        if trial:
            self._trial = "out"
            self.blocked_until = now + self._pause()
            self._overdue = now + max(self._pause(), OVERDUE * self._longest)
            self._trial_rank = in_flight
        return grant

    def ended(self, now: float, grant: Grant, sample: RequestSample) -> Sequence[LimitTransition]:
        """A call is over."""
        if not sample.in_flight:
            self._overdue = None
        if sample.outcome == "success":
            self._served += sample.seconds
            self._longest *= REMEMBERED
            if sample.seconds > self._longest:
                self._longest = sample.seconds
            self._balance += self._tolerated
            if self._credit < MOST_CREDIT:
                self._credit = min(MOST_CREDIT, self._credit + self._earned())
            if self._patience < MOST_CREDIT:
                self._patience = min(MOST_CREDIT, max(0.0, self._patience) + TOLERATED_TIMEOUTS)
            if grant.epoch != self.epoch or (
                self._witness is None and not self._refused_in_a_row and self._proven != self.current_limit
            ):
                return ()
            return self._answered(now, grant)
        if sample.refused:
            self._balance -= 1
            return self._refused(now, grant, sample.hint, sample.in_flight)
        if sample.outcome in _TIMEOUTS and self._is_out_of_patience():
            return self._refused(now, grant, None, sample.in_flight)
        # Failed or cancelled, which proves nothing about the number: the next call testifies, and the next trial goes.
        if grant is self._witness:
            self._witness = None
        if grant.trial and self._trial == "out" and grant.epoch == self.epoch:
            self._trial, self.blocked_until, self._overdue = "due", None, None
            if sample.outcome not in _OURS:
                self._stops += 1
                self.blocked_until = now + self._pause()
        return ()

    def advance(self, now: float) -> Sequence[LimitTransition]:
        """Let time pass until `now`: a stop ends, or a trial was not refused for as long as the pause was."""
        transitions: list[LimitTransition] = []
        if self.blocked_until is not None and now >= self.blocked_until:
            self.blocked_until = None
            if self._trial == "out":
                self._trial = "none"
        if self._overdue is not None and now >= self._overdue:
            self._overdue = None
            if self.current_limit <= self._trial_rank < self.effective_max:
                self._overdue = now + max(self._pause(), OVERDUE * self._longest)
                self._trial_rank += 1
                self._set(self._trial_rank, "probe_started", transitions)
                self._refused_at = max(self._refused_at, self.current_limit + 1)
        return transitions

    def next_deadline(self) -> float | None:
        """When `advance` next has something to do, or None."""
        if self.blocked_until is None:
            return self._overdue
        return self.blocked_until if self._overdue is None else min(self.blocked_until, self._overdue)

    def set_effective_max(self, effective_max: int) -> Sequence[LimitTransition]:
        """The cap changed. A limit above it comes down; one below it grows from where it is."""
        transitions: list[LimitTransition] = []
        self.effective_max = effective_max
        if self.current_limit > effective_max:
            self._set(effective_max, "decreased", transitions)
            self._proven = min(self._proven, effective_max)
        return transitions

    def _answered(self, now: float, grant: Grant) -> list[LimitTransition]:
        transitions: list[LimitTransition] = []
        level = self.current_limit
        if self._refused_in_a_row:
            self._recover(now, transitions)
            self._trial, self.blocked_until, self._overdue = "none", None, None
        witness = self._witness
        if witness is not None and grant.level == self.current_limit:
            self._answered_since += 1
            if grant is witness or self._answered_since >= PATIENT_ROUNDS * level:
                self._proven, self._accepted = self.current_limit, math.inf
                self._peak = max(self._peak, self._proven)
                if self._confirmed:
                    self._doubt, self._confirmed = max(0, self._doubt - 1), False
                    if self._fell_from <= self._sustained:
                        self._sustained, self._credit = 0, max(0.0, self._credit)
        if self._proven == self.current_limit < self.effective_max:
            if self._sustained:
                self._reconsider(now)
            self._grow(now, transitions)
        return transitions

    def _earned(self) -> float:
        """What an answer earns of a credit."""
        share = CREDIT_PER_ANSWER * HURRY if self._hurried or self._sustained else CREDIT_PER_ANSWER
        level = self.current_limit
        return max(1 / (LONGEST_ROUNDS * level), min(1 / (SHORTEST_ROUNDS * level), share))

    def _reconsider(self, now: float) -> None:
        """A rate would have refused by now: it is asked for one more, and forgotten if it bears clearly more."""
        quiet = now - max(self._refused_last, self._probed_last)
        if KEPT * self.current_limit > self._sustained:
            if quiet > self._cycle:
                self._sustained = self._doubt = 0
                self._credit = max(1.0, self._credit)
        elif quiet > CLEAN_CYCLES * self._cycle:
            self._credit = max(1.0, self._credit)

    def _recover(self, now: float, transitions: list[LimitTransition]) -> None:
        """The first call was accepted after refusals: how far back may the search go at once?"""
        if self._stops >= 2:
            self._end_outage(now, transitions)
        elif self._sustained and not self._confirmed:
            self._return_to(self._sustained)
        elif self._refused_in_a_row >= 2:
            self._return_to((self.current_limit + self._fell_from - 1) // 2)
        self._refused_in_a_row = self._stops = 0

    def _end_outage(self, now: float, transitions: list[LimitTransition]) -> None:
        average = self._served / max(FIRST_PAUSE, now - self._cycle_began)
        if self._sustained and self._peak >= self._sustained and average < KEPT * self._sustained:
            self._sustained, self._had_outage = 0, False
            self._tolerated = 2 * TOLERATED_REFUSALS
        elif self._sustained or (self._had_outage and self._balance < 0):
            if not self._sustained:
                self._credit = min(0.0, self._credit)
            lowest = max(1, self._sustained * 7 // 8)
            self._sustained = min(self.effective_max, max(lowest, int(average + ROUNDED_UP)))
        level = self.current_limit
        if self._sustained:
            # It counts as proven. Only its own witness makes it the peak: before, an outage says nothing about it.
            self._return_to(self._sustained)
            self._set(max(level, self._sustained), "recovered", transitions)
            self._proven, self._peak = self.current_limit, 0
        else:
            self._doubt, self._credit = -1, max(1.0, self._credit)
            self._refused_at = max(self._refused_at, self._peak + 1)
            self._set(max(level, min(self._peak // 2, self.effective_max)), "recovered", transitions)
        self._had_outage = True
        self._cycle = now - self._cycle_began
        self._cycle_began, self._served, self._balance = now, 0.0, 0.0

    def _return_to(self, level: int) -> None:
        """The search goes up to this level with each proof, and need not pay for it."""
        self._refused_at = max(self._refused_at, level + 1)
        self._step = 1

    def _refused(self, now: float, grant: Grant, hint: float | None, in_flight: int) -> list[LimitTransition]:
        transitions: list[LimitTransition] = []
        if grant.epoch != self.epoch:
            self._accepted -= 1
            if self._accepted + 1 < self._refused_at < math.inf:
                left = int(self._accepted)
                self._lower(min(left, self.current_limit), left, "decreased", transitions)
            return transitions
        level = self.current_limit
        probed = self._refused_in_a_row == 0 and level > self._proven > 0
        kept = min(in_flight, level)
        self.epoch += 1
        self._refused_in_a_row += 1
        self._refused_last = now
        self._overdue = None
        self._accepted = in_flight
        self._step = level
        self._confirmed = probed
        if self._refused_in_a_row == 1:
            self._fell_from = level
            self._paid = 0
            withdrawn = kept // SPARED
        else:
            self._doubt = min(MOST_DOUBT, self._doubt + (self._refused_in_a_row == 2))
            self._hurried = HURRIED_PROBES
            withdrawn = min(2 ** min(30, self._refused_in_a_row - 1) - 1, kept // 2)
        if probed:
            if self._hurried:
                self._hurried -= 1
            else:
                self._peak = max(kept, self._peak * 7 // 8)
        if probed or self._sustained:
            self._credit = max(-MOST_DEBT if self._sustained else min(0.0, self._credit), self._credit - 1)
        stops = in_flight == 0 or (self._refused_in_a_row > 1 and 2 * in_flight <= self._fell_from)
        self._stops += stops
        kind: LimitTransitionKind = (
            "outage" if stops and self._stops == 2 else "probe_refused" if probed else "decreased"
        )
        self._lower(kept - withdrawn, kept, kind, transitions)
        if stops:
            waits = hint if hint is not None and self._stops > 1 else 0.0
            self._trial, self.blocked_until = "due", now + max(waits, self._pause())
        return transitions

    def _is_out_of_patience(self) -> bool:
        """Whether a timeout is one too many. Without an answer since the last one that was, it says nothing new."""
        if self._patience < 0:
            return False
        self._patience -= 1
        return self._patience < 0

    def _pause(self) -> float:
        """How long the latest stop lasts where the provider names no time."""
        return FIRST_PAUSE if self._stops < 2 else doubled(SECOND_PAUSE, LONGEST_PAUSE, failures=self._stops - 1)

    def _grow(self, now: float, transitions: list[LimitTransition]) -> None:
        level, up = self.current_limit, self._step
        kind: LimitTransitionKind = "increased"
        if level + 1 < self._refused_at:
            if self._refused_at < math.inf:
                up = min(up, (int(self._refused_at) - level) // 2)
            elif level < self._peak <= level + up:
                up, self._step = self._peak - level, 0
        elif self._credit < 1:
            return
        else:
            up = self._step = 1
            kind = "probe_started"
            if self._sustained or self._doubt > 0:
                self._credit -= 1
                self._paid += 1
                up = max(1, min(self._paid - 1, level // CAREFUL))
                self._refused_at = level + up + 1
            else:
                self._refused_at = math.inf
        self._step = max(1, min(GROWTH * self._step, level))
        if kind == "probe_started":
            self._probed_last = now
        self._set(min(self.effective_max, level + up), kind, transitions)

    def _lower(self, level: int, kept: int, kind: LimitTransitionKind, transitions: list[LimitTransition]) -> None:
        self._witness = None
        self._refused_at = max(level, kept, 1) + 1
        self._set(max(1, level), kind, transitions)
        self._proven = min(self._proven, self.current_limit)

    def _set(self, level: int, kind: LimitTransitionKind, transitions: list[LimitTransition]) -> None:
        previous = self.current_limit
        if level != previous:
            self.current_limit, self._witness = level, None
        if level != previous or kind in ("outage", "recovered"):
            transitions.append(LimitTransition(kind, previous, level, self.ceiling))

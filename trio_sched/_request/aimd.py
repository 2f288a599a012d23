"""The adaptive limit of one request resource: additive increase, multiplicative decrease, in congestion epochs.

A provider's true limit is unknown and moves. The rule probes for it: a streak of successes raises the limit by a step,
a rate limit multiplies it by a factor below one and stops all calls for a cooldown.

*Epochs.* When a provider says no, it says so to many calls at once, all granted under the same limit. They are one
piece of news. Every lease carries the epoch in which it was granted; only a lease of the current epoch may lower the
limit, and by doing so opens the next epoch. A rate limit of an older epoch can still extend the cooldown.

*Cooldown.* `blocked_until` never moves earlier while it lasts: a rate limit without a hint cannot shorten the pause
that an earlier one asked for. It ends in `advance`, with the time passed in.

*Ramp.* With a ramp the limit starts at 1 and rises linearly to the initial limit. Successes during the ramp count
for nothing, and the first rate limit ends it for good: what was learned then stays.

*Recovery.* `ceiling` is the limit before the last decrease. Rising above it is the soft recovery; reaching the
effective maximum with the cooldown over is the full one. Both are returned by the transition that reaches them.

             rate limit (current epoch): floor(limit * factor), epoch + 1
      open  -------------------------------------------------------------->  cooling down
       | ^  <--------------------------------------------------------------      |  ^
       | |                 advance: now >= blocked_until                         |  |
       +-+ streak: limit + step, at most effective_max                           +--+ rate limit: later deadline,
                                                                                      lower if of the current epoch

Only `rate_limited` lowers the limit: failures, timeouts and cancellations say nothing about it here. This is the
classic rule (Chiu and Jain, 1989), complete; `evidence.py` is the default.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from trio_sched import _validation as check
from trio_sched._request.config import RequestAdmissionTuningConfig
from trio_sched._request.limit import Grant, LimitTransition, RequestSample

__all__ = ["AimdLimit"]


class AimdLimit:
    """The rule for one request resource. effective_max: at least 1. now: seconds, when a ramp begins.

    tuning: its parameters, by default those that were chosen by measurement. initial_limit: where the limit starts, by
    default at the effective maximum.
    """

    __slots__ = (
        "_initial_limit",
        "_ramp_started_at",
        "_recovering",
        "_tuning",
        "blocked_until",
        "ceiling",
        "current_limit",
        "effective_max",
        "epoch",
        "streak",
    )

    def __init__(
        self,
        effective_max: int,
        now: float = 0.0,
        *,
        tuning: RequestAdmissionTuningConfig | None = None,
        initial_limit: int | None = None,
    ) -> None:
        check.check_int("AimdLimit.effective_max", effective_max, minimum=1)
        if initial_limit is not None:
            check.check_int("AimdLimit.initial_limit", initial_limit, minimum=1)
        self._tuning = RequestAdmissionTuningConfig() if tuning is None else tuning
        self._initial_limit = initial_limit
        self._recovering = False
        self.effective_max: int = effective_max
        self.blocked_until: float | None = None
        self.ceiling: int | None = None
        self.epoch: int = 0
        self.streak: int = 0
        self._ramp_started_at: float | None = None
        self.current_limit: int = self.initial_limit
        if self._tuning.startup_ramp_seconds > 0 and self.current_limit > 1:
            self._ramp_started_at = now
            self.current_limit = 1

    def __repr__(self) -> str:
        return (
            f"<AimdLimit {self.current_limit}/{self.effective_max} epoch {self.epoch} "
            f"streak {self.streak} blocked until {self.blocked_until}>"
        )

    @property
    def initial_limit(self) -> int:
        """Where the limit starts, and where a ramp ends, under the present effective maximum."""
        return self.effective_max if self._initial_limit is None else min(self._initial_limit, self.effective_max)

    @property
    def ramping(self) -> bool:
        """Whether the start-up ramp is still under way."""
        return self._ramp_started_at is not None

    @property
    def cooling(self) -> bool:
        """Whether a cooldown is under way that `advance` has not ended."""
        return self.blocked_until is not None

    def cooldown_end(self, now: float, retry_after: float | None) -> float:
        """When the cooldown would end after a rate limit at `now`."""
        pause = retry_after if retry_after is not None and retry_after > 0 else self._tuning.cooldown_seconds
        end = now + pause
        return end if self.blocked_until is None else max(end, self.blocked_until)

    def next_deadline(self) -> float | None:
        """When `advance` next has something to do, or None."""
        step = self._next_ramp_step()
        if self.blocked_until is None:
            return step
        return self.blocked_until if step is None else min(step, self.blocked_until)

    def granted(self, now: float, in_flight: int) -> Grant:
        """A call goes out."""
        return Grant(self.epoch, in_flight, self.current_limit)

    def ended(self, now: float, grant: Grant, sample: RequestSample) -> Sequence[LimitTransition]:
        """A call is over. Only successes and rate limits count."""
        if sample.outcome == "success":
            return self.success(now)
        if sample.outcome == "rate_limited":
            return self.rate_limited(now, epoch=grant.epoch, retry_after=sample.hint)
        return ()

    def success(self, now: float) -> Sequence[LimitTransition]:
        """Count one success; a full streak raises the limit."""
        if self._ramp_started_at is not None or (self.blocked_until is not None and now < self.blocked_until):
            return ()
        self.streak += 1
        if self.streak < self._tuning.successes_until_increase:
            return ()
        self.streak = 0
        transitions: list[LimitTransition] = []
        self._raise_to(min(self.effective_max, self.current_limit + self._tuning.additive_increase_step), transitions)
        return transitions

    def rate_limited(self, now: float, *, epoch: int, retry_after: float | None = None) -> list[LimitTransition]:
        """A lease granted in `epoch` was refused by the provider at `now`."""
        transitions: list[LimitTransition] = []
        self._ramp_started_at = None
        self._recovering = True
        self.streak = 0
        self.blocked_until = self.cooldown_end(now, retry_after)
        if epoch == self.epoch:
            previous = self.current_limit
            self.epoch += 1
            self.ceiling = previous
            self.current_limit = max(1, math.floor(previous * self._tuning.multiplicative_decrease_factor))
            if self.current_limit < previous:
                transitions.append(LimitTransition("decreased", previous, self.current_limit, self.ceiling))
        return transitions

    def advance(self, now: float) -> list[LimitTransition]:
        """Let time pass until `now`: ramp steps, and the end of a cooldown."""
        transitions: list[LimitTransition] = []
        step = self._next_ramp_step()
        if step is not None and now >= step:
            self._ramp_until(now, transitions)
        if self.blocked_until is not None and now >= self.blocked_until:
            self.blocked_until = None
            self._note_full_recovery(transitions, self.current_limit)
        return transitions

    def set_effective_max(self, effective_max: int) -> list[LimitTransition]:
        """The cap changed. A limit above it comes down; one that no rate limit ever lowered follows it up."""
        self.effective_max = effective_max
        transitions: list[LimitTransition] = []
        previous = self.current_limit
        if previous > effective_max:
            self.current_limit = effective_max
            transitions.append(LimitTransition("decreased", previous, effective_max, self.ceiling))
            self._note_full_recovery(transitions, previous)
        elif self.ceiling is None and self._ramp_started_at is None and self.initial_limit > previous:
            self._raise_to(self.initial_limit, transitions)
        if self._ramp_started_at is not None and self._next_ramp_step() is None:
            self._ramp_started_at = None
        return transitions

    def _raise_to(self, limit: int, transitions: list[LimitTransition]) -> None:
        previous = self.current_limit
        if limit == previous:
            return
        self.current_limit = limit
        transitions.append(LimitTransition("increased", previous, limit, self.ceiling))
        if self.ceiling is not None and previous <= self.ceiling < limit:
            transitions.append(LimitTransition("soft_ceiling_recovered", previous, limit, self.ceiling))
        self._note_full_recovery(transitions, previous)

    def _note_full_recovery(self, transitions: list[LimitTransition], previous: int) -> None:
        if self._recovering and self.blocked_until is None and self.current_limit == self.effective_max:
            self._recovering = False
            transitions.append(LimitTransition("fully_recovered", previous, self.current_limit, self.ceiling))

    def _ramp_step_at(self, limit: int) -> float:
        assert self._ramp_started_at is not None
        share = (limit - 1) / (self.initial_limit - 1)
        return self._ramp_started_at + self._tuning.startup_ramp_seconds * share

    def _next_ramp_step(self) -> float | None:
        if self._ramp_started_at is None or self.current_limit >= self.initial_limit:
            return None
        return self._ramp_step_at(self.current_limit + 1)

    def _ramp_until(self, now: float, transitions: list[LimitTransition]) -> None:
        limit, target = self.current_limit, self.initial_limit
        while limit < target and self._ramp_step_at(limit + 1) <= now:
            limit += 1
        self._raise_to(limit, transitions)
        if limit == target:
            self._ramp_started_at = None

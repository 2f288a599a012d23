"""A limit rule with a witness beside it, who notes whatever admission or the rule did that it may not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from trio_sched._request.aimd import AimdLimit
from trio_sched._request.evidence import EvidenceLimit
from trio_sched._request.limit import Grant, LimitTransition, RequestLimit, RequestSample

__all__ = ["WatchedLimit"]

_SPARED: Final = 10
_TIMEOUTS: Final = frozenset({"provider_timeout", "local_timeout"})
_OF_THE_LIMIT: Final = frozenset({"increased", "decreased", "probe_started", "probe_refused", "outage", "recovered"})


@attrs.define(eq=False)
class _Burst:
    """Refusals of calls that were all out when the first of them came back.

    calls: those, by identity of their grants. least: what the limit may not fall below by the first refusal. kept: how
    many were in flight after it. is_first: whether a call that went out after the burst before was answered in between.
    """

    calls: frozenset[int]
    least: int = 0
    kept: int = 0
    refused: int = 0
    is_first: bool = True


class WatchedLimit:
    """Passes everything on to `rule`. Admission contains errors of a rule, so whatever is wrong goes to `faults`.

    honest: whether the rule is one of the project's own, of which more can be said. before_grant: called when a call
    goes out, with how many are in flight, before the rule hears of it.
    """

    def __init__(self, rule: RequestLimit, faults: list[str], *, honest: bool = True) -> None:
        self._rule = rule
        self._honest = honest
        self._now = -math.inf
        self._granted: dict[int, tuple[Grant, int]] = {}
        self._falls = 0
        self._falls_by_calls_of: dict[int, int] = {}
        self._burst = _Burst(frozenset())
        self._answered_since = True
        self._trial: Grant | None = None
        self._out = 0
        self.faults: list[str] = faults
        self.before_grant: Callable[[WatchedLimit, int], None] | None = None

    def __getattr__(self, name: str) -> object:
        return getattr(self._rule, name)

    @property
    def current_limit(self) -> int:
        return self._rule.current_limit

    @property
    def blocked_until(self) -> float | None:
        return self._rule.blocked_until

    def next_deadline(self) -> float | None:
        return self._rule.next_deadline()

    def granted(self, now: float, in_flight: int) -> Grant:
        self._pass_time(now)
        if self.before_grant is not None:
            self.before_grant(self, in_flight)
        self._out += 1
        self._check(self._out == in_flight, f"{in_flight} in flight, and {self._out} were granted and are not over")
        if not self._honest:
            return self._rule.granted(now, in_flight)
        until = self._rule.blocked_until
        self._check(until is None or until <= now, f"granted at {now}, stopped until {until}")
        grant = self._rule.granted(now, in_flight)
        self._granted[id(grant)] = (grant, self._falls)
        if grant.trial:
            until = self._rule.blocked_until
            self._check(until is not None and until > now, "a trial that stops nobody else")
            self._trial = grant
        return grant

    def ended(self, now: float, grant: Grant, sample: RequestSample) -> Sequence[LimitTransition]:
        self._pass_time(now)
        self._out -= 1
        self._check(self._out == sample.in_flight, f"{sample.in_flight} in flight, and {self._out} are not over")
        if not self._honest:
            return self._rule.ended(now, grant, sample)
        known = self._granted.pop(id(grant), None)
        self._check(known is not None, f"{grant} came back twice or was never given")
        before, until = self._rule.current_limit, self._rule.blocked_until
        transitions = self._rule.ended(now, grant, sample)
        self._check_transitions(transitions, before)
        if grant is self._trial:
            self._trial = None
        elif until is not None:
            now_until = self._rule.blocked_until
            self._check(now_until is not None and now_until >= until, "only a trial ends a stop before its time")
        fall = 0 if known is None else known[1]
        if isinstance(self._rule, AimdLimit):
            self._note_fall(fall, before)
        elif isinstance(self._rule, EvidenceLimit):
            self._note_evidence(id(grant), sample, before)
        return transitions

    def advance(self, now: float) -> Sequence[LimitTransition]:
        self._pass_time(now)
        if not self._honest:
            return self._rule.advance(now)
        before = self._rule.current_limit
        transitions = self._rule.advance(now)
        self._check_transitions(transitions, before)
        until, due = self._rule.blocked_until, self._rule.next_deadline()
        self._check(until is None or until > now, f"stopped until {until} at {now}")
        self._check(due is None or due > now, f"due at {due}, and not done at {now}")
        waits = until is not None or (isinstance(self._rule, EvidenceLimit) and self._out > 0)
        ramps = isinstance(self._rule, AimdLimit) and self._rule.ramping
        self._check(due is None or waits or ramps, f"due at {due} for nothing")
        return transitions

    def _note_fall(self, granted_after: int, before: int) -> None:
        """AIMD: all calls that were granted between two falls of the limit make it fall once."""
        if self._rule.current_limit < before:
            self._falls += 1
            caused = self._falls_by_calls_of[granted_after] = self._falls_by_calls_of.get(granted_after, 0) + 1
            self._check(caused <= 1, f"{caused} decreases by calls that were granted between the same two")

    def _note_evidence(self, call: int, sample: RequestSample, before: int) -> None:
        """Evidence: a burst leaves what stays in flight less a tenth, and each further refusal takes one permit."""
        if sample.outcome == "success":
            self._answered_since = self._answered_since or call not in self._burst.calls
            return
        if not sample.refused and sample.outcome not in _TIMEOUTS:
            return
        if call not in self._burst.calls:
            kept = min(sample.in_flight, before)
            first = sample.refused and self._answered_since
            self._burst = _Burst(frozenset(self._granted), kept - kept // _SPARED, sample.in_flight, is_first=first)
            self._answered_since = False
        burst = self._burst
        burst.is_first = burst.is_first and sample.refused
        least = max(1, min(burst.least, burst.kept - burst.refused))
        burst.refused += 1
        level = self._rule.current_limit
        self._check(not burst.is_first or level >= least, f"{level} left by refusal {burst.refused}, not {least}")

    def _check_transitions(self, transitions: Sequence[LimitTransition], before: int) -> None:
        """The changes that are told lead from the limit before to the limit now, step by step."""
        level = before
        for each in transitions:
            if each.kind in _OF_THE_LIMIT:
                self._check(each.previous == level, f"{each} begins at {level}")
                level = each.current
        now = self._rule.current_limit
        self._check(level == now, f"{list(transitions)} lead from {before} to {level}, and the limit is {now}")

    def _pass_time(self, now: float) -> None:
        self._check(now >= self._now, f"time went back from {self._now} to {now}")
        self._now = now

    def _check(self, holds: bool, fault: str) -> None:
        if not holds:
            self.faults.append(fault)

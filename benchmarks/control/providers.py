"""A scripted provider: a gate, how long calls take, how it refuses, and what else goes wrong."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Final

from benchmarks.control.call_times import CallTime
from benchmarks.control.gates import Gate
from benchmarks.control.simulator import Answer, AnswerKind

__all__ = ["Refusals", "ScriptedProvider"]

REFUSAL_SECONDS: Final = 0.05
BAD_SHARE_OF_CALL: Final = 0.1
"""What a call that fails with 400 takes of the time of one that does not."""


@dataclass(frozen=True)
class Refusals:
    """How a provider refuses.

    hints: seconds, in turn; (20, None) asks for 20 seconds every other time. honest: instead of these, the time until
    a call would be let in, times this factor. seconds: a refusal takes between so many and so many.
    """

    hints: tuple[float | None, ...] = (None,)
    honest: float | None = None
    seconds: tuple[float, float] = (REFUSAL_SECONDS, REFUSAL_SECONDS)
    kind: AnswerKind = "rate_limited"
    status: int = 429


class ScriptedProvider:
    """Lets calls in by its gate.

    in_outage: how it refuses while the gate allows nothing. bad: share of calls that fail fast with 400; they hold a
    place as any other. hung: share of calls that hold a place and are never answered.
    """

    def __init__(
        self,
        gate: Gate,
        call_time: CallTime,
        *,
        refusals: Refusals | None = None,
        in_outage: Refusals | None = None,
        bad: float = 0.0,
        hung: float = 0.0,
    ) -> None:
        self.gate = gate
        self.refused = 0
        self.sent_since = math.inf
        self.first_answer_at = math.inf
        self._draw = call_time.draw
        self._enter = gate.enter
        self.leave = gate.leave
        self._refusals = refusals or Refusals()
        self._in_outage = in_outage or self._refusals
        self._bad_until = bad
        self._hung_until = bad + hung
        self._faults = bad + hung > 0
        self._bad = Answer("provider_failure", BAD_SHARE_OF_CALL * call_time.mean, status=400)
        self._hung = Answer("success", math.inf)

    def watch(self, now: float) -> None:
        """Note when the first call that is sent from now on is answered."""
        self.sent_since, self.first_answer_at = now, math.inf

    def arrive(self, now: float, rng: random.Random) -> Answer:
        """Let it in while the gate has room."""
        if not self._enter(now):
            return self._refuse(now, rng)
        if self._faults:
            fate = rng.random()
            if fate < self._hung_until:
                return self._bad if fate < self._bad_until else self._hung
        return Answer("success", self._draw(rng))

    def answered(self, sent_at: float, answer: Answer, now: float) -> None:
        """The call came back with a success."""
        if sent_at >= self.sent_since and self.first_answer_at == math.inf:
            self.first_answer_at = now

    def _refuse(self, now: float, rng: random.Random) -> Answer:
        how = self._in_outage if self.gate.allowed == 0 else self._refusals
        hint = how.hints[self.refused % len(how.hints)] if how.honest is None else how.honest * self.gate.wait(now)
        self.refused += 1
        shortest, longest = how.seconds
        seconds = shortest if shortest == longest else rng.uniform(shortest, longest)
        return Answer(how.kind, seconds, hint, True, how.status)

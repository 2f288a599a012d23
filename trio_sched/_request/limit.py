"""What a limit rule is: one request resource's answer to "how many calls at once", learned from how calls end.

A rule is pure. It is passed the time, it never waits, and it knows nothing of leases, queues or providers. Admission
reports to it, in the order in which things happen:

    granted   a call goes out; the rule returns a `Grant`, which stays on the lease
    ended     that call is over; the rule gets its grant back, with a `RequestSample` of how it ended
    advance   time has passed, at `next_deadline()` or later

and reads `current_limit`, the most calls that may be in flight, and `blocked_until`, the time before which nothing goes
out at all. Whatever a rule decided it returns as `LimitTransition`s, from which events are made.

Admission does not trust a rule: a limit that is no integer between 1 and the effective maximum, or an exception, is
reported once with the endpoint's name, and the last good value stays in force; see `state.py`.

The simplest rule is `FixedLimit`, for whoever knows what the provider allows: its limit stays where it is. Refusals
lower nothing and stop nobody; a refused call yields to the others, as under every rule. Only when a whole level of
calls in a row was refused, at least three, or a call with nothing else in flight, does everything stop. Then it is as
under `evidence.py`: for a moment at first, after which a single trial call goes; if that is refused too, for the
provider's hint or a pause that doubles, whichever is longer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias, get_args

import attrs
import msgspec

from trio_sched import _validation as check
from trio_sched._errors import InvalidValueError
from trio_sched._resources.request import RequestOutcomeKind
from trio_sched._util import doubled

__all__ = [
    "LIMIT_NAMES",
    "FixedLimit",
    "Grant",
    "LimitChoice",
    "LimitFactory",
    "LimitName",
    "LimitTransition",
    "LimitTransitionKind",
    "RequestLimit",
    "RequestSample",
    "limit_name",
]

LimitName = Literal["evidence", "aimd", "fixed"]
LIMIT_NAMES: Final[tuple[str, ...]] = get_args(LimitName)

LimitTransitionKind = Literal[
    "increased",
    "decreased",
    "probe_started",
    "probe_refused",
    "outage",
    "recovered",
    "soft_ceiling_recovered",
    "fully_recovered",
]
_KINDS: Final[tuple[str, ...]] = get_args(LimitTransitionKind)


class Grant(msgspec.Struct, frozen=True):
    """What a lease keeps of its grant.

    epoch: the number of the latest news when it was granted. rank: how many calls were in flight, this one included.
    level: the limit at that moment. trial: whether everybody else waits for how this call ends; only such a grant may
    change `blocked_until`.
    """

    epoch: int
    rank: int
    level: int
    trial: bool = False


class RequestSample(NamedTuple):
    """How one call ended.

    outcome: as it was classified. hint: seconds after which the provider wants to see the call again, or None.
    seconds: from the grant to the end. work: output tokens where they are known, else None. in_flight: calls of the
    same resource that were still in flight when this one ended. refused: whether the provider turned the call away, by
    a rate limit or as overloaded.
    """

    outcome: RequestOutcomeKind
    hint: float | None = None
    seconds: float = 0.0
    work: float | None = None
    in_flight: int = 0
    refused: bool = False


def _is_kind(instance: object, attribute: attrs.Attribute[LimitTransitionKind], value: object) -> None:
    if value not in _KINDS:
        raise InvalidValueError("LimitTransition.kind", value, f"one of {', '.join(_KINDS)}")


@attrs.frozen
class LimitTransition:
    """One decision of a rule: the limit before and after it, and the least that the rule believes to be refused."""

    kind: LimitTransitionKind = attrs.field(validator=_is_kind)
    previous: int = attrs.field(validator=check.positive_int)
    current: int = attrs.field(validator=check.positive_int)
    ceiling: int | None = attrs.field(default=None, validator=check.optional_positive_int)


class RequestLimit(Protocol):
    """A rule for the limit of one request resource.

    A rule that has `set_effective_max(effective_max)` too is called when the cap changes, and returns its transitions;
    for any other the limit is cut off at the new cap.
    """

    @property
    def current_limit(self) -> int:
        """The most calls that may be in flight, from 1 to the effective maximum."""
        ...

    @property
    def blocked_until(self) -> float | None:
        """The time before which nothing may go out, in seconds on the run's clock, or None.

        Whatever the rule says of it later, a stop is over at its time.
        """
        ...

    def granted(self, now: float, in_flight: int) -> Grant:
        """A call goes out; with it, `in_flight` calls are out.

        What changes here is seen at once if the grant is marked as a trial, else when a call ends or in `advance`.
        """
        ...

    def ended(self, now: float, grant: Grant, sample: RequestSample) -> Sequence[LimitTransition]:
        """The call with this grant is over."""
        ...

    def advance(self, now: float) -> Sequence[LimitTransition]:
        """Let time pass until `now`."""
        ...

    def next_deadline(self) -> float | None:
        """When `advance` next has something to do, or None."""
        ...


LimitFactory: TypeAlias = Callable[[int, float], RequestLimit]
"""Makes the rule of one request resource, out of its effective maximum and the time."""

LimitChoice: TypeAlias = LimitName | LimitFactory


def limit_name(choice: LimitChoice) -> str:
    """How a rule is shown: its name, or the qualified name of what makes it."""
    if isinstance(choice, str):
        return choice
    named = choice if hasattr(choice, "__qualname__") else type(choice)
    return f"{named.__module__}.{named.__qualname__}"


# The simplest rule

FEWEST_IN_A_ROW: Final = 3
FIRST_PAUSE: Final = 0.25
SECOND_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 5.0
"""All in seconds, as in `evidence.py`."""


class FixedLimit:
    """The effective maximum, or a lower `level`, for ever. now: unused, so that the class is a factory of rules."""

    __slots__ = ("_is_trial_due", "_level", "_refused_in_a_row", "_stops", "blocked_until", "effective_max")

    def __init__(self, effective_max: int, now: float = 0.0, *, level: int | None = None) -> None:
        check.check_int("FixedLimit.effective_max", effective_max, minimum=1)
        if level is not None:
            check.check_int("FixedLimit.level", level, minimum=1)
        self._level = level
        self._refused_in_a_row = 0
        self._stops = 0
        self._is_trial_due = False
        self.effective_max: int = effective_max
        self.blocked_until: float | None = None

    def __repr__(self) -> str:
        return f"<FixedLimit {self.current_limit}, blocked until {self.blocked_until}>"

    @property
    def current_limit(self) -> int:
        """The level, or the effective maximum where that is lower."""
        return self.effective_max if self._level is None else min(self._level, self.effective_max)

    def granted(self, now: float, in_flight: int) -> Grant:
        """A call goes out. If it is the trial, nothing else goes out for as long as the pause was."""
        if not self._is_trial_due:
            return Grant(0, in_flight, self.current_limit)
        self._is_trial_due = False
        self.blocked_until = now + self._pause()
        return Grant(0, in_flight, self.current_limit, trial=True)

    def ended(self, now: float, grant: Grant, sample: RequestSample) -> Sequence[LimitTransition]:
        """A call is over. A stop neither ends nor gets shorter for one that went out before it."""
        if sample.outcome == "success":
            if self._refused_in_a_row and (grant.trial or self.blocked_until is None):
                self._refused_in_a_row = self._stops = 0
                self._is_trial_due, self.blocked_until = False, None
        elif sample.refused:
            self._refused_in_a_row += 1
            in_a_row = max(self.current_limit, FEWEST_IN_A_ROW)
            if grant.trial or sample.in_flight == 0 or (not self._stops and self._refused_in_a_row >= in_a_row):
                self._stops += 1
                waits = sample.hint or 0.0 if self._stops > 1 else 0.0
                until = now + max(waits, self._pause())
                self._is_trial_due, self.blocked_until = True, max(until, self.blocked_until or until)
        elif grant.trial and self.blocked_until is not None:
            self._is_trial_due = True
        return ()

    def advance(self, now: float) -> Sequence[LimitTransition]:
        """Let time pass until `now`: a stop may be over."""
        if self.blocked_until is not None and now >= self.blocked_until:
            self.blocked_until = None
        return ()

    def next_deadline(self) -> float | None:
        """The end of a stop."""
        return self.blocked_until

    def set_effective_max(self, effective_max: int) -> Sequence[LimitTransition]:
        """The cap changed, and the limit with it where it was at the cap."""
        previous = self.current_limit
        self.effective_max = effective_max
        current = self.current_limit
        if current == previous:
            return ()
        return (LimitTransition("increased" if current > previous else "decreased", previous, current),)

    def _pause(self) -> float:
        """How long the latest stop lasts where the provider names no longer time."""
        return FIRST_PAUSE if self._stops < 2 else doubled(SECOND_PAUSE, LONGEST_PAUSE, failures=self._stops - 1)

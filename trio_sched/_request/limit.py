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
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias, get_args

import attrs
import msgspec

from trio_sched import _validation as check
from trio_sched._errors import InvalidValueError
from trio_sched._resources.request import RequestOutcomeKind

__all__ = [
    "LIMIT_NAMES",
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

"""The limit of one request resource that is in force, the rule that learns it, and which rule that is.

*Two values.* The rule learns as soon as a lease comes back, because what is in flight at that moment is evidence. What
it decided is put into force a moment later, by the supervisor. So `learned` is the rule's latest limit, and
`current_limit` is the one in force, which snapshots and the limiter show. A stop is in force at once: `blocked_until`
is always the rule's.

*Anybody's rule.* A rule may come from outside, so nothing that it says is believed unseen. An exception, a limit that
is no integer between 1 and the effective maximum, a time that is no finite number, or a deadline that stays in the past
is reported once, with the name of the resource and the value. Then the last good value stays in force, and admission
goes on.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from typing import Final, cast, get_args

from trio_sched._errors import InvalidTypeError, InvalidValueError, shown
from trio_sched._request.aimd import AimdLimit
from trio_sched._request.config import RequestAdmissionConfig
from trio_sched._request.evidence import EvidenceLimit
from trio_sched._request.limit import (
    FixedLimit,
    Grant,
    LimitChoice,
    LimitFactory,
    LimitTransition,
    LimitTransitionKind,
    RequestLimit,
    RequestSample,
)
from trio_sched._resources.identity import ProviderModelKey, RequestResourceKey

__all__ = ["AdaptiveRequestLimitState", "RuleMaker", "made_by"]

logger = logging.getLogger("trio_sched.request")

_MEMBERS: Final = ("granted", "ended", "advance", "next_deadline", "current_limit", "blocked_until")
_KINDS: Final = frozenset(get_args(LimitTransitionKind))
_LONGEST_SHOWN: Final = 200
_NOTHING: Final[tuple[LimitTransition, ...]] = ()


def made_by(factory: LimitFactory, owner: str, effective_max: int, now: float) -> RequestLimit:
    """The rule that `factory` makes for `owner`, an endpoint or resource.

    Raises `InvalidTypeError` for anything that is no `RequestLimit`, and `InvalidValueError` where the factory raises
    or the limit begins outside of 1 and effective_max.
    """
    field = f"the limit of {owner}"
    try:
        rule = cast("object", factory(effective_max, now))
        missing = [name for name in _MEMBERS if not hasattr(rule, name)]
        level: object = None if missing else getattr(rule, "current_limit", None)
    except Exception as error:
        raised = shown(error, longest=_LONGEST_SHOWN)
        expected = f"made by a function that takes (effective_max, now), not one that raises {raised}"
        raise InvalidValueError(field, factory, expected) from error
    if missing:
        raise InvalidTypeError(field, rule, f"a RequestLimit, which also has {', '.join(missing)}")
    if not _is_level(level, effective_max):
        raise InvalidValueError(field, level, f"an int from 1 to {effective_max} at first")
    return cast("RequestLimit", rule)


class AdaptiveRequestLimitState:
    """The limit of `resource` in force, at most effective_max, and what the rule has learned since.

    consecutive_rate_limits counts since the last success outside a stop. has_news: whether the last call of the rule
    changed anything that others have to hear of; whoever takes that up resets it.
    """

    __slots__ = (
        "_announced",
        "_faults",
        "_resource",
        "_rule",
        "blocked_until",
        "consecutive_rate_limits",
        "current_limit",
        "deadline",
        "effective_max",
        "has_news",
        "learned",
    )

    def __init__(self, resource: RequestResourceKey, rule: RequestLimit, *, effective_max: int, now: float) -> None:
        self._resource = resource
        self._rule = rule
        self._faults: set[str] = set()
        self.effective_max: int = effective_max
        self.consecutive_rate_limits: int = 0
        self.blocked_until: float | None = None
        self.deadline: float | None = None
        self.has_news: bool = False
        self.current_limit: int = 1
        self.learned: int = 1
        self._look(self._rule, now)
        self._announced: int = self.learned
        self.put_in_force()

    def __repr__(self) -> str:
        return (
            f"<AdaptiveRequestLimitState {self.current_limit}/{self.effective_max} of {self._resource}: {self._rule!r}>"
        )

    @property
    def rule(self) -> RequestLimit:
        """The rule; for reading."""
        return self._rule

    @property
    def ceiling(self) -> int | None:
        """The least that the rule believes to be refused, where it says so."""
        return self._said("ceiling")

    @property
    def epoch(self) -> int:
        """The number of the rule's latest news, where it counts them."""
        return self._said("epoch") or 0

    def granted(self, now: float, in_flight: int) -> Grant:
        """A call goes out; with it, `in_flight` calls are out."""
        try:
            grant: object = self._rule.granted(now, in_flight)
        except Exception as error:
            grant = error
        if isinstance(grant, Grant):
            if grant.trial:
                self._look(self._rule, now)
            return grant
        self._report("granted", grant)
        return Grant(0, in_flight, self.current_limit)

    def ended(self, now: float, grant: Grant, sample: RequestSample) -> Sequence[LimitTransition]:
        """A call is over."""
        rule = self._rule
        try:
            returned = rule.ended(now, grant, sample)
        except Exception as error:
            returned = self._report("ended", error)
        self._look(rule, now)
        if sample.outcome == "success":
            if self.blocked_until is None:
                self.consecutive_rate_limits = 0
        elif sample.outcome == "rate_limited":
            self.consecutive_rate_limits += 1
        return self._checked(returned) if returned or self.learned != self._announced else _NOTHING

    def advance(self, now: float) -> Sequence[LimitTransition]:
        """Let time pass until `now`."""
        try:
            returned = self._rule.advance(now)
        except Exception as error:
            returned = self._report("advance", error)
        self._look(self._rule, now)
        if self.deadline is not None and self.deadline <= now:
            self._report("next_deadline", self.deadline)
            self.deadline = self.blocked_until
        return self._checked(returned)

    def set_effective_max(self, effective_max: int, now: float) -> Sequence[LimitTransition]:
        """The cap changed."""
        self.effective_max = effective_max
        returned: object = _NOTHING
        change: object = getattr(self._rule, "set_effective_max", None)
        if callable(change):
            try:
                returned = change(effective_max)
            except Exception as error:
                returned = self._report("set_effective_max", error)
        self.learned = min(self.learned, effective_max)
        self._look(self._rule, now)
        return self._checked(returned)

    def put_in_force(self) -> None:
        """From now on what the rule has learned is in force."""
        self.current_limit = self.learned
        self.has_news = False

    def _said(self, name: str) -> int | None:
        """An attribute that a rule may have."""
        try:
            value: object = getattr(self._rule, name, None)
        except Exception as error:
            self._report(name, error)
            return None
        return value if isinstance(value, int) else None

    def _look(self, rule: RequestLimit, now: float) -> None:
        """Read what the rule says now. Whatever it says, a stop ends at its time, and somebody wakes up for that."""
        try:
            level, until, deadline = rule.current_limit, rule.blocked_until, rule.next_deadline()
            if deadline is not None and not _is_time(deadline):
                self._report("next_deadline", deadline)
                deadline = self.deadline
            if until is not None:
                if not _is_time(until):
                    self._report("blocked_until", until)
                    until = self.blocked_until
                if until is not None and until <= now:
                    until = None
                elif until is not None and (deadline is None or until < deadline):
                    deadline = until
        except Exception as error:
            self._report("current_limit, blocked_until or next_deadline", error)
            level, until, deadline = self.learned, self.blocked_until, self.deadline
            if until is not None and until <= now:
                until = None
        if level != self.learned or until != self.blocked_until or deadline != self.deadline:
            self._take(level, until, deadline)

    def _take(self, level: object, until: float | None, deadline: float | None) -> None:
        """Take over what the rule says differently, as far as it can be used."""
        if level != self.learned:
            if _is_level(level, self.effective_max):
                self.learned = cast("int", level)
                self.has_news = True
            else:
                self._report("current_limit", level)
        if until != self.blocked_until:
            self.blocked_until = until
            self.has_news = True
        if deadline != self.deadline:
            self.deadline = deadline
            self.has_news = True

    def _checked(self, returned: object) -> Sequence[LimitTransition]:
        """The transitions that a rule returned, and one of its limit's own if none of them leads to the limit."""
        transitions: list[LimitTransition] = []
        for each in cast("Iterable[object]", returned) if isinstance(returned, list | tuple) else ():
            if isinstance(each, LimitTransition) and each.kind in _KINDS:
                transitions.append(each)
            else:
                self._report("transitions", each)
        before, self._announced = self._announced, self.learned
        if self.learned != before and not any(each.previous != each.current == self.learned for each in transitions):
            kind: LimitTransitionKind = "increased" if self.learned > before else "decreased"
            transitions.append(LimitTransition(kind, before, self.learned, self.ceiling))
        return transitions

    def _report(self, what: str, value: object) -> tuple[()]:
        """Log, once for each `what`, that the rule said something that cannot be used."""
        if what not in self._faults:
            self._faults.add(what)
            logger.warning(
                "The limit rule %s of %s cannot be used as it is: %s was %s. The limit of %d stays in force.",
                type(self._rule).__qualname__,
                self._resource,
                what,
                shown(value, longest=_LONGEST_SHOWN),
                self.learned,
                exc_info=value if isinstance(value, Exception) else None,
            )
        return ()


def _is_level(value: object, effective_max: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= effective_max


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class RuleMaker:
    """Makes rules under one configuration.

    A factory is called when its endpoint is registered, so that one that cannot be used is refused before anything
    goes out. What it made then becomes the rule of the first resource that needs it.
    """

    __slots__ = ("_config", "_made")

    def __init__(self, config: RequestAdmissionConfig) -> None:
        self._config = config
        self._made: dict[ProviderModelKey, tuple[LimitFactory, int, RequestLimit]] = {}

    def prepare(self, choice: LimitChoice, endpoint: ProviderModelKey, cap: int, now: float) -> None:
        """See that `choice` can make a rule for `endpoint`. Raises `InvalidValueError` or `InvalidTypeError`."""
        if isinstance(choice, str):
            return
        made = self._made.get(endpoint)
        if made is None or made[:2] != (choice, cap):
            self._made[endpoint] = (choice, cap, made_by(choice, str(endpoint), cap, now))

    def make(self, choice: LimitChoice, resource: RequestResourceKey, effective_max: int, now: float) -> RequestLimit:
        """The rule of `resource`. Never raises: where a factory fails now, its resource gets the default rule."""
        initial_limit = self._config.initial_limits.get(resource)
        if choice == "aimd":
            return AimdLimit(effective_max, now, tuning=self._config.tuning(), initial_limit=initial_limit)
        if choice == "fixed":
            return FixedLimit(effective_max, now, level=initial_limit)
        if not isinstance(choice, str):
            factory, cap, rule = self._made.pop(resource.provider_model_key, (None, 0, None))
            if rule is not None and factory is choice and cap == effective_max:
                return rule
            try:
                return made_by(choice, str(resource), effective_max, now)
            except ValueError:
                logger.exception("%s is limited by the default rule, since its own cannot be made", resource)
        return EvidenceLimit(effective_max, now, initial_limit=initial_limit)

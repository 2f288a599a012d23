"""Scripts of rehearsal providers: values only, whose one piece of behaviour is to be drawn from.

A `RehearsalScript` is a sequence of `Phase`s. The first is in force from the start. Every later one names what starts
it and starts as soon as one of its triggers is reached: so many requests received, so many accepted, or so many seconds
since the first request. Phases start in the order written and never come back; a phase whose trigger is reached while
an earlier one has not started waits for that one.

Whatever is random is drawn from a hash of the script's seed and the request's number, never from a shared generator. So
what happens to request 17 depends neither on what happened to requests 1 to 16 nor on the process that serves it.

Limits may move within a phase: a concurrency limit drifts (`Drift`), a neighbour takes a part of every limit
(`Neighbour`). Both are functions of the seconds since the phase started and of a key made of the script's seed and the
phase's name. So nothing is kept, and it does not matter who looks, or how often. What is random about them is a row of
coins, one for each step or interval: the first coins fall the same way however many are tossed after them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any, Final, Literal, TypeAlias, cast, get_args

import attrs

from trio_sched import _validation as check
from trio_sched._errors import InvalidTypeError, InvalidValueError

__all__ = [
    "KEY_STATUSES",
    "Drift",
    "Fate",
    "HintPlace",
    "Latency",
    "MalformedForm",
    "Neighbour",
    "Phase",
    "RehearsalScript",
    "draw",
    "heads",
    "long_enough",
]

Fate = Literal["answer", "error", "malformed", "hang", "bad_request"]
"""What becomes of an accepted request: an answer, a 5xx, a 200 with a broken body, no reply at all, a 400 at once."""

MalformedForm: TypeAlias = Literal["half", "cut", "reset", "html", "empty"]

HintPlace: TypeAlias = Literal[
    "retry-after",
    "retry-after-ms",
    "retry-after-date",
    "retry-after-epoch",
    "x-ratelimit-reset-requests",
    "anthropic-ratelimit-requests-reset",
    "retryDelay",
    "message",
]

KEY_STATUSES: Final = (401, 403, 404)
"""The statuses by which a provider says that a key is not valid, or that there is no such model."""

_STANDARD_NORMAL = NormalDist()


def draw(seed: int, number: int) -> tuple[float, float]:
    """Two independent uniform numbers, each strictly between 0 and 1, for one request of one script."""
    digest = hashlib.blake2b(b"%d:%d" % (seed, number), digest_size=16).digest()
    # 52 bits and a half step: every value is a float of its own, and neither 0 nor 1 can come out.
    return (
        ((int.from_bytes(digest[:8], "big") >> 12) + 0.5) * 2.0**-52,
        ((int.from_bytes(digest[8:], "big") >> 12) + 0.5) * 2.0**-52,
    )


@attrs.frozen(kw_only=True)
class Latency:
    """How many seconds an accepted request takes, never fewer than `minimum` nor more than `maximum`.

    `mean` is that of the distribution before these cut it. `sigma` is the standard deviation: in seconds for `normal`,
    of the logarithm for `lognormal` (0.5 is a long but tame tail). With 0 every request takes `mean`.
    """

    mean: float = attrs.field(default=0.02, validator=check.non_negative_finite)
    sigma: float = attrs.field(default=0.0, validator=check.non_negative_finite)
    minimum: float = attrs.field(default=0.0, validator=check.non_negative_finite)
    maximum: float | None = attrs.field(default=None, validator=check.optional_non_negative_finite)
    shape: Literal["lognormal", "normal"] = attrs.field(
        default="lognormal", validator=check.one_of("lognormal", "normal")
    )

    def __attrs_post_init__(self) -> None:
        if self.maximum is not None and self.maximum < self.minimum:
            raise InvalidValueError("Latency.maximum", self.maximum, f"at least minimum, which is {self.minimum}")

    def at(self, quantile: float) -> float:
        """The latency below which the share `quantile` of requests lies; strictly between 0 and 1."""
        seconds = max(self._uncut(quantile), self.minimum)
        return seconds if self.maximum is None else min(seconds, self.maximum)

    def _uncut(self, quantile: float) -> float:
        if self.sigma == 0 or self.mean == 0:
            return self.mean
        deviation = self.sigma * _STANDARD_NORMAL.inv_cdf(quantile)
        if self.shape == "normal":
            return self.mean + deviation
        return self.mean * math.exp(deviation - self.sigma**2 / 2)


_SHORTEST_SECONDS = 0.01


def heads(key: str, tosses: int) -> int:
    """How many of the first `tosses` coins of `key` show heads."""
    row = hashlib.shake_128(key.encode("utf-8", "surrogatepass")).digest((tosses + 7) // 8)
    return (int.from_bytes(row, "big") >> (-tosses % 8)).bit_count()


def long_enough(instance: object, attribute: attrs.Attribute[float], value: object) -> None:
    """Attrs validator: seconds that are long enough to be counted, since time is cut into intervals of them."""
    check.check_finite(
        f"{type(instance).__name__}.{attribute.name}",
        value,
        expected=f"a finite number of at least {_SHORTEST_SECONDS}",
        accept=lambda number: number >= _SHORTEST_SECONDS,
    )


@attrs.frozen(kw_only=True)
class Drift:
    """How a concurrency limit moves between the phase's `max_in_flight`, where it starts, and `to`.

    step, seconds: it moves by `step` every `seconds`, which are at least 0.01.
    shape: `linear` moves straight to the other bound and back, over and over; `walk` moves up or down, as a coin falls,
    and reverses at the bounds.
    """

    to: int = attrs.field(validator=check.positive_int)
    step: int = attrs.field(default=1, validator=check.positive_int)
    seconds: float = attrs.field(default=1.0, validator=long_enough)
    shape: Literal["linear", "walk"] = attrs.field(default="linear", validator=check.one_of("linear", "walk"))

    def level(self, start: int, elapsed: float, key: str) -> int:
        """Where the limit is after `elapsed` seconds, if it was `start` at first; `start` differs from `to`."""
        steps = int(elapsed // self.seconds)
        if self.shape == "walk":
            steps = 2 * heads(key, steps) - steps
        span = abs(self.to - start)
        # Folded at both bounds: what would lead out leads back in.
        moved = self.step * steps % (2 * span)
        moved = min(moved, 2 * span - moved)
        return start + moved if self.to > start else start - moved


@attrs.frozen(kw_only=True)
class Neighbour:
    """Another client of the same provider, which takes a part of every limit for a while, and then leaves it again.

    share: its part, from 0 to 1, of the requests in flight (rounded down) and of the rates.
    stretch_seconds: time is cut into intervals of this length, at least 0.01, and a coin decides for each of them
    whether the neighbour is there.
    """

    share: float = attrs.field(default=0.5, validator=check.closed_unit_interval)
    stretch_seconds: float = attrs.field(default=10.0, validator=long_enough)

    def is_there(self, elapsed: float, key: str) -> bool:
        """Whether it is there after `elapsed` seconds."""
        before = int(elapsed // self.stretch_seconds)
        return heads(key, before + 1) > heads(key, before)

    def used_seconds(self, elapsed: float, key: str) -> float:
        """How many seconds' worth of a rate it has used after `elapsed` seconds."""
        before, rest = divmod(elapsed, self.stretch_seconds)
        there = heads(key, int(before)) * self.stretch_seconds
        return self.share * (there + rest if self.is_there(elapsed, key) else there)


def _made_of(cls: type, expected: str) -> Callable[[object, attrs.Attribute[Any], object], None]:
    def validate(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, cls):
            raise InvalidTypeError(f"{type(instance).__name__}.{attribute.name}", value, expected)

    return validate


def _error_status(instance: object, attribute: attrs.Attribute[int], value: object) -> None:
    field = f"{type(instance).__name__}.{attribute.name}"
    if not 400 <= check.check_int(field, value, minimum=400) <= 599:
        raise InvalidValueError(field, value, "an int from 400 to 599")


@attrs.frozen(kw_only=True)
class Phase:
    """How the provider behaves for a while.

    name: under this name the counters report the phase.
    after_requests, after_accepted, after_seconds: the triggers, counted from the script's start. None is no trigger.
    latency: of accepted requests.
    max_in_flight: concurrency limit; a request above it is refused. None is no limit.
    drift: how that limit moves while the phase is in force. None keeps it where it is.
    requests_per_second, burst: rate limit, a bucket of `burst` tokens refilled at that rate. None is no limit.
    requests_per_window, window_seconds: quota of windows that follow each other, of at least 0.01 s, the first of which
    starts with the phase, or with the script's first request. None is no limit.
    neighbour: another client, which takes its part of these limits. None leaves them all to the requests served.
    quota: how many requests the phase accepts. Whatever comes after them is refused for good: status 429, code
    `insufficient_quota`, no hint. None is no quota, 0 one that is used up.
    unreachable: whether nobody is there. As the phase starts, every connection is reset and the server stops listening,
    so the next one is refused. A server that serves other providers as well listens on, and resets the connections of
    this one. So it does where the phase that follows waits for a number of requests, which have to be counted.
    gone_seconds: for so long the phase begins as an unreachable one: a restart, in one line.
    keeps_state: whether what was used of the limits and of the quota of the phase before stays used. By default a phase
    starts with all of them unused, as a provider does that keeps nothing over a restart.
    refuse_all: whether every request is refused: a flood with status 429, an outage with 503 or 529, a key that is not
    valid with 401 or 403, a model that is not there with 404.
    refusal_status: the HTTP status of a refusal. 503 and 529 carry an `overloaded_error`. 401, 403 and 404 are for
    `refuse_all` alone and carry no hint, but the code `invalid_api_key` or `model_not_found`.
    refusal_form: `body-in-200` answers 200 and puts `refusal_status` into the body, as `error.code`.
    refusal_seconds: how long a refusal takes, or a connection that is closed, which may be longer than an answer. It
    holds no slot.
    retry_after_seconds: the hint a refusal carries. None sends no hint.
    retry_after_header: the header that carries the hint. `retry-after` holds seconds, an HTTP date (`retry-after-date`)
    or seconds since 1970 (`retry-after-epoch`), `retry-after-ms` holds milliseconds. OpenAI's header holds "1m30s" and
    Anthropic's a date of RFC 3339, and another header says that 0 requests remain. Two are no headers: `retryDelay` is
    Gemini's `error.details[0].retryDelay` in the body ("1.5s"), and `message` is OpenAI's text, "Please try again in
    1.5s.". A point in time is rounded up to a whole second and comes with the header `date`.
    error_share, malformed_share, hang_share, bad_request_share: of accepted requests, from 0 to 1, together at most 1.
    A bad request is answered with 400 at once.
    error_status: the HTTP status of an error, from 400 to 599.
    error_form: `body-in-200` answers 200 and puts `error_status` into the body, as `error.code`.
    error_code: the code that the error carries in place of its usual one, such as `insufficient_quota`. In Anthropic's
    dialect it is the type of the error.
    malformed_form: `half` is JSON that breaks off, in a whole reply; `cut` a reply that ends before its
    `content-length`; `reset` a connection that is reset in place of a reply; `html` a page of a gateway with status
    200; `empty` an answer without choices, content or data.

    A chat that is streamed takes its latency for all of its events. It goes wrong in its middle: `cut` and `reset`
    break it off, `half` is an event that is no JSON, an error inside a 200 is an event, and a hang is silence after
    half of them.
    """

    name: str = attrs.field(default="steady", validator=check.text)
    after_requests: int | None = attrs.field(default=None, validator=check.optional_positive_int)
    after_accepted: int | None = attrs.field(default=None, validator=check.optional_positive_int)
    after_seconds: float | None = attrs.field(default=None, validator=attrs.validators.optional(check.positive_finite))
    latency: Latency = attrs.field(factory=Latency, validator=_made_of(Latency, "a Latency"))
    max_in_flight: int | None = attrs.field(default=None, validator=check.optional_positive_int)
    drift: Drift | None = attrs.field(
        default=None, validator=attrs.validators.optional(_made_of(Drift, "None or a Drift"))
    )
    requests_per_second: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(check.positive_finite)
    )
    burst: int = attrs.field(default=1, validator=check.positive_int)
    requests_per_window: int | None = attrs.field(default=None, validator=check.optional_positive_int)
    window_seconds: float = attrs.field(default=60.0, validator=long_enough)
    neighbour: Neighbour | None = attrs.field(
        default=None, validator=attrs.validators.optional(_made_of(Neighbour, "None or a Neighbour"))
    )
    quota: int | None = attrs.field(default=None, validator=attrs.validators.optional(check.non_negative_int))
    unreachable: bool = attrs.field(default=False, validator=check.boolean)
    gone_seconds: float = attrs.field(default=0.0, validator=check.non_negative_finite)
    keeps_state: bool = attrs.field(default=False, validator=check.boolean)
    refuse_all: bool = attrs.field(default=False, validator=check.boolean)
    refusal_status: Literal[401, 403, 404, 429, 503, 529] = attrs.field(
        default=429, validator=check.one_of(401, 403, 404, 429, 503, 529)
    )
    refusal_form: Literal["status", "body-in-200"] = attrs.field(
        default="status", validator=check.one_of("status", "body-in-200")
    )
    refusal_seconds: float = attrs.field(default=0.0, validator=check.non_negative_finite)
    retry_after_seconds: float | None = attrs.field(
        default=cast("float | None", 1.0), validator=attrs.validators.optional(check.non_negative_finite)
    )
    retry_after_header: HintPlace = attrs.field(default="retry-after", validator=check.one_of(*get_args(HintPlace)))
    error_share: float = attrs.field(default=0.0, validator=check.closed_unit_interval)
    malformed_share: float = attrs.field(default=0.0, validator=check.closed_unit_interval)
    hang_share: float = attrs.field(default=0.0, validator=check.closed_unit_interval)
    bad_request_share: float = attrs.field(default=0.0, validator=check.closed_unit_interval)
    error_status: int = attrs.field(default=500, validator=_error_status)
    error_form: Literal["status", "body-in-200"] = attrs.field(
        default="status", validator=check.one_of("status", "body-in-200")
    )
    error_code: str | None = attrs.field(default=None, validator=attrs.validators.optional(check.text))
    malformed_form: MalformedForm = attrs.field(default="half", validator=check.one_of(*get_args(MalformedForm)))

    def __attrs_post_init__(self) -> None:
        shares = (self.error_share, self.malformed_share, self.hang_share, self.bad_request_share)
        # fsum: 0.1 + 0.2 + 0.7 is 1, whatever a naive sum says.
        if math.fsum(shares) > 1:
            names = "Phase.error_share, malformed_share, hang_share, bad_request_share"
            raise InvalidValueError(names, shares, "at most 1 together")
        if self.refusal_status in KEY_STATUSES and not self.refuse_all:
            raise InvalidValueError(
                "Phase.refusal_status", self.refusal_status, "429, 503 or 529 in a phase that does not refuse all"
            )
        if self.unreachable and self.gone_seconds:
            raise InvalidValueError("Phase.gone_seconds", self.gone_seconds, "0 in a phase that is unreachable anyway")
        if self.drift is not None and self.max_in_flight in (None, self.drift.to):
            raise InvalidValueError("Phase.max_in_flight", self.max_in_flight, "an int other than drift.to")
        limits = (self.max_in_flight, self.requests_per_second, self.requests_per_window)
        if self.neighbour is not None and limits == (None, None, None):
            raise InvalidValueError("Phase.neighbour", self.neighbour, "None in a phase that limits nothing")

    @property
    def has_trigger(self) -> bool:
        """Whether anything but its place at the head of a script starts this phase."""
        return not (self.after_requests is None and self.after_accepted is None and self.after_seconds is None)

    @property
    def gone_until(self) -> float:
        """For how many seconds of the phase, from its start, nobody is there."""
        return math.inf if self.unreachable else self.gone_seconds

    def limit_at(self, elapsed: float, seed: int) -> int | None:
        """How many requests may be in flight `elapsed` seconds after the phase started, in a script of this seed."""
        limit = self.max_in_flight
        if limit is not None and self.drift is not None:
            limit = self.drift.level(limit, elapsed, f"{seed}:{self.name}:drift")
        if (
            limit is not None
            and self.neighbour is not None
            and self.neighbour.is_there(elapsed, self._neighbour_key(seed))
        ):
            limit -= int(limit * self.neighbour.share)
        return limit

    def used_by_neighbour(self, elapsed: float, seed: int) -> float:
        """How many seconds' worth of the rate limits the neighbour has used by then."""
        return 0.0 if self.neighbour is None else self.neighbour.used_seconds(elapsed, self._neighbour_key(seed))

    def _neighbour_key(self, seed: int) -> str:
        return f"{seed}:{self.name}:neighbour"

    def fate(self, quantile: float) -> Fate:
        """What becomes of an accepted request, by the number drawn for it."""
        edge = 0.0
        shares: tuple[tuple[Fate, float], ...] = (
            ("error", self.error_share),
            ("malformed", self.malformed_share),
            ("hang", self.hang_share),
            ("bad_request", self.bad_request_share),
        )
        for fate, share in shares:
            edge += share
            if quantile < edge:
                return fate
        return "answer"


def _listed(field: str, value: object, expected: str) -> tuple[object, ...]:
    if not isinstance(value, list | tuple):
        raise InvalidTypeError(field, value, expected)
    return tuple(cast("Sequence[object]", value))


def _phases(value: Sequence[Phase]) -> tuple[Phase, ...]:
    """Converter: phases of which the first, and only the first, needs no trigger."""
    phases: list[Phase] = []
    for index, phase in enumerate(_listed("RehearsalScript.phases", value, "a list of Phases")):
        where = f"RehearsalScript.phases[{index}]"
        if not isinstance(phase, Phase):
            raise InvalidTypeError(where, phase, "a Phase")
        if index == 0 and phase.has_trigger:
            raise InvalidValueError(where, phase.name, "a phase without an after_* trigger, being the first")
        if index > 0 and not phase.has_trigger:
            raise InvalidValueError(where, phase.name, "a phase with an after_* trigger, not being the first")
        if phase.name in {other.name for other in phases}:
            raise InvalidValueError(where, phase.name, "a phase with a name of its own")
        phases.append(phase)
    if not phases:
        raise InvalidValueError("RehearsalScript.phases", value, "at least one Phase")
    return tuple(phases)


def _models(value: Sequence[str]) -> tuple[str, ...]:
    """Converter: names of models."""
    names = _listed("RehearsalScript.models", value, "a list of names")
    return tuple(check.check_text(f"RehearsalScript.models[{index}]", name) for index, name in enumerate(names))


@attrs.frozen(kw_only=True)
class RehearsalScript:
    """What one provider does, over all its models and domains.

    phases: in the order in which they start.
    seed: of the latencies, the failures and the answers.
    models: what `GET /v1/models` lists. Any other name is answered as well.
    dimensions: of an embedding whose request names none.
    """

    phases: tuple[Phase, ...] = attrs.field(default=(Phase(),), converter=_phases)
    seed: int = attrs.field(default=0, validator=check.non_negative_int)
    models: tuple[str, ...] = attrs.field(default=("rehearsal-chat", "rehearsal-embedding"), converter=_models)
    dimensions: int = attrs.field(default=16, validator=check.positive_int)

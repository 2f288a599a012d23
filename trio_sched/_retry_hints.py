"""What a provider says about when to come back, wherever it says so.

Looked at in this order; the first source with a usable hint decides:

=====================  =============================================================================================
source                 what is read
=====================  =============================================================================================
`retry-after-ms`       the header, in milliseconds
`retry-after`          the header, in seconds, whole or not, or a duration
`retry-after-date`     the header `retry-after` as an HTTP date, an RFC 3339 time or Unix time
`x-ratelimit-reset`    the headers `x-ratelimit-reset`, `-reset-after` and `-reset-` with any dimension (`-requests`,
                       `-tokens`): a duration, seconds, Unix time, an RFC 3339 time or an HTTP date
`anthropic-ratelimit`  the headers `anthropic-ratelimit-*-reset` of requests, tokens, input-tokens and output-tokens:
                       as above, in fact an RFC 3339 time
`ratelimit`            the IETF drafts' headers `ratelimit-reset` (as above, in fact seconds) and `ratelimit`: `t` of
                       `"default";r=0;t=30`, or `reset` of the older `limit=9, remaining=0, reset=30`
`retryDelay`           `google.rpc.RetryInfo` in a JSON body: "12.5s", a number of seconds, or
                       `{"seconds": 12, "nanos": 5}`, at the top, under `error`, or in its `details`
`message`              "try again in", "retry in" or "retry after", then a duration, in a message of the body or of
                       the exception: its first 4,096 characters
=====================  =============================================================================================

*Refusals alone.* A response that does not refuse, `refused=False`, has no hint but those of its `retry-after` headers:
the others are sent with every response, or say nothing about when to come back.

*Reset headers.* The three families from `x-ratelimit-reset` to `ratelimit` are one step: the longest wait of those that
apply. A reset applies if what remains of the same dimension (`x-ratelimit-remaining-tokens` for `-reset-tokens`, `r`
for `t`) is 0 or less, or is not said.

*Moments* count from the `Date` of the same response, so that a skewed clock on either side cancels out; without a
`Date` from `wall_now`, the one place where wall time cannot be avoided. `_provider_times.py` has the forms.

A hint is finite, positive and at most the cap, or there is none: zero, negative numbers, NaN, infinity, moments in the
past and text that is no hint all count as nothing said. A number too large for a float is an excessive delay, not a
malformed one, and becomes the cap.

Headers come as any mapping or list of pairs, names in any case, names and values as str or bytes. Nothing here raises,
whatever it is given: it runs while another error is on its way out.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Final, Literal, TypeAlias, cast

import attrs

from trio_sched import _provider_times as times

__all__ = ["DEFAULT_HINT_CAP_SECONDS", "HintSource", "RetryHint", "body_objects", "parse_json_body", "retry_hint"]

HintSource: TypeAlias = Literal[
    "retry-after-ms",
    "retry-after",
    "retry-after-date",
    "x-ratelimit-reset",
    "anthropic-ratelimit",
    "ratelimit",
    "retryDelay",
    "message",
]

DEFAULT_HINT_CAP_SECONDS: Final = 300.0

_LONGEST_BODY = 65536
_LONGEST_MESSAGE = 4096
_MOST_MESSAGES = 16
_DEEPEST_BODY = 8
_MOST_OBJECTS = 64
_MESSAGE_FIELDS = ("message", "Message", "error", "detail")

_QUOTA_FIELDS: Final[tuple[tuple[HintSource, re.Pattern[str]], ...]] = (
    ("x-ratelimit-reset", re.compile(r"x-ratelimit-(?P<what>reset|remaining)(?:-after|-(?P<of>[a-z0-9-]+))?")),
    (
        "anthropic-ratelimit",
        re.compile(r"anthropic-ratelimit-(?P<of>requests|(?:input-|output-)?tokens)-(?P<what>reset|remaining)"),
    ),
    ("ratelimit", re.compile(r"ratelimit-(?P<what>reset|remaining)(?P<of>)")),
)
_QUOTED = re.compile(r'"[^"]*"')
_COME_BACK = re.compile(r"\b(?:try again|retry) (?:in|after)(?= [0-9])", re.IGNORECASE)

_Quota = tuple[HintSource, str]


@attrs.frozen
class RetryHint:
    """Come back after `seconds`, finite, positive and capped; `source` is where that was said."""

    seconds: float
    source: HintSource


@attrs.define(eq=False)
class _Headers:
    """The headers that can hold a hint. resets, remaining: by family and dimension."""

    wall_now: Callable[[], float]
    named: dict[str, list[object]] = attrs.field(
        factory=lambda: {"retry-after-ms": [], "retry-after": [], "date": [], "ratelimit": []}
    )
    resets: dict[_Quota, list[object]] = attrs.field(factory=dict[_Quota, "list[object]"])
    remaining: dict[_Quota, list[object]] = attrs.field(factory=dict[_Quota, "list[object]"])

    def add(self, name: str, value: object) -> None:
        if name in self.named:
            self.named[name].append(value)
            return
        for source, pattern in _QUOTA_FIELDS:
            if (field := pattern.fullmatch(name)) is not None:
                values = self.resets if field["what"] == "reset" else self.remaining
                values.setdefault((source, field["of"] or ""), []).append(value)

    def until(self, then: float | None) -> float | None:
        """The seconds from this response to a moment."""
        if then is None:
            return None
        sent = next((date for date in map(times.moment, self.named["date"]) if date is not None), None)
        seconds = then - (self.wall_now() if sent is None else sent)
        return seconds if math.isfinite(seconds) else None


def retry_hint(
    headers: object,
    body: object = None,
    *,
    messages: Iterable[str] = (),
    refused: bool = True,
    cap_seconds: float = DEFAULT_HINT_CAP_SECONDS,
    wall_now: Callable[[], float] = time.time,
) -> RetryHint | None:
    """The hint of one response, or None.

    body: what its JSON body decoded to, if it has one. messages: those of the exception. refused: False for a failure
    that is neither a rate limit nor an overload.
    """
    try:
        for source, seconds in _candidates(_read_headers(headers, wall_now), body, messages, refused):
            if seconds is not None and seconds > 0:
                return RetryHint(min(seconds, cap_seconds), source)
    except Exception:
        # Headers and body are foreign objects, and the error that carries them must not be replaced by one of theirs.
        return None
    return None


def parse_json_body(content: object) -> object:
    """What a response body decodes to, or None if it is no JSON or too large to be an error message."""
    if not isinstance(content, str | bytes) or len(content) > _LONGEST_BODY:
        return None
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def body_objects(body: object) -> list[Mapping[str, object]]:
    """The JSON objects of an error body in which providers put facts, outermost first."""
    found: list[Mapping[str, object]] = []
    _collect(body, _DEEPEST_BODY, found)
    return found


def _collect(value: object, depth: int, found: list[Mapping[str, object]]) -> None:
    if depth == 0 or len(found) >= _MOST_OBJECTS:
        return
    if type(value) is dict:
        fields = cast("dict[str, object]", value)
        found.append(fields)
        for name in ("error", "Error", "errors", "details", "violations"):
            _collect(fields.get(name), depth - 1, found)
    elif isinstance(value, Mapping):
        try:
            fields = dict(cast("Mapping[str, object]", value))
        except Exception:
            # A foreign mapping that cannot be read says nothing.
            return
        _collect(fields, depth, found)
    elif isinstance(value, list | tuple):
        for each in cast("Iterable[object]", value):
            _collect(each, depth - 1, found)


def _candidates(
    headers: _Headers, body: object, messages: Iterable[str], refused: bool
) -> Iterator[tuple[HintSource, float | None]]:
    for value in headers.named["retry-after-ms"]:
        for reading in times.readings(value):
            milliseconds = times.number(reading)
            yield "retry-after-ms", None if milliseconds is None else milliseconds / 1000
    moments: list[float | None] = []
    for value in headers.named["retry-after"]:
        for reading in times.readings(value):
            delay, then = _delay_or_moment(reading)
            moments.append(then)
            yield "retry-after", delay
    for then in moments:
        yield "retry-after-date", headers.until(then)
    if not refused:
        return
    yield max(_resets(headers), key=lambda reset: reset[1], default=("x-ratelimit-reset", None))
    objects = body_objects(body)
    for found in objects:
        yield "retryDelay", _retry_delay(found.get("retryDelay"))
    of_body = (found.get(name) for found in objects for name in _MESSAGE_FIELDS)
    texts = (message for message in chain(of_body, messages) if isinstance(message, str))
    for text in islice(texts, _MOST_MESSAGES):
        for phrase in _COME_BACK.finditer(text, 0, _LONGEST_MESSAGE):
            yield "message", times.leading_duration(text[:_LONGEST_MESSAGE], phrase.end())


def _read_headers(headers: object, wall_now: Callable[[], float]) -> _Headers:
    known = _Headers(wall_now)
    try:
        items = getattr(headers, "items", None)
        pairs = items() if callable(items) else headers
        for name, value in cast("Iterable[tuple[object, object]]", pairs):
            known.add(times.plain_text(name).strip().lower(), value)
    except Exception:
        # As in `retry_hint`; what was read before it raised still counts.
        return known
    return known


def _delay_or_moment(value: object) -> tuple[float | None, float | None]:
    quantity = times.number(value)
    if quantity is None:
        delay = times.duration(value)
        return delay, times.moment(value) if delay is None else None
    then = times.unix_time(quantity)
    return (quantity, None) if then is None else (None, then)


def _resets(headers: _Headers) -> Iterator[tuple[HintSource, float]]:
    for quota, values in headers.resets.items():
        if _used_up(headers.remaining.get(quota, [])):
            for value in values:
                for reading in times.readings(value):
                    delay, then = _delay_or_moment(reading)
                    seconds = headers.until(then) if delay is None else delay
                    if seconds is not None:
                        yield quota[0], seconds
    for value in headers.named["ratelimit"]:
        for left, delay in _ietf_policies(times.plain_text(value)[: times.LONGEST_FIELD * 8]):
            if delay is not None and _used_up([left]):
                yield "ratelimit", delay


def _used_up(remaining: list[object]) -> bool:
    said = [left for value in remaining for each in times.readings(value) if (left := times.number(each)) is not None]
    return not said or min(said) <= 0


def _ietf_policies(field: str) -> Iterator[tuple[object, float | None]]:
    """What remains of each policy in a `RateLimit` field, and the seconds until it is renewed."""
    items = [
        {name.strip(): value for name, _, value in (part.partition("=") for part in item.split(";"))}
        for item in _QUOTED.sub("", field).split(",")
    ]
    for item in items:
        yield item.get("r"), times.number(item.get("t"))
    whole = {name: value for item in items for name, value in item.items()}
    yield whole.get("remaining"), times.number(whole.get("reset"))


def _retry_delay(value: object) -> float | None:
    if isinstance(value, Mapping):
        parts = cast("Mapping[str, object]", value)
        seconds, nanos = times.number(parts.get("seconds", 0)), times.number(parts.get("nanos", 0))
        return None if seconds is None or nanos is None else seconds + nanos / 1e9
    if isinstance(value, str | bytes):
        text = times.plain_text(value).strip()
        return times.number(text[:-1] if text[-1:] in {"s", "S"} else text)
    return times.number(value)

"""What a provider says about when to come back, in every form it is said.

Precedence, first usable one wins:

1. the header `retry-after-ms`, in milliseconds;
2. the header `retry-after`, in seconds, whole or not;
3. the header `retry-after` as an HTTP date, counted from the `Date` of the same response, so that a skewed clock on
   either side cancels out; without a `Date` from `wall_now`, the one place where wall time cannot be avoided;
4. `retryDelay` in a JSON body (`google.rpc.RetryInfo`): "12.5s", a number of seconds, or `{"seconds": 12, "nanos": 5}`,
   at the top, under `error`, or in its `details`.

A hint is finite, positive and at most the cap, or there is none: zero, negative numbers, NaN, infinity, dates in the
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
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Final, Literal, TypeAlias, cast

import attrs

__all__ = ["DEFAULT_HINT_CAP_SECONDS", "HintSource", "RetryHint", "body_objects", "parse_json_body", "retry_hint"]

HintSource: TypeAlias = Literal["retry-after-ms", "retry-after", "retry-after-date", "retryDelay"]

DEFAULT_HINT_CAP_SECONDS: Final = 300.0

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LONGEST_HEADER = 128
_LONGEST_BODY = 65536
_DEEPEST_BODY = 8
_MOST_OBJECTS = 64


@attrs.frozen
class RetryHint:
    """Come back after `seconds`, finite, positive and capped; `source` is where that was said."""

    seconds: float
    source: HintSource


def retry_hint(
    headers: object,
    body: object = None,
    *,
    cap_seconds: float = DEFAULT_HINT_CAP_SECONDS,
    wall_now: Callable[[], float] = time.time,
) -> RetryHint | None:
    """The hint of one response, or None. body: what its JSON body decoded to, if it has one."""
    for source, seconds in _candidates(headers, body, wall_now):
        if seconds is not None and seconds > 0:
            return RetryHint(min(seconds, cap_seconds), source)
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
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, object]", value)
        found.append(fields)
        for name in ("error", "errors", "details", "violations"):
            _collect(fields.get(name), depth - 1, found)
    elif isinstance(value, list | tuple):
        for each in cast("Iterable[object]", value):
            _collect(each, depth - 1, found)


def _candidates(
    headers: object, body: object, wall_now: Callable[[], float]
) -> Iterator[tuple[HintSource, float | None]]:
    fields = _hint_headers(headers)
    for value in fields["retry-after-ms"]:
        milliseconds = _number(value)
        yield "retry-after-ms", None if milliseconds is None else milliseconds / 1000
    for value in fields["retry-after"]:
        yield "retry-after", _number(value)
    for value in fields["retry-after"]:
        yield "retry-after-date", _until(value, fields["date"], wall_now)
    for found in body_objects(body):
        yield "retryDelay", _delay(found.get("retryDelay"))


def _hint_headers(headers: object) -> dict[str, list[object]]:
    fields: dict[str, list[object]] = {"retry-after-ms": [], "retry-after": [], "date": []}
    try:
        items = getattr(headers, "items", None)
        pairs = items() if callable(items) else headers
        for name, value in cast("Iterable[tuple[object, object]]", pairs):
            known = fields.get(_text(name).strip().lower())
            if known is not None:
                known.append(value)
    except Exception:
        # Headers are foreign objects, and the error that carries them must not be replaced by one of theirs.
        return fields
    return fields


def _text(value: object) -> str:
    if isinstance(value, bytes | bytearray):
        return value.decode("latin-1")
    return value if isinstance(value, str) else ""


def _number(value: object) -> float | None:
    """A number, positive infinity if it is too large for a float, None if `value` is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            return math.inf if value > 0 else None
        return number if math.isfinite(number) else None
    text = _text(value).strip()
    if len(text) > _LONGEST_HEADER or _NUMBER.fullmatch(text) is None:
        return None
    return float(text)


def _until(value: object, dates: list[object], wall_now: Callable[[], float]) -> float | None:
    then = _date(value)
    if then is None:
        return None
    sent = next((date for date in map(_date, dates) if date is not None), None)
    seconds = then - (wall_now() if sent is None else sent)
    return seconds if math.isfinite(seconds) else None


def _date(value: object) -> float | None:
    text = _text(value)
    if not text or len(text) > _LONGEST_HEADER:
        return None
    try:
        date: datetime = parsedate_to_datetime(text)
        return (date if date.tzinfo is not None else date.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _delay(value: object) -> float | None:
    if isinstance(value, Mapping):
        parts = cast("Mapping[str, object]", value)
        seconds, nanos = _number(parts.get("seconds", 0)), _number(parts.get("nanos", 0))
        return None if seconds is None or nanos is None else seconds + nanos / 1e9
    if isinstance(value, str | bytes):
        text = _text(value).strip()
        return _number(text[:-1] if text[-1:] in {"s", "S"} else text)
    return _number(value)

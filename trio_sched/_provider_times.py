"""The forms in which providers write a wait: numbers, durations, moments.

=================================  =======================================================================
form                               read as
=================================  =======================================================================
`7`, ` 7.25 `, `+1e1`, 4.5         a number
`350ms`, `6m0s`, `1h2m3.5s`        a duration; in texts also `20 seconds`, `1 minute and 5 seconds`
`1700000000`, `1700000000000`      a moment: Unix time, in seconds above 1e9, in milliseconds above 1e12
`2025-01-01T00:00:20Z`             a moment: RFC 3339, in UTC where it names no zone
`Thu, 01 Jan 2099 00:00:20 GMT`    a moment: an HTTP date, in UTC where it names no zone
=================================  =======================================================================

Units of a duration get smaller from part to part. What fits no form, is longer than 128 characters or is NaN is None.
A number too large for a float is infinity, so that it counts as an excessive wait and not as a malformed one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Final

__all__ = ["LONGEST_FIELD", "duration", "leading_duration", "moment", "number", "plain_text", "readings", "unix_time"]

LONGEST_FIELD: Final = 128

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_PART = re.compile(
    r"(?:, and |, | and | )?([0-9]{1,20}(?:\.[0-9]{0,20})?) ?"
    r"(milliseconds?|msecs?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)(?![a-z])",
    re.IGNORECASE,
)
_RFC_3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]+)?(?:[Zz]|([+-][0-9]{2}:[0-9]{2}))?"
)
_UNIX_SECONDS = (1e9, 1e11)
_UNIX_MILLISECONDS = (1e12, 1e14)


def plain_text(value: object) -> str:
    """The text of a header's name or value; empty if it has none."""
    if isinstance(value, bytes | bytearray):
        return value.decode("latin-1")
    return value if isinstance(value, str) else ""


def readings(value: object) -> Iterator[object]:
    """A header's value, then what it consists of where HTTP libraries joined several fields of a name."""
    yield value
    text = plain_text(value)
    if ", " in text and len(text) <= LONGEST_FIELD:
        yield from text.split(", ")


def _field(value: object) -> str:
    text = plain_text(value)
    return text.strip() if len(text) <= LONGEST_FIELD else ""


def number(value: object) -> float | None:
    """A number, positive infinity if it is too large for a float, None if `value` is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            converted = float(value)
        except OverflowError:
            return math.inf if value > 0 else None
        return converted if math.isfinite(converted) else None
    text = _field(value)
    return None if _NUMBER.fullmatch(text) is None else float(text)


def unix_time(quantity: float) -> float | None:
    """The moment that a number plausibly names, in seconds; None for one that is a delay."""
    if _UNIX_SECONDS[0] < quantity <= _UNIX_SECONDS[1]:
        return quantity
    if _UNIX_MILLISECONDS[0] < quantity <= _UNIX_MILLISECONDS[1]:
        return quantity / 1000
    return None


def duration(value: object) -> float | None:
    """The seconds of a value that is a duration and nothing else."""
    text = _field(value)
    seconds, end = _parts(text, 0)
    return seconds if end == len(text) else None


def leading_duration(text: str, start: int) -> float | None:
    """The seconds of the duration that begins at `start` of a text, if one does."""
    return _parts(text, start)[0]


def _parts(text: str, start: int) -> tuple[float | None, int]:
    total: float | None = None
    smallest = math.inf
    while (part := _PART.match(text, start)) is not None and (unit := _unit_seconds(part[2].lower())) < smallest:
        total = (total or 0.0) + float(part[1]) * unit
        smallest, start = unit, part.end()
    return total, start


def _unit_seconds(name: str) -> float:
    if name.startswith(("ms", "milli")):
        return 0.001
    return {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}[name[0]]


def moment(value: object) -> float | None:
    """The Unix time, in seconds, of an RFC 3339 time or an HTTP date."""
    text = _field(value)
    try:
        time = _RFC_3339.fullmatch(text)
        if time is None:
            return _seconds(parsedate_to_datetime(text))
        whole = datetime.fromisoformat(f"{time[1]}T{time[2]}{time[4] or '+00:00'}")
        return _seconds(whole) + float(time[3] or 0)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _seconds(time: datetime) -> float:
    return (time if time.tzinfo is not None else time.replace(tzinfo=timezone.utc)).timestamp()

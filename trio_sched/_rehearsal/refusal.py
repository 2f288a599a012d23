"""What a refusal looks like to its client: status, headers and body, in the manner of the provider that is rehearsed.

Plain code with the wall clock's time passed in: some providers name the point in time at which to come back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import formatdate

import attrs

from trio_sched._events.records import JsonValue
from trio_sched._rehearsal.provider import Refused
from trio_sched._rehearsal.script import HintPlace
from trio_sched._rehearsal.wire import error_body

__all__ = ["RefusalReply", "refusal_reply"]

_LAST_SECOND = 253402300799
"""The end of the year 9999, beyond which there is no date."""


@attrs.frozen
class RefusalReply:
    """The response to a request that was refused; `message` is also in the body."""

    status: int
    headers: Mapping[str, str]
    message: str
    body: bytes


def refusal_reply(provider: str, refused: Refused, wall_now: float) -> RefusalReply:
    """The response of the provider of this name. wall_now: seconds since 1970."""
    phase = refused.phase
    status, seconds = phase.refusal_status, phase.retry_after_seconds
    limited = status == 429
    problem = f"Rate limit reached for provider {provider}" if limited else f"Provider {provider} is overloaded"
    message = f"{problem}: {_limit(refused)} in phase {phase.name}."
    headers: dict[str, str] = {}
    details: list[JsonValue] = []
    if seconds is not None:
        headers = _hint_headers(phase.retry_after_header, seconds, wall_now)
        if phase.retry_after_header == "message":
            message += f" Please try again in {_duration(seconds)}."
        elif phase.retry_after_header == "retryDelay":
            details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{_decimal(seconds)}s"}]
    in_body = phase.refusal_form == "body-in-200"
    named_code = "rate_limit_exceeded" if limited else None
    body = error_body(
        message,
        "requests" if limited else "overloaded_error",
        code=status if in_body else named_code,
        details=details,
    )
    return RefusalReply(200 if in_body else status, headers, message, body)


def _limit(refused: Refused) -> str:
    phase = refused.phase
    if refused.reason == "concurrency":
        return f"{refused.limit} requests in flight"
    if refused.reason == "rate":
        return f"{phase.requests_per_second:g} requests per second"
    if refused.reason == "window":
        return f"{phase.requests_per_window} requests per {phase.window_seconds:g} seconds"
    return "no request is served"


def _hint_headers(place: HintPlace, seconds: float, wall_now: float) -> dict[str, str]:
    if place == "retry-after":
        return {"retry-after": _decimal(seconds)}
    if place == "retry-after-ms":
        return {"retry-after-ms": _decimal(seconds * 1000)}
    if place == "x-ratelimit-reset-requests":
        return {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": _duration(seconds)}
    then = min(math.ceil(wall_now + seconds), _LAST_SECOND)
    date = {"date": formatdate(wall_now, usegmt=True)}
    if place == "retry-after-date":
        return {"retry-after": formatdate(then, usegmt=True), **date}
    if place == "retry-after-epoch":
        return {"retry-after": str(then), **date}
    if place == "anthropic-ratelimit-requests-reset":
        reset = datetime.fromtimestamp(then, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": reset, **date}
    return {}


def _decimal(number: float) -> str:
    """A number without an exponent, which not every client reads."""
    return f"{number:.6f}".rstrip("0").rstrip(".")


def _duration(seconds: float) -> str:
    """As OpenAI writes them: "20ms", "1.5s", "1m30s", "1h0m0s"."""
    if 0 < seconds < 1:
        return f"{_decimal(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    if not minutes:
        return f"{_decimal(rest)}s"
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}h{minutes}m{_decimal(rest)}s" if hours else f"{minutes}m{_decimal(rest)}s"

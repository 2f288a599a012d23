"""Reads what an exception of a model call means, without importing any SDK.

The errors of the OpenAI and Anthropic SDKs, of httpx and of their relatives are known by what they carry and by the
names of their classes, the bases included, so a newer or older SDK, a subclass or a look-alike is read the same way.
Looked at in this order, the first that fits decides:

=====================================================  ====================  =============================
what is seen                                           outcome               worth another attempt
=====================================================  ====================  =============================
an exception group                                     see below             see below
Cancelled, and what ends the program                   local_cancelled       no
HTTP 429, 529, 503 with a retry hint                   rate_limited          yes
any other HTTP status that is no success               provider_failure      408, 409, 5xx but 501 and 505
a refusal inside a stream that began as a success      rate_limited          yes
trio.TooSlowError: a deadline of the caller            local_timeout         yes
PoolTimeout: no connection of our own was free         local_timeout         yes
a timeout of the transport                             provider_timeout      yes
a request that could not be made (bad URL, protocol)   unexpected_exception  no
a broken connection, an unreadable or aborted answer   provider_failure      yes
anything else                                          unexpected_exception  no
=====================================================  ====================  =============================

*Causes.* Only `APITimeoutError` and `APIConnectionError` are looked behind: both SDKs raise them from the transport's
own error, which says more. No other `__cause__` is followed: an author who raised an error of their own meant it.

*Groups.* A single leaf is judged as itself. Of several, cancelled ones are set aside, being what a nursery does to the
others; the outcome is then the first found of rate_limited, unexpected_exception, provider_failure, provider_timeout,
local_timeout; it may be retried only if every one of them may.

*Quota.* Some refusals do not pass: the account is out of credit or over a spending limit. They carry one of the codes
below, or are HTTP 402, or name a daily quota. Their outcome is what the table says, they are never retryable, and
`exhausted` names what was seen.

*Hints.* Where the response says when to come back, the outcome carries it; see `_retry_hints.py`. `x-should-retry`
decides for a failure what the table leaves to the status, as it does in both SDKs.

Diagnostics are plain facts: the error's type, where the hint came from, a known code. Never a message or a body.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final, cast

import attrs
import trio

from trio_sched._resources.request import RequestOutcomeKind, RequestReleaseOutcome
from trio_sched._retry_hints import DEFAULT_HINT_CAP_SECONDS, body_objects, parse_json_body, retry_hint
from trio_sched._unwrap import leaves_of

__all__ = ["ErrorVerdict", "classify_exception", "judge_exception"]

_RATE_LIMIT_STATUSES: Final = frozenset({429, 529})
_PERMANENT_SERVER_STATUSES: Final = frozenset({501, 505})
_RETRYABLE_CLIENT_STATUSES: Final = frozenset({408, 409})

# OpenAI: all under the type insufficient_quota, the particular one in the code. Anthropic: billing_error by type, the
# spending limits by error.details.error_code, sent with status 429 and no hint.
_EXHAUSTED_CODES: Final = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "billing_hard_limit_reached",
        "billing_not_active",
        "billing_error",
        "enforced_spend_limit_reached",
        "contract_spend_limit_reached",
        "linked_organization_spend_limit_reached",
        "linked_organization_billing_unavailable",
    }
)
_GENERAL_CODES: Final = frozenset({"insufficient_quota", "billing_error"})
_CODE_FIELDS: Final = ("code", "type", "error_code", "reason")
_REFUSED_IN_STREAM: Final = frozenset({"overloaded_error", "rate_limit_error", "rate_limit_exceeded"})

_SDK_WRAPPERS: Final = frozenset({"APITimeoutError", "APIConnectionError"})
_TIMEOUTS: Final = frozenset({"APITimeoutError", "TimeoutException", "Timeout", "TimeoutError"})
_NOT_SENT: Final = frozenset({"UnsupportedProtocol", "LocalProtocolError", "InvalidURL"})
_BROKEN: Final = frozenset(
    {
        "APIConnectionError",
        "APIResponseValidationError",
        "APIError",
        "TransportError",
        "DecodingError",
        "BrokenResourceError",
        "ConnectionError",
        "ClientConnectionError",
        "ClientPayloadError",
        "gaierror",
        "SSLError",
    }
)

_WORST_FIRST: Final[tuple[RequestOutcomeKind, ...]] = (
    "rate_limited",
    "unexpected_exception",
    "provider_failure",
    "provider_timeout",
    "local_timeout",
    "local_cancelled",
)

_Judgement = tuple[RequestOutcomeKind, bool]


@attrs.frozen
class ErrorVerdict:
    """What an exception means: for admission, `outcome`; for whoever might try again, the rest.

    retryable: another attempt may well succeed. exhausted: the quota code that says that none will, or None.
    """

    outcome: RequestReleaseOutcome
    retryable: bool
    exhausted: str | None = None


def classify_exception(
    exc: BaseException,
    *,
    hint_cap_seconds: float = DEFAULT_HINT_CAP_SECONDS,
    wall_now: Callable[[], float] = time.time,
) -> RequestReleaseOutcome:
    """The outcome with which to release the lease of an attempt that ended with `exc`."""
    return judge_exception(exc, hint_cap_seconds=hint_cap_seconds, wall_now=wall_now).outcome


def judge_exception(
    exc: BaseException,
    *,
    hint_cap_seconds: float = DEFAULT_HINT_CAP_SECONDS,
    wall_now: Callable[[], float] = time.time,
) -> ErrorVerdict:
    """The whole verdict. hint_cap_seconds bounds a retry hint; wall_now serves HTTP dates without a `Date` beside."""
    return _worst([_judge_one(leaf, hint_cap_seconds, wall_now) for leaf in leaves_of(exc)])


def _worst(verdicts: list[ErrorVerdict]) -> ErrorVerdict:
    errors = [verdict for verdict in verdicts if verdict.outcome.kind != "local_cancelled"] or verdicts[:1]
    if len(errors) == 1:
        return errors[0]
    worst = min(errors, key=lambda verdict: _WORST_FIRST.index(verdict.outcome.kind)).outcome
    hints = [error.outcome.retry_after_seconds for error in errors if error.outcome.retry_after_seconds is not None]
    return ErrorVerdict(
        attrs.evolve(
            worst,
            retry_after_seconds=max(hints, default=None),
            diagnostics={**worst.diagnostics, "errors_in_group": len(errors)},
        ),
        retryable=all(error.retryable for error in errors),
        exhausted=next((error.exhausted for error in errors if error.exhausted is not None), None),
    )


def _judge_one(exc: BaseException, hint_cap_seconds: float, wall_now: Callable[[], float]) -> ErrorVerdict:
    diagnostics: dict[str, object] = {"error_type": f"{type(exc).__module__}.{type(exc).__qualname__}"}
    if isinstance(exc, trio.Cancelled | KeyboardInterrupt | SystemExit | GeneratorExit):
        return ErrorVerdict(RequestReleaseOutcome("local_cancelled", diagnostics=diagnostics), retryable=False)
    status = _status(exc)
    response = _read(exc, "response")
    body = _body(exc, response)
    failed = status is not None and not 200 <= status < 300
    headers = _read(response, "headers") or _read(exc, "headers")
    hint = retry_hint(headers, body, cap_seconds=hint_cap_seconds, wall_now=wall_now)
    from_provider = failed or "APIError" in _type_names(exc)
    codes = _codes(exc, body) if from_provider else frozenset[str]()
    exhausted = _exhausted(status, codes, body) if from_provider else None
    if failed and status is not None:
        kind, retryable = _judge_status(status, hinted=hint is not None)
        wish = _should_retry(headers)
        if kind == "provider_failure" and wish is not None:
            retryable = wish
    elif not codes.isdisjoint(_REFUSED_IN_STREAM):
        kind, retryable = "rate_limited", True
    else:
        kind, retryable = _judge_type(exc)
    if hint is not None:
        diagnostics["hint_source"] = hint.source
    if exhausted is not None:
        diagnostics["quota_code"] = exhausted
    outcome = RequestReleaseOutcome(kind, None if hint is None else hint.seconds, status, diagnostics)
    return ErrorVerdict(outcome, retryable and exhausted is None, exhausted)


def _judge_status(status: int, *, hinted: bool) -> _Judgement:
    if status in _RATE_LIMIT_STATUSES or (status == 503 and hinted):
        return "rate_limited", True
    passing = status in _RETRYABLE_CLIENT_STATUSES or (status >= 500 and status not in _PERMANENT_SERVER_STATUSES)
    return "provider_failure", passing


def _judge_type(exc: BaseException) -> _Judgement:
    if isinstance(exc, trio.TooSlowError):
        return "local_timeout", True
    names = _type_names(exc)
    if not _SDK_WRAPPERS.isdisjoint(names) and exc.__cause__ is not None:
        behind = _type_names(exc.__cause__)
        if "PoolTimeout" in behind or not _NOT_SENT.isdisjoint(behind):
            names = behind
    if "PoolTimeout" in names:
        return "local_timeout", True
    if not _TIMEOUTS.isdisjoint(names):
        return "provider_timeout", True
    if not _NOT_SENT.isdisjoint(names):
        return "unexpected_exception", False
    if not _BROKEN.isdisjoint(names):
        return "provider_failure", True
    return "unexpected_exception", False


def _type_names(exc: BaseException) -> frozenset[str]:
    return frozenset(cls.__name__ for cls in type(exc).__mro__)


def _status(exc: BaseException) -> int | None:
    response = _read(exc, "response")
    for owner, name in (
        (exc, "status_code"),
        (exc, "status"),
        (response, "status_code"),
        (response, "status"),
        (exc, "http_status"),
        (exc, "code"),
    ):
        value = _read(owner, name)
        if isinstance(value, int) and 100 <= value <= 599:
            return int(value)
    return None


def _should_retry(headers: object) -> bool | None:
    get = _read(headers, "get")
    if not callable(get):
        return None
    try:
        value: object = get("x-should-retry")
    except Exception:
        # A foreign mapping; see `_read`.
        return None
    return {"true": True, "false": False}.get(value) if isinstance(value, str) else None


def _body(exc: BaseException, response: object) -> object:
    for name in ("body", "details"):
        value = _read(exc, name)
        if isinstance(value, Mapping | list | tuple):
            return cast("object", value)
        if isinstance(value, str | bytes):
            return parse_json_body(value)
    # Only what is in memory already: reading a body here could block.
    return parse_json_body(_read(response, "content")) if _read(response, "is_closed") is True else None


def _codes(exc: BaseException, body: object) -> frozenset[str]:
    found = [_read(exc, name) for name in _CODE_FIELDS]
    found.extend(fields.get(name) for fields in body_objects(body) for name in _CODE_FIELDS)
    return frozenset(code for code in found if isinstance(code, str))


def _exhausted(status: int | None, codes: frozenset[str], body: object) -> str | None:
    known = codes & _EXHAUSTED_CODES
    if known:
        return min(known, key=lambda code: (code in _GENERAL_CODES, code))
    if status == 402:
        return "payment_required"
    for fields in body_objects(body):
        quota = fields.get("quotaId")
        if isinstance(quota, str) and ("PerDay" in quota or "Daily" in quota):
            return "daily_quota"
    return None


def _read(owner: object, name: str) -> object:
    try:
        return cast("object", getattr(owner, name, None))
    except Exception:
        # A property of a foreign error may raise, as httpx's do for a response that was not read. It then says nothing.
        return None

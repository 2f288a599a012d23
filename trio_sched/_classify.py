"""Reads what an exception of a model call means, without importing any SDK.

The errors of the OpenAI and Anthropic SDKs, of httpx and of their relatives are known by what they carry and by the
names of their classes, the bases included, so a newer or older SDK, a subclass or a look-alike is read the same way.
Looked at in this order, the first that fits decides:

=====================================================  ====================  =============================
what is seen                                           outcome               worth another attempt
=====================================================  ====================  =============================
an exception group                                     see below             see below
Cancelled, and what ends the program                   local_cancelled       no
a refusal: HTTP 429, 529, 503 with a retry hint        rate_limited          yes
a refusal said by a code, with any status or none      rate_limited          yes
any other HTTP status that is no success               provider_failure      408, 409, 5xx but 501 and 505
trio.TooSlowError: a deadline of the caller            local_timeout         yes
PoolTimeout: no connection of our own was free         local_timeout         yes
a timeout of the transport                             provider_timeout      yes
a request that could not be made (bad URL, protocol)   unexpected_exception  no
a broken connection, an unreadable or aborted answer   provider_failure      yes
anything else                                          unexpected_exception  no
=====================================================  ====================  =============================

*Codes.* A provider may refuse by a code: in the body of an error of whatever status, or inside a stream that began as a
success, where the SDKs raise an `APIError` without a status or with 200. The numbers 429 and 529 are such codes, too.
Any number from 400 to 599 that the error of such a stream says is its status. Codes count only in errors of providers:
those with the status of a failure, and `APIError`. They are compared without case and without anything but letters and
digits, and any with "overload" in it is one: `overloaded_error` (Anthropic), `server_is_overloaded` (OpenAI),
`engine_overloaded_error` (Moonshot), `model_overloaded` and their like.

*Overload.* HTTP 503 without a hint and without a code stays `provider_failure`, as it may be an outage as well. For who
sets limits it is a refusal all the same: `RequestReleaseOutcome.refused`.

*Causes.* Only `APITimeoutError` and `APIConnectionError` are looked behind: both SDKs raise them from the transport's
own error, which says more. No other `__cause__` is followed: an author who raised an error of their own meant it.

*Groups.* A single leaf is judged as itself. Of several, cancelled ones are set aside, being what a nursery does to the
others; the outcome is then the first found of rate_limited, unexpected_exception, provider_failure, provider_timeout,
local_timeout; it may be retried only if every one of them may.

*Quota.* Some refusals do not pass: the account is out of credit or over a spending limit. They carry a code
of a quota, which is compared as it is, or are HTTP 402, or name a daily quota. Their outcome is what the table says,
they are never retryable, and `exhausted` names what was seen.

*Hints.* Where a provider says when to come back, the outcome carries it; see `_retry_hints.py`. A refusal and HTTP 503
may say so anywhere, another failure only by its `retry-after` headers, and what is no provider's error not at all.
`x-should-retry` decides for a failure what the table leaves to the status, as it does in both SDKs.

*Botocore* keeps status, headers and code in a mapping, `response`; they are read there as well.

Diagnostics are plain facts: the error's type, where the hint came from, a known code. Never a message or a body.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, TypeGuard, cast

import attrs
import trio

from trio_sched._resources.request import RequestOutcomeKind, RequestReleaseOutcome
from trio_sched._retry_hints import DEFAULT_HINT_CAP_SECONDS, body_objects, parse_json_body, retry_hint
from trio_sched._util import leaves_of

__all__ = [
    "ErrorVerdict",
    "classify_exception",
    "judge_exception",
    "refuses",
    "used_up_quota",
]

_RATE_LIMIT_STATUSES: Final = frozenset({429, 529})
_STATUS: Final = re.compile("[1-5][0-9][0-9]")
_PERMANENT_SERVER_STATUSES: Final = frozenset({501, 505})
_RETRYABLE_CLIENT_STATUSES: Final = frozenset({408, 409})

_CODE_FIELDS: Final = ("code", "type", "error_code", "reason", "status", "Code", "__type")
_STATUS_FIELDS: Final = ("status_code", "code", "status")

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

_LONGEST_CODE = 128
_OVERLOAD: Final = "overload"
_NO_LETTER = re.compile(r"[^a-z0-9]")


def _plain(code: str) -> str:
    return _NO_LETTER.sub("", code.lower())


_REFUSALS: Final = frozenset(
    map(
        _plain,
        (
            "rate_limit_exceeded",  # OpenAI, Groq, and Google as a reason
            "slow_down",  # OpenAI
            "rate_limit_error",  # Anthropic, Cerebras
            "rate_limited",  # Mistral
            "service_tier_capacity_exceeded",  # Mistral
            "rate_limit_reached_error",  # Moonshot
            "RateLimitReached",  # Azure
            "too_many_requests",  # Azure, gateways
            "RESOURCE_EXHAUSTED",  # Gemini, and whatever speaks gRPC
            "userRateLimitExceeded",  # Google
            "ThrottlingException",  # Bedrock
            "TooManyRequestsException",  # Bedrock
            "ModelNotReadyException",  # Bedrock
        ),
    )
)

# OpenAI: all under the type insufficient_quota, the particular one in the code. Anthropic: billing_error by type, the
# spending limits by error.details.error_code, sent with status 429 and no hint.
_USED_UP: Final = frozenset(
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
_GENERAL: Final = frozenset({"insufficient_quota", "billing_error"})


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
    response = _read(exc, "response")
    status = _status(exc, response)
    failed = status is not None and not 200 <= status < 300
    if not failed and "APIError" not in _type_names(exc):
        kind, retryable = _judge_type(exc)
        return ErrorVerdict(RequestReleaseOutcome(kind, None, status, diagnostics), retryable)
    headers = _headers(exc, response)
    content = _content(exc, response)
    body = parse_json_body(content) if isinstance(content, str | bytes) else content
    facts = body_objects(body)
    codes = _codes(exc, facts)
    said = _statuses_said(facts)
    if not failed and said:
        status, failed = said[0], True
    refused = status in _RATE_LIMIT_STATUSES or not _RATE_LIMIT_STATUSES.isdisjoint(said) or any(map(refuses, codes))
    hint = retry_hint(
        headers,
        body,
        messages=_messages(exc, content, facts),
        refused=refused or status == 503,
        cap_seconds=hint_cap_seconds,
        wall_now=wall_now,
    )
    if refused or (status == 503 and hint is not None):
        kind, retryable = "rate_limited", True
    elif failed and status is not None:
        wish = _should_retry(headers)
        kind, retryable = "provider_failure", _passes(status) if wish is None else wish
    else:
        kind, retryable = _judge_type(exc)
    if hint is not None:
        diagnostics["hint_source"] = hint.source
    exhausted = _exhausted(status, codes, facts)
    if exhausted is not None:
        diagnostics["quota_code"] = exhausted
    outcome = RequestReleaseOutcome(kind, None if hint is None else hint.seconds, status, diagnostics)
    return ErrorVerdict(outcome, retryable and exhausted is None, exhausted)


def _passes(status: int) -> bool:
    return status in _RETRYABLE_CLIENT_STATUSES or (status >= 500 and status not in _PERMANENT_SERVER_STATUSES)


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


def _status(exc: BaseException, response: object) -> int | None:
    for owner, name in (
        (exc, "status_code"),
        (exc, "status"),
        (response, "status_code"),
        (response, "status"),
        (exc, "http_status"),
        (exc, "code"),
    ):
        value = _read(owner, name)
        if _is_status(value):
            return int(value)
    value = _entry(_botocore(response), "HTTPStatusCode")
    return int(value) if _is_status(value) else None


def _is_status(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and 100 <= value <= 599


def _statuses_said(facts: list[Mapping[str, object]]) -> list[int]:
    """The statuses of failures that a body says, as numbers or as text."""
    said = [fields.get(name) for fields in facts for name in _STATUS_FIELDS]
    numbers = [int(text) if isinstance(text, str) and _STATUS.fullmatch(text) else text for text in said]
    return [int(number) for number in numbers if _is_status(number) and number >= 400]


def _headers(exc: BaseException, response: object) -> object:
    found = (_read(response, "headers"), _entry(_botocore(response), "HTTPHeaders"), _read(exc, "headers"))
    return next((headers for headers in found if headers is not None), None)


def _botocore(response: object) -> object:
    return _entry(response, "ResponseMetadata")


def _messages(exc: BaseException, content: object, facts: list[Mapping[str, object]]) -> list[str]:
    """What an error says in words: its message, and its body where that is no JSON object."""
    args = _read(exc, "args")
    texts: list[object] = [
        _read(exc, "message"),
        *(cast("tuple[object, ...]", args) if isinstance(args, tuple) else ()),
    ]
    if not facts:
        texts.append(content.decode("utf-8", "replace") if isinstance(content, bytes) else content)
    return [text for text in texts if isinstance(text, str)]


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


def _content(exc: BaseException, response: object) -> object:
    """The body, decoded or not."""
    for name in ("body", "details"):
        value = _read(exc, name)
        if isinstance(value, Mapping | list | tuple | str | bytes):
            return cast("object", value)
    if isinstance(response, Mapping):
        return cast("object", response)
    # Only what is in memory already: reading a body here could block.
    return _read(response, "content") if _read(response, "is_closed") is True else None


def _codes(exc: BaseException, facts: list[Mapping[str, object]]) -> frozenset[str]:
    found = [_read(exc, name) for name in _CODE_FIELDS]
    found.extend(fields.get(name) for fields in facts for name in _CODE_FIELDS)
    return frozenset(code for code in found if isinstance(code, str))


def _exhausted(status: int | None, codes: frozenset[str], facts: list[Mapping[str, object]]) -> str | None:
    code = used_up_quota(codes)
    if code is not None:
        return code
    if status == 402:
        return "payment_required"
    for fields in facts:
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


def _entry(owner: object, name: str) -> object:
    try:
        return cast("Mapping[str, object]", owner).get(name) if isinstance(owner, Mapping) else None
    except Exception:
        # As in `_read`.
        return None


def refuses(code: str) -> bool:
    """Whether a code says that there is no room now: a rate limit or an overload.

    Of a code with a namespace, `name.space#Code`, the part after it counts.
    """
    if len(code) > _LONGEST_CODE:
        return False
    plain = _plain(code.rpartition("#")[2])
    return plain in _REFUSALS or _OVERLOAD in plain


def used_up_quota(codes: AbstractSet[str]) -> str | None:
    """The code that says that a quota is used up, the most particular one, or None."""
    return min(codes & _USED_UP, key=lambda code: (code in _GENERAL, code), default=None)

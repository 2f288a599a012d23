"""Reads what an exception of a model call means, and whose failure it is, without importing any SDK.

The errors of the OpenAI and Anthropic SDKs, of httpx and of their relatives are known by what they carry and by the
names of their classes, the bases included, so a newer or older SDK, a subclass or a look-alike is read the same way.
Looked at in this order, the first that fits decides:

=====================================================  ====================  ===================================
what is seen                                           outcome               whose failure (`blame`)
=====================================================  ====================  ===================================
an exception group                                     see below             see below
Cancelled, and what ends the program                   local_cancelled       nobody's
`RateLimited`, raised by the author                    rate_limited          the provider's pace
what `Model(judge=)` made of an answer                 as the judge said     as the judge said
a used-up quota, see below                             as without it         access
a request larger than its whole limit, see below       provider_failure      the row's
a refusal: HTTP 429, 529; 403, 498, 503 with a hint    rate_limited          the provider's pace
a refusal said by a code, with any status or none      rate_limited          the provider's pace
any other status or code of a failure                  provider_failure      see the next table
trio.TooSlowError: a deadline of the caller            local_timeout         the endpoint's
PoolTimeout, no descriptor: our own means were short   local_timeout         the provider's pace
a timeout of the transport                             provider_timeout      the endpoint's
a request that could not be made (bad URL, protocol)   unexpected_exception  the row's
a broken connection, an unreadable or aborted answer   provider_failure      the endpoint's
anything else                                          unexpected_exception  the row's
=====================================================  ====================  ===================================

What is the provider's pace, the endpoint's or a matter of access says nothing about the row, so it is `retryable`.
Nothing else is.

=======================================================  =======================================================
status or code of a failure                              whose
=======================================================  =======================================================
a code that says too long, of any status; a content      the row's
filter or a failed tool call, with 4xx or none
503                                                      the provider's pace
501, 505                                                 the row's
other 5xx                                                the endpoint's
408, 409, 425, 499                                       the endpoint's
404, 410, a code of what was not found without status    access; the row's if a file or the like is missing
403 that names moderation or a flagged content           the row's
403 with a page of HTML, as a firewall sends             the endpoint's
401, 403, 405, 407, 498                                  access
a code that names key or model, with 4xx or none         access
400 DEGRADED (NVIDIA); 4xx with an error of the model    the endpoint's
that may pass (Bedrock: 424 ModelErrorException)
any other status                                         the row's
no status: a code of a server's trouble                  the endpoint's
no status: a code of invalid requests                    the row's
no status: anything else                                 as the table above says of its type
=======================================================  =======================================================

`x-should-retry` decides for a failure what the status leaves open, as it does in both SDKs: true makes it the
endpoint's, false makes what was the endpoint's the row's.

*Codes.* A provider may refuse by a code: in the body of an error of whatever status, or inside a stream that began as a
success, where the SDKs raise an `APIError` without a status or with 200, or in an answer that raised nothing, see
`_answers.py`. The numbers 429 and 529 are such codes, too. Any number from 400 to 599 that such an error says is its
status. Codes count only in errors of providers: those with the status of a failure, `APIError` and
`ProviderAnswerError`. They are compared without case and without anything but letters and digits, and any with
"overload" in it refuses: `overloaded_error` (Anthropic), `server_is_overloaded` (OpenAI), `engine_overloaded_error`
(Moonshot), `model_overloaded` and their like. A code that names one thing beats one that names a kind: OpenAI says
`invalid_request_error` of a wrong key, too.

*Overload.* HTTP 503 without a hint and without a code keeps the outcome `provider_failure`, as it may be an outage as
well. For who sets limits it is a refusal all the same: `RequestReleaseOutcome.refused`.

*What is missing.* A 404 of the model or the route closes the endpoint, and one of a file must not. Of the nouns in the
provider's message or code the first decides; without any it is the model.

*Too large.* "Limit 30000, Requested 40000" comes with the code of a rate limit, but no wait will help.

*Unreadable.* A body that is no JSON is one if the decoder was called by an HTTP library or an SDK, or was given HTML.
What an author's own function decodes is the model's text.

*Causes.* Only `APITimeoutError` and `APIConnectionError` are looked behind: both SDKs raise them from the transport's
own error, which says more. No other `__cause__` is followed, because an author who raised an error of their own meant
it; only whether descriptors ran out is looked for below any error of the transport.

*Groups.* A single leaf is judged as itself. Of several, cancelled ones are set aside, being what a nursery does to the
others; the outcome is then the first found of rate_limited, unexpected_exception, provider_failure, provider_timeout,
local_timeout. It is the row's if one of them is, otherwise a matter of access, of pace, the endpoint's.

*Quota.* Some refusals do not pass: the account is out of credit or over a spending limit. They carry a code of a quota,
or are HTTP 402, or name a daily quota. `exhausted` names what was seen.

*Hints.* Where a provider says when to come back, the outcome carries it; see `_retry_hints.py`. A refusal and HTTP 503
may say so anywhere, another failure only by its `retry-after` headers, and what is no provider's error not at all.

*Botocore* keeps status, headers and code in a mapping, `response`; they are read there as well.

Diagnostics are plain facts: the error's type, where the hint came from, a known code. Never a message or a body.
Nothing here raises, whatever an error does when it is looked at.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, TypeGuard, cast

import attrs
import trio

from trio_sched._answers import ProviderAnswerError, RateLimited, looks_like_markup
from trio_sched._resources.request import Blame, RequestOutcomeKind, RequestReleaseOutcome
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
_HINTED_STATUSES: Final = frozenset({403, 498, 503})
_STATUS: Final = re.compile("[1-5][0-9][0-9]")
_PASSING_STATUSES: Final = frozenset({408, 409, 425, 499})
_LASTING_SERVER_STATUSES: Final = frozenset({501, 505})
_ACCESS_STATUSES: Final = frozenset({401, 403, 405, 407, 498})
_MISSING_STATUSES: Final = frozenset({404, 410})

_CODE_FIELDS: Final = ("code", "type", "error_code", "reason", "status", "Code", "__type")
_STATUS_FIELDS: Final = ("status_code", "code", "status")
_WORD_FIELDS: Final = ("message", "Message", "error", "detail", "title")

_SDK_WRAPPERS: Final = frozenset({"APITimeoutError", "APIConnectionError"})
_TIMEOUTS: Final = frozenset(
    {"APITimeoutError", "TimeoutException", "Timeout", "TimeoutError", "ReadTimeoutError", "ConnectTimeoutError"}
)
_NOT_SENT: Final = frozenset({"UnsupportedProtocol", "LocalProtocolError", "InvalidURL"})
_BROKEN: Final = frozenset(
    {
        "APIConnectionError",
        "APIResponseValidationError",
        "APIError",
        "ProviderAnswerError",
        "TransportError",
        "DecodingError",
        "BrokenResourceError",
        "ConnectionError",
        "ClientConnectionError",
        "ClientPayloadError",
        "ContentTypeError",
        "ChunkedEncodingError",
        "IncompleteRead",
        "HTTPClientError",
        "NewConnectionError",
        "ProtocolError",
        "InvalidJSONError",
        "ResponseValidationError",
        "UnknownApiResponseError",
        "gaierror",
        "SSLError",
    }
)
_UNDECODED: Final = frozenset({"JSONDecodeError", "UnicodeDecodeError"})
_DECODERS: Final = frozenset({"json", "simplejson", "encodings", "codecs"})
_CLIENT_PACKAGES: Final = frozenset(
    {
        "httpx",
        "httpx2",
        "requests",
        "aiohttp",
        "urllib3",
        "openai",
        "anthropic",
        "groq",
        "mistralai",
        "cohere",
        "together",
    }
)
_NOT_REACHED: Final = frozenset(
    {
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ETIMEDOUT,
    }
)
_NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})
_DEEPEST_CAUSE: Final = 8

_WORST_FIRST: Final[tuple[RequestOutcomeKind, ...]] = (
    "rate_limited",
    "unexpected_exception",
    "provider_failure",
    "provider_timeout",
    "local_timeout",
    "local_cancelled",
)

_BLAMES_WORST_FIRST: Final[tuple[Blame, ...]] = ("row", "access", "pace", "endpoint", "nobody")
_RETRYABLE: Final[frozenset[Blame]] = frozenset({"pace", "endpoint", "access"})

_Judgement = tuple[RequestOutcomeKind, Blame]

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
            "capacity_exceeded",  # Groq, with status 498
            "Throttling",  # DashScope
        ),
    )
)

_ACCESS: Final = frozenset(
    map(
        _plain,
        (
            "authentication_error",  # Anthropic
            "permission_error",  # Anthropic
            "invalid_api_key",  # OpenAI
            "API_KEY_INVALID",  # Gemini, with status 400
            "invalid_authentication_error",  # Moonshot
            "UNAUTHENTICATED",  # whatever speaks gRPC
            "PERMISSION_DENIED",
            "unauthorized",
            "forbidden",
            "account_deactivated",  # OpenAI
            "organization_deactivated",
            "unsupported_country_region_territory",  # OpenAI
            "AuthenticationError",  # vLLM, LiteLLM
            "PermissionDeniedError",
            "AccessDeniedException",  # Bedrock
            "UnrecognizedClientException",  # Bedrock
            "ExpiredTokenException",  # Bedrock
            "InvalidSignatureException",  # Bedrock
            "ServiceQuotaExceededException",  # Bedrock
            "model_not_found",  # OpenAI
            "model_decommissioned",  # Groq, with status 400
            "model_deprecated",
            "DeploymentNotFound",  # Azure
            "unknown_url",  # OpenAI
        ),
    )
)
_TOO_LONG: Final = re.compile("context(?:length|window|size)|abovemaxlength|toolarge|toolong")
_OF_THE_CONTENT: Final = re.compile(
    "content(?:filter|policy|blocked)|moderation|responsibleai|safety|datainspection|tooluse(?:failed|invalid)"
    "|jsonvalidatefailed"
)
_INVALID: Final = re.compile("^(?:invalid(?!response)|badrequest|validation|unprocessable|unsupported)")
_OF_THE_MODEL: Final = frozenset(
    map(
        _plain,
        (
            "ModelErrorException",  # Bedrock, as the others; with status 424
            "ModelStreamErrorException",
            "ModelTimeoutException",
        ),
    )
)
_PASSING: Final = _OF_THE_MODEL | frozenset(
    map(
        _plain,
        (
            "InternalServerException",  # Bedrock
            "server_error",  # OpenAI
            "api_error",  # Anthropic
            "timeout_error",  # Anthropic
            "internal_error",
            "internal_server_error",
            "UNAVAILABLE",
            "DEADLINE_EXCEEDED",
        ),
    )
)
_NOT_FOUND: Final = re.compile("notfound(?:error|exception)?$")
_WORD_ENDS: Final = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z])(?=[A-Z])")
_MISSING: Final = re.compile(
    r"\b(?:(?P<access>models?|deployments?|engines?|endpoints?|routes?|urls?|paths?|apis?|accounts?|projects?|organi[sz]ations?)"
    r"|(?:files?|images?|videos?|audios?|documents?|items?|responses?|messages?|threads?|assistants?|runs?|batch|batches"
    r"|vector[ _]?stores?|containers?|uploads?|attachments?|conversations?|prompts?|cached[ _]?contents?|caches?"
    r"|sessions?|datasets?|skills?|objects?))\b",
    re.IGNORECASE,
)
_RATE_WORDS: Final = re.compile(r"rate[ _-]?limit|too many requests", re.IGNORECASE)
_CONTENT_WORDS: Final = re.compile(
    r"(?:input|prompt|content|request|message)s? (?:was|were|has been|have been) flagged|\bmoderation\b"
    r"|\bcontent (?:policy|filter|management)",
    re.IGNORECASE,
)
_DEGRADED: Final = re.compile(r"\bDEGRADED function\b")
_LARGER_THAN_LIMIT: Final = re.compile(r"\blimit:? ([0-9]{1,15}),? requested:? ([0-9]{1,15})\b", re.IGNORECASE)
_LONGEST_WORDS: Final = 4096

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
        "exceeded_current_quota_error",  # Moonshot
        "insufficient_balance",  # DeepSeek
        "Arrearage",  # DashScope
        "dailyLimitExceeded",  # Google
    }
)
_GENERAL: Final = frozenset({"insufficient_quota", "billing_error"})


@attrs.frozen
class ErrorVerdict:
    """What an exception means: for admission, `outcome`; for whoever might try again, the rest.

    retryable: the row may be asked for again, as the failure says nothing about it: the blame of the outcome is pace,
    endpoint or access. exhausted: the quota code that says that no attempt will succeed for now, or None.
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
    try:
        leaves = list(leaves_of(exc))
    except Exception:
        # An error may lie even about its class.
        leaves = [exc]
    return _worst([_judge_safely(leaf, hint_cap_seconds, wall_now) for leaf in leaves])


def _judge_safely(exc: BaseException, hint_cap_seconds: float, wall_now: Callable[[], float]) -> ErrorVerdict:
    diagnostics: dict[str, object] = {"error_type": f"{type(exc).__module__}.{type(exc).__qualname__}"}
    try:
        return _judge_one(exc, diagnostics, hint_cap_seconds, wall_now)
    except Exception:
        # A foreign error may raise whatever is read of it. It is on its way out, and must not be replaced.
        return _verdict("unexpected_exception", "row", diagnostics)


def _verdict(
    kind: RequestOutcomeKind,
    blame: Blame,
    diagnostics: Mapping[str, object],
    *,
    hint: float | None = None,
    status: int | None = None,
    exhausted: str | None = None,
) -> ErrorVerdict:
    outcome = RequestReleaseOutcome(kind, hint, status, diagnostics, blame=blame)
    return ErrorVerdict(outcome, blame in _RETRYABLE, exhausted)


def _worst(verdicts: list[ErrorVerdict]) -> ErrorVerdict:
    errors = [verdict for verdict in verdicts if verdict.outcome.kind != "local_cancelled"] or verdicts[:1]
    if len(errors) == 1:
        return errors[0]
    worst = min(errors, key=lambda verdict: _WORST_FIRST.index(verdict.outcome.kind)).outcome
    blame = min(errors, key=lambda verdict: _BLAMES_WORST_FIRST.index(verdict.outcome.blame)).outcome.blame
    hints = [error.outcome.retry_after_seconds for error in errors if error.outcome.retry_after_seconds is not None]
    return _verdict(
        worst.kind,
        blame,
        {**worst.diagnostics, "errors_in_group": len(errors)},
        hint=max(hints, default=None),
        status=worst.provider_status,
        exhausted=next((error.exhausted for error in errors if error.exhausted is not None), None),
    )


def _judge_one(
    exc: BaseException, diagnostics: dict[str, object], hint_cap_seconds: float, wall_now: Callable[[], float]
) -> ErrorVerdict:
    if isinstance(exc, trio.Cancelled | KeyboardInterrupt | SystemExit | GeneratorExit):
        return _verdict("local_cancelled", "nobody", diagnostics)
    if isinstance(exc, RateLimited):
        return _verdict("rate_limited", "pace", diagnostics, hint=_capped(exc.retry_after, hint_cap_seconds))
    if isinstance(exc, ProviderAnswerError) and exc.outcome is not None:
        judged = exc.outcome
        outcome = attrs.evolve(
            judged,
            retry_after_seconds=_capped(judged.retry_after_seconds, hint_cap_seconds),
            diagnostics={**diagnostics, **judged.diagnostics},
        )
        return ErrorVerdict(outcome, outcome.blame in _RETRYABLE)
    names = _type_names(exc)
    response = _read(exc, "response")
    status = _status(exc, response)
    failed = status is not None and not 200 <= status < 300
    if not failed and names.isdisjoint({"APIError", "ProviderAnswerError"}):
        kind, blame = _judge_type(exc)
        return _verdict(kind, blame, diagnostics, status=status)
    headers = _headers(exc, response)
    content = _content(exc, response)
    body = parse_json_body(content) if isinstance(content, str | bytes) else content
    facts = body_objects(body)
    messages = _messages(exc, content, facts)
    said = _Said(_codes(exc, headers, facts), _words_of(facts) if facts else messages, facts, content)
    statuses = _statuses_said(facts)
    if not failed and statuses:
        status, failed = statuses[0], True
    refused = (
        status in _RATE_LIMIT_STATUSES
        or not _RATE_LIMIT_STATUSES.isdisjoint(statuses)
        or any(map(refuses, said.codes))
        or (status in {403, 498} and said.in_words(_RATE_WORDS))
    )
    hint = retry_hint(
        headers,
        body,
        messages=messages,
        refused=refused or status == 503,
        cap_seconds=hint_cap_seconds,
        wall_now=wall_now,
    )
    exhausted = _exhausted(status, said.codes, facts)
    if exhausted is not None:
        diagnostics["quota_code"] = exhausted
    if exhausted is None and said.is_larger_than_limit():
        kind, blame, hint = "provider_failure", "row", None
    elif refused or (status in _HINTED_STATUSES and hint is not None):
        kind, blame = "rate_limited", "pace"
    elif failed and status is not None:
        kind, blame = "provider_failure", said.blame_of(status, _should_retry(headers))
    else:
        blame_of_code = said.blame_of_code()
        kind, blame = _judge_type(exc) if blame_of_code is None else ("provider_failure", blame_of_code)
    if hint is not None:
        diagnostics["hint_source"] = hint.source
    return _verdict(
        kind,
        blame if exhausted is None else "access",
        diagnostics,
        hint=None if hint is None else hint.seconds,
        status=status,
        exhausted=exhausted,
    )


def _capped(hint: float | None, cap_seconds: float) -> float | None:
    return min(hint, cap_seconds) if hint else None


def _plain_codes(said: _Said) -> frozenset[str]:
    return frozenset(_plain(code.rpartition("#")[2]) for code in said.codes if len(code) <= _LONGEST_CODE)


@attrs.frozen
class _Said:
    """What an error of a provider says beside its status. words: its messages, those of its body where it has any."""

    codes: frozenset[str]
    words: list[str]
    facts: list[Mapping[str, object]]
    content: object
    plain: frozenset[str] = attrs.field(default=attrs.Factory(_plain_codes, takes_self=True), init=False)

    def in_words(self, pattern: re.Pattern[str]) -> bool:
        return any(pattern.search(text) for text in self.words)

    def is_larger_than_limit(self) -> bool:
        """Whether the request asks for more at once than its limit has at any time."""
        found = (_LARGER_THAN_LIMIT.search(text) for text in self.words)
        return any(int(said[2]) > int(said[1]) for said in found if said is not None)

    def blame_of(self, status: int, should_retry: bool | None) -> Blame:
        """Whose a failure with this status is."""
        blame = self._blame_of(status)
        if should_retry is True and blame in {"row", "access"}:
            return "endpoint"
        return "row" if should_retry is False and blame == "endpoint" else blame

    def _blame_of(self, status: int) -> Blame:
        if self._names(_TOO_LONG) or (status < 500 and self._names(_OF_THE_CONTENT)):
            return "row"
        if status >= 500:
            return "pace" if status == 503 else "row" if status in _LASTING_SERVER_STATUSES else "endpoint"
        if status in _PASSING_STATUSES:
            return "endpoint"
        if status in _MISSING_STATUSES:
            return self._blame_of_missing()
        if status == 403 and self.in_words(_CONTENT_WORDS):
            return "row"
        if status == 403 and looks_like_markup(self.content):
            return "endpoint"
        if status in _ACCESS_STATUSES or not self.plain.isdisjoint(_ACCESS):
            return "access"
        passes = (
            not self.plain.isdisjoint(_OF_THE_MODEL)
            or (status == 424 and any("originalStatusCode" in each for each in self.facts))
            or (status == 400 and self.in_words(_DEGRADED))
        )
        return "endpoint" if passes else "row"

    def blame_of_code(self) -> Blame | None:
        """Whose a failure without a status is; None if no code says so."""
        if self._names(_TOO_LONG) or self._names(_OF_THE_CONTENT):
            return "row"
        if not self.plain.isdisjoint(_ACCESS):
            return "access"
        if self._names(_NOT_FOUND):
            return self._blame_of_missing()
        if not self.plain.isdisjoint(_PASSING):
            return "endpoint"
        return "row" if self._names(_INVALID) else None

    def _names(self, pattern: re.Pattern[str]) -> bool:
        return any(map(pattern.search, self.plain))

    def _blame_of_missing(self) -> Blame:
        """Whose it is that something is missing. The first noun decides, the codes and the parameter before words.

        Only a body says it: the page of a web server may speak of files, too.
        """
        if not self.plain.isdisjoint(_ACCESS) or any(each.get("param") == "model" for each in self.facts):
            return "access"
        named = [_WORD_ENDS.sub(" ", code) for code in sorted(self.codes) if _NOT_FOUND.search(_plain(code))]
        for text in (*named, *self.words) if self.facts else ():
            noun = _MISSING.search(text)
            if noun is not None:
                return "row" if noun["access"] is None else "access"
        return "access"


def _judge_type(exc: BaseException) -> _Judgement:
    if isinstance(exc, trio.TooSlowError):
        return "local_timeout", "endpoint"
    names = _type_names(exc)
    cause = _read(exc, "__cause__")
    if not _SDK_WRAPPERS.isdisjoint(names) and isinstance(cause, BaseException):
        behind = _type_names(cause)
        if "PoolTimeout" in behind or not _NOT_SENT.isdisjoint(behind):
            names = behind
    if "PoolTimeout" in names:
        return "local_timeout", "pace"
    if not _TIMEOUTS.isdisjoint(names):
        return "provider_timeout", "endpoint"
    if not _NOT_SENT.isdisjoint(names):
        return "unexpected_exception", "row"
    broken = not _BROKEN.isdisjoint(names)
    if broken or isinstance(exc, OSError):
        if not _NO_DESCRIPTORS.isdisjoint(_error_numbers(exc, contexts=broken)):
            return "local_timeout", "pace"
        if broken or not _NOT_REACHED.isdisjoint(_error_numbers(exc)):
            return "provider_failure", "endpoint"
    if not _UNDECODED.isdisjoint(names) and _is_unreadable_body(exc):
        return "provider_failure", "endpoint"
    return "unexpected_exception", "row"


def _error_numbers(exc: BaseException, *, contexts: bool = False) -> Iterator[int]:
    """The numbers that the operating system gave an error of the transport, or the errors that it was made from.

    contexts: also look at what was being handled, as httpcore names no cause.
    """
    each: object = exc
    for _ in range(_DEEPEST_CAUSE):
        if not isinstance(each, BaseException):
            return
        for leaf in leaves_of(each):
            number = _read(leaf, "errno")
            if isinstance(number, int):
                yield number
        cause = _read(each, "__cause__")
        each = _read(each, "__context__") if cause is None and contexts else cause


def _is_unreadable_body(exc: BaseException) -> bool:
    """Whether what could not be decoded is the body of an answer, and not the text of a model."""
    if looks_like_markup(_read(exc, "doc")) or looks_like_markup(_read(exc, "object")):
        return True
    caller = ""
    step = exc.__traceback__
    while step is not None:
        package = str(step.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in _DECODERS:
            caller = package
        step = step.tb_next
    return caller in _CLIENT_PACKAGES


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
    value = _header(headers, "x-should-retry")
    return {"true": True, "false": False}.get(value) if isinstance(value, str) else None


def _header(headers: object, name: str) -> object:
    get = _read(headers, "get")
    try:
        return get(name) if callable(get) else None
    except Exception:
        # A foreign mapping; see `_read`.
        return None


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


def _words_of(facts: list[Mapping[str, object]]) -> list[str]:
    """The messages of a body, each as far as it is looked at."""
    texts = (fields.get(name) for fields in facts for name in _WORD_FIELDS)
    return [text[:_LONGEST_WORDS] for text in texts if isinstance(text, str)]


def _codes(exc: BaseException, headers: object, facts: list[Mapping[str, object]]) -> frozenset[str]:
    found = [_read(exc, name) for name in _CODE_FIELDS]
    error_type = _header(headers, "x-amzn-errortype")
    if isinstance(error_type, str):
        found.append(error_type.partition(":")[0])
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

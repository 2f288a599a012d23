"""The codes by which providers refuse, and those by which they say that a quota is used up.

Codes of refusals are compared without case and without anything but letters and digits, and any with "overload" in it
is one: `overloaded_error` (Anthropic), `server_is_overloaded` (OpenAI), `engine_overloaded_error` (Moonshot),
`model_overloaded` and their like. Codes of quotas are compared as they are.
"""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet
from typing import Final

__all__ = ["refuses", "used_up_quota"]

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

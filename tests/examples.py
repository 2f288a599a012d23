"""How many examples a test tries, as a share of what the Hypothesis profile says, so that it grows with the profile."""

from __future__ import annotations

from hypothesis import settings

__all__ = ["share_of_profile"]


def share_of_profile(share: float) -> int:
    """That share of the profile's examples, and at least one: `@settings(max_examples=share_of_profile(0.3))`."""
    return max(1, round(settings().max_examples * share))

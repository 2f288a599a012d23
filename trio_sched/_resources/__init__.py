"""Frozen values that name resources: what is asked for, held and given back. They know nothing of who uses them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

__all__ = ["ReleaseReason", "ReleaseResult"]

ReleaseReason = Literal["released", "duplicate", "stale_lease", "wrong_controller_generation", "unknown_lease"]


@attrs.frozen
class ReleaseResult:
    """Whether capacity came back, and if not why: of a task lease as of a request lease.

    A release never raises and never adds capacity twice.
    """

    released: bool
    reason: ReleaseReason
    diagnostics: Mapping[str, object] = attrs.field(factory=dict[str, object])

"""What a release answers: the same type for task leases and request leases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

__all__ = ["ReleaseReason", "ReleaseResult"]

ReleaseReason = Literal["released", "duplicate", "stale_lease", "wrong_controller_generation", "unknown_lease"]


@attrs.frozen
class ReleaseResult:
    """Whether capacity came back, and if not why. A release never raises and never adds capacity twice."""

    released: bool
    reason: ReleaseReason
    diagnostics: Mapping[str, object] = attrs.field(factory=dict[str, object])

"""Read-only pictures of request pressure, taken at one instant and changing nothing."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from trio_sched._fast_constructor import fast_constructor
from trio_sched._resources.identity import ProviderModelKey, RequestDomain, RequestResourceKey

__all__ = ["ProviderModelPressureSnapshot", "RequestPressureSnapshot", "make_pressure_snapshot"]


@attrs.frozen(weakref_slot=False)
class RequestPressureSnapshot:
    """One request resource at `captured_at` (the run's clock, seconds). `sequence` counts its state changes."""

    captured_at: float
    sequence: int
    resource: RequestResourceKey
    effective_max: int
    current_limit: int
    in_flight_count: int
    active_lease_count: int
    waiters: int
    blocked_until_monotonic: float | None
    cooldown_remaining_seconds: float
    rate_limit_ceiling: int | None
    consecutive_rate_limits: int
    last_outcome: str | None
    leak_diagnostics: Mapping[str, int]


make_pressure_snapshot = fast_constructor(RequestPressureSnapshot)
"""Makes one where it is made for every event."""


@attrs.frozen
class ProviderModelPressureSnapshot:
    """One endpoint at `captured_at`. `domains` maps each domain to its requests in flight."""

    captured_at: float
    sequence: int
    provider_model: ProviderModelKey
    static_cap: int
    aggregate_in_flight: int
    aggregate_active_lease_count: int
    aliases: tuple[str, ...]
    raw_caps: Mapping[str, int]
    domains: Mapping[RequestDomain, int]

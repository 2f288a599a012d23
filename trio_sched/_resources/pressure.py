"""Read-only snapshots of request pressure, taken at one instant and changing nothing."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from trio_sched._resources.identity import ProviderModelKey, RequestDomain, RequestResourceKey

__all__ = ["ProviderModelPressureSnapshot", "RequestPressureSnapshot"]


@attrs.frozen
class RequestPressureSnapshot:
    """One request resource at `captured_at` (the run's clock, seconds). `sequence` counts its state changes.

    The defaults are those of a resource that nothing has stopped yet.
    """

    captured_at: float
    sequence: int
    resource: RequestResourceKey
    effective_max: int
    current_limit: int
    in_flight_count: int
    active_lease_count: int
    waiters: int
    blocked_until_monotonic: float | None = None
    cooldown_remaining_seconds: float = 0.0
    rate_limit_ceiling: int | None = None
    consecutive_rate_limits: int = 0
    last_outcome: str | None = None
    leak_diagnostics: Mapping[str, int] = attrs.field(factory=dict[str, int])


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

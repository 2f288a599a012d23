"""What bounds a run of the scheduler, in small parts that belong to one room each."""

from __future__ import annotations

import attrs

from trio_sched import _validation as check
from trio_sched._scheduler.health import HealthConfig
from trio_sched._scheduler.retry import RetryConfig
from trio_sched._scheduler.row_group_target import RowGroupConfig

__all__ = ["SchedulerConfig"]


@attrs.frozen
class SchedulerConfig:
    """no_progress_seconds: how long nothing at all may happen before the run fails, or None for no bound.

    A cooldown that request admission knows the end of, and a deferred task that is due later, do not count as nothing.
    """

    row_groups: RowGroupConfig = attrs.field(factory=RowGroupConfig)
    retry: RetryConfig = attrs.field(factory=RetryConfig)
    health: HealthConfig = attrs.field(factory=HealthConfig)
    no_progress_seconds: float | None = attrs.field(default=1800.0, validator=check.optional_positive_finite)

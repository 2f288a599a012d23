"""What request admission can be told, and every default it has.

`RequestAdmissionTuningConfig` is the users' part: the adaptive rule and nothing else. `RequestAdmissionConfig` is the
whole, with limits per resource and the queue's timeout. `RequestAdmissionConfigSnapshot` is the whole as plain values,
for the capacity plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, cast

import attrs

from trio_sched import _validation as check
from trio_sched._errors import InvalidTypeError
from trio_sched._resources.identity import RequestResourceKey

__all__ = ["RequestAdmissionConfig", "RequestAdmissionConfigSnapshot", "RequestAdmissionTuningConfig"]

DEFAULT_DECREASE_FACTOR: Final = 0.94
DEFAULT_INCREASE_STEP: Final = 1
DEFAULT_SUCCESSES_UNTIL_INCREASE: Final = 75
DEFAULT_COOLDOWN_SECONDS: Final = 0.25
DEFAULT_RAMP_SECONDS: Final = 0.0


@attrs.frozen
class RequestAdmissionTuningConfig:
    """How the limit of a request resource adapts.

    multiplicative_decrease_factor: what a rate limit leaves of the limit. additive_increase_step: what a streak of
    `successes_until_increase` successes adds. cooldown_seconds: pause after a rate limit that names none.
    startup_ramp_seconds: time over which the limit rises from 1 to its initial value; 0 starts there.
    """

    multiplicative_decrease_factor: float = attrs.field(
        default=DEFAULT_DECREASE_FACTOR, validator=check.open_unit_interval
    )
    additive_increase_step: int = attrs.field(default=DEFAULT_INCREASE_STEP, validator=check.positive_int)
    successes_until_increase: int = attrs.field(default=DEFAULT_SUCCESSES_UNTIL_INCREASE, validator=check.positive_int)
    cooldown_seconds: float = attrs.field(default=DEFAULT_COOLDOWN_SECONDS, validator=check.non_negative_finite)
    startup_ramp_seconds: float = attrs.field(default=DEFAULT_RAMP_SECONDS, validator=check.non_negative_finite)

    def with_limits(
        self,
        *,
        initial_limits: Mapping[RequestResourceKey, int] | None = None,
        max_limit_clamps: Mapping[RequestResourceKey, int] | None = None,
        default_queue_wait_timeout_seconds: float | None = None,
    ) -> RequestAdmissionConfig:
        """The whole configuration: this rule, and the parts that are not tuning."""
        return RequestAdmissionConfig(
            initial_limits=initial_limits or {},
            max_limit_clamps=max_limit_clamps or {},
            cooldown_seconds=self.cooldown_seconds,
            multiplicative_decrease_factor=self.multiplicative_decrease_factor,
            additive_increase_step=self.additive_increase_step,
            successes_until_increase=self.successes_until_increase,
            startup_ramp_seconds=self.startup_ramp_seconds,
            default_queue_wait_timeout_seconds=default_queue_wait_timeout_seconds,
        )


def _limits(value: Mapping[RequestResourceKey, int], field: str) -> Mapping[RequestResourceKey, int]:
    for key, limit in cast("Mapping[object, int]", value).items():
        if not isinstance(key, RequestResourceKey):
            raise InvalidTypeError(f"RequestAdmissionConfig.{field} key", key, "a RequestResourceKey")
        check.check_int(f"RequestAdmissionConfig.{field}[{key}]", limit, minimum=1)
    return MappingProxyType(dict(value))


def _initial_limits(value: Mapping[RequestResourceKey, int]) -> Mapping[RequestResourceKey, int]:
    return _limits(value, "initial_limits")


def _max_limit_clamps(value: Mapping[RequestResourceKey, int]) -> Mapping[RequestResourceKey, int]:
    return _limits(value, "max_limit_clamps")


@attrs.frozen
class RequestAdmissionConfig:
    """Everything request admission can be told.

    initial_limits: where a resource's limit starts; without an entry, at its effective maximum. max_limit_clamps: what
    lowers a resource's effective maximum below the static cap; never raises it. default_queue_wait_timeout_seconds:
    longest wait of an item that names none; None waits without end. The rest: see `RequestAdmissionTuningConfig`.
    """

    initial_limits: Mapping[RequestResourceKey, int] = attrs.field(
        factory=dict[RequestResourceKey, int], converter=_initial_limits
    )
    max_limit_clamps: Mapping[RequestResourceKey, int] = attrs.field(
        factory=dict[RequestResourceKey, int], converter=_max_limit_clamps
    )
    cooldown_seconds: float = attrs.field(default=DEFAULT_COOLDOWN_SECONDS, validator=check.non_negative_finite)
    multiplicative_decrease_factor: float = attrs.field(
        default=DEFAULT_DECREASE_FACTOR, validator=check.open_unit_interval
    )
    additive_increase_step: int = attrs.field(default=DEFAULT_INCREASE_STEP, validator=check.positive_int)
    successes_until_increase: int = attrs.field(default=DEFAULT_SUCCESSES_UNTIL_INCREASE, validator=check.positive_int)
    startup_ramp_seconds: float = attrs.field(default=DEFAULT_RAMP_SECONDS, validator=check.non_negative_finite)
    default_queue_wait_timeout_seconds: float | None = attrs.field(
        default=None, validator=check.optional_non_negative_finite
    )

    def tuning(self) -> RequestAdmissionTuningConfig:
        """The adaptive rule alone."""
        return RequestAdmissionTuningConfig(
            multiplicative_decrease_factor=self.multiplicative_decrease_factor,
            additive_increase_step=self.additive_increase_step,
            successes_until_increase=self.successes_until_increase,
            cooldown_seconds=self.cooldown_seconds,
            startup_ramp_seconds=self.startup_ramp_seconds,
        )

    def effective_max(self, resource: RequestResourceKey, static_cap: int) -> int:
        """The most that `resource` may have in flight at an endpoint capped at `static_cap`."""
        return min(static_cap, self.max_limit_clamps.get(resource, static_cap))

    def snapshot(self) -> RequestAdmissionConfigSnapshot:
        """This configuration as plain values, resources by name."""
        return RequestAdmissionConfigSnapshot(
            initial_limits={str(resource): limit for resource, limit in self.initial_limits.items()},
            max_limit_clamps={str(resource): limit for resource, limit in self.max_limit_clamps.items()},
            cooldown_seconds=self.cooldown_seconds,
            multiplicative_decrease_factor=self.multiplicative_decrease_factor,
            additive_increase_step=self.additive_increase_step,
            successes_until_increase=self.successes_until_increase,
            startup_ramp_seconds=self.startup_ramp_seconds,
            default_queue_wait_timeout_seconds=self.default_queue_wait_timeout_seconds,
        )


@attrs.frozen
class RequestAdmissionConfigSnapshot:
    """A `RequestAdmissionConfig` as it stands in the capacity plan: JSON-ready, resources by their names."""

    initial_limits: Mapping[str, int]
    max_limit_clamps: Mapping[str, int]
    cooldown_seconds: float
    multiplicative_decrease_factor: float
    additive_increase_step: int
    successes_until_increase: int
    startup_ramp_seconds: float
    default_queue_wait_timeout_seconds: float | None

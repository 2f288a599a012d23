"""The settings of request admission, and every default.

`RequestAdmissionTuningConfig` has the parameters of AIMD, which only that rule reads. `RequestAdmissionConfig` is the
whole, with the choice of the rule, limits per resource and the queue's timeout. `RequestAdmissionConfigSnapshot` is the
whole as plain values, for the capacity plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, cast

import attrs

from trio_sched import _validation as check
from trio_sched._errors import InvalidTypeError, InvalidValueError
from trio_sched._request.limit import LIMIT_NAMES, LimitChoice, limit_name
from trio_sched._resources.identity import RequestResourceKey
from trio_sched._util import records_given

__all__ = [
    "DEFAULT_LIMIT",
    "RequestAdmissionConfig",
    "RequestAdmissionConfigSnapshot",
    "RequestAdmissionTuningConfig",
    "check_limit",
]

DEFAULT_LIMIT: Final = "evidence"

DEFAULT_DECREASE_FACTOR: Final = 0.94
DEFAULT_INCREASE_STEP: Final = 1
DEFAULT_SUCCESSES_UNTIL_INCREASE: Final = 75
DEFAULT_COOLDOWN_SECONDS: Final = 0.25
DEFAULT_RAMP_SECONDS: Final = 0.0


@attrs.frozen
class RequestAdmissionTuningConfig:
    """How the limit of a request resource adapts under AIMD. Whoever gives one chooses `limit="aimd"` with it.

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
        max_outage_seconds: float | None = None,
    ) -> RequestAdmissionConfig:
        """The whole configuration: AIMD with this tuning, and the parts that are not tuning."""
        return RequestAdmissionConfig(
            initial_limits=initial_limits or {},
            max_limit_clamps=max_limit_clamps or {},
            cooldown_seconds=self.cooldown_seconds,
            multiplicative_decrease_factor=self.multiplicative_decrease_factor,
            additive_increase_step=self.additive_increase_step,
            successes_until_increase=self.successes_until_increase,
            startup_ramp_seconds=self.startup_ramp_seconds,
            default_queue_wait_timeout_seconds=default_queue_wait_timeout_seconds,
            limit="aimd",
            max_outage_seconds=max_outage_seconds,
        )


_DEFAULTS: Final = {field.name: field.default for field in attrs.fields(RequestAdmissionTuningConfig)}
_TUNING: Final = tuple(_DEFAULTS)


def check_limit(field: str, value: object) -> LimitChoice:
    """Return `value` if it names a rule or can make one. Raises `InvalidValueError` or `InvalidTypeError`."""
    expected = (
        f"one of {', '.join(map(repr, LIMIT_NAMES))}, or a function (effective_max, now) that returns a RequestLimit"
    )
    if isinstance(value, str):
        if value not in LIMIT_NAMES:
            raise InvalidValueError(field, value, expected)
    elif not callable(value):
        raise InvalidTypeError(field, value, expected)
    return cast("LimitChoice", value)


def _limits(value: Mapping[RequestResourceKey, int], field: str) -> Mapping[RequestResourceKey, int]:
    for key, limit in cast("Mapping[object, int]", value).items():
        if not isinstance(key, RequestResourceKey):
            raise InvalidTypeError(f"RequestAdmissionConfig.{field} key", key, "a RequestResourceKey")
        check.check_int(f"RequestAdmissionConfig.{field}[{key}]", limit, minimum=1)
    return MappingProxyType(dict(value))


def _initial_limits(value: Mapping[RequestResourceKey, int]) -> Mapping[RequestResourceKey, int]:
    return _limits(value, "initial_limits")


def _is_limit(instance: object, attribute: attrs.Attribute[LimitChoice], value: object) -> None:
    check_limit("RequestAdmissionConfig.limit", value)


def _max_limit_clamps(value: Mapping[RequestResourceKey, int]) -> Mapping[RequestResourceKey, int]:
    return _limits(value, "max_limit_clamps")


@records_given
@attrs.frozen
class RequestAdmissionConfig:
    """All settings of request admission.

    initial_limits: where a resource's limit starts; without an entry, where its rule starts. max_limit_clamps: lower a
    resource's effective maximum below the static cap, and never raise it. default_queue_wait_timeout_seconds: longest
    wait of an item that names none; None waits without end. limit: the rule of every endpoint that names none of its
    own: `evidence`, `aimd`, `fixed`, or a function (effective_max, now) that returns a `RequestLimit`. The rest is
    AIMD's, see `RequestAdmissionTuningConfig`: given without a limit it selects `aimd`; given with another one it is
    refused. max_outage_seconds: how long an endpoint may go without an answer before it is closed; None for ever.
    given: names of what was handed over; the rest are defaults.
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
    limit: LimitChoice = attrs.field(default=DEFAULT_LIMIT, validator=_is_limit)
    max_outage_seconds: float | None = attrs.field(default=None, validator=check.optional_positive_finite)
    given: frozenset[str] = attrs.field(default=frozenset[str](), init=False, eq=False, repr=False)

    def validate_given(self) -> None:
        """Choose AIMD where only its tuning was given, and refuse that tuning together with another rule."""
        if "limit" not in self.given:
            if not self.given.isdisjoint(_TUNING):
                # Past the guard of a frozen class, as its own constructor goes.
                object.__setattr__(self, "limit", "aimd")
        elif self.limit != "aimd" and (changed := [name for name in _TUNING if getattr(self, name) != _DEFAULTS[name]]):
            raise InvalidValueError(
                "RequestAdmissionConfig.limit", limit_name(self.limit), f"'aimd', or given without {', '.join(changed)}"
            )

    def tuning(self) -> RequestAdmissionTuningConfig:
        """The parameters of AIMD alone."""
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
            limit=limit_name(self.limit),
            max_outage_seconds=self.max_outage_seconds,
        )


@attrs.frozen
class RequestAdmissionConfigSnapshot:
    """A `RequestAdmissionConfig` in the capacity plan: JSON-ready, resources and the rule by their names."""

    initial_limits: Mapping[str, int]
    max_limit_clamps: Mapping[str, int]
    cooldown_seconds: float
    multiplicative_decrease_factor: float
    additive_increase_step: int
    successes_until_increase: int
    startup_ramp_seconds: float
    default_queue_wait_timeout_seconds: float | None
    limit: str
    max_outage_seconds: float | None = None

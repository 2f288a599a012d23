"""Limits of the task stage and the terms of bounded borrowing. Checked at construction, frozen afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import attrs

from trio_sched import _validation as check
from trio_sched._errors import InvalidTypeError, InvalidValueError
from trio_sched._resources.task import SUBMISSION, SchedulerResourceKey, TaskGroupKey

__all__ = ["BoundedBorrowTaskAdmissionPolicyConfig", "StrictShareRounding", "TaskAdmissionConfig"]

StrictShareRounding = Literal["ceil", "floor"]


def _ceilings(
    value: Mapping[tuple[TaskGroupKey, SchedulerResourceKey], int],
) -> Mapping[tuple[TaskGroupKey, SchedulerResourceKey], int]:
    for key, ceiling in value.items():
        check.check_int(f"borrow_ceiling_by_group_resource[{key!r}]", ceiling, minimum=0)
    return check.frozen_mapping(value)


def _optional_ceiling(instance: object, attribute: attrs.Attribute[int | None], value: int | None) -> None:
    if value is not None:
        check.check_int(f"{type(instance).__name__}.{attribute.name}", value, minimum=0)


def _rounding(instance: object, attribute: attrs.Attribute[StrictShareRounding], value: object) -> None:
    if value not in {"ceil", "floor"}:
        raise InvalidValueError(f"{type(instance).__name__}.{attribute.name}", value, "'ceil' or 'floor'")


def _flag(instance: object, attribute: attrs.Attribute[bool], value: object) -> None:
    if not isinstance(value, bool):
        raise InvalidTypeError(f"{type(instance).__name__}.{attribute.name}", value, "a bool")


@attrs.frozen
class BoundedBorrowTaskAdmissionPolicyConfig:
    """How far a group may borrow above its strict share.

    A ceiling bounds the debt of a group: the one of (group, resource), else `default_borrow_ceiling`, else none. Where
    there is no ceiling, a group may use the whole resource but for a reserve, `dynamic_borrow_reserve_fraction` of its
    limit rounded up and at most `dynamic_borrow_max_reserved_slots`. With the defaults nothing is held back, so
    capacity is idle only when nobody wants it; a ceiling or a reserve keeps some idle, which is what it is for.

    strict_share_rounding: how a share that is not whole is rounded. repay_on_withheld_peer_pressure: any lease that the
    indebted group finishes repays, so that a peer that is kept waiting is served soon; otherwise each lease repays only
    what it borrowed itself.
    """

    borrow_ceiling_by_group_resource: Mapping[tuple[TaskGroupKey, SchedulerResourceKey], int] = attrs.field(
        factory=dict[tuple[TaskGroupKey, SchedulerResourceKey], int], converter=_ceilings
    )
    default_borrow_ceiling: int | None = attrs.field(default=None, validator=_optional_ceiling)
    dynamic_borrow_reserve_fraction: float = attrs.field(default=0.0, validator=check.closed_unit_interval)
    dynamic_borrow_max_reserved_slots: int = attrs.field(default=8, validator=check.positive_int)
    strict_share_rounding: StrictShareRounding = attrs.field(default="ceil", validator=_rounding)
    repay_on_withheld_peer_pressure: bool = attrs.field(default=True, validator=_flag)


def _limits(value: Mapping[SchedulerResourceKey, int]) -> Mapping[SchedulerResourceKey, int]:
    for resource, limit in value.items():
        check.check_text("TaskAdmissionConfig.resource_limits key", resource)
        check.check_int(f"TaskAdmissionConfig.resource_limits[{resource!r}]", limit, minimum=1)
    return MappingProxyType(dict(value))


@attrs.frozen
class TaskAdmissionConfig:
    """Limits of the stage's resources, all positive ints.

    submission_capacity: most tasks in flight over all groups; it is the limit of `submission` unless `resource_limits`
    names one. bounded_borrow: the terms of borrowing, or None for strict fair sharing. multi_unit_skip_bound: how often
    a head that asks for more than one unit may be skipped for want of capacity before units are reserved for it.
    """

    submission_capacity: int = attrs.field(default=1024, validator=check.positive_int)
    resource_limits: Mapping[SchedulerResourceKey, int] = attrs.field(
        factory=dict[SchedulerResourceKey, int], converter=_limits
    )
    bounded_borrow: BoundedBorrowTaskAdmissionPolicyConfig | None = None
    multi_unit_skip_bound: int = attrs.field(default=8, validator=check.positive_int)

    @property
    def limits(self) -> Mapping[SchedulerResourceKey, int]:
        """The limit of every resource, `submission` included."""
        return MappingProxyType({SUBMISSION: self.submission_capacity, **self.resource_limits})

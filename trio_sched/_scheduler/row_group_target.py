"""How many row groups may be in flight: a fixed number, or a target that grows to one.

The adaptive target starts low and grows by one when another row group could be put to use: nothing is queued, some
capacity is free, and the newest row group has shown what it brings, by the end of a task of it. Whatever stands in the
way of growth is named. The target only grows: a run that has once needed many row groups to fill its capacity will need
them again, and shrinking would only drain what is in flight. It follows local facts alone, never what a provider said.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs

from trio_sched import _validation as check
from trio_sched._errors import InvalidValueError

__all__ = ["AdaptiveRowGroupTargetConfig", "RowGroupBlockReason", "RowGroupConfig", "RowGroupTarget"]

RowGroupBlockReason: TypeAlias = Literal["hard_cap", "target", "max_admitted_rows"]


@attrs.frozen
class AdaptiveRowGroupTargetConfig:
    """initial: the target at the start, in row groups."""

    initial: int = attrs.field(default=1, validator=check.positive_int)


@attrs.frozen
class RowGroupConfig:
    """max_concurrent: the hard cap on row groups in flight. adaptive: None admits up to that cap from the start.

    max_admitted_rows: a row group waits if with it more rows than this were in flight, unless it would be alone.
    """

    max_concurrent: int = attrs.field(default=3, validator=check.positive_int)
    adaptive: AdaptiveRowGroupTargetConfig | None = None
    max_admitted_rows: int | None = attrs.field(default=None, validator=check.optional_positive_int)

    def __attrs_post_init__(self) -> None:
        if self.adaptive is not None and self.adaptive.initial > self.max_concurrent:
            raise InvalidValueError(
                "AdaptiveRowGroupTargetConfig.initial",
                self.adaptive.initial,
                f"at most RowGroupConfig.max_concurrent, which is {self.max_concurrent}",
            )


class RowGroupTarget:
    """The target now, and whether it may grow."""

    def __init__(self, config: RowGroupConfig) -> None:
        self._hard_cap = config.max_concurrent
        self.is_adaptive: bool = config.adaptive is not None
        self.value: int = config.max_concurrent if config.adaptive is None else config.adaptive.initial
        self._newest: int | None = None
        self._newest_has_shown = False

    @property
    def block_reason(self) -> RowGroupBlockReason:
        """What a row group waits for that finds the target reached."""
        return "target" if self.value < self._hard_cap else "hard_cap"

    def opened(self, row_group: int) -> None:
        """A row group was opened; it is the newest from now on."""
        self._newest = row_group
        self._newest_has_shown = False

    def task_ended(self, row_group: int) -> None:
        """A task of `row_group` ended."""
        if row_group == self._newest:
            self._newest_has_shown = True

    def grow(self, *, in_flight: int, queued: int, has_free_capacity: bool) -> bool:
        """Grow by one if another row group could be put to use; whether it did."""
        if self.value >= self._hard_cap or in_flight < self.value:
            return False
        if queued or not has_free_capacity or not self._newest_has_shown:
            return False
        self.value += 1
        return True

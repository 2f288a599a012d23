"""What a pipeline consists of: functions that a user declared, as columns or as processors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias, cast

import attrs

from trio_sched import _validation as check

__all__ = ["Function", "PipelineStep"]

Function: TypeAlias = Callable[..., object]


@attrs.define(eq=False, kw_only=True)
class PipelineStep:
    """A declared function. is_async: whether it runs in the run's own thread rather than a worker thread."""

    name: str = attrs.field(validator=check.text)
    function: Function
    is_async: bool

    async def __call__(self, *args: object) -> object:
        """Call the function as it is, and await what an async one returns."""
        made = self.function(*args)
        return await cast("Awaitable[object]", made) if self.is_async else made

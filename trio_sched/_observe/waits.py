"""The layers that can hold work back, and time divided among them.

    readiness          inputs are missing: nothing more is ready to run
    fairness           ready and queued while its resources are free: order or policy holds it back
    task_admission     ready and queued while a stage resource that it needs is full
    request_admission  a model call waits for its lease
    cooldown           the same, while its resource is stopped and nothing at all may go out there
    provider           a model call is out; or a task waits to repeat one that failed
    completion         the rest of the work: a column's own code outside model calls, and making rows durable

Times are whole nanoseconds, so that the parts of a breakdown add up to the whole exactly, in any order.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import attrs

__all__ = ["LAYERS", "Layer", "WaitBreakdown", "nanoseconds", "seconds"]

Layer = Literal["readiness", "fairness", "task_admission", "request_admission", "cooldown", "provider", "completion"]
LAYERS: Final[tuple[Layer, ...]] = get_args(Layer)

_PER_SECOND: Final = 1_000_000_000


def nanoseconds(time: float) -> int:
    """A time of the run's clock, in seconds, as whole nanoseconds."""
    return round(time * _PER_SECOND)


def seconds(time: int) -> float:
    """Whole nanoseconds as seconds."""
    return time / _PER_SECOND


@attrs.frozen
class WaitBreakdown:
    """A stretch of time in nanoseconds, divided among the layers. Each instant belongs to exactly one."""

    readiness: int = 0
    fairness: int = 0
    task_admission: int = 0
    request_admission: int = 0
    cooldown: int = 0
    provider: int = 0
    completion: int = 0

    @property
    def total(self) -> int:
        """The whole stretch, in nanoseconds."""
        return sum(self.nanoseconds().values())

    @property
    def largest(self) -> Layer:
        """The layer with the most time; of equal ones the first named."""
        times = self.nanoseconds()
        return max(LAYERS, key=times.__getitem__)

    def nanoseconds(self) -> dict[Layer, int]:
        """All layers with their times."""
        return {
            "readiness": self.readiness,
            "fairness": self.fairness,
            "task_admission": self.task_admission,
            "request_admission": self.request_admission,
            "cooldown": self.cooldown,
            "provider": self.provider,
            "completion": self.completion,
        }

    def seconds(self) -> dict[Layer, float]:
        """All layers with their times in seconds."""
        return {layer: seconds(time) for layer, time in self.nanoseconds().items()}

    def shares(self) -> dict[Layer, float]:
        """All layers with their share of the whole, from 0 to 1; all 0 for a stretch of no length."""
        total = self.total
        return {layer: time / total if total else 0.0 for layer, time in self.nanoseconds().items()}

    def __add__(self, other: WaitBreakdown) -> WaitBreakdown:
        mine, others = self.nanoseconds(), other.nanoseconds()
        return WaitBreakdown(**{layer: mine[layer] + others[layer] for layer in LAYERS})

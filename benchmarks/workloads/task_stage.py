"""What the driver of family 1 needs of an implementation: values of its own, a queue, and a controller."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeAlias

__all__ = ["AdmissionController", "Amounts", "ReadyQueue", "Selection", "TaskStage"]

Amounts: TypeAlias = Mapping[str, int]


class Selection(Protocol):
    """What a queue selected."""

    @property
    def item(self) -> Any:
        """The task."""
        ...

    @property
    def queue_view(self) -> Any:
        """The facts it was selected by."""
        ...


class ReadyQueue(Protocol):
    """A fair queue of ready tasks."""

    def enqueue(self, items: Iterable[Any]) -> tuple[str, ...]: ...
    def select_next(self, is_eligible: Callable[[Any, Any], bool]) -> Selection | None: ...
    def commit(self, selection: Any) -> Any: ...
    def view(self) -> Any: ...


class AdmissionController(Protocol):
    """Task admission."""

    def is_eligible(self, item: Any, queue_view: Any) -> bool: ...
    def try_acquire(self, item: Any, queue_view: Any) -> Any: ...
    def release(self, lease: Any) -> Any: ...
    def view(self) -> Any: ...


class TaskStage(Protocol):
    """Makes the values of one implementation."""

    def group(self, identity: tuple[str, ...], admitted_limit: int) -> object:
        """A group whose identity starts with its kind."""
        ...

    def item(self, task_id: str, row: int, group: Any, amounts: Amounts) -> Any:
        """A ready task."""
        ...

    def open(self, capacity: int, limits: Mapping[str, int], policy: str) -> tuple[ReadyQueue, AdmissionController]:
        """An empty queue, and a controller under that policy."""
        ...

    def denied(self, decision: object) -> bool:
        """Whether a decision is no lease."""
        ...

    def counted(self, controller: Any, note: Callable[[], None]) -> Callable[[Any, Any], bool]:
        """The controller's eligibility, with `note` called for every question."""
        ...

"""Weighted fair order over the lines of one endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["FairOrder"]

K = TypeVar("K")


class FairOrder(Generic[K]):
    """Start-time fair order."""

    def __init__(self) -> None:
        self._tags: dict[K, tuple[float, int]] = {}
        self._virtual = 0.0
        self._count = 0

    def activate(self, key: K) -> None:
        """A line formed."""
        self._count += 1
        self._tags[key] = (self._virtual, self._count)

    def deactivate(self, key: K) -> None:
        """A line ended."""
        del self._tags[key]

    def ranked(self) -> Iterator[K]:
        """Lines, next first."""
        return iter(sorted(self._tags, key=self._tags.__getitem__))

    def serve(self, key: K, weight: float) -> None:
        """Charge a line."""
        self._count += 1
        self._virtual = max(self._virtual, self._tags[key][0])
        self._tags[key] = (self._virtual + 1 / weight, self._count)

"""Which row groups are durable: a set that costs memory by its gaps, not by its members."""

from __future__ import annotations

from array import array
from bisect import bisect_right

__all__ = ["RowGroupSet"]


class RowGroupSet:
    """Row-group indices, added in ascending order and kept as ranges."""

    def __init__(self) -> None:
        self._bounds = array("Q")
        """Start and end of each range in turn, ascending; a range's end is not in it."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, index: int) -> bool:
        return self.run_from(index) > 0

    def add(self, index: int) -> None:
        """Add an index above all others."""
        if self._bounds and index < self._bounds[-1]:
            raise ValueError(f"row group {index} is added after row group {self._bounds[-1] - 1}")
        if self._bounds and index == self._bounds[-1]:
            self._bounds[-1] += 1
        else:
            self._bounds.extend((index, index + 1))
        self._count += 1

    def run_from(self, index: int) -> int:
        """How many members there are from `index` on without a gap."""
        position = bisect_right(self._bounds, index)
        return self._bounds[position] - index if position % 2 else 0

"""Which row groups are done: a set that costs memory by its gaps, not by its members."""

from __future__ import annotations

from array import array
from bisect import bisect_right

__all__ = ["RowGroupSet"]


class RowGroupSet:
    """Row-group indices, kept as ranges. Cheap where they are added roughly in order."""

    def __init__(self) -> None:
        self._bounds = array("Q")
        """Start and end of each range, alternating and ascending; a range's end is not in it."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, index: int) -> bool:
        return self.run_from(index) > 0

    def add(self, index: int) -> None:
        """Add an index; one that is there already changes nothing."""
        bounds = self._bounds
        position = bisect_right(bounds, index)
        if position % 2:
            return
        continues = position > 0 and bounds[position - 1] == index
        precedes = position < len(bounds) and bounds[position] == index + 1
        if continues and precedes:
            del bounds[position - 1 : position + 1]
        elif continues:
            bounds[position - 1] = index + 1
        elif precedes:
            bounds[position] = index
        else:
            bounds[position:position] = array("Q", (index, index + 1))
        self._count += 1

    def run_from(self, index: int) -> int:
        """How many members there are from `index` on without a gap."""
        position = bisect_right(self._bounds, index)
        return self._bounds[position] - index if position % 2 else 0

"""How long to wait after failures in a row: a first time that doubles up to a maximum."""

from __future__ import annotations

from typing import Final

__all__ = ["doubled"]

_MOST_DOUBLINGS: Final = 64
"""Any wait has reached its maximum by then, and far more of them would be too much for a float."""


def doubled(first_seconds: float, max_seconds: float, *, failures: int) -> float:
    """`first_seconds` after one failure, twice as long after each further one, at most `max_seconds`."""
    return min(max_seconds, first_seconds * 2.0 ** min(failures - 1, _MOST_DOUBLINGS))

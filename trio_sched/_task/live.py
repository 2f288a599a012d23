"""Read-only mappings that show the present: they cost nothing until they are read, and copy nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

__all__ = ["LiveMapping"]

K = TypeVar("K")
V = TypeVar("V")
S = TypeVar("S")


class LiveMapping(Mapping[K, V]):
    """What `read` makes of each value of a mapping that somebody else keeps. Zeros are absent if `omit_zero`."""

    __slots__ = ("_get", "_items", "_omit_zero")

    def __init__(self, kept: Mapping[K, S], read: Callable[[S], V], *, omit_zero: bool = False) -> None:
        self._get: Callable[[K], V] = lambda key: read(kept[key])
        self._items: Callable[[], Iterator[tuple[K, V]]] = lambda: ((key, read(value)) for key, value in kept.items())
        self._omit_zero = omit_zero

    def __getitem__(self, key: K) -> V:
        value = self._get(key)
        if self._omit_zero and not value:
            raise KeyError(key)
        return value

    def __iter__(self) -> Iterator[K]:
        return (key for key, value in self._items() if value or not self._omit_zero)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(dict(self))

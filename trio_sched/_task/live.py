"""Read-only mappings that show the present: they cost nothing until they are read, and copy nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Generic, TypeVar, cast, overload

__all__ = ["LiveMapping"]

K = TypeVar("K")
V = TypeVar("V")
S = TypeVar("S")
D = TypeVar("D")

_ABSENT: Final = object()


class LiveMapping(Mapping[K, V], Generic[K, V, S]):
    """What `read` makes of each value of a mapping that somebody else keeps. Zeros are absent if `omit_zero`."""

    __slots__ = ("_kept", "_omit_zero", "_read")

    def __init__(self, kept: Mapping[K, S], read: Callable[[S], V], *, omit_zero: bool = False) -> None:
        self._kept = kept
        self._read = read
        self._omit_zero = omit_zero

    def __getitem__(self, key: K) -> V:
        value = self._read(self._kept[key])
        if self._omit_zero and not value:
            raise KeyError(key)
        return value

    @overload
    def get(self, key: K, default: None = None, /) -> V | None: ...
    @overload
    def get(self, key: K, default: V, /) -> V: ...
    @overload
    def get(self, key: K, default: D, /) -> V | D: ...
    def get(self, key: K, default: Any = None, /) -> Any:
        """As of any mapping, but without raising inside for a key that is absent, as most groups are."""
        kept = self._kept.get(key, _ABSENT)
        if kept is _ABSENT:
            return default
        value = self._read(cast("S", kept))
        return default if self._omit_zero and not value else value

    def __iter__(self) -> Iterator[K]:
        if self._omit_zero:
            return (key for key, value in self._kept.items() if self._read(value))
        return iter(self._kept)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(dict(self))

"""Who is told of changes at a source of standings: held weakly, as a queue may be dropped before the controller."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Protocol

from trio_sched._resources.task import SchedulerResourceKey, TaskGroupKey

__all__ = ["StandingWatcher", "Watchers"]


class StandingWatcher(Protocol):
    """Takes note of a change; acts on it only when it is next asked something itself."""

    def changed(self, group: TaskGroupKey | None, freed: Iterable[SchedulerResourceKey]) -> None:
        """`group` may stand differently now, and more of what is `freed` may be free to somebody."""
        ...


class Watchers:
    """All that live, each told once."""

    __slots__ = ("_references",)

    def __init__(self) -> None:
        self._references: list[weakref.ref[StandingWatcher]] = []

    def add(self, watcher: StandingWatcher) -> None:
        """Tell `watcher` from now on. Those that are gone are forgotten."""
        others = [reference for reference in self._references if reference() not in {None, watcher}]
        self._references = [*others, weakref.ref(watcher)]

    def changed(self, group: TaskGroupKey | None, freed: Iterable[SchedulerResourceKey]) -> None:
        """Tell all."""
        for reference in self._references:
            watcher = reference()
            if watcher is not None:
                watcher.changed(group, freed)

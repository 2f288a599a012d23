"""Who is told of changes at a source of standings: held weakly, as a queue may be dropped before the controller."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Protocol

from trio_sched._resources.task import SchedulerResourceKey, TaskGroupKey

__all__ = ["StandingWatcher", "Watchers"]


class StandingWatcher(Protocol):
    """Takes note of changes; acts on none before it is next asked something itself."""

    def standing_changed(self, group: TaskGroupKey) -> None:
        """`group` may stand differently now."""
        ...

    def room_changed(self, resources: Iterable[SchedulerResourceKey]) -> None:
        """More of these may be free to somebody now."""
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

    def changed(self, group: TaskGroupKey, freed: Iterable[SchedulerResourceKey] = ()) -> None:
        """Tell all that `group` may stand differently, and that more of what is `freed` may be free."""
        for reference in self._references:
            watcher = reference()
            if watcher is not None:
                watcher.standing_changed(group)
                if freed:
                    watcher.room_changed(freed)

    def room_changed(self, freed: Iterable[SchedulerResourceKey]) -> None:
        """Tell all that more of these may be free."""
        for reference in self._references:
            watcher = reference()
            if watcher is not None:
                watcher.room_changed(freed)

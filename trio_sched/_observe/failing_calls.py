"""Request resources whose calls fail, which no division of a run's time can show.

Where every call fails at once, most of the time may still be spent waiting for a place. So this is told beside it, as
soon as half of a resource's calls, of all or of the latest, have failed. A rate limit is no failure here: it shows in
the limit of the resource and in its stops. Nor is a call that was cancelled from this side a failure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from trio_sched._observe.request_replay import ReplayedResource
from trio_sched._resources.identity import RequestResourceKey

__all__ = ["FailingCalls", "failing_calls"]

_TOLD_SHARE: Final = 0.5
"""The share of failed attempts at which a run stops by default, too."""


@attrs.frozen
class FailingCalls:
    """Of all `calls` that ended at a request resource, `failed` failed; of the latest `recent_calls`, `recent_failed`.

    outcome: what most of those that failed ended in.
    """

    resource: str
    calls: int
    failed: int
    recent_calls: int
    recent_failed: int
    outcome: str

    def __str__(self) -> str:
        recent = ""
        if self.calls > self.recent_calls:
            recent = f", {self.recent_failed:,} of the last {self.recent_calls:,}"
        return f"{self.failed:,} of {self.calls:,} calls at {self.resource} failed{recent}; most: {self.outcome}"


def failing_calls(resources: Mapping[RequestResourceKey, ReplayedResource]) -> tuple[FailingCalls, ...]:
    """Those resources of which so many calls fail that it is worth telling, the one with most failures first."""
    failing: list[FailingCalls] = []
    for key, resource in resources.items():
        failures, recent = resource.failures, resource.recent_failed
        failed, recently = sum(failures.values()), sum(recent)
        if not failed or (failed < _TOLD_SHARE * resource.calls and recently < _TOLD_SHARE * len(recent)):
            continue
        outcome = max(failures, key=failures.__getitem__)
        failing.append(FailingCalls(str(key), resource.calls, failed, len(recent), recently, outcome))
    return tuple(sorted(failing, key=lambda each: -each.failed))

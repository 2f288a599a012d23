"""What the rule of an endpoint's limit is about at one instant, in words that the panel and the log lines share.

    open     calls go out up to the limit
    probing  the limit was raised to see whether the provider accepts more, and no call has proven it yet
    stopped  nothing goes out until a time that is known
    trial    nothing goes out until one call has ended

Each may be part of an outage, in which the provider refuses everything.
"""

from __future__ import annotations

from typing import Final, Literal

import attrs

from trio_sched._observe.request_replay import ReplayedResource

__all__ = ["Activity", "ActivityKind", "activity_at"]

ActivityKind = Literal["open", "probing", "stopped", "trial"]

_TRIES: Final = "evidence"
"""The rule that ends each stop with one trial call."""


@attrs.frozen
class Activity:
    """kind: see above. outage: whether the provider refuses everything. seconds_left: of a stop. asks_for: how many
    more calls a probe asks for. trial_follows: whether one trial call goes out when a stop ends.
    """

    kind: ActivityKind = "open"
    outage: bool = False
    seconds_left: float = 0.0
    asks_for: int = 0
    trial_follows: bool = False

    def __str__(self) -> str:
        if self.outage:
            return f"outage: {self._in_an_outage()}"
        match self.kind:
            case "probing":
                return f"asking for {'one' if self.asks_for == 1 else self.asks_for} more"
            case "stopped":
                left = f"{self.seconds_left:.1f} s"
                return f"stopped {left}, then one trial" if self.trial_follows else f"cooling down {left}"
            case "trial":
                return "one trial is out"
            case "open":
                return ""

    def _in_an_outage(self) -> str:
        if self.kind == "stopped":
            return f"next trial in {self.seconds_left:.1f} s"
        return "one trial is out" if self.kind == "trial" else "nothing answered yet"


def activity_at(resource: ReplayedResource, now: float) -> Activity:
    """What the rule of `resource` is about at `now`."""
    outage = resource.outage_since is not None
    if resource.stopped_at(now):
        assert resource.blocked_until is not None
        if resource.trial is not None:
            return Activity("trial", outage)
        follows = outage or resource.rule == _TRIES
        return Activity("stopped", outage, resource.blocked_until - now, trial_follows=follows)
    asked = resource.asked
    if asked is not None and asked.cause == "probe_started":
        return Activity("probing", outage, asks_for=asked.current - asked.previous)
    return Activity("open", outage)

"""The wait-for chain: who waits, for what, and what that waits for in turn, down to the cause. Typed values only.

    row group 7 waits for column answer <- 214 tasks wait for request admission on openai/gpt-5-mini/chat
        <- the provider refuses everything: the next trial call goes out in 4.1 s

Each link is a value of its own with a text; `kind` tells them apart in JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import attrs

from trio_sched._observe.waits import Layer

__all__ = [
    "CallsOut",
    "CoolingDown",
    "HeldBack",
    "HintsWaitedOut",
    "LimitMoved",
    "LimitReached",
    "NothingToDo",
    "RowGroupWaits",
    "Stopped",
    "TasksRun",
    "TasksWait",
    "WaitLink",
    "WaitsToRepeat",
]

_LAYER_WORDS: Mapping[Layer, str] = {
    "readiness": "inputs",
    "fairness": "their turn",
    "task_admission": "task admission",
    "request_admission": "request admission",
    "cooldown": "request admission",
    "provider": "an answer",
    "completion": "their own work",
}


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _hint(retry_after: bool) -> str:
    return " (retry-after)" if retry_after else ""


@attrs.frozen
class RowGroupWaits:
    """A row group that is not durable waits for a column; with no column it waits to be written."""

    row_group: int
    column: str | None
    kind: Literal["row_group_waits"] = "row_group_waits"

    def __str__(self) -> str:
        if self.column is None:
            return f"row group {self.row_group} waits to be written"
        return f"row group {self.row_group} waits for column {self.column}"


@attrs.frozen
class TasksWait:
    """So many tasks wait in one layer, at one place: a request resource, a stage resource or a column."""

    count: int
    layer: Layer
    where: str | None
    kind: Literal["tasks_wait"] = "tasks_wait"

    def __str__(self) -> str:
        place = f" on {self.where}" if self.where is not None else ""
        verb = "waits" if self.count == 1 else "wait"
        return f"{_counted(self.count, 'task')} {verb} for {_LAYER_WORDS[self.layer]}{place}"


@attrs.frozen
class CoolingDown:
    """A request resource admits nothing for `seconds_left`, after so many rate limits in a row.

    retry_after: whether the provider said for how long.
    """

    resource: str
    seconds_left: float
    rate_limits: int
    retry_after: bool
    kind: Literal["cooling_down"] = "cooling_down"

    def __str__(self) -> str:
        after = f" after {_counted(self.rate_limits, 'rate limit')}" if self.rate_limits else ""
        return f"cooling down, {self.seconds_left:.1f} s left{after}{_hint(self.retry_after)}"


@attrs.frozen
class Stopped:
    """A request resource admits nothing until one trial call has gone first.

    outage: whether the provider refuses everything. trial_out: whether that call is out. seconds_left: until it goes
    out. retry_after: whether the provider said for how long.
    """

    resource: str
    outage: bool
    trial_out: bool
    seconds_left: float
    retry_after: bool
    kind: Literal["stopped"] = "stopped"

    def __str__(self) -> str:
        hint = _hint(self.retry_after)
        if self.outage:
            trial = f"the next trial call goes out in {self.seconds_left:.1f} s{hint}"
            return f"the provider refuses everything: {'one trial call is out' if self.trial_out else trial}"
        if self.trial_out:
            return "after refusals one trial call is out, and all others wait for it"
        return f"stopped after refusals: one trial call goes out in {self.seconds_left:.1f} s{hint}"


@attrs.frozen
class HintsWaitedOut:
    """So many of the waiting calls were refused, and let all others go first until their retry hint is over."""

    resource: str
    count: int
    waiting: int
    kind: Literal["hints_waited_out"] = "hints_waited_out"

    def __str__(self) -> str:
        if self.count == 1:
            which = "it was" if self.waiting == 1 else "1 of them was"
            return f"{which} refused, and lets others go first until its retry hint is over"
        which = "they were" if self.count == self.waiting else f"{self.count:,} of them were"
        return f"{which} refused, and let others go first until their retry hints are over"


@attrs.frozen
class LimitMoved:
    """Why the limit of a request resource is where it is: its latest change, as the rule named it.

    limit: the most calls that the provider is known to accept. more: by how many a probe asked for more than that, 0
    where it is not known.
    """

    resource: str
    cause: Literal["probe_started", "probe_refused", "recovered", "outage"]
    limit: int
    more: int
    kind: Literal["limit_moved"] = "limit_moved"

    def __str__(self) -> str:
        more = "more calls" if not self.more else "one more call" if self.more == 1 else f"{self.more:,} more calls"
        match self.cause:
            case "probe_started":
                return f"{self.resource} asks for {more} than {self.limit:,}"
            case "probe_refused":
                return f"{self.resource} asked for {more} and was refused: its limit is {self.limit:,}"
            case "recovered":
                return f"{self.resource} answers again after an outage, and its limit grows from {self.limit:,}"
            case "outage":
                return "the provider refuses everything: calls go out again, and none was answered yet"


@attrs.frozen
class LimitReached:
    """All of a limit is in use. `most`: what the limit may grow to, None where it is fixed."""

    resource: str
    in_use: int
    limit: int
    most: int | None
    kind: Literal["limit_reached"] = "limit_reached"

    def __str__(self) -> str:
        cap = f", its cap is {self.most}" if self.most is not None and self.most != self.limit else ""
        return f"{self.in_use} of {self.limit} of {self.resource} in use{cap}"


@attrs.frozen
class HeldBack:
    """There is room, but order or policy holds a column's tasks back.

    refusals: heads of the queue by the reason for which they were refused though there was room, as last told. Where
    there are none, the scheduler's next turn starts the tasks.
    """

    column: str | None
    refusals: Mapping[str, int]
    kind: Literal["held_back"] = "held_back"

    def __str__(self) -> str:
        if not self.refusals:
            return "there is room, and they are about to be started"
        return f"there is room, but the order or the admission policy holds them back ({', '.join(self.refusals)})"


@attrs.frozen
class CallsOut:
    """So many calls are out at a request resource; the oldest for `oldest_seconds`, None where that is not known."""

    resource: str
    count: int
    oldest_seconds: float | None
    kind: Literal["calls_out"] = "calls_out"

    def __str__(self) -> str:
        age = f", the oldest for {self.oldest_seconds:.1f} s" if self.oldest_seconds is not None else ""
        return f"{_counted(self.count, 'call')} {'is' if self.count == 1 else 'are'} out at {self.resource}{age}"


@attrs.frozen
class WaitsToRepeat:
    """So many failed tasks of a column wait for another run; the first is due in `due_in_seconds`, if that was told."""

    column: str
    count: int
    reason: str
    due_in_seconds: float | None
    kind: Literal["waits_to_repeat"] = "waits_to_repeat"

    def __str__(self) -> str:
        due = f", the first in {self.due_in_seconds:.1f} s" if self.due_in_seconds is not None else ""
        verb = "waits" if self.count == 1 else "wait"
        what = _counted(self.count, "failed task")
        return f"{what} of column {self.column} {verb} to be repeated after {self.reason}{due}"


@attrs.frozen
class TasksRun:
    """So many tasks of a column do their own work, outside model calls; the oldest for `oldest_seconds`."""

    column: str
    count: int
    oldest_seconds: float
    kind: Literal["tasks_run"] = "tasks_run"

    def __str__(self) -> str:
        who = f"{_counted(self.count, 'task')} of column {self.column} {'is' if self.count == 1 else 'are'} at work"
        return f"{who}, the oldest for {self.oldest_seconds:.1f} s"


@attrs.frozen
class NothingToDo:
    """Nothing is queued, running or deferred: rows are being read or written, `open_row_groups` are not durable yet."""

    open_row_groups: int
    kind: Literal["nothing_to_do"] = "nothing_to_do"

    def __str__(self) -> str:
        if self.open_row_groups:
            return f"nothing runs: {_counted(self.open_row_groups, 'row group')} to be written or given more work"
        return "nothing runs: rows are still to be read, or all is done"


WaitLink: TypeAlias = (
    RowGroupWaits
    | TasksWait
    | CoolingDown
    | Stopped
    | HintsWaitedOut
    | LimitReached
    | LimitMoved
    | HeldBack
    | CallsOut
    | WaitsToRepeat
    | TasksRun
    | NothingToDo
)

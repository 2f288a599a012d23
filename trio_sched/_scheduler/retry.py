"""What becomes of a task that failed: it waits and runs again, or its rows are rejected.

A *preserved* failure (a rate limit, a local queue timeout) says nothing about the row, so it is deferred however often
it happens. A *retryable* failure is deferred for a bounded number of salvage rounds, and runs again when the retry
budget allows. Any other failure rejects the rows at once. An *unsettled* failure
says that the row cannot be made now, and not why it should never be: its row group is abandoned, and the run stops. A
*fatal* failure is not the row's at all: it ends the run.

A deferred task waits for the hint that came with its failure, or else for a delay that doubles with every failure of
that task, up to a maximum; then it re-enters through the tracker. The scheduler only learns which of the five a failure
is. What a rate limit or a provider is, it does not know.

The *budget* keeps retries from becoming most of a run's load. It is a token bucket, as in gRPC's bound on retries and
Finagle's `RetryBudget`. A retry after a retryable failure takes one token. Every first attempt puts a share of a token
in, and so does passing time; the bucket starts full and never holds more than `burst`. Over any stretch of `t` seconds
with `n` first attempts the retries are therefore at most

    burst + share * n + per_second * t.

A retry that finds no token is not dropped: it waits until there is one. Tasks that wait out a rate limit take none,
since request admission already bounds them.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import attrs

from trio_sched import _validation as check
from trio_sched._resources.task import Task, stable_task_id
from trio_sched._util import doubled

__all__ = [
    "Deferral",
    "Failure",
    "FailureClassifier",
    "FailureKind",
    "RetryBook",
    "RetryBudget",
    "RetryBudgetConfig",
    "RetryConfig",
]

_ROUNDING = 1e-9
"""Sums of shares may fall short of a whole token by rounding alone."""

FailureKind = Literal["preserved", "retryable", "non_retryable", "unsettled", "fatal"]


@attrs.frozen
class Failure:
    """What a failure means for the task.

    reason: a stable word for events. retry_after_seconds: a hint, or None. admits_more: for one that is `unsettled`,
    whether other row groups may do without what failed.
    """

    kind: FailureKind
    reason: str
    retry_after_seconds: float | None = None
    admits_more: bool = False


FailureClassifier: TypeAlias = Callable[[Exception], Failure]


@attrs.frozen
class RetryBudgetConfig:
    """share: retries per first attempt. burst: retries at once, from a full bucket. per_second: retries by time."""

    share: float = attrs.field(default=0.2, validator=check.non_negative_finite)
    burst: int = attrs.field(default=100, validator=check.positive_int)
    per_second: float = attrs.field(default=10.0, validator=check.positive_finite)


@attrs.frozen
class RetryConfig:
    """max_salvage_rounds: runs after the first for a retryable failure. Delays in seconds, doubling from the first."""

    max_salvage_rounds: int = attrs.field(default=2, validator=check.non_negative_int)
    first_delay_seconds: float = attrs.field(default=1.0, validator=check.positive_finite)
    max_delay_seconds: float = attrs.field(default=30.0, validator=check.positive_finite)
    budget: RetryBudgetConfig = attrs.field(factory=RetryBudgetConfig)


class RetryBudget:
    """The tokens of one run. `now` is the run's clock in seconds and never goes back."""

    def __init__(self, config: RetryBudgetConfig) -> None:
        self._config = config
        self._tokens = float(config.burst)
        self._as_of = 0.0

    def first_attempts(self, count: int) -> None:
        """Credit first attempts."""
        self._tokens = min(self._config.burst, self._tokens + count * self._config.share)

    def try_take(self, now: float) -> bool:
        """Take a token if there is one."""
        self._refill(now)
        if self._tokens < 1 - _ROUNDING:
            return False
        self._tokens -= 1
        return True

    def next_token_at(self, now: float) -> float:
        """When there is a token, were there no more first attempts; at once if there is one."""
        self._refill(now)
        return now + max(0.0, 1 - self._tokens) / self._config.per_second

    def _refill(self, now: float) -> None:
        if now > self._as_of:
            self._tokens = min(self._config.burst, self._tokens + (now - self._as_of) * self._config.per_second)
            self._as_of = now


@attrs.frozen(eq=False)
class Deferral:
    """A task that will run again at `due` on the run's clock, or later if it takes a token and none is left then."""

    task: Task
    due: float
    reason: str
    takes_token: bool = False


@attrs.define(eq=False)
class _History:
    attempts: int = 1
    salvage_rounds: int = 0


class RetryBook:
    """Keeps the failed tasks of a run that will run again, and remembers nothing of those that never failed."""

    def __init__(self, config: RetryConfig) -> None:
        self._config = config
        self.budget: RetryBudget = RetryBudget(config.budget)
        self._histories: dict[str, _History] = {}
        self._deferred: dict[str, Deferral] = {}
        self._heap: list[tuple[float, int, Deferral]] = []
        self._overdue: dict[str, Deferral] = {}
        """Those of `_deferred` that are due and wait for a token, in that order."""
        self._order = 0
        self._salvages = True

    def attempt(self, task_id: str) -> int:
        """Which run of the task comes next, from 1."""
        history = self._histories.get(task_id)
        return 1 if history is None else history.attempts

    def stop_salvage(self) -> None:
        """From now on a retryable failure rejects its rows; those that are deferred already still run again."""
        self._salvages = False

    def defer(self, task: Task, failure: Failure, now: float) -> Deferral | None:
        """Note a failure; the deferral, or None when the rows of the task are to be rejected."""
        task_id = stable_task_id(task)
        history = self._histories.setdefault(task_id, _History())
        is_salvage = failure.kind == "retryable"
        spent = not self._salvages or history.salvage_rounds >= self._config.max_salvage_rounds
        if failure.kind == "non_retryable" or (is_salvage and spent):
            del self._histories[task_id]
            return None
        history.salvage_rounds += is_salvage
        delay = failure.retry_after_seconds
        if delay is None:
            config = self._config
            delay = doubled(config.first_delay_seconds, config.max_delay_seconds, failures=history.attempts)
        history.attempts += 1
        deferral = Deferral(task, now + delay, failure.reason, takes_token=is_salvage)
        self._order += 1
        self._deferred[task_id] = deferral
        heapq.heappush(self._heap, (deferral.due, self._order, deferral))
        return deferral

    def forget(self, task: Task) -> bool:
        """The task succeeded, or nobody needs it any more: it will not run again. Whether it would have."""
        if not self._histories:
            return False
        task_id = stable_task_id(task)
        self._histories.pop(task_id, None)
        self._overdue.pop(task_id, None)
        return self._deferred.pop(task_id, None) is not None

    def next_due(self, now: float) -> float | None:
        """When the next deferred task may run."""
        heap = self._heap
        while heap and self._deferred.get(stable_task_id(heap[0][2].task)) is not heap[0][2]:
            heapq.heappop(heap)
        due = heap[0][0] if heap else math.inf
        if self._overdue:
            due = min(due, self.budget.next_token_at(now))
        return due if due < math.inf else None

    def take_due(self, now: float) -> list[Deferral]:
        """Remove and return the deferrals that may run now."""
        if not self._deferred:
            return []
        due: list[Deferral] = []
        heap = self._heap
        while heap and heap[0][0] <= now:
            deferral = heapq.heappop(heap)[2]
            task_id = stable_task_id(deferral.task)
            if self._deferred.get(task_id) is deferral:
                if deferral.takes_token:
                    self._overdue[task_id] = deferral
                else:
                    due.append(self._deferred.pop(task_id))
        while self._overdue and self.budget.try_take(now):
            task_id = next(iter(self._overdue))
            del self._overdue[task_id]
            due.append(self._deferred.pop(task_id))
        return due

    def deferred(self) -> tuple[Deferral, ...]:
        """Those that will run again, the earliest first."""
        return tuple(sorted(self._deferred.values(), key=lambda deferral: deferral.due))

    def __len__(self) -> int:
        return len(self._deferred)

"""When one execution of a task, and each of its model calls, passed their stations. All on the run's clock, seconds."""

from __future__ import annotations

import attrs

from trio_sched._observe.waits import WaitBreakdown
from trio_sched._resources.identity import RequestResourceKey

__all__ = ["ExecutionView", "RequestMarks", "TaskMarks"]


@attrs.frozen
class TaskMarks:
    """The thirteen marks of an execution, None where it did not come by or the stream that tells it is missing.

    Of several model calls the first says when waiting started and ended, and when a lease was got and a call went out;
    the last says when a call was over and its lease came back.
    """

    dependency_ready_at: float | None = None
    ready_enqueued_at: float | None = None
    selected_at: float | None = None
    task_lease_acquired_at: float | None = None
    worker_spawned_at: float | None = None
    request_wait_started_at: float | None = None
    request_wait_completed_at: float | None = None
    request_lease_acquired_at: float | None = None
    model_request_started_at: float | None = None
    model_request_completed_at: float | None = None
    request_lease_released_at: float | None = None
    task_completed_at: float | None = None
    task_lease_released_at: float | None = None


@attrs.frozen
class RequestMarks:
    """One outbound attempt of an execution, from its wait to the release of its lease.

    outcome: that of the lease, or why none was given; None while it is under way.
    """

    resource: RequestResourceKey
    request_attempt_id: str | None
    request_lease_id: int | None
    wait_started_at: float | None
    wait_ended_at: float | None
    lease_acquired_at: float | None
    model_request_started_at: float | None
    model_request_completed_at: float | None
    lease_released_at: float | None
    outcome: str | None


@attrs.frozen
class ExecutionView:
    """One execution of a task, with everything that both streams tell of it.

    result: `success`, `failed`, `cancelled` and the like; None while it runs. `waits` divides the time from
    `started_at` to `ended_at` among the layers, and sums to it exactly. It starts when the row group was admitted, or
    where the same task failed before, when it was deferred; it ends when the task lease is released.
    """

    task_execution_id: str
    task_id: str | None
    task_lease_id: int | None
    column: str | None
    row_group: int | None
    task_type: str | None
    group_kind: str | None
    result: str | None
    started_at: float
    ended_at: float | None
    marks: TaskMarks
    requests: tuple[RequestMarks, ...]
    waits: WaitBreakdown

"""A scheduler whose attempts end as a test says: what random scenarios and the state machine of the scheduler share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol, TypeAlias

from trio_sched.lowlevel import (
    AsyncTaskScheduler,
    ColumnGenerator,
    ExecutionGraph,
    Failure,
    FixedRowGroupPlan,
    HealthConfig,
    RetryConfig,
    RowDrop,
    RowFailure,
    RowFiltered,
    RowGroupConfig,
    RowGroupStore,
    SchedulerConfig,
    SchedulerResult,
    TaskAdmissionController,
    TaskRunner,
    TaskSchedulingResolver,
    scheduler_event_stream,
)
from trio_sched.lowlevel import InMemoryAdmissionEventSink as Sink

Ending: TypeAlias = Literal["done", "preserved", "retryable", "failed", "drops", "filters"]
ROUNDS: Final = 2


class Fault(Exception):
    def __init__(self, ending: Ending) -> None:
        super().__init__(ending)
        self.ending: Ending = ending


def ended(ending: Ending, row: int) -> Sequence[RowDrop]:
    """What an attempt returns that ends so, or raises. row: the one that it drops or filters."""
    if ending in ("preserved", "retryable", "failed"):
        raise Fault(ending)
    if ending == "drops":
        return [RowFailure(row, Fault("drops"))]
    return [RowFiltered(row)] if ending == "filters" else ()


def classify(error: Exception) -> Failure:
    assert isinstance(error, Fault), error
    if error.ending == "preserved":
        return Failure("preserved", "rate_limited", 2.0)
    return Failure("retryable" if error.ending == "retryable" else "non_retryable", error.ending)


class World(TaskRunner, RowGroupStore, Protocol):
    """Runs the attempts, and takes the row groups."""

    graph: ExecutionGraph
    written: dict[int, tuple[int, ...]]


def scheduler_over(
    world: World, records: int, size: int, row_groups: int, admission: TaskAdmissionController, sink: Sink
) -> AsyncTaskScheduler:
    """The scheduler of a world. No error rate stops it."""
    return AsyncTaskScheduler(
        world.graph,
        TaskSchedulingResolver({column: ColumnGenerator() for column in world.graph.nodes}),
        world,
        FixedRowGroupPlan(records, size),
        world,
        admission=admission,
        classify=classify,
        config=SchedulerConfig(
            row_groups=RowGroupConfig(row_groups),
            retry=RetryConfig(max_salvage_rounds=ROUNDS),
            health=HealthConfig(stop_error_rate=None),
        ),
        events=scheduler_event_stream(sink),
    )


def check_result(result: SchedulerResult, written: Mapping[int, Sequence[int]], records: int, size: int) -> None:
    """Every row is durable, rejected or removed, once, and the result says so."""
    groups, kept = -(-records // size), sum(map(len, written.values()))
    assert set(written) == set(range(groups))
    assert (result.row_groups, result.rows) == (groups, kept)
    assert kept + result.dropped_rows + result.filtered_rows == records
    assert sum(cause.rows for cause in result.drop_causes) == result.dropped_rows


def check_units(admission: TaskAdmissionController) -> None:
    """Of every resource the units are held or free, and nobody waits at a limiter."""
    view = admission.view()
    for resource, limit in view.resource_limits.items():
        assert view.leased_resources.get(resource, 0) + view.resources_available[resource] == limit
    assert all(limiter.tasks_waiting == 0 for limiter in admission.limiter_statistics().values())

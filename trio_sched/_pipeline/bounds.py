"""What bounds a run, made from its settings in one place, for the run itself and for a plan without one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import attrs

from trio_sched._pipeline.config import RunConfig
from trio_sched._pipeline.models import Model, request_config
from trio_sched._request.config import RequestAdmissionConfig
from trio_sched._scheduler.row_group_target import RowGroupConfig
from trio_sched._scheduler.scheduler import default_task_admission
from trio_sched._task.config import TaskAdmissionConfig
from trio_sched._task.resolver import TaskSchedulingResolver

__all__ = ["ENGINE_THREADS", "RunBounds", "WorkerThreads", "run_bounds"]


@attrs.frozen
class WorkerThreads:
    """files: threads that read and write files, at most. sync_columns: those of sync columns and processors."""

    files: int
    sync_columns: int


ENGINE_THREADS: Final = WorkerThreads(files=8, sync_columns=40)
"""Files: enough for every row group in flight to be written at once beside the event writer; more only wait for one
disk. Sync columns have threads of their own, for which files must not wait: as many as Trio itself uses by default."""


@attrs.frozen
class RunBounds:
    """The configuration of every stage. threads: None where the caller of the run brings a seam of its own."""

    row_groups: RowGroupConfig
    tasks: TaskAdmissionConfig
    requests: RequestAdmissionConfig
    threads: WorkerThreads | None


def run_bounds(
    config: RunConfig, models: Iterable[Model], resolver: TaskSchedulingResolver, threads: WorkerThreads | None
) -> RunBounds:
    """What `config` comes to for these models and the columns that `resolver` knows.

    Raises `InvalidValueError` for the tuning of AIMD together with another rule.
    """
    return RunBounds(
        RowGroupConfig(max_concurrent=config.max_concurrent_row_groups),
        default_task_admission(resolver, submission_capacity=config.submission_capacity),
        request_config(models, config.request_admission),
        threads,
    )

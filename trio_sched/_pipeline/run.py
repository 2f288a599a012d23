"""One run, from declarations to a finished dataset.

The order is: read the first row, bind and check the pipeline, take the output folder (`resume.py`), and only then run
it (`attempt.py`). What can be refused is refused before the folder exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path

from trio_sched._blocking import Blocking, in_threads
from trio_sched._events.sinks import AnyAdmissionEventSink
from trio_sched._observe.display import LiveMode, RunWatch, choose_display
from trio_sched._observe.progress import RunProgressSink
from trio_sched._pipeline.attempt import RunAttempt
from trio_sched._pipeline.binding import bind_pipeline
from trio_sched._pipeline.bounds import ENGINE_THREADS, run_bounds
from trio_sched._pipeline.config import RunConfig
from trio_sched._pipeline.durable_parts import DurableParts, EarlierRows
from trio_sched._pipeline.fingerprint import dataset_identity
from trio_sched._pipeline.folder import RunFolder, open_part_format
from trio_sched._pipeline.model_calls import retry_free_clients
from trio_sched._pipeline.models import Model
from trio_sched._pipeline.result import RunResult
from trio_sched._pipeline.resume import (
    ResumeMode,
    check_resume_mode,
    hold_output,
    make_output,
    reopen_output,
)
from trio_sched._pipeline.resume_plan import resume_plan
from trio_sched._pipeline.run_document import RunDocument
from trio_sched._pipeline.sources import Row, open_input
from trio_sched._pipeline.steps import PipelineStep
from trio_sched._pipeline.store import PartStore
from trio_sched._task.resolver import TaskSchedulingResolver

__all__ = ["run"]


async def run(
    steps: Sequence[PipelineStep],
    *,
    output: str | PathLike[str],
    rows: Iterable[Row] | str | PathLike[str] | None = None,
    records: int | None = None,
    models: Mapping[str, Model] | None = None,
    config: RunConfig | None = None,
    resume: ResumeMode = "never",
    event_sink: AnyAdmissionEventSink | None = None,
    live: LiveMode | None = None,
    blocking: Blocking | None = None,
) -> RunResult:
    """Make a dataset and put it into the folder `output`.

    steps: columns, made with `@column`, `@batch_column` and `@from_scratch_column`, in any order, and processors, made
    with `@pre_batch_processor` and `@post_batch_processor`, each kind in the order in which they follow each other.
    rows: input rows, as an iterable of mappings or a `.jsonl` or `.csv` file; or records: how many rows the
    from-scratch columns are to make.
    models: what columns call by name. event_sink: gets either or both event streams, besides the files. live: shows
    progress on standard error, as a `panel` on the terminal, as log `lines`, or `auto` as fits; nothing by default.
    blocking: where files are read and written and sync functions run, worker threads by default; a simulation on a mock
    clock gives `trio_sched.lowlevel.inline`.

    resume: what to do with a run that `output` holds. `never` refuses it; `always` goes on with it, and refuses a
    folder without one; `if-possible` goes on with it, or begins where there is none. Only the row groups that are not
    durable are made; a run of another dataset is refused. Nothing is ever overwritten.

    Raises a `PipelineError` for a pipeline that cannot run, `InvalidValueError` for a bad number, `InputRowError` for a
    bad row, `InputChangedError` for input other than the resumed run's, an `OutputError` for a bad folder or a full
    disk. A generator that raises drops its row and is counted in the result. However it ends, it leaves every finished
    row group behind, and nothing of the others.
    """
    config = config if config is not None else RunConfig()
    threads = ENGINE_THREADS if blocking is None else None
    column_blocking = blocking if blocking is not None else in_threads(ENGINE_THREADS.sync_columns)
    blocking = blocking if blocking is not None else in_threads(ENGINE_THREADS.files)
    mode = check_resume_mode(resume)
    display = choose_display(live) if live is not None else None
    reader, plan = open_input(rows, records, buffer_size=config.buffer_size, blocking=blocking)
    pipeline = bind_pipeline(steps, reader, models or {})
    resolver = TaskSchedulingResolver(pipeline.nodes)
    bounds = run_bounds(config, pipeline.aliases, resolver, threads)
    clients = retry_free_clients(pipeline.aliases)
    part_format = open_part_format(config.format)
    source = await blocking(reader.identity) if reader is not None else None
    identity = dataset_identity(pipeline, config, source, records)
    order = pipeline.graph.columns
    folder = RunFolder(Path(output))
    with hold_output(folder, mode) as held:
        durable = DurableParts(config.buffer_size)
        if held is None:
            make_output(folder)
        else:
            durable = await blocking(reopen_output, folder, held, identity, part_format, order, records)
        document = RunDocument(folder, config, order, identity, resumed_from=held, earlier=durable.earlier)
        forget = reader.forget if reader is not None else None
        store = PartStore(folder, order, part_format, blocking=blocking, forget=forget)
        watch = None
        if display is not None:
            watch = RunWatch(RunProgressSink(_records_to_make(rows, records, durable.earlier)), display)
        to_do = resume_plan(plan, durable, folder, part_format, blocking, keeps_input=pipeline.keeps_input)
        return await RunAttempt(
            pipeline, to_do, resolver, bounds, clients, folder, store, config, blocking, column_blocking
        ).run(event_sink, watch, document, durable.earlier)


def _records_to_make(
    rows: Iterable[Row] | str | PathLike[str] | None, records: int | None, earlier: EarlierRows
) -> int | None:
    """How many rows are left to make, or None where only reading the input to its end would tell."""
    if isinstance(rows, Sequence) and not isinstance(rows, str):
        records = len(rows)
    return None if records is None else records - earlier.rows - earlier.dropped - earlier.filtered

"""One run, from declarations to a finished dataset.

`run` reads the first row, binds and checks the pipeline, takes the output folder (`resume.py`), and only then runs it
(`attempt.py`), until it ends or a signal comes (`signals.py`). Whatever can be refused is refused before the folder
exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from os import PathLike

from trio_sched._events.sinks import AnyAdmissionEventSink
from trio_sched._observe.display import LiveMode, RunWatch, choose_display
from trio_sched._observe.progress import RunProgressSink
from trio_sched._pipeline.attempt import RunAttempt
from trio_sched._pipeline.binding import bind_pipeline
from trio_sched._pipeline.capacity import ENGINE_THREADS, within_bounds
from trio_sched._pipeline.columns import PipelineStep
from trio_sched._pipeline.config import RunConfig
from trio_sched._pipeline.fingerprint import dataset_identity
from trio_sched._pipeline.folder import EarlierRows, RunDocument, open_run_folder
from trio_sched._pipeline.models import Model
from trio_sched._pipeline.parts import open_part_format
from trio_sched._pipeline.result import RunResult
from trio_sched._pipeline.resume import (
    DurableParts,
    ResumeMode,
    check_resume_mode,
    hold_output,
    make_output,
    reopen_output,
    resume_plan,
)
from trio_sched._pipeline.signals import until_signal
from trio_sched._pipeline.sources import Row, open_input
from trio_sched._pipeline.store import PartStore
from trio_sched._util import Blocking, ThreadPool

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
    """Make a dataset and put it into a folder.

    steps: columns, made with `@column`, `@batch_column` and `@from_scratch_column`, in any order, and processors, made
    with `@pre_batch_processor` and `@post_batch_processor`, each kind in the order in which they follow each other.
    output: the folder. A relative path is made absolute once, at the call.
    rows: input rows, as an iterable of mappings or a `.jsonl` or `.csv` file. records: without `rows`, how many rows
    the from-scratch columns are to make.
    models: those that columns call by name. config: settings, see `RunConfig`.
    resume: what to do with a run that `output` holds. `never` refuses it; `always` continues it, and refuses a folder
    without one; `if-possible` continues it, or begins where there is none. Only the row groups that are not durable are
    made; a run of another dataset is refused, and nothing is ever overwritten.
    event_sink: receives either or both event streams, besides the files. live: shows progress on standard error, as a
    `panel` on the terminal, as log `lines`, or `auto` for whichever fits; nothing by default. blocking: where files are
    read and written and sync functions run, worker threads by default; a simulation on a mock clock gives
    `trio_sched.lowlevel.inline`.

    Raises a `PipelineError` for a pipeline that cannot run, `InvalidValueError` for a bad number, `InputRowError` for a
    bad row, `InputChangedError` for input other than the resumed run's, an `OutputError` for a bad folder or a full
    disk. A function that raises rejects its row, which the result counts. However the run ends, every finished row
    group is on disk, and nothing of the others.

    Ctrl-C, SIGTERM and SIGHUP end the run and raise a `KeyboardInterrupt` when it has come down, unless the program
    handles or ignores them itself. After SIGTERM and SIGHUP that is a `SystemExit` too: where nobody catches it the
    program ends with 143 or 129, as shells have it. A second signal ends the process at once.
    """
    return await until_signal(
        partial(
            _run,
            steps,
            output=output,
            rows=rows,
            records=records,
            models=models,
            config=config,
            resume=resume,
            event_sink=event_sink,
            live=live,
            blocking=blocking,
        )
    )


async def _run(
    steps: Sequence[PipelineStep],
    *,
    output: str | PathLike[str],
    rows: Iterable[Row] | str | PathLike[str] | None,
    records: int | None,
    models: Mapping[str, Model] | None,
    config: RunConfig | None,
    resume: ResumeMode,
    event_sink: AnyAdmissionEventSink | None,
    live: LiveMode | None,
    blocking: Blocking | None,
) -> RunResult:
    config = config if config is not None else RunConfig()
    folder = open_run_folder(output)
    threads = ENGINE_THREADS if blocking is None else None
    column_blocking = blocking if blocking is not None else ThreadPool(ENGINE_THREADS.sync_columns)
    blocking = blocking if blocking is not None else ThreadPool(ENGINE_THREADS.files)
    mode = check_resume_mode(resume)
    display = choose_display(live) if live is not None else None
    reader, plan = open_input(rows, records, buffer_size=config.buffer_size, blocking=blocking)
    pipeline = bind_pipeline(steps, reader, models or {}, sync_threads=threads.sync_columns if threads else None)
    pipeline, bounds = within_bounds(pipeline, config, threads)
    part_format = open_part_format(config.format)
    source = await blocking(reader.identity) if reader is not None else None
    identity = dataset_identity(pipeline, config, source, records)
    order = pipeline.graph.columns
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
        attempt = RunAttempt(
            config=config,
            pipeline=pipeline,
            bounds=bounds,
            row_groups=resume_plan(plan, durable, folder, part_format, blocking, keeps_input=pipeline.keeps_input),
            folder=folder,
            document=document,
            store=store,
            earlier=durable.earlier,
            blocking=blocking,
            column_blocking=column_blocking,
            event_sink=event_sink,
            watch=watch,
        )
        return await attempt.run()


def _records_to_make(
    rows: Iterable[Row] | str | PathLike[str] | None, records: int | None, earlier: EarlierRows
) -> int | None:
    """How many rows are left to make; None where that is known only at the end of the input."""
    if isinstance(rows, Sequence) and not isinstance(rows, str):
        records = len(rows)
    return None if records is None else records - earlier.rows - earlier.dropped - earlier.filtered

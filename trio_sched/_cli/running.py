"""`run` and `resume`: a pipeline from a shell."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import cast

import click
import trio

from trio_sched._cli.options import (
    Settings,
    display_options,
    pipeline_options,
    records_option,
    run_folder_argument,
    settings_options,
)
from trio_sched._cli.outcome import INCOMPLETE, place_of, show_error, spoken_here
from trio_sched._cli.pipelines import NamedPipeline, find_pipeline
from trio_sched._errors import TrioSchedError
from trio_sched._events.records import SchedulerAdmissionEvent
from trio_sched._pipeline.config import RunConfig
from trio_sched._pipeline.folder import RunFolder
from trio_sched._pipeline.output_errors import NothingToResumeError
from trio_sched._pipeline.result import RunResult
from trio_sched._pipeline.resume import ResumeMode
from trio_sched._pipeline.run import run

__all__ = ["resume_command", "run_command"]


@click.command("run", short_help="Make a dataset.")
@pipeline_options
@records_option
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("out"),
    show_default=True,
    help="Folder of the run.",
)
@click.option(
    "--resume",
    type=click.Choice(["never", "always", "if-possible"]),
    default="never",
    show_default=True,
    help="Whether to go on with a run that the folder holds.",
)
@settings_options
@display_options
@click.pass_context
def run_command(
    context: click.Context,
    pipeline: str,
    rows: Path | None,
    models: str | None,
    records: int | None,
    output: Path,
    resume: ResumeMode,
    config: Path | None,
    seed: int | None,
    part_format: str | None,
    live: bool,
    max_drop_rate: float,
) -> None:
    """Make a dataset: run the pipeline that NAME in MODULE is, a list of columns and processors.

    Rows come from a file (--rows) or from a from-scratch column (--records).

    \b
      trio-sched run pipes:pipeline --rows topics.jsonl --output out
      trio-sched run pipes:pipeline --records 1000 --config run.toml

    Exit codes: 0 with all records; 1 when more rows than --max-drop-rate were given up, the run was stopped early, or
    it failed under way; 2 for what was refused before any work; 130 after Ctrl-C. Everything finished is kept.
    """
    found = find_pipeline(pipeline, models)
    settings = Settings(config, seed, part_format).run_config()
    _run(context, found, rows, records, output, resume, settings, live, max_drop_rate)


@click.command("resume", short_help="Go on with a run that ended early.")
@pipeline_options
@run_folder_argument
@settings_options
@display_options
@click.pass_context
def resume_command(
    context: click.Context,
    pipeline: str,
    run_folder: Path,
    rows: Path | None,
    models: str | None,
    config: Path | None,
    seed: int | None,
    part_format: str | None,
    live: bool,
    max_drop_rate: float,
) -> None:
    """Go on with the run in RUN_DIR: make what is not finished, with the settings that it had.

    A run that was made from a file of input rows needs the same file again.

    \b
      trio-sched resume pipes:pipeline out --rows topics.jsonl

    Exit codes are those of `run`.
    """
    found = find_pipeline(pipeline, models)
    folder = RunFolder(run_folder)
    document = folder.read_run_document()
    if document is None:
        raise NothingToResumeError(run_folder)
    earlier, dataset = document.get("config"), document.get("dataset")
    settings = Settings(config, seed, part_format).run_config(
        of_the_run=dict[str, object](earlier) if isinstance(earlier, dict) else None, at=folder.run_file
    )
    facts = dataset if isinstance(dataset, dict) else {}
    if facts.get("input") is not None and rows is None:
        raise click.UsageError("this run was made from input rows; give the same ones again with --rows")
    _run(
        context,
        found,
        rows,
        cast("int | None", facts.get("records")),
        run_folder,
        "always",
        settings,
        live,
        max_drop_rate,
    )


class _Begun:
    """Learns whether work began: what goes wrong after that is no bad input any more."""

    def __init__(self) -> None:
        self.has_begun = False

    def accepts_scheduler_event(self, kind: str) -> bool:
        """Just the first event of a run."""
        return kind == "scheduler_job_started"

    def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
        """Take note."""
        self.has_begun = True


def _run(
    context: click.Context,
    pipeline: NamedPipeline,
    rows: Path | None,
    records: int | None,
    output: Path,
    resume: ResumeMode,
    config: RunConfig,
    live: bool,
    max_drop_rate: float,
) -> None:
    begun = _Begun()
    act = partial(
        run,
        pipeline.steps,
        output=output,
        rows=rows,
        records=records,
        models=pipeline.models,
        config=config,
        resume=resume,
        event_sink=begun,
        live="auto" if live else "lines",
    )
    try:
        result = trio.run(act)
    except TrioSchedError as error:
        if not begun.has_begun:
            raise
        show_error(error)
        if error.__cause__ is not None and (place := place_of(error.__cause__)) is not None:
            click.echo(f"  {type(error.__cause__).__name__} comes from {place}", err=True)
        context.exit(INCOMPLETE)
    click.echo(spoken_here(result.summary()))
    if _is_incomplete(result, max_drop_rate):
        context.exit(INCOMPLETE)


def _is_incomplete(result: RunResult, max_drop_rate: float) -> bool:
    settled = result.records + result.dropped
    return result.status != "completed" or result.dropped > max_drop_rate * settled

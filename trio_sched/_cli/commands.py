"""The commands of `trio-sched`.

`run` and `resume` make a dataset, `plan` shows what would bound a run, `why`, `report` and `trace` look at the folder
of one, and `rehearse` serves the rehearsal provider.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final, cast

import click
import trio

from trio_sched._capacity import plain, plan_lines
from trio_sched._cli.options import (
    Settings,
    display_options,
    pipeline_options,
    records_option,
    run_folder_argument,
    settings_options,
)
from trio_sched._cli.outcome import (
    INTERRUPTED,
    REJECTED,
    STOPPED,
    Commands,
    place_of,
    say,
    say_json,
    say_path,
    show_error,
    spoken_here,
)
from trio_sched._cli.pipelines import NamedPipeline, find_pipeline
from trio_sched._errors import InvalidValueError, TrioSchedError, shown
from trio_sched._events.records import JsonValue, SchedulerAdmissionEvent
from trio_sched._observe.recorded_run import REPORT_FILE, TRACE_FILE, NoTraceError, RecordedEvents, write_run_views
from trio_sched._observe.why import why
from trio_sched._pipeline.capacity import plan_run, raise_open_files
from trio_sched._pipeline.config import RunConfig
from trio_sched._pipeline.errors import InputChangedError, InputRowError, NothingToResumeError
from trio_sched._pipeline.folder import RunFolder
from trio_sched._pipeline.result import RunResult
from trio_sched._pipeline.resume import ResumeMode
from trio_sched._pipeline.run import run
from trio_sched._rehearsal.script import RehearsalScript
from trio_sched._rehearsal.serde import scripts_from_json
from trio_sched._rehearsal.server import open_rehearsal
from trio_sched._util import printable
from trio_sched._version import __version__

__all__ = ["trio_sched"]


_HARD_IF_GIVEN: Final = ("max_concurrent_row_groups", "submission_capacity")
_WIDTH_OF_A_FILE: Final = 160
"""Columns of what goes to a file or a pipe."""


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog='Completion for bash, zsh and fish: eval "$(_TRIO_SCHED_COMPLETE=bash_source trio-sched)" and the like.',
)
@click.version_option(__version__)
def trio_sched() -> None:
    """Run pipelines that call models by the thousand, and look at what a run did.

    \b
      trio-sched run pipes:pipeline --rows topics.jsonl --output out
      trio-sched why out
    """


@trio_sched.command("run", short_help="Make a dataset.")
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
    write_events: str | None,
    live: bool,
    max_drop_rate: float,
) -> None:
    """Make a dataset: run the pipeline that NAME in MODULE is, a list of columns and processors.

    Rows come from a file (--rows) or from a from-scratch column (--records).

    \b
      trio-sched run pipes:pipeline --rows topics.jsonl --output out
      trio-sched run pipes:pipeline --records 1000 --config run.toml

    Exit codes: 0 with no row rejected, or no more than --max-drop-rate allows; 1 with more than that; 2 for bad input;
    3 when the run stopped or failed under way and can be resumed; 130 after Ctrl-C, 143 after SIGTERM, 129 after
    SIGHUP. Everything finished is kept.
    """
    found = find_pipeline(pipeline, models)
    settings = Settings(config, seed, part_format, write_events).run_config()
    _run(context, found, rows, records, output, resume, settings, live, max_drop_rate)


@trio_sched.command("resume", short_help="Go on with a run that ended early.")
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
    write_events: str | None,
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
    settings = Settings(config, seed, part_format, write_events).run_config(
        of_the_run=_settings_of(earlier, document.get("config_given")), at=folder.run_file
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


def _settings_of(config: JsonValue, given: JsonValue) -> dict[str, object] | None:
    """The settings that a run had. Bounds that nobody gave stay ungiven, as a bound that is given is a hard one."""
    if not isinstance(config, dict):
        return None
    return {
        name: value
        for name, value in config.items()
        if name not in _HARD_IF_GIVEN or not isinstance(given, list) or name in given
    }


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
        raise_open_files()
        result = trio.run(act)
    except TrioSchedError as error:
        if not begun.has_begun or isinstance(error, InputRowError | InputChangedError):
            raise
        show_error(error)
        if error.__cause__ is not None and (place := place_of(error.__cause__)) is not None:
            say(f"  {type(error.__cause__).__name__} comes from {place}", err=True)
        context.exit(STOPPED)
    say(spoken_here(result.summary()))
    context.exit(_exit_code(result, max_drop_rate))


def _exit_code(result: RunResult, max_drop_rate: float) -> int:
    if result.status != "completed":
        return INTERRUPTED if result.status == "interrupted" else STOPPED
    return REJECTED if result.dropped > max_drop_rate * (result.records + result.dropped) else 0


@trio_sched.command("plan", short_help="Print what would bound a run.")
@pipeline_options
@records_option
@settings_options
@click.option("--json", "as_json", is_flag=True, help="For programs, as in capacity_plan.json.")
def plan_command(
    pipeline: str,
    rows: Path | None,
    models: str | None,
    records: int | None,
    config: Path | None,
    seed: int | None,
    part_format: str | None,
    write_events: str | None,
    as_json: bool,
) -> None:
    """Print the capacity plan of a run without running it: every limit, and where its value comes from.

    The pipeline is checked as for a run, and no call goes out.

    \b
      trio-sched plan pipes:pipeline --rows topics.jsonl --config run.toml
    """
    found = find_pipeline(pipeline, models)
    settings = Settings(config, seed, part_format, write_events).run_config()
    raise_open_files()  # As a run would.
    plan = plan_run(found.steps, rows=rows, records=records, models=found.models, config=settings)
    document = cast("dict[str, JsonValue]", plain(plan))
    if as_json:
        say_json(document)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("what", no_wrap=True)
    table.add_column("value")
    table.add_column("from")
    for line in plan_lines({"configured": document["configured"]}):
        if line.source:  # the others are for what is seen while it runs
            table.add_row(*(Text(printable(text)) for text in (line.name, line.value, line.source)))
    Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE).print(table)


@trio_sched.command("report", short_help="Write report.html of a run.")
@run_folder_argument
def report_command(run_folder: Path) -> None:
    """Write RUN_DIR/report.html and print where it is: one page that needs nothing but itself.

    A run writes it when it ends; for one that goes on or was killed, this does.

    \b
      trio-sched report out
    """
    write_run_views(run_folder)
    say_path(run_folder / REPORT_FILE)


@trio_sched.command("trace", short_help="Write trace.json of a run, for Perfetto.")
@run_folder_argument
def trace_command(run_folder: Path) -> None:
    """Write RUN_DIR/trace.json and print where it is: open it in https://ui.perfetto.dev.

    It is made of all events of a run, which `write_events = "all"` keeps.

    \b
      trio-sched trace out
    """
    if RecordedEvents(run_folder).is_summary:
        raise NoTraceError(run_folder)
    write_run_views(run_folder)
    say_path(run_folder / TRACE_FILE)


@trio_sched.command("why", short_help="Say what a run waits for, and what limited it.")
@run_folder_argument
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def why_command(run_folder: Path, as_json: bool) -> None:
    """Say what the run waits for, or waited for when it stopped, and what limited its progress.

    \b
      trio-sched why out
      trio-sched why out --json
    """
    explanation = why(run_folder)
    if as_json:
        say_json(explanation.to_json())
    else:
        say(str(explanation))


@trio_sched.command("rehearse", short_help="Serve a local provider to try a pipeline against.")
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address.")
@click.option("--port", type=click.IntRange(0, 65535), default=8123, show_default=True, help="0 takes any free port.")
@click.option(
    "--scripts",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON: for each provider what it does, see trio_sched.rehearsal. [default: one that answers at once]",
)
def rehearse_command(host: str, port: int, scripts: Path | None) -> None:
    """Serve a local, OpenAI-compatible provider until Ctrl-C; print its base URL.

    Nothing leaves this machine, any key will do, and answers depend only on what is asked. A script makes it slow,
    limited or faulty:

    \b
      trio-sched rehearse
      trio-sched rehearse --scripts scripts.json
    \b
    with scripts.json, for two providers, one of which takes 8 calls at once:
      {"a": {"phases": [{"latency": {"mean": 0.2}, "max_in_flight": 8}]}, "b": {}}
    """
    read = _read_scripts(scripts) if scripts is not None else {"a": RehearsalScript()}
    try:
        trio.run(_serve_until_interrupted, read, host, port)
    except KeyboardInterrupt:
        # The way it is meant to end.
        say("stopped", err=True)


def _read_scripts(path: Path) -> Mapping[str, RehearsalScript]:
    try:
        return scripts_from_json(path.read_bytes())
    except InvalidValueError as error:
        # What JSON it is not would be the whole file.
        given = f", got {shown(error.value)}" if not isinstance(error.value, bytes) else ""
        problem = f"{path}: {error.field} must be {error.expected}{given}"
        raise click.BadParameter(problem, param_hint="--scripts") from error


async def _serve_until_interrupted(scripts: Mapping[str, RehearsalScript], host: str, port: int) -> None:
    async with open_rehearsal(scripts, host=host, port=port) as server:
        for name in scripts:
            say(server.base_url(name))
        first = server.base_url(next(iter(scripts)))
        say(f"Try: OPENAI_BASE_URL={first} OPENAI_API_KEY=rehearsal; end with Ctrl-C.", err=True)
        await trio.sleep_forever()

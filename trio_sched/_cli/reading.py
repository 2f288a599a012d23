"""`report`, `trace` and `why`: what a run's folder tells, while it goes on and afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import click

from trio_sched._cli.options import run_folder_argument
from trio_sched._observe.recorded_run import REPORT_FILE, TRACE_FILE, write_run_views
from trio_sched._observe.why import why

__all__ = ["report_command", "trace_command", "why_command"]


@click.command("report", short_help="Write report.html of a run.")
@run_folder_argument
def report_command(run_folder: Path) -> None:
    """Write RUN_DIR/report.html and print where it is: one page that needs nothing but itself.

    A run writes it when it ends; for one that goes on or was killed, this does.

    \b
      trio-sched report out
    """
    write_run_views(run_folder)
    click.echo(run_folder / REPORT_FILE)


@click.command("trace", short_help="Write trace.json of a run, for Perfetto.")
@run_folder_argument
def trace_command(run_folder: Path) -> None:
    """Write RUN_DIR/trace.json and print where it is: open it in https://ui.perfetto.dev.

    \b
      trio-sched trace out
    """
    write_run_views(run_folder)
    click.echo(run_folder / TRACE_FILE)


@click.command("why", short_help="Say what a run waits for, and what limited it.")
@run_folder_argument
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def why_command(run_folder: Path, as_json: bool) -> None:
    """Say what the run waits for, or waited for when it stopped, and what limited its progress.

    \b
      trio-sched why out
      trio-sched why out --json
    """
    explanation = why(run_folder)
    click.echo(json.dumps(explanation.to_json(), indent=2) if as_json else str(explanation))

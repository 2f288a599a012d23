"""`plan`: what would bound a run, without running it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final, cast

import click

from trio_sched._capacity import plain
from trio_sched._cli.options import Settings, pipeline_options, records_option, settings_options
from trio_sched._cli.pipelines import find_pipeline
from trio_sched._events.records import JsonValue
from trio_sched._observe.plan_lines import plan_lines
from trio_sched._pipeline.planning import plan_run

__all__ = ["plan_command"]

_WIDTH_OF_A_FILE: Final = 160
"""Columns of what goes to a file or a pipe."""


@click.command("plan", short_help="Print what would bound a run.")
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
    as_json: bool,
) -> None:
    """Print the capacity plan of a run without running it: every limit, and where its value comes from.

    The pipeline is checked as for a run, and no call goes out.

    \b
      trio-sched plan pipes:pipeline --rows topics.jsonl --config run.toml
    """
    found = find_pipeline(pipeline, models)
    settings = Settings(config, seed, part_format).run_config()
    plan = plan_run(found.steps, rows=rows, records=records, models=found.models, config=settings)
    document = cast("dict[str, JsonValue]", plain(plan))
    if as_json:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
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
            table.add_row(Text(line.name), Text(line.value), Text(line.source))
    Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE).print(table)

"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ParamSpec, TypeVar

import attrs
import click

from trio_sched._cli.config_file import build_config, read_settings
from trio_sched._pipeline.config import RunConfig

__all__ = [
    "Settings",
    "display_options",
    "pipeline_options",
    "records_option",
    "run_folder_argument",
    "settings_options",
]

P = ParamSpec("P")
R = TypeVar("R")


@attrs.frozen
class Settings:
    """What says the settings of a run. None is not given."""

    config: Path | None
    seed: int | None
    part_format: str | None
    write_events: str | None = None

    def run_config(self, *, of_the_run: Mapping[str, object] | None = None, at: Path | None = None) -> RunConfig:
        """The command line, before the file, before what the run `of_the_run` in the folder `at` had, before defaults.

        Raises `ConfigFileError`.
        """
        earlier: Mapping[str, object] = of_the_run if of_the_run is not None else {}
        settings: Mapping[str, object] = read_settings(self.config) if self.config is not None else {}
        given = {"seed": self.seed, "format": self.part_format, "write_events": self.write_events}
        said_here = {name: value for name, value in given.items() if value is not None}
        return build_config(at if at is not None else Path("the command line"), earlier, settings, said_here)


def pipeline_options(command: Callable[P, R]) -> Callable[P, R]:
    """PIPELINE, --rows and --models."""
    return _with(
        command,
        click.option(
            "--models",
            metavar="NAME",
            help="A mapping in the same module, from the names that columns call their models by to the models.",
        ),
        click.option(
            "--rows",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Input rows: a .jsonl or .csv file.",
        ),
        click.argument("pipeline", metavar="MODULE:PIPELINE"),
    )


def settings_options(command: Callable[P, R]) -> Callable[P, R]:
    """--config, --seed, --format and --write-events."""
    return _with(
        command,
        click.option(
            "--write-events",
            type=click.Choice(["all", "summary", "none"]),
            help="What is kept of what happens: report and why need the summary, trace needs all. [default: summary]",
        ),
        click.option(
            "--format",
            "part_format",
            type=click.Choice(["jsonl", "parquet"]),
            help="Of the part files. [default: jsonl]",
        ),
        click.option("--seed", type=click.IntRange(min=0), help="Handed to from-scratch columns. [default: 0]"),
        click.option(
            "--config",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Settings in a TOML file, by the names that ts.RunConfig gives them.",
        ),
    )


def display_options(command: Callable[P, R]) -> Callable[P, R]:
    """--no-live and --max-drop-rate."""
    return _with(
        command,
        click.option(
            "--max-drop-rate",
            type=click.FloatRange(0, 1),
            default=0.0,
            show_default=True,
            help="Share of the rows that may be rejected before the exit code is 1.",
        ),
        click.option(
            "--live/--no-live",
            default=True,
            help="Show progress in a panel where standard error is a terminal; else, and with --no-live, in log lines.",
        ),
    )


run_folder_argument = click.argument(
    "run_folder", metavar="RUN_DIR", type=click.Path(exists=True, file_okay=False, path_type=Path)
)

records_option = click.option("--records", type=click.IntRange(min=0), help="How many rows to make from scratch.")


def _with(command: Callable[P, R], *options: Callable[[Callable[P, R]], Callable[P, R]]) -> Callable[P, R]:
    """The command with these options, which the help lists from the last to the first."""
    for option in options:
        command = option(command)
    return command

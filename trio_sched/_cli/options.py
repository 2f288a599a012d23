"""Arguments and options that several commands share, and settings of a run from TOML.

A file names the fields of `RunConfig`, with a table for each of its parts:

    buffer_size = 200
    seed = 7
    stop_error_rate = false           # false is for a setting that may be switched off

    [request_admission]               # chooses AIMD for every endpoint, with this tuning
    cooldown_seconds = 1.0

What is given on the command line goes before the file, and the file before the defaults. What the file may say is
`RunConfig` itself: its fields, their types and bounds.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, ParamSpec, TypeVar, cast, get_args, get_type_hints

import attrs
import click

from trio_sched._errors import InvalidTypeError, InvalidValueError, TrioSchedError, shown
from trio_sched._pipeline.config import RunConfig
from trio_sched._pipeline.models import Model
from trio_sched._request.config import RequestAdmissionTuningConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "ConfigFileError",
    "Settings",
    "build_config",
    "display_options",
    "pipeline_options",
    "read_settings",
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


# Settings from TOML

_TABLES: Final[dict[str, type[attrs.AttrsInstance]]] = {
    "the top level": RunConfig,
    "[request_admission]": RequestAdmissionTuningConfig,
}
_MAY_BE_OFF: Final = {
    name
    for name, kind in get_type_hints(RunConfig).items()
    if type(None) in get_args(kind) and f"[{name}]" not in _TABLES
}
_TOML_TYPES: Final[dict[type, str]] = {
    bool: "boolean",
    int: "integer",
    float: "float",
    str: "string",
    list: "array",
    dict: "table",
}


class ConfigFileError(TrioSchedError, ValueError):
    """A file of settings that cannot be used. Attributes: `path`, `problem`."""

    def __init__(self, path: Path, problem: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(path, problem)

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


def read_settings(path: Path) -> Mapping[str, object]:
    """What the file sets, checked. Raises `ConfigFileError`."""
    try:
        with path.open("rb") as file:
            settings = tomllib.load(file)
    except OSError as error:
        raise ConfigFileError(path, f"cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigFileError(path, f"is not TOML: {error}") from error
    except RecursionError:
        raise ConfigFileError(path, "is nested too deeply") from None
    switched = {name: None if value is False and name in _MAY_BE_OFF else value for name, value in settings.items()}
    build_config(path, switched)
    return switched


def build_config(path: Path, *layers: Mapping[str, object]) -> RunConfig:
    """The settings of all `layers`, the last of which go before the first; `path` is where they may be wrong.

    Raises `ConfigFileError`.
    """
    merged: dict[str, object] = {}
    for layer in layers:
        for name, value in layer.items():
            earlier = merged.get(name)
            if isinstance(earlier, Mapping) and isinstance(value, Mapping):
                merged[name] = {**cast("Mapping[str, object]", earlier), **cast("Mapping[str, object]", value)}
            else:
                merged[name] = value
    return _structured(path, merged)


def _structured(path: Path, settings: Mapping[str, object]) -> RunConfig:
    import cattrs
    from cattrs.errors import ForbiddenExtraKeysError

    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=False)
    # The values check themselves when they are made; here nothing may be turned into what it was not.
    converter.register_structure_hook_func(lambda kind: not attrs.has(kind), _as_it_is)
    for kind in (bool, int, float, str):
        converter.register_structure_hook(kind, _as_it_is)
    converter.register_structure_hook_func(
        lambda kind: kind == RequestAdmissionTuningConfig | None,
        lambda value, _: None if value is None else converter.structure(value, RequestAdmissionTuningConfig),
    )
    try:
        for name, value in settings.items():
            if f"[{name}]" in _TABLES and value is not None and not isinstance(value, Mapping):
                raise InvalidTypeError(name, value, "a table")
        return converter.structure(settings, RunConfig)
    except ForbiddenExtraKeysError as error:
        raise ConfigFileError(path, _unknown(error.cl, min(error.extra_fields))) from error
    except InvalidValueError as error:
        raise ConfigFileError(path, _wrong(error)) from error


def _as_it_is(value: object, _kind: object) -> object:
    return value


def _unknown(cls: type, name: str) -> str:
    table = next(table for table, known in _TABLES.items() if known is cls)
    return f"{name!r} is no setting of {table}; {_where_it_belongs(name, cls)}"


def _where_it_belongs(name: str, cls: type) -> str:
    for table, known in _TABLES.items():
        if name in _settings_of(known):
            return f"it belongs to {table}"
    if name in _settings_of(Model):
        return f"it belongs to a model: ts.Model(..., {name}=...)"
    close = difflib.get_close_matches(name, _settings_of(cls), n=1)
    return f"did you mean {close[0]!r}?" if close else f"known there: {', '.join(_settings_of(cls))}"


def _settings_of(cls: type) -> list[str]:
    return [field.name for field in attrs.fields(cls) if field.init]


def _wrong(error: InvalidValueError) -> str:
    kind, _, field = error.field.rpartition(".")
    table = next((table for table, known in _TABLES.items() if known.__name__ == kind), "the top level")
    expected = error.expected.replace("True or False", "true or false").replace("None", "false")
    given = f"the {_TOML_TYPES[type(error.value)]} " if type(error.value) in _TOML_TYPES else ""
    return f"{field} in {table} must be {expected}, got {given}{shown(error.value)}"

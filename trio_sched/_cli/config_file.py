"""Settings of a run from TOML: the fields of `RunConfig` by name, with a table for each of its parts.

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
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast, get_args, get_type_hints

import attrs

from trio_sched._errors import InvalidTypeError, InvalidValueError, TrioSchedError, shown
from trio_sched._pipeline.config import RunConfig
from trio_sched._pipeline.models import Model
from trio_sched._request.config import RequestAdmissionTuningConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["ConfigFileError", "build_config", "read_settings"]

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

"""Finds a pipeline: `MODULE:NAME` names a sequence of columns and processors, as `ts.run` takes it.

The module is imported as Python would import it from the current folder.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import cast

import attrs

from trio_sched._cli.outcome import place_of
from trio_sched._errors import PipelineError
from trio_sched._pipeline.columns import PipelineStep
from trio_sched._pipeline.models import Model

__all__ = ["NamedPipeline", "PipelineNotFoundError", "find_pipeline"]

_EXAMPLE = "give MODULE:NAME, such as pipes:pipeline for `pipeline = [question, answer]` in pipes.py"


class PipelineNotFoundError(PipelineError):
    """What was given names no pipeline. Attributes: `name` (what was given), `problem`."""

    def __init__(self, name: str, problem: str) -> None:
        self.name = name
        self.problem = problem
        super().__init__(name, problem)

    def __str__(self) -> str:
        return f"{self.name!r} names no pipeline: {self.problem}"


@attrs.frozen
class NamedPipeline:
    """A pipeline and the models that its columns may call by name."""

    steps: tuple[PipelineStep, ...]
    models: Mapping[str, Model]


def find_pipeline(name: str, models: str | None = None) -> NamedPipeline:
    """Import what `name` (MODULE:NAME) and `models` (the name of a mapping in the same module) name.

    Raises `PipelineNotFoundError`.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise PipelineNotFoundError(name, _EXAMPLE)
    if module_name.endswith(".py") or "/" in module_name or "\\" in module_name:
        raise PipelineNotFoundError(name, f"{module_name!r} is a file, not a module; {_EXAMPLE}")
    module = _import(name, module_name)
    steps = _look_up(name, module, attribute)
    if isinstance(steps, PipelineStep):
        raise PipelineNotFoundError(name, f"{attribute!r} is a single column or processor; give a list of them")
    if not isinstance(steps, Sequence) or isinstance(steps, str):
        raise PipelineNotFoundError(
            name, f"{attribute!r} is {_a(steps)}, not a list of columns and processors; {_EXAMPLE}"
        )
    for index, step in enumerate(cast("Sequence[object]", steps)):
        if not isinstance(step, PipelineStep):
            raise PipelineNotFoundError(
                name,
                f"{attribute}[{index}] is {_a(step)}, not a column or a processor; is a decorator such as "
                "@ts.column(needs=[...]) missing?",
            )
    return NamedPipeline(
        tuple(cast("Sequence[PipelineStep]", steps)), {} if models is None else _models(name, module, models)
    )


def _import(name: str, module_name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            problem = f"there is no module {error.name!r}, neither in {here!r} nor installed"
            raise PipelineNotFoundError(name, problem) from error
        raise PipelineNotFoundError(name, _import_problem(module_name, error)) from error
    except Exception as error:
        raise PipelineNotFoundError(name, _import_problem(module_name, error)) from error


def _import_problem(module_name: str, error: Exception) -> str:
    """What importing the module raised, and where."""
    problem = f"importing {module_name!r} raised {type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        return problem
    place = place_of(error)
    return f"{problem} (in {place})" if place is not None else problem


def _look_up(name: str, module: ModuleType, attribute: str) -> object:
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        close = difflib.get_close_matches(attribute, vars(module), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise PipelineNotFoundError(name, f"module {module.__name__!r} has no {attribute!r}{hint}") from error


def _models(name: str, module: ModuleType, attribute: str) -> dict[str, Model]:
    models = _look_up(name, module, attribute)
    if not isinstance(models, Mapping):
        raise PipelineNotFoundError(name, f"{attribute!r} is {_a(models)}, not a mapping of names to models")
    found: dict[str, Model] = {}
    for key, model in cast("Mapping[object, object]", models).items():
        if not isinstance(key, str) or not isinstance(model, Model):
            raise PipelineNotFoundError(name, f"{attribute}[{key!r}] is {_a(model)}, not a model under a name")
        found[key] = model
    return found


def _a(value: object) -> str:
    return f"a {type(value).__name__}" if value is not None else "None"
